"""Every bound in one place, with its reason; the assertions at the end say how bounds relate."""

BODY_BYTES_MAX = 4 * 1024 * 1024
"""Request body. 1,000 instances of 40 fields with 64-byte values fit with room to spare."""
ROWS_MAX = 1_000
"""Instances in one request. Larger scoring is a batch job."""
STRING_BYTES_MAX = 1_024
"""UTF-8 bytes of one string in a request: entity keys become Redis keys, and keys stay short."""
DEADLINE_MS_DEFAULT = 1_000
DEADLINE_MS_MAX = 10_000
"""A caller may ask for less time than the server's cap, never for more."""
ONLINE_STORE_TIMEOUT_S = 2.0
"""Upper bound of one Redis pipeline, also where the request has more time left."""
MODEL_TIMEOUT_S = 5.0
"""Upper bound of one Triton call, also where the request has more time left."""
CONNECT_TIMEOUT_S = 1.0
ONLINE_STORE_CONNECTIONS_MAX = 64
REQUESTS_IN_FLIGHT_MAX = 256
"""Requests admitted at once per gateway process; one more is refused at once with 503."""
MODEL_BATCH_ROWS_MAX = 1_024
"""Rows of one Triton call and of its dynamic batch."""
OUTCOMES_MAX = 10_000
"""Outcomes in one POST /v1/outcomes."""
LOG_BUFFER_ROWS_MAX = 50_000
"""Prediction records waiting to be flushed; at the bound the gateway flushes before it answers."""
RETRY_AFTER_S = 1.0
"""What a 503 asks callers to wait: about a restart of the slowest part under its supervisor."""
ROUTE_POLL_S = 1.0
"""How often a gateway reads its routes; a change must take effect within 2 s on every gateway."""

assert ROWS_MAX <= MODEL_BATCH_ROWS_MAX, "one request must fit one model call"
assert DEADLINE_MS_DEFAULT <= DEADLINE_MS_MAX
assert (ONLINE_STORE_TIMEOUT_S + MODEL_TIMEOUT_S) * 1_000 < DEADLINE_MS_MAX, "inner waits must fit the outer one"
assert CONNECT_TIMEOUT_S <= ONLINE_STORE_TIMEOUT_S
assert ROUTE_POLL_S <= 1.0, "half of the 2 s in which a rollout must be everywhere"
