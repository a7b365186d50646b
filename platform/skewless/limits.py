"""Every bound in one place, with its reason; the assertions at the end say how bounds relate."""

MIB = 1024 * 1024
BODY_BYTES_MAX = 4 * MIB
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
REQUESTS_IN_FLIGHT_MAX = 256
"""Requests admitted at once per gateway process; one more is refused at once with 503."""
MODEL_BATCH_ROWS_MAX = 1_024
"""Rows of one Triton call and of its dynamic batch."""
OUTCOMES_MAX = 10_000
"""Outcomes in one POST /v1/outcomes."""
LOG_BUFFER_ROWS_MAX = 50_000
"""Prediction records waiting to be flushed; at the bound the gateway flushes before it answers."""
FAULTS_MAX = 100
"""Unreadable stored values of which a read tells the reason; the status of every one is told all the same."""
FLUSH_ROWS_MAX = 1_024
"""Rows of the requests that share one read of the online store; a larger request is read alone."""
FLUSHES_MAX = 2
"""Reads of the online store in flight at once; requests that come meanwhile share the next."""
ROWS_WAITING_MAX = 16 * FLUSH_ROWS_MAX
"""Rows waiting for a read or a model call; one request more is refused at once."""
MODEL_CALLS_MAX = 2
"""Calls of one model under way at once per gateway: one that is computed, one that is on its way meanwhile."""
NEAR_CACHE_AGE_MAX_S = 60.0
"""A hash kept near is read again after this, though nobody told that it changed."""
RETRY_AFTER_S = 1.0
"""What a 503 asks callers to wait: about a restart of the slowest part under its supervisor."""
ROUTE_POLL_S = 1.0
"""How often a gateway reads its routes; a change must take effect within 2 s on every gateway."""
ONLINE_STORE_CALLS_MAX = 1_024
"""Calls in flight on one connection, those given up by their callers included; one more is refused at once."""
ONLINE_STORE_PENDING_BYTES_MAX = 16 * MIB
"""Commands that the kernel has not taken yet; only a server that does not read lets them grow."""
ONLINE_STORE_SILENCE_S = 1.0
"""A server that owes an answer and has sent nothing for so long is left: its connection is cut and made anew."""
ONLINE_STORE_HEARTBEAT_S = 1.0
"""How often a tracked connection is tried. With the silence after it, a change is never missed for longer than 2 s."""
ONLINE_STORE_RECONNECT_PAUSE_S = 0.05
"""A failed attempt to connect answers for so long, so that a burst of requests is no burst of connections."""
ONLINE_STORE_ROUNDS_MAX = 6
"""A read is sent to a cluster so often at most: once, and once for each time that nodes send it elsewhere."""
SHADOW_ROWS_WAITING_MAX = 8 * ROWS_MAX
"""Rows waiting to be scored by shadows; what is mirrored beyond is dropped and counted, and no caller waits."""
SHADOWS_RUNNING_MAX = 2
"""Requests that shadows score at once per gateway: a model server is kept busy, and callers are hardly slowed."""
BUNDLE_LOADS_MAX = 2
"""Bundles that a gateway reads and verifies at once, which is work for the processor beside the requests."""
TALLY_S = 2.0
"""How often a gateway writes down what the roles of split and mirrored traffic did."""
ARTIFACT_CONNECT_TIMEOUT_S = 3.0
ARTIFACT_REQUEST_TIMEOUT_S = 30.0
"""One request to S3-compatible storage with its body, which is 4 MiB at most: 1.2 Mbit/s is the slowest link."""
ARTIFACT_RETRIES_MAX = 4
ARTIFACT_RETRY_S = 20.0
"""No attempt of a request begins later than this after the first, so one request ends within the sum of both."""
ARTIFACT_REQUESTS_MAX = 4
"""Requests of one put or open at a time; each holds at most 4 MiB."""
ARTIFACT_GRACE_S_MIN = 3_600.0
"""The youngest garbage. Covers the time from a bundle's put to its route, and clocks that differ."""
ARTIFACT_LEFTOVER_AGE_S = 86_400.0
"""What an unfinished put left is removed by later puts at this age; no put takes as long."""
ARTIFACT_REMOVAL_S_MAX = 300.0
"""A removal from S3-compatible storage that takes longer is given up."""
ARTIFACT_REMOVAL_STALE_S = 900.0
"""The mark of a removal that is older is one of a process that was killed, and keeps nobody from putting."""

assert ROWS_MAX <= MODEL_BATCH_ROWS_MAX, "one request must fit one model call"
assert DEADLINE_MS_DEFAULT <= DEADLINE_MS_MAX
assert (ONLINE_STORE_TIMEOUT_S + MODEL_TIMEOUT_S) * 1_000 < DEADLINE_MS_MAX, "inner waits must fit the outer one"
assert CONNECT_TIMEOUT_S <= ONLINE_STORE_TIMEOUT_S
assert ROUTE_POLL_S <= 1.0, "half of the 2 s in which a rollout must be everywhere"
assert REQUESTS_IN_FLIGHT_MAX <= ONLINE_STORE_CALLS_MAX, "an admitted request must find a place on the connection"
assert BODY_BYTES_MAX <= ONLINE_STORE_PENDING_BYTES_MAX, "the commands of the largest request must fit"
assert ONLINE_STORE_SILENCE_S <= ONLINE_STORE_TIMEOUT_S, "a hung server must be left by the first read that it fails"
assert ONLINE_STORE_RECONNECT_PAUSE_S < CONNECT_TIMEOUT_S < RETRY_AFTER_S + ONLINE_STORE_SILENCE_S
assert ROWS_MAX <= FLUSH_ROWS_MAX <= ROWS_WAITING_MAX
assert ROWS_MAX <= SHADOW_ROWS_WAITING_MAX, "the largest request must be able to be mirrored"
assert ARTIFACT_REMOVAL_S_MAX + ARTIFACT_RETRY_S + ARTIFACT_REQUEST_TIMEOUT_S < ARTIFACT_REMOVAL_STALE_S
assert ARTIFACT_REMOVAL_STALE_S < ARTIFACT_GRACE_S_MIN < ARTIFACT_LEFTOVER_AGE_S
