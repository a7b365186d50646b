"""A real gateway whose disk is full, or whose spool holds all that it may: refused or dropped, and nothing lost."""

import re
import resource
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness import http_calls
from harness.bundles import instance
from harness.faults import short_of
from harness.gateways import ENDPOINT
from harness.log_batches import kept_ids
from harness.machines import AS_OF, Machine, running_machine
from harness.servers import wait_until
from skewless.adapters.spool import SPOOL, sealed_segments
from skewless.limits import LOG_BUFFER_ROWS_MAX, ROWS_MAX

MIB = 1024 * 1024


@contextmanager
def served(folder: Path, **settings: str) -> Iterator[Machine]:
    """A gateway that runs its model itself, and answers."""
    with running_machine(folder, tritons=0, TRITON="in-process", **settings) as machine:
        machine.serve(0)
        yield machine


def predicted(machine: Machine, rows: int, *, origin: str = "JFK") -> list[str]:
    """Ids of the predictions of one request; empty where it was refused for want of room in the log."""
    body = {"instances": [instance(origin=origin)] * rows, "options": {"as_of": AS_OF}}
    response = http_calls.post(f"{machine.url}/v1/endpoints/{ENDPOINT}/predict", json=body, timeout=60)
    if response.status_code != 200:
        assert (response.status_code, response.json()["code"]) == (503, "unavailable"), response.text
        assert "prediction log" in response.json()["detail"]
        return []
    return list(response.json()["prediction_ids"])


def metric(machine: Machine, name: str) -> float:
    """The sum of a metric's series."""
    lines = [line for line in machine.metrics().splitlines() if re.match(rf"{name}[ {{]", line)]
    return sum(float(line.split()[-1]) for line in lines)


def ship(machine: Machine, away: Path) -> None:
    """What a shipper does to the spool: sealed segments leave it."""
    (away / SPOOL).mkdir(parents=True, exist_ok=True)
    for path in sealed_segments(machine.log / SPOOL):
        path.rename(away / SPOOL / path.name)


def test_a_spool_that_nobody_ships_refuses_at_its_bound_and_goes_on_when_somebody_does(tmp_path: Path) -> None:
    settings = {"LOG_FSYNC": "true", "LOG_SEGMENT_AGE_S": "0.2", "LOG_SPOOL_BYTES_MAX": str(MIB)}
    away = tmp_path / "shipped"
    answered: list[str] = []
    with served(tmp_path, **settings) as machine:
        first = machine.predict().json()["prediction_ids"]
        for _ in range(3):
            while found := predicted(machine, 100, origin="x" * 1_000):
                answered += found
            assert http_calls.get(f"{machine.url}/readyz", timeout=10).status_code == 503
            assert metric(machine, "skewless_prediction_log_failing") == 1
            used = sum(path.stat().st_size for path in (machine.log / SPOOL).iterdir())
            assert MIB <= used < 2 * MIB
            wait_until(lambda: len(sealed_segments(machine.log / SPOOL)) > 0, "there is something to ship")

            def is_ready() -> bool:
                ship(machine, away)
                return http_calls.get(f"{machine.url}/readyz", timeout=10).status_code == 200

            wait_until(is_ready, "it recovers by itself")
            assert metric(machine, "skewless_prediction_log_dropped_rows_total") == 0
        assert machine.stop("gateway") == 0
        ship(machine, away)
    kept = Counter(kept_ids(away))
    assert set(kept.values()) == {1}
    assert {*first, *answered} <= kept.keys()
    assert len(answered) > 1_500, "it answered meanwhile"


def test_where_records_may_be_dropped_a_full_disk_refuses_nobody_and_every_row_is_kept_or_counted(
    tmp_path: Path,
) -> None:
    with served(tmp_path, LOG_WHEN_FULL="drop", LOG_FLUSH_MS="20") as machine:
        before = metric(machine, "skewless_rows_total")
        answered = []
        with short_of(machine.processes["gateway"].pid, resource.RLIMIT_FSIZE, 1):
            for _ in range(LOG_BUFFER_ROWS_MAX // ROWS_MAX + 3):
                answered += predicted(machine, ROWS_MAX)
            assert len(answered) == LOG_BUFFER_ROWS_MAX + 3 * ROWS_MAX, "everybody was answered"
            dropped = metric(machine, "skewless_prediction_log_dropped_rows_total")
            assert metric(machine, "skewless_prediction_log_buffered_rows") <= LOG_BUFFER_ROWS_MAX
            assert dropped >= 2 * ROWS_MAX
        wait_until(lambda: metric(machine, "skewless_prediction_log_failing") == 0, "it recovers by itself")
        answered += predicted(machine, 7)
        assert machine.stop("gateway") == 0
        kept = Counter(kept_ids(machine.log))
    assert set(kept.values()) == {1}
    assert len(kept) == before + len(answered) - dropped
    assert set(answered[-7:]) <= kept.keys()
