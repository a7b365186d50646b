"""kill -9 at random steps of materialization, again and again: in the end every entity is online as it is offline.

Some thousand rows in three parts, first a full run, then an incremental one over late, restated and dated-ahead rows;
each is killed at steps drawn by a seed until it gets through. `SKEWLESS_TEST_MATERIALIZE_TRIALS` does so for long.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from harness.servers import ValkeyServer

TRIALS = int(os.environ.get("SKEWLESS_TEST_MATERIALIZE_TRIALS", "1"))
SEED = int(os.environ.get("SKEWLESS_TEST_MATERIALIZE_SEED", "7"))
TRIAL_TIMEOUT_S = 240.0
TESTS = Path(__file__).parents[1]


def test_whatever_is_killed_online_is_offline_in_the_end_nothing_twice_nothing_lost(
    tmp_path: Path, valkey_server: ValkeyServer, sqlite_registry: Path
) -> None:
    asked = [valkey_server.url, str(tmp_path), str(sqlite_registry), str(SEED), str(TRIALS)]
    done = subprocess.run(
        [sys.executable, "-m", "harness.killed_materialization", *asked],
        cwd=TESTS,
        capture_output=True,
        text=True,
        timeout=TRIAL_TIMEOUT_S * TRIALS,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4_000:]
    trials = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(trials) == TRIALS
    assert sum(len(trial["killed"]) for trial in trials) > 0, "some were killed"
    for trial in trials:
        assert trial["wrong"] == [], trial
        assert (trial["unfinished"], trial["run"], trial["states"][0]) == (0, True, "done"), trial
        assert trial["new"] <= trial["stations"], trial  # no row was counted as new twice
