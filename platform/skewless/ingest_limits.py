"""Limits of what brings feature rows to the stores: materialization, ingestion, aggregates, schedules and deletion.

As in `limits.py`, each has its reason in a sentence.
"""

CRON_CHARACTERS_MAX = 120
"""Of one cron expression: the longest useful ones list some minutes and hours."""
SCHEDULE_RUNS_MAX = 16
"""Runs of one scheduler at once, whatever is set: each is a process with a view's rows in hand."""
SCHEDULE_ATTEMPTS_MAX = 4
"""Runs for one due time: what has failed four times in eight minutes wants a person, or the next due time."""
SCHEDULE_RETRY_S = 60.0
"""Before a failed run is tried again; doubled with each failure, so that 1, 2 and 4 minutes lie between four runs."""
SCHEDULE_REFUSED_WAIT_S = 300.0
"""Before a run that found another one under way is tried again: what is under way is usually done by then."""
SCHEDULE_CLOCK_AHEAD_S = 3_600.0
"""A due time that lies further ahead was handled by a clock that was wrong; clocks of one place differ less."""
SCHEDULE_MISSED_COUNTED_MAX = 1_000
"""Missed due times that are counted, for people; they are made up for by one run, however many."""
SCHEDULE_HOLD_S = 60.0
"""How long a scheduler that says nothing is taken to be alive; its runs are then begun again by another."""
SCHEDULE_RENEW_S = 15.0
"""How often a scheduler says that it is alive: often enough for the database to be away for a while."""
SCHEDULE_DEFINITIONS_S = 5.0
"""How often a scheduler looks for new definitions: one read of two columns."""
SCHEDULE_VIEWS_MAX = 2_000
"""Views that are scheduled at once: a look at their due times then takes about a tenth of a second."""
SCHEDULE_STUCK_S = 120.0
"""A scheduler none of whose looks has ended for so long is not well: a look waits for the database some seconds."""
SCHEDULE_STOP_S = 20.0
"""How long runs get to end when their scheduler is stopped; what is cut off goes on where it was."""
SCHEDULE_TOLD_CHARACTERS = 2_000
"""Of what a failed run said last that is kept: enough for a message with its hint."""
SCHEDULE_LOG_BYTES_MAX = 1 << 20
"""Of what one run says that is read when it ends, its last part."""
SCHEDULE_REQUEST_S = 5.0
"""How long a caller of a scheduler's own listener may be silent."""
SCHEDULE_SEEN_KEEP_S = 86_400.0
"""How long a scheduler that has ended is remembered, for `skewless schedule`."""

assert SCHEDULE_RENEW_S * 3 < SCHEDULE_HOLD_S

