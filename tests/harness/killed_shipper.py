"""A program that kills shippers, lets the next one go on, and checks what the store has in the end.

`steps` kills at each step in turn, which is whatever CPython announces to audit hooks with a path of the log: opening,
renaming, making and removing. `moments` kills at random moments, also within a commit, until enough of them struck and
everything is shipped.
The shippers are forks of a process that never uses the store itself, so that a kill costs a fraction of a second.
Writes how many steps, or kills, there were.
"""

import random
import shutil
import sys
from collections import Counter
from pathlib import Path

from harness.killed_forks import forked
from harness.stored_logs import an_outcome, answers, stored_ids, write_segment
from skewless.adapters.log_shipping import log_shipping
from skewless.adapters.log_store import open_log_store
from skewless.adapters.log_store_sink import LogStoreSink
from skewless.adapters.log_tables import OUTCOMES, PREDICTIONS
from skewless.adapters.shipper import Shipper, Supply
from skewless.adapters.shipping import only_shipper
from skewless.adapters.spool import SPOOL, open_segments, sealed_segments
from skewless.adapters.without_pandas import leave_pandas_out
from skewless.settings import ShipperSettings

SEGMENTS = 16
KILLS = 4
"""So many shippers are killed after they have shipped something and before they have shipped all, however fast they
are."""


def kill_at_steps(root: Path, every: int) -> int:
    """The number of steps; raises AssertionError where a row is lost or there twice. Kills at one step in `every`."""
    pattern = root / "pattern"
    wanted = _fill(pattern)
    step = 0
    while True:
        folder = root / str(step)
        shutil.copytree(pattern, folder)
        if forked(lambda folder=folder: _ship(folder), kill_at=step, root=folder):  # type: ignore[misc]  # bound now
            assert forked(lambda folder=folder: _check(folder, wanted), root=folder)  # type: ignore[misc]  # as above
            return step
        assert forked(lambda folder=folder: _go_on(folder, wanted), root=folder)  # type: ignore[misc]  # as above
        shutil.rmtree(folder)
        step += every


def kill_at_moments(root: Path, seed: int) -> int:
    """The number of kills that struck a shipper at work; raises AssertionError as above."""
    random_ = random.Random(seed)
    ids: dict[str, list[str]] = {PREDICTIONS: [], OUTCOMES: []}
    kills, longest_s = 0, 0.8
    before = 0
    while kills < KILLS or before:
        if not before:
            _add_segments(root, ids)
            before = SEGMENTS
        # From before it has begun to after some of its rounds, each of which is a commit to two tables.
        is_killed = not forked(lambda: _ship_one_by_one(root), kill_after_s=longest_s * random_.uniform(0.1, 1.0))
        after = len(sealed_segments(root / SPOOL)) + len(open_segments(root / SPOOL))
        kills += is_killed and after < before
        # However fast the machine is, some kills come before the first round ends and some between two rounds.
        longest_s *= 1.5 if after == before else 0.7 if not is_killed else 1.0
        before = after
    wanted = {kind: sorted(listed) for kind, listed in ids.items()}
    assert forked(lambda: _check_rows(root, wanted))
    return kills


def _add_segments(folder: Path, ids: dict[str, list[str]]) -> None:
    """Segments, some of writers that died; what is in them is added to the ids by kind."""
    for number in range(SEGMENTS):
        batch = answers(2, endpoint=f"endpoint-{number % 3}")
        told = an_outcome(batch.prediction_ids[0], received_time=batch.as_of)
        write_segment(folder, [batch, (told,)], seal=number % 7 > 0)
        ids[PREDICTIONS] += batch.prediction_ids
        ids[OUTCOMES].append(told.outcome_id)


def _ship_one_by_one(folder: Path) -> None:
    with only_shipper(folder):
        sink = LogStoreSink(folder, open_log_store(str(folder / "store")), round_bytes=1)
        Shipper(folder, [Supply(sink)], batch_bytes=1).look(at_once=True)


def _fill(folder: Path) -> dict[str, list[str]]:
    """Two sealed segments and one of a writer that died; the ids in them by kind."""
    batches = [answers(2), answers(1, endpoint="other"), answers(3), answers(1, role="shadow")]
    told = [an_outcome(each.prediction_ids[0], received_time=each.as_of) for each in batches]
    write_segment(folder, [batches[0], batches[1], (told[0],)])
    write_segment(folder, [batches[2], tuple(told[1:])])
    write_segment(folder, [batches[3]], seal=False)
    ids = sorted(each for batch in batches for each in batch.prediction_ids)
    return {PREDICTIONS: ids, OUTCOMES: sorted(each.outcome_id for each in told)}


def _ship(folder: Path) -> None:
    with log_shipping(ShipperSettings(prediction_log=folder, round_bytes=1 << 20)) as shipping:
        assert shipping.look(at_once=True)


def _go_on(folder: Path, wanted: dict[str, list[str]]) -> None:
    _ship(folder)
    _check(folder, wanted)


def _check(folder: Path, wanted: dict[str, list[str]]) -> None:
    _check_rows(folder, wanted)
    assert sealed_segments(folder / SPOOL) == open_segments(folder / SPOOL) == []


def _check_rows(folder: Path, wanted: dict[str, list[str]]) -> None:
    store = open_log_store(str(folder / "store"))
    for kind, ids in wanted.items():
        assert stored_ids(store, kind) == ids, f"{kind}: {Counter(stored_ids(store, kind)) - Counter(ids)}"


if __name__ == "__main__":
    leave_pandas_out()
    kill = {"steps": kill_at_steps, "moments": kill_at_moments}[sys.argv[1]]
    sys.stdout.write(f"{kill(Path(sys.argv[2]), int(sys.argv[3]))}\n")
