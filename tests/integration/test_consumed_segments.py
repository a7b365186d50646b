"""The ledger of consumed segments, on SQLite and PostgreSQL: rows are taken once, by whichever parts they come."""

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import text

from skewless.errors import Conflict, Unavailable
from skewless.registry import database
from skewless.registry.consumed_segments import ConsumedSegments, DeliveredRows
from skewless.registry.row_ranges import RowRange
from skewless.timestamps import SECOND_US, Micros

GROUP = "drift"


class Clock:
    """A clock that stands still."""

    def __init__(self) -> None:
        self.now = Micros(1_000 * SECOND_US)

    def __call__(self) -> Micros:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(registry_url: str, clock: Clock) -> Iterator[ConsumedSegments]:
    kept = ConsumedSegments(database.engine(registry_url), clock=clock)
    yield kept
    kept.close()


def delivered(
    number: int, first: int = 0, end: int = 10, *, rows: int = 10, table: str = "outcomes//a"
) -> DeliveredRows:
    return DeliveredRows(f"segment-{number:03d}", "shipper", number, rows, table, first, end)


def take(ledger: ConsumedSegments, rows: DeliveredRows, group: str = GROUP) -> tuple[RowRange, ...]:
    with ledger.taking(group, rows) as taking:
        return taking.ranges


def test_rows_are_taken_once_however_the_segment_is_cut(ledger: ConsumedSegments) -> None:
    drawn = random.Random(3)
    taken: list[int] = []
    for _ in range(60):
        first = drawn.randrange(100)
        end = drawn.randint(first + 1, 100)
        taken += [row for part in take(ledger, delivered(1, first, end, rows=100)) for row in range(*part)]
    taken += [row for part in take(ledger, delivered(1, 0, 100, rows=100)) for row in range(*part)]
    assert sorted(taken) == list(range(100))
    assert list(ledger.missed(GROUP, ["segment-001"])) == []


def test_groups_and_tables_of_a_segment_are_apart(ledger: ConsumedSegments) -> None:
    assert take(ledger, delivered(1, rows=20)) == ((0, 10),)
    assert take(ledger, delivered(1, rows=20, table="tallies//b")) == ((0, 10),)
    assert take(ledger, delivered(1, rows=20), group="quality") == ((0, 10),)
    assert [each.segment for each in ledger.missed("quality", ["segment-001", "segment-002"])] == [
        "segment-001",
        "segment-002",
    ]
    assert list(ledger.missed(GROUP, ["segment-001"])) == []


def test_an_effect_that_fails_leaves_its_rows_to_be_taken(ledger: ConsumedSegments) -> None:
    with pytest.raises(RuntimeError), ledger.taking(GROUP, delivered(1)):
        raise RuntimeError("not today")
    assert take(ledger, delivered(1)) == ((0, 10),)
    assert take(ledger, delivered(1)) == ()


def test_members_that_take_the_same_rows_at_once_have_one_effect(ledger: ConsumedSegments, registry_url: str) -> None:
    started = threading.Barrier(4)

    def contend(number: int) -> int:
        started.wait()
        won = 0
        for segment in range(1, 13):
            for first in (0, 5):
                while True:
                    try:
                        won += sum(
                            end - begin
                            for begin, end in take(ledger, delivered(segment, first, first + 5 + number % 2, rows=11))
                        )
                        break
                    except (Conflict, Unavailable):  # as a consumer does, which tries again
                        continue
        return won

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(contend, range(4))) == 12 * 11


def test_a_gap_is_told_with_the_segment_behind_it_and_stays_known(ledger: ConsumedSegments) -> None:
    for number in (2, 3, 7):
        with ledger.taking(GROUP, delivered(number)) as taking:
            gap = taking.gap
    assert gap is not None
    assert (gap.source, gap.first, gap.last, gap.after, gap.before) == ("shipper", 4, 6, "segment-003", "segment-007")
    assert ledger.gaps(GROUP) == (gap,)
    with ledger.taking(GROUP, delivered(7)) as taking:
        assert taking.gap is None, "told once"
    for number in (4, 5, 6):
        take(ledger, delivered(number))
    assert ledger.gaps(GROUP) == ()


def test_a_segment_that_is_settled_is_not_taken_from_the_stream_any_more(ledger: ConsumedSegments) -> None:
    take(ledger, delivered(1))
    take(ledger, delivered(3, 0, 4))
    take(ledger, delivered(4))
    for number, taken in ((2, {}), (3, {"outcomes//a": ((0, 4),)})):
        with ledger.settling(GROUP, f"segment-{number:03d}") as settling:
            assert not settling.is_settled
            assert settling.taken == taken
        with ledger.settling(GROUP, f"segment-{number:03d}") as settling:
            assert settling.is_settled
        assert take(ledger, delivered(number)) == ()
    assert ledger.gaps(GROUP) == ()
    assert list(ledger.missed(GROUP, [f"segment-{number:03d}" for number in range(1, 5)])) == []


def test_a_settling_that_fails_leaves_the_segment_missed(ledger: ConsumedSegments) -> None:
    with pytest.raises(RuntimeError), ledger.settling(GROUP, "segment-001"):
        raise RuntimeError("not today")
    assert take(ledger, delivered(1)) == ((0, 10),)


def test_what_no_stream_can_deliver_again_is_forgotten_but_for_the_newest_of_a_source(
    ledger: ConsumedSegments, clock: Clock, registry_url: str
) -> None:
    for number in range(1, 6):
        take(ledger, delivered(number))
    with ledger.settling(GROUP, "elsewhere"):
        pass
    take(ledger, delivered(1), group="quality")
    clock.now = Micros(clock.now + 100 * SECOND_US)
    assert ledger.forget(GROUP, keep_s=101) == 0
    assert ledger.forget(GROUP, keep_s=99) == 5
    assert ledger.forget(GROUP, keep_s=99) == 0
    engine = database.engine(registry_url)
    with engine.connect() as connection:
        kept = connection.execute(text("SELECT group_name, segment FROM consumed_segments ORDER BY 1")).all()
    engine.dispose()
    assert [tuple(row) for row in kept] == [(GROUP, "segment-005"), ("quality", "segment-001")]
    with ledger.taking(GROUP, delivered(8)) as taking:
        assert taking.gap is not None, "a gap behind what was forgotten is noticed"


def test_a_database_that_is_away_is_unavailable_and_nothing_is_taken(tmp_path: Path) -> None:
    kept = ConsumedSegments(database.engine(f"sqlite:///{tmp_path / 'none.db'}"))
    with pytest.raises(Unavailable, match="registry database"), kept.taking(GROUP, delivered(1)):
        pytest.fail("there is no transaction")
    kept.close()