INGEST_JSON_BYTES_MAX = 1 << 20
"""A body `{"rows": […]}`: it is decoded in one go, for 5 ms at most, in which nothing else of the process goes on."""
INGEST_BODY_BYTES_MAX = 16 << 20
"""A body of NDJSON or Arrow, which is held whole because it is taken as a whole; more rows are another request."""
INGEST_DECODED_BYTES_MAX = 4 * INGEST_BODY_BYTES_MAX
"""Texts, bytes and list items of one request once each row has its own: of an Arrow body many rows may share one."""
INGEST_ROWS_MAX = 50_000
"""Rows of one request: what one run of a quality suite judges in a fraction of a second."""
INGEST_VALUE_BYTES_MAX = 64 * 1024
"""One text or bytes value of a feature; join keys have the shorter `STRING_BYTES_MAX`, as in predictions."""
INGEST_LIST_ITEMS_MAX = 4_096
"""Items of one list value: an embedding of the usual widths, and no row that is a table of its own."""
INGEST_SLICE_BYTES = 256 * 1024
"""NDJSON is decoded in pieces of so many bytes, 2 ms each, between which other threads have their turn."""
INGEST_BODY_S = 10.0
"""How long a body may take to arrive; who sends slower than 1.6 MB/s sends smaller bodies."""
INGEST_GROUP_DELAY_S = 0.02
"""How long a request waits for others to be judged and kept together with it; short beside what judging takes."""
INGEST_GROUP_ROWS_MAX = 10_000
"""Rows of small requests that are judged and kept together; judging them takes as long as judging ten."""
INGEST_GROUP_REQUESTS_MAX = 2_000
"""Requests in one group: each has an idempotency key to look up in the same statement."""
INGEST_ALONE_ROWS = 1_000
"""A request of so many rows is a batch of its own: also what a suite says of batches as a whole is held against it."""
INGEST_HELD_BYTES_MAX = 64 << 20
"""Bodies that are being received, decoded, judged and kept, of one process; beyond it a request is refused at once."""
INGEST_CALLER_SHARE = 0.5
"""The most of those bytes that one caller may take, so that another one always finds room."""
INGEST_REQUESTS_WAITING_MAX = 4_096
"""Requests that wait for their answer, of one process: each holds a connection and some KiB."""
INGEST_LANE_THREADS = 8
"""Views and streams whose rows are judged and kept at once; more take turns, as the process that judges has one."""
INGEST_DECODERS = 2
"""Threads that decode bodies: they take turns at the interpreter, and more would only take turns more often."""
INGEST_INLINE_BYTES = 16 * 1024
"""A smaller body is decoded where it arrived: 0.2 ms, less than what handing it to a thread and back costs others."""
INGEST_TAKE_S = 30.0
"""How long a request waits to be judged and kept; then the caller is told to ask again, with the same key."""
INGEST_OUTBOX_LOOK_S = 0.5
"""How often a process asks how full the outbox is; the outbox itself refuses what comes between two looks."""
INGEST_DEFINITIONS_LOOK_S = 1.0
"""How often the definitions are looked at for a newer version."""
INGEST_QUARANTINED_TOLD_MAX = 100
"""Rows that an answer names as set aside, with their reasons; it counts all of them."""
INGEST_KEY_BYTES_MAX = 200
"""An Idempotency-Key: a UUID is 36, and some name requests by what they are about."""
INGEST_AHEAD_S = 60.0
"""How far behind a caller's the service's clock may be: a created time is of the past."""

assert INGEST_JSON_BYTES_MAX <= INGEST_BODY_BYTES_MAX <= INGEST_HELD_BYTES_MAX * INGEST_CALLER_SHARE
assert INGEST_ALONE_ROWS <= INGEST_GROUP_ROWS_MAX <= INGEST_ROWS_MAX
assert INGEST_GROUP_REQUESTS_MAX <= INGEST_REQUESTS_WAITING_MAX
assert INGEST_INLINE_BYTES <= INGEST_SLICE_BYTES

SOURCE_FILES_MAX = 20_000
"""Files of one offline source: more than these, and naming them costs a query more than reading them."""
OFFLINE_ROW_GROUP_ROWS = 1 << 17
"""Rows of a row group of an offline table, DuckDB's own unit of work."""
OFFLINE_COMPACT_FILES_MIN = 64
"""Small files of an offline table that are worth putting together: fewer cost a reader less than rewriting them."""
OFFLINE_COMPACT_FILES_MAX = 1_024
"""Files that one compaction puts together, so that it ends in seconds."""
OFFLINE_COMPACT_ROWS_MAX = 2_000_000
"""Rows that one compaction holds in memory: some hundred MB at a hundred columns."""
OFFLINE_COMPACT_BYTES_MAX = 128 * 1024 * 1024
"""Size of a file that is small no more, and of what compaction makes."""

assert OFFLINE_COMPACT_FILES_MIN <= OFFLINE_COMPACT_FILES_MAX < SOURCE_FILES_MAX

AGGREGATE_PANES_MAX = 400
"""Panes of one window, all of which a row is made of, at about 0.3 µs for each value: a year by days still can be."""
AGGREGATE_FEATURES_MAX = 200
"""Features of one stream's view, as many as one entity's hash is read of at once without being slow."""
AGGREGATE_DISTINCT_MAX = 4_096
"""Different values that are counted exactly: 32 KiB for a pane of one entity, 1.6 % standard error beyond."""
AGGREGATE_LATENESS_S_MAX = 24 * 3600
"""Events of the last day may still come: what is within is kept event by event, to say past rows anew."""
AGGREGATE_RECENT_EVENTS_MAX = 1_000
"""Events that an entity keeps within the lateness: of one with more, older ones are late the sooner. 100 KiB or so."""

