"""Limits of the monitors: drift, model metrics, parity, quality gates, and the mending of the online store.

As in `limits.py`, each has its reason in a sentence.
"""

from skewless.limits import CONSUMED_SEGMENTS_KEEP_S, MIB

DRIFT_CELLS_MAX = 1 << 25
"""Counts that windows of a drift check keep together: 256 MiB, or eight weeks of 5-minute windows of 70 columns."""
DRIFT_BIN_ROWS_MAX = 1 << 20
"""Values of a column that its bins are chosen from, one column at a time: 8 MiB, and some times that to sort them."""
DRIFT_BIN_OBJECTS_MAX = 1 << 18
"""The same of lists and bytes, which are objects."""
DRIFT_WORDS_MAX = 200_000
"""Distinct words of a column that are counted at once; beyond, the rarer half is forgotten."""
DRIFT_SLICES_MAX = 17
"""Slices of a drift check: the most frequent values of a column, and one for all others."""
MONITORING_SLICES_MAX = 4
"""Columns by whose values an endpoint is watched or judged: each value costs as much as all rows together do."""
MONITORING_COUNTERS_MAX = 16
"""Business counters of one endpoint; each is a metric of every bundle, role and slice."""
MONITORING_LABELS_MAX = 64
"""Labels that one business counter takes for success: each row is looked up among them."""
MONITORING_EXCLUDED_DAYS_MAX = 400
"""Days that the drift monitor leaves out: a year of history has no more."""
MONITORING_FILE_BYTES_MAX = 65_536
"""A file with a monitoring policy: the largest policy has less."""
MONITORING_TEXT_MAX = 200
"""Characters of a name or label in a monitoring policy; it travels in every gateway's route."""
MONITORING_DURATION_S_MAX = 400 * 86_400.0
"""The longest duration of a monitoring policy: as long as the coarsest counts are kept."""
MODEL_METRIC_ROWS_EXACT = 200_000
"""Predictions of one bundle, role and period that are judged from their rows, 60 bytes each; more are in score bins."""
MODEL_METRIC_BINS = 4_096
"""Equal score bins where rows are too many to hold: of evenly spread scores one pair of 8,192 is hidden in a bin."""
MODEL_METRIC_CLUSTERS = 4_096
"""Bins into which entities are hashed to see how alike an entity's rows are; entities that share one widen bounds."""
MODEL_METRIC_PARTS_MAX = 64
"""Values of one slice that are judged by themselves, the commonest of a period; the rest are judged together."""
MODEL_METRIC_PART_CHARACTERS = 80
"""Characters of a slice's value that name it; longer values with one beginning are one part."""
MODEL_METRIC_PERIODS_MAX = 10_000
"""Newest periods of an endpoint that are kept up: 400 days by the hour."""
MODEL_METRIC_PERIODS_AT_ONCE = 16
"""Periods computed between two looks of the monitor, so that another endpoint has its turn within minutes."""
MODEL_METRIC_RESAMPLES = 100
"""Bootstrap samples for an average precision: its bounds then vary by a tenth of their width."""
METRIC_ROWS_AT_ONCE = 500
"""Periods that one statement marks; SQLite takes at least 999 parameters."""
MODEL_METRICS_INTERVAL_S = 60.0
"""How often the monitor looks for outcomes where nothing is left to compute; a look reads what is new."""
MODEL_METRIC_SLICES_EXPORTED = 32
"""Parts of slices per bundle and role that Prometheus is told of, those with the most rows; the database has all."""
MODEL_METRIC_BUNDLES_KNOWN = 256
"""Bundles whose slices by name the monitor remembers, some KiB each; of others it reads the baseline again."""
DRIFT_WORDS_KEPT_MAX = 100
"""Unseen words of one feature of one bundle that are kept by name: what nobody would read to its end anyway."""
DRIFT_LIVE_S = 3_600.0
"""Traffic is live where rows are counted so soon after they were answered; of a replay of the past the clock says
nothing."""
DRIFT_AHEAD_S = 300.0
"""How far ahead of the clock a logged row's `as_of` may be to be counted: more than clocks of one place differ."""
DRIFT_ROWS_AT_ONCE = 256
"""Tallies that one statement reads or writes: some MiB, and fewer names than SQLite takes in a statement."""
DRIFT_BUNDLES_KEPT = 64
"""Bundles whose baselines the monitor keeps open: all that are shown, and some whose rows come; each is a few MiB."""
DRIFT_BATCH_ROWS = 200_000
"""Logged rows that are counted before they are committed, where a file has more: seconds of work are lost at most."""
DRIFT_PARTIALS_KEEP_S = 15 * 86_400.0
"""How long ids of a segment's rows that came by the stream are kept while others are missing: longer than the ledger
remembers the segment."""
DRIFT_HISTORY_DAYS = 35
"""Days that the drift monitor compares with: five weeks, so that one odd week does not decide what is usual."""
DRIFT_FINE_DAYS = DRIFT_HISTORY_DAYS + 2
"""Days whose windows are kept one by one: history, and a day at both ends; older ones are merged into hours."""
DRIFT_COARSE_DAYS = 400
"""Days whose hours are kept: the same season of last year, and a month."""
DRIFT_STREAM_WINDOWS_MAX = 1 << 25
"""Scores of history that one calibration holds, windows times streams: 128 MiB, and some times that while it is made.
Slices beyond, the rarest values, are not watched by themselves."""
DRIFT_LEVELS_MAX = 500
"""Variables whose levels are kept by name after each portion, the highest: what is shown, and not what is
remembered."""
DRIFT_WATCHES_KEPT = 64
"""Detectors that the monitor keeps ready, each some ten MiB; others are read from the database when they are asked."""
DRIFT_SHOWN_KEYS_MAX = 50
"""Bundles and roles whose features are in the metrics, those in service first: each has some thousand samples."""
DRIFT_STREAM_SETTLED_S = 300.0
"""How old files of the log store are before rows that the stream did not deliver are taken from them."""
DRIFT_RETRY_S = 300.0
"""After which a file or an old day that could not be read is tried again; others go on meanwhile."""
DRIFT_FILE_TRIES = 2
"""Times that a new file may fail before it is set aside: fewer than MONITOR_REOPEN_FAILURES, after which a job forgets
what failed."""
DRIFT_TURN_S = 10.0
"""How long the drift monitor goes on before it lets itself be seen and stopped; what it has begun it ends."""
DRIFT_STREAM_TURN_S = 2.0
"""How long parts of the stream are taken before sealed windows are scored."""
DRIFT_ROUTES_EVERY_S = 10.0
"""How old what is known of endpoints, their bundles and policies may be."""
DRIFT_SHOWN_EVERY_S = 15.0
"""How old the figures of a scrape may be: computing them anew takes longer than a look for new rows."""
DRIFT_REPORTS_WAITING_MAX = 4
"""Alarms whose reports wait to be made, one after the other; of more, reports are made when they are asked for."""
DRIFT_INTERVAL_S = 5.0
"""How often the drift monitor looks for new rows: the shipper brings them some times a minute."""
PARITY_CHUNK_ROWS = 50_000
"""Predictions that a parity check holds at once: some 100 MB with forty features, twice, and their evidence."""
PARITY_VERSIONS_MAX = 16
"""Versions of one source row that are looked at to explain a served value, the newest ones; more are not told apart."""
PARITY_PROBED_ENTITIES_MAX = 1_000
"""Entities of a view, missing online, that are looked for under other key types per chunk: a few reads of the store."""
PARITY_EXAMPLES_MAX = 5
"""Mismatches of each view and cause that a report shows."""
PARITY_CLUSTERS = 65_536
"""Bins into which entities are hashed to count how mismatches cluster; entities that share one widen the interval."""
PARITY_REPORTS_MAX = 200
"""Reports kept in a home per endpoint, the newest ones, each a few kilobytes."""
PARITY_STEP_S = 15.0
"""Sampled predictions of so many seconds are compared together, or not at all: short beside the minute in which a
verdict is promised once the source has got so far, and 240 of them describe an hour."""
PARITY_SETTLE_S = 20.0
"""How long after its end a step's predictions are waited for in the log: a segment is sealed after 5 s and shipped
after some more. What comes later is compared when the step is final."""
PARITY_LOOK_S = 10.0
"""How often the running monitor looks for sampled predictions: a part of the minute that a verdict may take."""
PARITY_FULL_LOOK_S = 600.0
"""How often it looks through all of PARITY_LOOK_BACK_S, for what was logged late or is of a replayed past."""
PARITY_RECENT_S = 7_200.0
"""How far behind the newest prediction every look goes: what a log store that was away for an hour delivers is in
it."""
PARITY_LOOK_BACK_S = 40 * 86_400.0
"""How far behind the newest prediction the full look goes; it reads two columns of the log."""
PARITY_LIVE_S = 3_600.0
"""An endpoint whose newest prediction is of the last hour lives in the present; of others, which replay a past, time
goes on from their newest prediction."""
PARITY_RUN_S_MAX = 120.0
"""A run of the monitor begins no further portion after this long; it comes back at once where there is more."""
PARITY_WORKER_S_MAX = 600.0
"""Age at which the process that compares is replaced: it has the repository's code loaded, which may have changed, and
loading it costs some 5 s of processor time."""
PARITY_WORKER_IDLE_S = 60.0
"""How long that process waits for work before it is ended, so that an idle monitor holds nothing of it."""
PARITY_WORKER_ANSWER_S = 600.0
"""How long its answer is waited for; longer than one portion and all imports take on a busy machine."""
PARITY_WORKER_MEMORY_BYTES = 1_500 * MIB
"""Resident memory at which it is replaced early; some 400 MB are usual, half of them Feast."""
PARITY_MEMORY = "512MB"
"""Memory of the offline store's joins in the running monitor, which shares its machine; the rest goes to a folder."""
PARITY_BUNDLES_OPEN_MAX = 8
"""Bundles that the comparing process keeps open, the last ones used: live, candidates and those before a promotion."""
PARITY_GROUPS = 2_048
"""Bins into which entities are hashed in stored results, which add up over hours; 16 KiB before compression."""
PARITY_EXAMPLES_KEPT = 20
"""Examples that are kept of each endpoint, view and cause, the newest ones."""
PARITY_RESULTS_KEEP_S = 400 * 86_400.0
"""How long results by the hour are kept: a year and a month, so that the same season can be compared."""
PARITY_SHOWN_DAYS = 14
"""Days in the sparklines of a status: two weeks, so that a weekly pattern shows twice."""
PARITY_METRICS_S = 86_400.0
"""The period behind exported rates: short enough to move, long enough for the bounds to be narrow."""
QUARANTINE_SHARE_MAX = 0.1
"""Share of a batch's rows that a suite sets aside where it does not say; beyond it the batch is wrong, not its rows."""
QUARANTINE_ROWS_MAX = 1_000_000
"""Rows of one view that wait in quarantine; beyond it batches stop, since nobody looks at what was set aside."""
QUARANTINE_LEFTOVER_AGE_S = 3_600.0
"""After which a quarantine file that no batch names is what a dead process left: naming it follows within seconds."""
QUALITY_INTERVAL_S = 30.0
"""Between two looks of the monitor at what gates recorded; a batch is judged every few minutes at most."""
QUALITY_FEATURES_EXPORTED = 20
"""Features of a view whose share of unexpected rows Prometheus is told, worst first; a report has all."""
QUALITY_BATCH_ROWS_MAX = 500_000
"""Rows judged at once: about 300 MiB in Great Expectations; larger batches are judged in parts."""
QUALITY_RUN_S_MAX = 600.0
"""How long one batch may take to be judged; half a million rows take some seconds."""
QUALITY_START_S_MAX = 180.0
"""How long the process that judges may take to start: importing Great Expectations takes ten seconds at worst."""
QUALITY_SUITE_BYTES_MAX = 1 << 20
"""Of one suite file; a hundred expectations are 20 KiB."""
QUALITY_EXPECTATIONS_MAX = 1_000
"""Of one suite; each costs milliseconds on every batch."""
QUALITY_EXAMPLES = 5
"""Values told for an expectation that is not met."""
QUALITY_TEXT_CHARACTERS_MAX = 200
"""Of one value or reason that is told or kept."""
QUALITY_RUNS_KEPT = 1_000
"""Runs kept for each view; the oldest go when a new one is stored."""
QUALITY_RUNS_FORGOTTEN_AT_ONCE = 20
"""Old runs that storing one removes at most, so that it stays quick."""
REPAIR_CHUNK_ROWS = 1_000
"""Entities of one view that a repair of the online store reads at once: some MiB with both sides and their versions."""
REPAIR_WRITE_ROWS = 200
"""Rows that it changes in one exchange: each is a script of some KiB, and the store does nothing else meanwhile."""
REPAIR_ROWS_PER_S = 5_000.0
"""Hashes that it reads or changes a second where nobody says otherwise: a few percent of what one store can do."""
REPAIR_SCAN_COUNT = 1_000
"""Keys that one SCAN looks at: about a millisecond of the store's time."""
REPAIR_TIMEOUT_S = 10.0
"""How long one exchange of a repair may take; nobody waits for it but the command."""
REPAIR_EXAMPLES_MAX = 5
"""Rows of each reason and view that a report shows with their values."""
REPAIR_REPORTS_MAX = 200
"""Reports of repairs that a home keeps; the oldest goes when another comes."""
PARITY_GATE_ROWS = 500
"""Questions of a bundle's dry parity run: enough to see a fault of 1 % of entities with 99 %, within a second."""
PARITY_GATE_HISTORIC_S = 7 * 86_400.0
"""How long sources may have been silent and still count as alive; older ones are of an example or a back-test."""
PARITY_GATE_FAULTS_MAX = 0.01
"""Largest rate of one view's faults at which a bundle passes its dry parity run where nobody says otherwise."""
DRIFT_REPORTS_MAX = 20
"""Drift reports kept of one endpoint, about 5 MB each; older ones are removed as new ones are made."""
DRIFT_REPORT_FILE_BYTES_MAX = 16 * MIB
"""A file of a drift report: four times what Evidently's scripts weigh; what would be larger is left out, and said
so."""
DRIFT_REPORT_ROWS_MAX = 5_000
"""Rows of the log that a drift report looks at on either side: enough to see a change of a tenth, and a second's
work."""
DRIFT_REPORT_LOG_ROWS_MAX = 1_000_000
"""Rows of the log that a drift report counts itself where the monitor has not: about a minute's work."""
DRIFT_REPORT_COLUMNS_MAX = 100
"""Columns of a drift report that Evidently draws, those that moved furthest: each adds some KB and 30 ms."""
DRIFT_REPORT_SPAN_DAYS = 31.0
"""The longest span of one drift report: windows of a month are some 9,000 tallies to add up."""
DRIFT_REPORT_S = 300.0
"""How long a drift report may take where the monitor asks for it: imports take 20 s, a slow disk as much again."""
DRIFT_REPORT_MEMORY_BYTES = 3_072 * MIB
"""Data that its process may have: Evidently and Great Expectations take 700 MiB, a reader of the log 2,048 at most."""

assert DRIFT_SHOWN_KEYS_MAX < DRIFT_BUNDLES_KEPT
assert DRIFT_HISTORY_DAYS < DRIFT_FINE_DAYS < DRIFT_COARSE_DAYS
assert CONSUMED_SEGMENTS_KEEP_S < DRIFT_PARTIALS_KEEP_S
METRICS_PAGE_BYTES_MAX = 64 * MIB
"""A page of metrics that `skewless top` reads: a monitor's 100,000 series take some 15 MiB."""
METRICS_PAGE_TIMEOUT_S = 2.0
"""Until a process that does not tell its metrics is shown as one that does not answer."""
