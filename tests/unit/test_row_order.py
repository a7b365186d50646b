"""The one order of rows: which of two counts, which of many wins, and what the store keeps to tell them apart."""

import random
from dataclasses import replace

import duckdb
import numpy as np
import pytest

from skewless.dtypes import Dtype
from skewless.features.contract import FeatureField, JoinKey, ViewRead
from skewless.features.row_order import (
    NO_CREATED_TIME,
    Times,
    created_times_of,
    layout_of,
    newer,
    newest_first_sql,
    row_time_field,
    standing,
    stored_row_times,
    winners,
)

VIEW = ViewRead("weather", (JoinKey("station", Dtype.STRING),), 0, (FeatureField("temp", Dtype.FLOAT32),))
LAYOUT = layout_of(VIEW)


def _times(*values: int) -> Times:
    return np.array(values, dtype=np.int64)


def _drawn(rng: random.Random, rows: int) -> list[tuple[str, int, int]]:
    """Few entities and few times, so that ties of every kind occur; some created times are not known."""
    created = [NO_CREATED_TIME, 1, 2, 3]
    return [(rng.choice("abc"), rng.randrange(3), rng.choice(created)) for _ in range(rows)]


def _both_times(rows: list[tuple[str, int, int]]) -> tuple[Times, Times]:
    return _times(*(each[1] for each in rows)), _times(*(each[2] for each in rows))


@pytest.mark.parametrize("seed", range(20))
def test_the_row_that_wins_is_the_one_that_a_naive_search_finds(seed: int) -> None:
    rows = _drawn(random.Random(seed), seed)
    best: dict[str, int] = {}
    for place, (entity, *times) in enumerate(rows):
        if entity not in best or times >= list(rows[best[entity]][1:]):
            best[entity] = place
    entities, events, created = [each[0] for each in rows], *_both_times(rows)
    assert winners(entities, events, created).tolist() == sorted(best.values())


@pytest.mark.parametrize("seed", range(10))
def test_sql_and_arrays_have_the_same_order(seed: int) -> None:
    rows = _drawn(random.Random(seed), 30)
    listed = ", ".join(
        f"({place}, '{entity}', {event}, {'NULL' if created == NO_CREATED_TIME else created})"
        for place, (entity, event, created) in enumerate(rows)
    )
    order = newest_first_sql(event_time="event", created_time="created")
    with duckdb.connect() as connection:
        found = connection.execute(
            f"SELECT place FROM (VALUES {listed}) rows(place, entity, event, created) "
            f"QUALIFY row_number() OVER (PARTITION BY entity ORDER BY {order}, place DESC) = 1 ORDER BY place"
        ).fetchall()
    entities, events, created = [each[0] for each in rows], *_both_times(rows)
    assert [place for (place,) in found] == winners(entities, events, created).tolist()


def test_a_row_is_never_newer_than_itself_and_of_two_that_differ_one_is() -> None:
    rng = random.Random(7)
    rows = _drawn(rng, 200)
    mine, its = rows[:100], rows[100:]
    a, b = _both_times(mine), _both_times(its)
    assert not newer(*a, *a).any()
    equal = np.array([one[1:] == other[1:] for one, other in zip(mine, its, strict=True)])
    assert ((newer(*a, *b) ^ newer(*b, *a)) == ~equal).all()


def test_every_row_has_exactly_one_standing_and_ties_are_settled_by_what_is_stored() -> None:
    events, created = _times(5, 5, 5, 5, 4, 5), _times(1, 3, 2, 2, 9, 2)
    stored = (_times(-1, 5, 5, 5, 5, 5), _times(NO_CREATED_TIME, 2, 2, 2, 2, 3))
    absent = np.array([True, False, False, False, False, False])
    equal = np.array([False, True, True, False, True, True])
    stood = standing((events, created), stored, absent=absent, equal=equal)
    told = {"new": stood.new, "replaced": stood.replaced, "same": stood.same, "older": stood.older}
    assert [[name for name, mask in told.items() if mask[row]] for row in range(6)] == [
        ["new"], ["replaced"], ["same"], ["replaced"], ["older"], ["older"],
    ]  # fmt: skip
    assert stood.written.tolist() == [True, True, False, True, False, False]


def test_stored_times_are_read_back_and_say_nothing_about_another_row() -> None:
    events, created = _times(1_700_000_000_000_001, 0, -5), _times(1_700_000_000_000_002, NO_CREATED_TIME, 7)
    items: list[bytes | None] = [*stored_row_times(events, created, LAYOUT)]
    assert [len(each) for each in items if each is not None] == [20, 20, 20]
    read, same_layout = created_times_of(items, events, LAYOUT)
    assert (read.tolist(), same_layout.tolist()) == (created.tolist(), [True] * 3)

    read, same_layout = created_times_of(items, events + 1, LAYOUT)  # Feast wrote a later row and left the field
    assert (set(read.tolist()), set(same_layout.tolist())) == ({NO_CREATED_TIME}, {False})
    read, same_layout = created_times_of([None, b"", b"short"], events, LAYOUT)
    assert (set(read.tolist()), set(same_layout.tolist())) == ({NO_CREATED_TIME}, {False})


def test_another_definition_has_another_layout_and_order_of_features_none() -> None:
    two = replace(VIEW, features=(FeatureField("temp", Dtype.FLOAT32), FeatureField("wind", Dtype.INT64)))
    others = [
        two,
        replace(VIEW, features=(FeatureField("temp", Dtype.FLOAT64),)),
        replace(VIEW, features=(FeatureField("temp", Dtype.STRING, feast_type="Json"),)),
        replace(VIEW, features=(FeatureField("temp", Dtype.STRING),)),
    ]
    assert len({LAYOUT, *(layout_of(each) for each in others)}) == 5
    assert layout_of(replace(two, features=two.features[::-1])) == layout_of(two)
    items = stored_row_times(_times(1), _times(2), layout_of(two))
    read, same_layout = created_times_of([*items], _times(1), LAYOUT)
    assert (read.tolist(), same_layout.tolist()) == ([2], [False])


def test_the_field_is_none_of_feasts() -> None:
    assert row_time_field("weather") == b"_rt:weather"
    assert len(row_time_field("")) != 4 or not row_time_field("")[4:]
    assert not row_time_field("weather").startswith(b"_ts:")