ONLINE_WRITE_ROWS = 2_000
"""Rows of one exchange with the online store: a store of some 100,000 scripts a second is done with them in 20 ms."""
ONLINE_WRITE_TIMEOUT_S = 30.0
"""Of one such exchange: a store that saves its file, or begins to swap, takes seconds."""
ONLINE_WRITE_ROUNDS_MAX = 20
"""Looks at rows that others change between look and write: two writers in turn need one more, and no honest one ten."""
ERASURE_TRIES = 20
"""Times that a file is rewritten without an entity's rows while somebody else rewrites it: a writer needs a moment."""
AGGREGATE_FUTURE_S = 300
"""How far ahead of its receipt an event may say that it happened: clocks differ by seconds, wrong ones by hours."""
AGGREGATE_HISTORY_PAIRS = 1_000_000
"""Pairs of a row and an event that the offline computation looks at together: some tens of MB an aggregate."""
STORE_HISTORY_WAIT_S = 120.0
"""Within which an online store writes its files anew after a deletion; one of 10 GB takes about a minute."""
ERASURE_LEASE_WAIT_S = 60.0
"""That a deletion waits for whoever is writing a view; a materialization of millions of rows ends or is waited for."""
INGEST_QUARANTINE_BATCHES_MAX = 1_000
"""Batches of a view in quarantine beyond which ingestion adds none, and refuses: people have to look after them."""
INGEST_RUN_EVERY_S = 10.0
"""Groups that set nothing aside are recorded this often at most, or a view's history would be of the last minute."""

MATERIALIZATION_RUNS_KEPT = 1_000
"""Runs of one view whose records are kept: six weeks of hourly ones."""

INGEST_KEYS_KEPT_S = 86_400.0
"""How long an idempotency key is known: callers that try again do so within minutes, or within a day by hand."""
INGEST_BATCHES_KEPT_S = 7 * 86_400.0
"""How long a delivered batch can be asked about."""
INGEST_FORGOTTEN_AT_ONCE = 5_000
"""Keys and batches that one sweep forgets, so that it holds the database for some milliseconds."""
INGEST_WAITING_BYTES_MAX = 1 << 30
"""Of payloads in the outbox, where nothing else is set: an hour of 5,000 rows/s at 50 bytes a row under zstd."""
INGEST_WAITING_BATCHES_MAX = 50_000
"""Batches in the outbox, where nothing else is set: an hour of stores that are away at some 14 groups a second."""
INGEST_BATCH_ROWS_MAX = 200_000
"""Rows of one batch: as many as one delivery holds in memory several times over."""
INGEST_ERROR_CHARACTERS = 2_000
"""Of why a batch could not be delivered that is kept."""
INGEST_LISTED_MAX = 1_000
"""Batches that one listing shows."""
LANE_BATCHES_AT_ONCE = 64
"""Batches that a lane takes out of the outbox together and marks in one transaction."""
LANE_BYTES_AT_ONCE = 64 * 1024 * 1024
"""Of decoded rows that a lane holds at once, each some times over while it appends them; one batch may be larger."""
LANES_AT_ONCE = 64
"""Lanes that one process works for at once: a thread, a connection and a Delta table each."""
LANE_LEASE_S = 10.0
"""How long a lane that was killed keeps others from its view; renewed three times as often."""
LANE_TURN_S = 5.0
"""How long a busy lane keeps its lease before it gives others, such as a deletion, a chance."""
LANE_TURN_PAUSE_S = 0.25
"""That chance: several times the pause between tries of who waits."""
LANE_IDLE_S = 5.0
"""How long a lane without work keeps its thread."""
LANE_TICK_S = 0.25
"""How often a lane's handler is called without batches: a quarter of the second within which windows are current."""
LANE_POLL_S = 0.5
"""How often the outbox is looked through for lanes with work that nobody woke: what another process accepted."""
LANE_RETRY_S = 0.1
"""Before a delivery that failed is tried again; doubled up to LANE_RETRY_S_MAX."""
LANE_RETRY_S_MAX = 5.0
"""Between tries while a store is away: it is noticed within this when it is back."""
LANE_TRIES_MAX = 5
"""Tries of a batch that its stores refuse: what five tries over some seconds refuse, they refuse."""
LANE_SETTLE_S = 5.0
"""How long rows that are online wait to be appended offline together: one commit of a table per view and this long."""
LANE_SETTLE_ROWS = 100_000
"""Rows that are appended at once without waiting any longer, and about as many as one commit has."""
LANE_COMPACT_S = 60.0
"""How often a lane sees whether its table has small files to put together."""

