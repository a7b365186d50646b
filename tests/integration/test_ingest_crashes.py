"""kill -9 at every step of ingestion: what was accepted is in both stores, once, and both agree on every entity."""

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from harness import killed_ingest
from harness.ingest_world import EVENT_TIME, IngestWorld, assert_stores_agree, made_rows, newest_by_entity
from harness.servers import running_valkey

DEATHS = int(os.environ.get("SKEWLESS_TEST_INGEST_DEATHS", "12"))
SEED = int(os.environ.get("SKEWLESS_TEST_INGEST_SEED", "11"))
BATCHES = 5 + 2 * DEATHS
TIMEOUT_S = 120.0 + 6.0 * DEATHS


def test_whatever_is_killed_every_accepted_row_is_in_both_stores_once(
    tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    with running_valkey(tmp_path) as valkey, closing(IngestWorld.made(tmp_path, valkey.url)) as world:
        command = [sys.executable, "-P", killed_ingest.__file__]
        arguments = [str(tmp_path), world.url, valkey.url, str(SEED), str(BATCHES), str(DEATHS)]
        paths = os.pathsep.join([str(pytestconfig.rootpath / "tests"), str(pytestconfig.rootpath / "platform")])
        done = subprocess.run(
            [*command, *arguments],
            env={**os.environ, "PYTHONPATH": paths},
            timeout=TIMEOUT_S,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert int(done.stdout) > DEATHS // 2, f"seed {SEED}: only {done.stdout} of {DEATHS} forks were killed"
        sent = [row for rows in made_rows(SEED, BATCHES, 160) for row in rows]
        # Of rows of one batch, entity and event time the last one stays.
        expected = {
            (row["label"].partition("/")[0], row["shop"], row["user"], row[EVENT_TIME]): row["label"] for row in sent
        }
        offline = world.offline()
        assert sorted(row["label"] for row in offline) == sorted(expected.values())
        assert len(newest_by_entity(offline)) == len({(row["shop"], row["user"]) for row in sent})
        assert_stores_agree(world)
        assert [each.state for each in world.batches.batches(limit=1_000) if each.state != "done"] == []
