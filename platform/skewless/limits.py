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
REQUESTS_IN_FLIGHT_MAX = 1_024
"""Predictions computed at once per gateway process, of all endpoints; others wait, or are refused with 503."""
ENDPOINT_IN_FLIGHT_MAX = 256
"""Predictions of one endpoint computed at once, by default; what it is worth is found below that, see ADR 27."""
ENDPOINT_IN_FLIGHT_START = 16
"""Where the search for it begins: enough for some callers, and a fraction of what any stack can take."""
ENDPOINT_QUEUE_MAX = 1_024
"""Predictions of one endpoint that wait for their turn, however fast they are answered: some KiB of columns each."""
REFUSALS_PER_S_MAX = 500
"""Refused connections that ask again are read so often a second, and once per answer: a tenth of a slow processor."""
ENDPOINT_QUEUE_MS = 300
"""How long they may have to wait, by default: long enough for hundreds of steady callers, short beside a deadline."""
MODEL_BATCH_ROWS_MAX = 1_024
"""Rows of one Triton call and of its dynamic batch."""
OUTCOMES_MAX = 10_000
"""Outcomes in one POST /v1/outcomes as JSON; any number come as NDJSON."""
OUTCOME_LINE_BYTES_MAX = 64 * 1024
"""One outcome on a line of NDJSON: a label and some join keys of the longest length with their names."""
OUTCOME_CHUNK = 256
"""Outcomes that are read at once, so that no request waits longer than some milliseconds for them."""
OUTCOME_STREAMS_MAX = 4
"""NDJSON bodies of outcomes taken at once per gateway process; each holds one chunk."""
OUTCOME_REFUSALS_TOLD_MAX = 100
"""Refused lines of one body that the answer explains; it counts all of them."""
OUTCOME_AHEAD_S = 60.0
"""How far behind a caller's the gateway's clock may be: an outcome is told of the past."""
OUTCOME_WINDOW_S = 30 * 86_400.0
"""How far back an outcome told by entity looks for its prediction where the endpoint does not say otherwise."""
OUTCOME_WINDOW_S_MAX = 10 * 366 * 86_400.0
"""Longest label horizon and outcome window: ten years, beyond which a slip of the unit is likelier."""
LOG_READ_MEMORY_BYTES = 2_048 * MIB
"""What a query of the log may hold in memory, enough to join ten million outcomes; more goes to a temporary folder."""
LOG_READ_SPOOL_BYTES = 64 * MIB
"""Rows of spool files that a reader holds in memory; those of further files go to a temporary folder."""
LOG_READ_BATCH_ROWS = 16_384
"""Rows that a reader of the log hands over at once: about 16 MiB at 1 KiB each."""
LOG_READ_TRIES = 3
"""A read whose files were replaced meanwhile, by compaction or deletion, is made again so often."""
LOG_BUFFER_ROWS_MAX = 50_000
"""Prediction records waiting to be flushed; at the bound the gateway flushes before it answers."""
LOG_ROW_GROUP_ROWS = 16_384
"""Rows of one row group of a stored log file: what a look-up of one prediction reads, some MiB."""
LOG_FILE_BYTES_MAX = 1_024 * MIB
"""The largest size that files of the log store may be asked to have; one is held in memory while it is sent to S3."""
LOG_ROUND_BYTES_MAX = 256 * MIB
"""The most spool bytes that may be asked to go into one commit; the shipper holds them as Arrow meanwhile."""
LOG_TABLES_KEPT = 64
"""Tables of the log store whose state a shipper keeps in memory; one more is read again when it is written."""
LOG_STORE_REQUEST_S = 120.0
"""One request to the log store with its body: a file of the default size at 5 Mbit/s."""
LOG_COMPACT_FILES_MIN = 16
"""Small files of one day that are worth a compaction while the day goes on."""
LOG_COMPACT_FILES_MAX = 256
"""Files that one compaction takes: all of them are open at once."""
LOG_SETTLED_S = 3_600.0
"""A day whose newest file is older has settled: its last small files are put together, however few they are."""
LOG_REPLACED_KEPT_S = 3_600.0
"""Files that compaction replaced stay for so long, for readers that hold a list of files."""
LOG_UNNAMED_AGE_S = 86_400.0
"""Files in a table's folder that no commit names are removed at this age; none takes as long to be committed."""
LOG_REWRITE_TRIES = 5
"""A rewriting of files that another one overtook is made again so often."""
LOG_SINK_RETRY_S = 1.0
LOG_SINK_RETRY_S_MAX = 30.0
"""Pause before a sink that failed is tried again; doubles from the first to the second."""
SHIPPER_REQUEST_S = 2.0
"""A scrape of a shipper's page; they are answered one after another."""
SHIPPER_LAST_LOOK_S = 20.0
"""A shipper that is stopped begins no further batch of segments after so long; the next one goes on."""
SHIPPER_STUCK_S = 900.0
"""A shipper whose look takes longer says that it is not well: a batch may take minutes over a slow link."""
MONITOR_REQUEST_S = 2.0
"""A scrape of a monitor's page; they are answered one after another."""
MONITOR_JOB_STUCK_S = 900.0
"""A monitor one of whose jobs runs longer says that it is not well; jobs do bounded portions, of minutes at most."""
MONITOR_STOP_S = 8.0
"""What jobs get to end when a monitor is stopped; what they do is in transactions, so that cutting it off is safe."""
MONITOR_RETRY_S = 1.0
MONITOR_RETRY_S_MAX = 60.0
"""Wait after a job's failure, doubling: soon at first, then as often as a database that is away is worth asking."""
MONITOR_REOPEN_FAILURES = 3
"""Failures in a row after which a job is opened anew, should it be its own state that makes it fail."""
MONITOR_SERIES_MAX = 100_000
"""Series that one job tells: 8 MiB and a second of a scrape; what is more is left out and counted."""
LOG_REQUESTS_MAX = 64
"""Requests of the command line that wait for a shipper."""
LOG_DELETION_WAIT_S = 120.0
"""How long a deletion waits for segments that were begun before it: a writer seals its segment after some seconds."""
LOG_RETRY_S = 0.2
"""How often a log that cannot be written is tried again."""
LOG_TOLD_EVERY_S = 60.0
"""A log that goes on failing says so this often, not at every try."""
LOG_CLOSE_TRY_S = 10.0
"""How long a log that is closed goes on trying to write what it has in memory."""
LOG_SPOOL_LOOK_S = 1.0
"""How often a log looks how large its spool folder is, which others write to and ship from as well."""
LOG_SPOOL_LOOK_SHARE = 0.02
"""Most of the time that looking may take: with 100,000 files one look takes a second."""
LOG_LEFTOVER_AGE_S = 60.0
"""A segment is created within milliseconds; a file that was never finished for so long is nobody's."""
LOG_BLOCK_ROWS_MAX = 256
"""Rows up to which requests are merged into one frame of the prediction log; names of columns are next to nothing then,
and larger frames cost the kernel's work for fresh memory."""
LOG_BLOCK_ROWS_ALONE = 64
"""A request of so many rows has a frame of its own, as it is: merging would only copy it."""
FAULTS_MAX = 100
"""Unreadable stored values of which a read tells the reason; the status of every one is told all the same."""
FLUSH_ROWS_MAX = 1_024
"""Rows of the requests that share one read of the online store; a larger request is read alone."""
FLUSHES_MAX = 2
"""Reads of the online store in flight at once; requests that come meanwhile share the next."""
ROWS_WAITING_MAX = 16 * FLUSH_ROWS_MAX
"""Rows waiting for a read or a model call; one request more is refused at once."""
ROWS_IN_FLIGHT_MAX = ROWS_WAITING_MAX
"""Rows of the predictions computed at once, so that none that was admitted meets a full queue further in."""
ROWS_QUEUED_MAX = 4 * ROWS_WAITING_MAX
"""Rows of the predictions that wait for their turn, of all endpoints: 64 Ki rows of 40 columns are 20 MiB."""
MODEL_CALLS_MAX = 2
"""Calls of one model under way at once per gateway: one that is computed, one that is on its way meanwhile."""
MODEL_CONNECTIONS_MAX = 64
"""Connections to one model server over HTTP. Requests share calls, so that few are ever open."""
MODEL_ANSWER_BYTES_MAX = 64 * MIB
"""One answer of a model server: MODEL_BATCH_ROWS_MAX rows of 16,384 float32 columns."""
NEAR_CACHE_AGE_MAX_S = 60.0
"""A hash kept near is read again after this, though nobody told that it changed."""
LAST_KNOWN_S_MAX = 86_400
"""The longest that a bundle may let features stand in which nobody could read again: a day is no outage any more."""
MODEL_RELOAD_EVERY_S = 10.0
"""Between two times that one replica loads one model again because it refuses every call: loading takes 1 to 3 s."""
RETRY_AFTER_S = 1.0
"""What a 503 asks callers to wait: about a restart of the slowest part under its supervisor."""
SEND_STALL_S = 30.0
"""A caller that takes nothing of a streamed answer for so long is given up, and what is still being computed for it."""
PATHS_REMEMBERED_MAX = 1_024
"""Request paths of which the route is remembered; some per endpoint, and whoever makes up more has them forgotten."""
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
BATCH_CHUNK_ROWS = 256
"""Rows of a batch body that are scored at once: small enough that a single request between two chunks hardly waits."""
BATCH_CHUNKS_MAX = 2
"""Chunks of all batch bodies scored at once per gateway process; one more waits, and its body is not read on."""
BATCH_REQUESTS_MAX = 4
"""Batch bodies answered at once per gateway process; each may hold two Arrow messages and its unread answers."""
BATCH_BODY_BYTES_MAX = 16 * 1024 * MIB
"""One batch body; never held whole, so this only ends a stream that never ends."""
BATCH_LINE_BYTES_MAX = 256 * 1024
"""One line of NDJSON: 200 strings of the longest length and their names."""
BATCH_CHUNK_BYTES_MAX = BODY_BYTES_MAX
"""Lines of one chunk; a chunk of long lines has fewer rows."""
BATCH_UNREAD_BYTES_MAX = 8 * MIB
"""Answers of one batch that its caller has not taken yet; at the bound nothing more of its body is read."""
BATCH_STALL_S = 30.0
"""A batch whose caller neither sends nor takes anything for so long is given up."""
BATCH_PATIENCE_S = 60.0
"""A chunk is tried again for so long while the gateway has no room for it: batches wait for single requests."""
BATCH_PAUSE_S_MAX = 5.0
"""Longest pause between two tries of a chunk."""
ARROW_METADATA_BYTES_MAX = MIB
"""Metadata of one Arrow message: a schema of 1,000 columns with what pandas adds to it."""
ARROW_MESSAGE_BYTES_MAX = 16 * MIB
"""Body of one Arrow message, so that a record batch is decoded whole: 100,000 rows of twenty numbers."""
ARROW_MESSAGE_ROWS_MAX = 1_048_576
"""Rows of one Arrow message; columns of nulls have no bytes that would bound them."""
ARROW_DICTIONARY_BYTES_MAX = 16 * MIB
"""Dictionaries of one Arrow stream together; they stay in memory until it ends."""
GRPC_MESSAGE_BYTES_MAX = BODY_BYTES_MAX
"""One gRPC request, as one body of REST."""
GRPC_STREAMS_MAX = 256
"""Calls under way on one gRPC connection; one more waits in its caller."""
GRPC_REQUESTS_MAX = 1_024
"""Calls of all gRPC connections under way per process; one more is refused at once."""
GRPC_IDLE_S_MAX = 300.0
"""A gRPC connection without a call for so long is closed; clients connect anew by themselves."""
CREDENTIAL_BYTES_MAX = 8_192
"""A caller's key or token. Tokens with some hundred claims stay below; a larger one is refused unread."""
TOKENS_KNOWN_MAX = 4_096
"""Verified tokens that a gateway remembers, each by its hash; the one remembered longest goes first."""
TOKEN_VERIFICATIONS_PER_S_MAX = 200
"""Signatures checked per second and gateway: a flood of forged tokens costs a few percent of a core, not all of it."""
KEY_LOOKUPS_PER_S_MAX = 10
"""Keys that the snapshot lacks are asked of the registry so often; guessing must not become work for the database."""
KEY_LOOKUPS_AT_ONCE_MAX = 2
"""Such look-ups under way: a registry that hangs must not hold all threads of a gateway."""
JWKS_TIMEOUT_S = 5.0
"""One look at the identity provider's keys, its discovery included."""
JWKS_BYTES_MAX = 256 * 1_024
"""One document of the identity provider; a set of 100 RSA keys with certificates has some 200 KiB."""
JWKS_KEYS_MAX = 100
"""Keys of the identity provider that are read."""
JWKS_REFRESH_S = 300.0
"""How often the keys are fetched, so that one that was taken back opens nothing for longer than that."""
JWKS_MISS_GAP_S = 10.0
"""Least time between two fetches, whatever key ids callers name: they cannot make a gateway hammer the provider."""
JWKS_AGE_MAX_S = 86_400.0
"""Keys of a provider that is away serve for a day; then its tokens open nothing until it is back."""
RATE_SLOTS = 32_768
"""Callers whose rate the workers of a machine remember in their shared file of 512 KiB, idle ones replaced."""
RATE_LOCK_TRIES = 50
"""A caller's slot is held for microseconds; a worker that was stopped while it held one must stop no other."""
RATE_DEBT_MAX = 100
"""Requests that a caller can be charged beyond its burst, for rows that were counted after it was let in."""
RATE_ROWS_PER_REQUEST = 100
"""Rows that one unit of a caller's rate pays for: 1,000 rows cost about as much work as ten requests."""
REQUEST_LINE_BYTES_MAX = 8_192
REQUEST_HEADERS_MAX = 100
REQUEST_HEAD_BYTES_MAX = 32_768
"""Request line and header fields together, trailers too; a token of the largest size fits thrice."""
REQUEST_HEAD_S = 10.0
"""From a connection's first byte of a request, or its being made, to the end of the head: slower ones are cut."""
TLS_LOOK_S = 5.0
"""How often the files of a gateway's certificates are looked at for newer ones."""
CONNECTIONS_MAX = 4_096
"""Connections open at once per worker; one more is answered 503 and closed. An idle one takes about 20 KiB."""
CONNECTION_BACKLOG = 1_024
"""Connections that the kernel keeps for workers that are busy; it drops what comes beyond, and callers try again."""
CONNECTION_IDLE_S = 75
"""An idle connection is closed after this: later than the 60 s of common load balancers, so that they close first."""
CONNECTION_STALL_S = 30.0
"""A caller that takes nothing of its answer for so long is cut off; the answer would stay in memory."""
CONNECTION_LOOK_S = 1.0
"""How often a worker looks for connections that are late, stalled or idle while it drains."""
CONNECTION_DRAIN_IDLE_S = 0.5
"""While a worker drains, connections that ask nothing for so long are closed; busy ones end with their next answer."""
ACCEPTS_AT_ONCE = 16
"""Connections accepted in one turn of the event loop, so that a burst of them does not delay requests."""
ACCEPT_PAUSE_S = 0.1
"""After a failed accept, usually for want of file descriptors, the next is tried so much later."""
ACCEPT_TURN_S = 0.001
"""How long a worker with more connections than another one leaves a new connection to that one."""
DESCRIPTORS_SPARE = 256
"""File descriptors that connections leave to files, servers behind and the like."""
LISTEN_PATIENCE_S = 3.0
"""How long a starting gateway waits for its port: one that was killed may still be answering its last requests."""
WORKERS_MAX = 256
WORKER_BEAT_S = 1.0
"""How often the parent asks each worker how it is."""
WORKER_START_S = 60.0
"""A worker that has not answered so long after its start is replaced."""
WORKER_READY_S = 30.0
"""A replacement takes connections after so long though it is not ready; its bundles may not be loadable at all."""
WORKER_RESTART_S = 0.5
WORKER_RESTART_S_MAX = 15.0
"""Pause before a worker that ended is started again; doubles from the first to the second."""
WORKER_STABLE_S = 30.0
"""A worker that did well for so long starts at the shortest pause again."""
WORKER_CLOSE_S = 15.0
"""After its requests a gateway has so long to flush and seal its log; what is not sealed then is by the next start."""
WORKER_END_S = 5.0
"""Beyond all that it may take by itself, a worker's parent gives it so long before it kills it."""
CONTROL_TIMEOUT_S = 2.0
"""A worker's answer to its parent, within which a scrape tells what the others said."""
CONTROL_FRAME_BYTES_MAX = 64 * MIB
"""One message between parent and worker: the metrics of some hundred endpoints take about 1 MiB."""
CONTROL_ASKS_MAX = 64
"""Questions to a worker that wait for an answer; one that hangs must not collect them."""
ADMIN_CONNECTIONS_MAX = 64
ADMIN_BODY_BYTES_MAX = 1_024
EVENT_LOOP_LOOK_S = 0.25
"""How often a worker measures by how much its event loop is late."""
TRACESTATE_BYTES_MAX = 512
"""What W3C Trace Context has everybody hand on at least; a caller's longer `tracestate` is dropped."""
TRACES_PER_S_MAX = 100
"""Requests that a worker traces per second: callers may ask for any of theirs to be traced, and each costs."""
TRACES_WAITING_MAX = 1_024
"""Traced requests that wait for the collector; what comes while so many wait is dropped and counted."""
TRACE_CALLS_MAX = 64
"""Calls of servers that are told of one request: a batch body makes any number."""
TRACE_BATCH = 16
"""Traced requests sent to the collector at once: encoding more would keep the event loop from running too long."""
TRACE_EXPORT_S = 1.0
"""How long a traced request waits at most for others to be sent with."""
TRACE_TIMEOUT_S = 5.0
"""How long the collector may take for what is sent at once, repetitions included."""
TRACE_CLOSE_S = 2.0
"""How long a process that ends goes on sending traces; what is left is lost."""
LOG_LINES_WAITING_MAX = 10_000
"""Log lines that wait to be written: standard error may be a pipe that nobody reads."""
LOG_CLOSE_S = 2.0
"""How long a process that ends goes on writing its log."""
ACCESS_LINES_PER_S_MAX = 100
"""Lines of the access log per second and worker; a flood of refusals must not become a flood of lines."""
POINT_IN_TIME_MEMORY = "2GB"
"""Memory of a point-in-time join; what does not fit goes to a temporary folder. A laptop has it to spare."""
TRAINING_PART_ROWS = 500_000
"""Examples that are joined with their features at once: forty features of them are some 200 MB, twice while they are
converted."""
MATERIALIZATION_S_MAX = 900.0
"""A materialization's rows count as written so long after its own moment; it is recorded by its beginning."""
STREAM_PART_BYTES_MAX = 512 * 1024
"""One part of a segment on the stream, compressed: well below the 1 MiB that a Kafka broker takes by default."""
STREAM_ROW_BYTES_MAX = 1_000_000
"""A part of a single row may be so large, which a Kafka broker still takes; a larger row is left out and counted."""
STREAM_PART_RAW_BYTES_MAX = 16 * MIB
"""One part decompressed: rows that repeat themselves shrink a hundredfold, and a consumer holds them unpacked."""
STREAM_HEAD_BYTES_MAX = 4_096
"""What a part says of itself."""
STREAM_PARTS_AT_ONCE = 8
"""Parts sent or received in one exchange: at most some MiB, so that neither side holds a whole segment."""
STREAM_TIMEOUT_S = 5.0
"""One exchange of parts with a stream's server."""
STREAM_WAIT_S = 1.0
"""How long a consumer's server is asked to wait for something new; a consumer that is told to stop takes as long."""
STREAM_CLAIM_IDLE_S = 60.0
"""A part that a consumer of Valkey has held unacknowledged for so long is another's: longer than any effect takes."""
STREAM_CLAIM_EVERY_S = 5.0
"""How often a consumer of Valkey looks for parts that were left by another one."""
STREAM_RETRY_S = 0.1
STREAM_RETRY_S_MAX = 5.0
"""Pause before a consumer tries a server or a database again that is away; doubles from the first to the second."""
STREAM_BYTES_MIN = 16 * MIB
"""The least memory that a stream can be given: two exchanges of the largest parts must fit."""
STREAM_GROUPS_MAX = 64
"""Groups of consumers of one stream that a publisher looks at; each costs a question per exchange."""
STREAM_NUMBERS_KEPT = 512
"""Segments that have left the spool whose number a publisher remembers: one may come back after a crash."""
CONSUMED_SEGMENTS_KEEP_S = 14 * 86_400.0
"""How long a group remembers a segment: twice the week that a Kafka broker keeps by default and may deliver again."""
CONSUMED_SEGMENTS_AT_ONCE = 500
"""Rows of the ledger of consumed segments that one statement reads or forgets."""
REPLAY_CHUNK_ROWS = 8_192
"""Logged predictions recomputed at once: 20 MiB of columns, and enough rows that a call costs nothing beside them."""
REPLAY_CHUNKS_AHEAD = 2
"""Chunks of a replay that wait for each process, so that none is idle and memory stays that of a few chunks."""
REPLAY_PROCESSES_MAX = 64
"""Processes of one replay; each holds the bundles that it recomputes."""
REPLAY_ROWS_PER_PROCESS = 50_000
"""Predictions for which a process of a replay is started by default: starting one takes as long as ten thousand."""
REPLAY_IDS_MAX = 1_000
"""Predictions that `skewless replay` is given by their ids; more are replayed with --all."""
REPLAY_ROWS_MAX = 20_000_000
"""Predictions in one back-test, which keeps 11 bytes of each, and 4 per slice: some hundred MiB at most."""
REPLAY_DIFFERENCES_MAX = 1_000
"""Differences that a replay tells one by one; all are counted."""
REPLAY_SLICES_MAX = 8
"""Slices of one back-test."""
REPLAY_SLICE_VALUES_MAX = 1_000
"""Values of a slice that are told apart while rows stream past; the first ones, the rest together."""