assert LANE_RETRY_S < LANE_RETRY_S_MAX < LANE_LEASE_S
assert LANE_TURN_PAUSE_S < LANE_TURN_S < LANE_LEASE_S
assert LANE_TICK_S <= LANE_POLL_S < LANE_IDLE_S
assert LANE_SETTLE_ROWS <= INGEST_BATCH_ROWS_MAX
ERASURE_IDS_AT_ONCE = 500
"""Predictions that one statement names, below the variables that any database takes."""
PLAN_BUNDLES_MAX = 200
"""Registered bundles that a plan looks into beside those of endpoints: newest first, some milliseconds each."""
MATERIALIZATION_OVERLAP_S = 3_600.0
"""How much longer than up to the last run's newest created time a run looks back, where nothing else is asked for: for
rows that a job stamps when it begins and writes when it ends. Rows that were taken before are found to be the same."""
MATERIALIZATION_PART_ROWS = 2_000_000
"""Source rows of one part of the entities: with ten columns some 300 MB while the newest of each entity are found. Each
part reads the source once: of ten million rows 20 parts took 25 s of processor time to find, and 5 parts 12 s."""
MATERIALIZATION_PARTS_MAX = 64
"""Parts of one run; beyond 128 million rows they become larger, and DuckDB spills to disk."""
MATERIALIZATION_MEMORY = "1GB"
"""Of DuckDB while it finds newest rows; what does not fit goes to disk."""
MATERIALIZATION_BATCH_ROWS = 20_000
"""Rows that are encoded and written together: some 8 MB of commands, and half a second between two signs of life."""
MATERIALIZATION_WRITERS = 2
"""Connections that are written to side by side: while the store works through the one, commands for the other are
packed. Both are threads of one interpreter, so a third waits for them."""
MATERIALIZATION_VERIFY_ROWS = 200
"""Entities compared after a run where nothing else is asked for: a fault in 2 % of them goes unseen once in 57 runs."""
MATERIALIZATION_VERIFY_ROWS_MAX = 4_000
"""Entities compared after a run at most: the offline side answers so many without making a timeline of all."""
MATERIALIZATION_TOLD_MAX = 5
"""Differing entities that a failed verification names; it counts all of them."""
LEASE_S = 20.0
"""How long a lease outlives a process that was killed; a database that is away for longer ends the work."""
LEASE_RENEW_S = 5.0
"""How often a lease is renewed: three times before it would end."""
LEASE_STOP_S = 10.0
"""How long the thread that renews leases is waited for: one statement of the database."""

assert MATERIALIZATION_BATCH_ROWS <= MATERIALIZATION_PART_ROWS
assert MATERIALIZATION_VERIFY_ROWS <= MATERIALIZATION_VERIFY_ROWS_MAX
assert LEASE_RENEW_S * 3 < LEASE_S

