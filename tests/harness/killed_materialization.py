"""Materializations that are killed with SIGKILL at a step of theirs, gone on with, and compared with a naive twin.

A process of its own, so that forks begin without threads: it loads what a run needs and does nothing itself. A step is
each exchange with the online store, before it and after it, each statement of the database, each commit, before and
after, and each record that Feast would keep. Prints one JSON line per trial.

    python -m harness.killed_materialization URL FOLDER REGISTRY SEED TRIALS
"""

import json
import os
import random
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import event

from harness.materialize_world import FeastRecord, MaterializeWorld, Row, drawn_rows, newest
from skewless.adapters.redis_blocking_store import BlockingRedisOnlineStore
from skewless.features.online_store import Reply
from skewless.registry.database import engine
from skewless.registry.leases import Leases

STATIONS, ROWS, PART_ROWS, UNTIL = 2_500, 4_000, 1_500, 1_000
FIRST, SECOND = 600, 1_100
"""Moments of the runs, in seconds."""


class Steps:
    """Counts steps, and kills the process at one of them; threads may share it."""

    def __init__(self, kill_at: int) -> None:
        self._kill_at = kill_at
        self._lock = threading.Lock()
        self.count = 0

    def __call__(self, *_: object) -> None:
        """One step."""
        with self._lock:
            if self.count == self._kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            self.count += 1


class SteppingStore(BlockingRedisOnlineStore):
    """A store whose exchanges are steps."""

    def __init__(self, url: str, steps: Steps) -> None:
        super().__init__(url)
        self._steps = steps

    def read(self, keys: Sequence[bytes], commands: Sequence[bytes], *, timeout_s: float) -> list[Reply]:
        """A step before and after."""
        self._steps()
        replies = super().read(keys, commands, timeout_s=timeout_s)
        self._steps()
        return replies

    def done(self, commands: Sequence[bytes], *, timeout_s: float) -> list[bool] | None:
        """A step before and after."""
        self._steps()
        done = super().done(commands, timeout_s=timeout_s)
        self._steps()
        return done


class SteppingRecord(FeastRecord):
    """Feast's record as a step."""

    def __init__(self, steps: Steps) -> None:
        super().__init__()
        self._steps = steps

    def record_materialization(self, view: str, as_of: int) -> None:
        """A step before."""
        self._steps()
        super().record_materialization(view, as_of)


def _opened(arguments: tuple[str, Path], project: str, steps: Steps) -> MaterializeWorld:
    url, folder = arguments
    database = engine(f"sqlite:///{folder}/{project}.db")
    for name in ("before_cursor_execute", "commit"):
        event.listen(database, name, steps)
    world = MaterializeWorld(url, project, folder / f"{project}.parquet", database)
    world.open_store = lambda address: SteppingStore(address, steps)
    world.feast = SteppingRecord(steps)
    return world


def _forked(act: Callable[[], Any]) -> Any:
    """What a fork of this process returned, as plain data; None where it was killed."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.write(write, json.dumps(act()).encode())
            status = 0
        except Exception:  # noqa: BLE001  # a process ends here, and says why
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(write)
    with os.fdopen(read, "rb") as answers:
        answer = answers.read()
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return None
    assert os.WEXITSTATUS(status) == 0, "the fork failed, and its trace is above"
    return json.loads(answer)


def _arrive(arguments: tuple[str, Path], project: str, rows: list[Row]) -> None:
    _opened(arguments, project, Steps(-1)).arrive(rows)


def _ran(arguments: tuple[str, Path], project: str, rows: list[Row], as_of: int, kill_at: int = -1) -> int | None:
    """Steps of a whole run; None where it was killed. Whoever was killed before has lost its lease by now."""

    def act() -> int:
        steps = Steps(-1)
        world = _opened(arguments, project, steps)
        world.rows = rows
        leases = Leases(world.engine)
        if (left := leases.holder("view:weather")) is not None:
            leases.release(left)
        steps = Steps(kill_at)
        world = _opened(arguments, project, steps)
        world.run(as_of, part_rows=PART_ROWS, verify_rows=20)
        return steps.count

    found: int | None = _forked(act)
    return found


def _found(arguments: tuple[str, Path], project: str, rows: list[Row], as_of: int) -> dict[str, Any]:
    """What is online against what should be, and what the records say."""

    def act() -> dict[str, Any]:
        world = _opened(arguments, project, Steps(-1))
        stations = sorted({row.station for row in rows})
        online = world.online(stations)
        expected = {station: (row.happened, row.values) for station, row in newest(rows, as_of).items()}
        wrong = [station for station in stations if online.get(station) != expected.get(station)]
        with closing(world.records) as records:
            runs = records.runs("weather", limit=100)
            watermark = records.watermark("weather")
        return {
            "stations": len(expected),
            "wrong": wrong[:5],
            "states": [run.state.value for run in runs],
            "unfinished": sum(run.state.value == "running" for run in runs),
            "new": sum(run.new_rows for run in runs),
            "run": watermark and watermark.run_id == runs[0].id,
        }

    found: dict[str, Any] = _forked(act)
    return found


def main() -> None:
    """See the module."""
    url, folder, registry, seed, trials = sys.argv[1], Path(sys.argv[2]), *sys.argv[3:6]
    rng = random.Random(int(seed))
    arguments = (url, folder)
    for trial in range(int(trials)):
        project = f"killed{seed}x{trial}"
        shutil.copy(registry, folder / f"{project}.db")
        rows = sorted(drawn_rows(rng, ROWS, stations=STATIONS, until=UNTIL), key=lambda row: row.known)
        known = [row for row in rows if row.known <= FIRST]
        killed: list[int] = []
        for as_of, some in ((FIRST, known), (SECOND, rows)):
            _forked(partial(_arrive, arguments, project, some))
            steps = rng.randrange(120)
            while (count := _ran(arguments, project, some, as_of, kill_at=steps)) is None:
                killed.append(steps)
                steps = rng.randrange(120) if len(killed) % 3 else 10_000
            assert count > 0
        sys.stdout.write(json.dumps({"killed": killed, **_found(arguments, project, rows, SECOND)}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