assert ROWS_MAX <= MODEL_BATCH_ROWS_MAX, "one request must fit one model call"
assert LOG_BLOCK_ROWS_ALONE <= LOG_BLOCK_ROWS_MAX, "what is merged fits into a frame"
assert DEADLINE_MS_DEFAULT <= DEADLINE_MS_MAX
assert (ONLINE_STORE_TIMEOUT_S + MODEL_TIMEOUT_S) * 1_000 < DEADLINE_MS_MAX, "inner waits must fit the outer one"
assert CONNECT_TIMEOUT_S <= ONLINE_STORE_TIMEOUT_S
assert ROUTE_POLL_S <= 1.0, "half of the 2 s in which a rollout must be everywhere"
assert REQUESTS_IN_FLIGHT_MAX <= ONLINE_STORE_CALLS_MAX, "an admitted request must find a place on the connection"
assert ENDPOINT_IN_FLIGHT_START <= ENDPOINT_IN_FLIGHT_MAX <= REQUESTS_IN_FLIGHT_MAX
assert ENDPOINT_QUEUE_MS < DEADLINE_MS_DEFAULT, "who waits must have time left to be answered"
assert ROWS_MAX <= ROWS_IN_FLIGHT_MAX <= ROWS_WAITING_MAX <= ROWS_QUEUED_MAX
assert BODY_BYTES_MAX <= ONLINE_STORE_PENDING_BYTES_MAX, "the commands of the largest request must fit"
assert ONLINE_STORE_SILENCE_S <= ONLINE_STORE_TIMEOUT_S, "a hung server must be left by the first read that it fails"
assert ONLINE_STORE_RECONNECT_PAUSE_S < CONNECT_TIMEOUT_S < RETRY_AFTER_S + ONLINE_STORE_SILENCE_S
assert ROWS_MAX <= FLUSH_ROWS_MAX <= ROWS_WAITING_MAX
assert ROWS_MAX <= SHADOW_ROWS_WAITING_MAX, "the largest request must be able to be mirrored"
assert ARTIFACT_REMOVAL_S_MAX + ARTIFACT_RETRY_S + ARTIFACT_REQUEST_TIMEOUT_S < ARTIFACT_REMOVAL_STALE_S
assert ARTIFACT_REMOVAL_STALE_S < ARTIFACT_GRACE_S_MIN < ARTIFACT_LEFTOVER_AGE_S
assert BATCH_CHUNK_ROWS <= ROWS_MAX, "a chunk is a request like any other"
assert BATCH_LINE_BYTES_MAX <= BATCH_CHUNK_BYTES_MAX
assert DEADLINE_MS_MAX / 1_000 < BATCH_STALL_S < BATCH_PATIENCE_S, (
    "a chunk gets its answer before its caller is given up"
)
assert CREDENTIAL_BYTES_MAX < REQUEST_HEAD_BYTES_MAX, "a credential comes in a head"
assert JWKS_TIMEOUT_S < JWKS_MISS_GAP_S < JWKS_REFRESH_S < JWKS_AGE_MAX_S
assert ROWS_MAX <= RATE_ROWS_PER_REQUEST * RATE_DEBT_MAX, "one request's rows must be chargeable"
assert REQUEST_HEAD_S < CONNECTION_IDLE_S
assert WORKER_RESTART_S <= WORKER_RESTART_S_MAX < WORKER_STABLE_S
assert WORKER_BEAT_S < CONTROL_TIMEOUT_S < WORKER_READY_S < WORKER_START_S
assert LISTEN_PATIENCE_S < WORKER_READY_S
assert TRACE_BATCH <= TRACES_WAITING_MAX, "a batch fits into the queue"
assert LOG_CLOSE_TRY_S < WORKER_CLOSE_S, "a closing worker is not killed while it still tries to write its log"
assert ACCESS_LINES_PER_S_MAX < LOG_LINES_WAITING_MAX, "one second of the access log fits into the queue"
assert STREAM_PART_BYTES_MAX <= STREAM_ROW_BYTES_MAX < MIB - STREAM_HEAD_BYTES_MAX, "Kafka's default bound"
assert 2 * STREAM_PARTS_AT_ONCE * STREAM_ROW_BYTES_MAX <= STREAM_BYTES_MIN
assert STREAM_WAIT_S < STREAM_TIMEOUT_S < STREAM_CLAIM_IDLE_S
assert STREAM_CLAIM_EVERY_S < STREAM_CLAIM_IDLE_S
assert LOG_SINK_RETRY_S <= LOG_SINK_RETRY_S_MAX
assert LOG_REPLACED_KEPT_S < LOG_UNNAMED_AGE_S
assert LOG_COMPACT_FILES_MIN < LOG_COMPACT_FILES_MAX
assert MONITOR_RETRY_S <= MONITOR_RETRY_S_MAX < MONITOR_JOB_STUCK_S