FRESHNESS_LOOK_S = 30.0
"""Between two looks of the monitor at how old features are; targets are minutes and hours."""
FRESHNESS_HISTORY_S = 35 * 86_400.0
"""Of a source's arrivals that say what is usual: five weeks, so that one odd week does not decide."""
FRESHNESS_BUCKET_S = 300.0
"""Rows that become known within five minutes are one arrival: what one job writes is no news of its own."""
FRESHNESS_ARRIVALS_MIN = 5
"""Arrivals of which a cadence can be told at all."""
FRESHNESS_MISSED_TIMES = 3.0
"""A source has stopped when so many times more arrivals are missing than its longest usual silence has."""
FRESHNESS_SILENCE_QUANTILE = 0.99
"""The longest usual silence: one in a hundred is longer, so that an outage in the history does not become usual."""
FRESHNESS_SCAN_ROWS_MAX = 20_000_000
"""Rows of one source whose times are read at one look, newest parts first; what lies before is left out, and told."""
FRESHNESS_SAMPLE_ENTITIES = 1_000
"""Entities of a view whose stored event times are looked up: a quantile of ages is then right within 3 %."""
FRESHNESS_SAMPLE_PARTS = 8
"""Row groups of a source that those entities are taken from, evenly over all of it."""
FRESHNESS_NEWEST_ENTITIES = 200
"""Entities of its newest rows that are looked up as well: whether what came last has reached the store."""
FRESHNESS_STORE_S = 5.0
"""How long one exchange with the online store may take; a look then goes on with the next view."""
FRESHNESS_SERVED_S = 3_600.0
"""Of traffic whose served ages are told: as long as drift's."""
FRESHNESS_KEYS_MAX = 50
"""Bundles in roles whose served ages are read, those of live endpoints first, each some tallies."""
FRESHNESS_SAMPLE_ROWS = 262_144
"""Rows that those entities are looked for in: some ten milliseconds of reading."""
AGGREGATE_BUCKETS = 16
"""Parts that a stream's entities are kept in, each on one server of a cluster with the timers of its entities."""
AGGREGATE_STEP_ENTITIES = 500
"""Entities whose timers are answered in one step: 100 ms or so, between which batches come in."""
AGGREGATE_COMMAND_ENTITIES = 200
"""States read or written in one exchange: of the largest states some 20 MB."""
AGGREGATE_STATE_TIMEOUT_S = 5.0
"""For one exchange of states; it is no request's, and a store that needs longer is away."""
AGGREGATE_REPLAY_ROWS = 500_000
"""Events that are read together when states are made anew or rows are computed: some hundred MB."""
MATERIALIZATION_TELL_S = 15.0
"""Between two lines about a run that nobody watches on a terminal."""
INGEST_DELIVERY_STOP_S = 10.0
"""What deliveries get to end when the service stops; what is cut off then is done again from the outbox."""

FEATURE_STREAM_RECORDS_AT_ONCE = 256
"""Records that a stream consumer takes together: one transaction of the outbox for each view among them."""
FEATURE_STREAM_WAIT_S = 1.0
"""How long one reading waits for records; a stop takes as long."""
FEATURE_STREAM_TIMEOUT_S = 10.0
"""How long the stream's server may take to answer."""
FEATURE_STREAM_CLAIM_IDLE_S = 60.0
"""After which records that another consumer was given, and has not acknowledged, are taken over: it is dead."""
FEATURE_STREAM_CLAIM_EVERY_S = 15.0
"""How often such records are looked for."""
FEATURE_STREAM_DEAD_MAX = 100_000
"""Records that a stream of refused ones keeps, the newest: with their reasons, for whoever mends them."""
FEATURE_STREAM_TRIES_MAX = 5
"""Times that a record is tried whose taking fails in a way that nobody foresaw."""
FEATURE_STREAM_REASON_CHARACTERS = 1_000
"""Of why a record was refused that is kept beside it."""
FEATURE_STREAM_NAMES_MAX = 1_000
"""Views and streams of events that one consumer reads for: one key or topic each."""
FEATURE_STREAM_NAMES_S = 5.0
"""How often a consumer looks whether there are new views and streams."""
FEATURE_RECORD_BYTES_MAX = 1_048_576
"""Of one record: Kafka's own default, and enough for some thousand rows."""

assert FEATURE_STREAM_WAIT_S < FEATURE_STREAM_TIMEOUT_S < FEATURE_STREAM_CLAIM_IDLE_S
LINEAGE_EVENTS_MAX = 500
"""Lineage events that one command sends: what is left waits for the next one."""
LINEAGE_SEND_S = 5.0
"""All of a command's sending: nobody waits longer for a catalogue that a command does not need."""
LINEAGE_CONNECT_S = 1.0
"""Until the receiver of lineage has taken a connection, or answered one event."""
AGGREGATE_FINDINGS_MAX = 20
"""Differing entities that a check names; of more it says how many."""
