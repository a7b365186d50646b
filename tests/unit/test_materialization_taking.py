"""Which rows a materialization takes: the decision, its SQL, and the gate's filter, against each other and a twin."""

import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness.materialize_world import VIEW, Row, drawn_rows, micros, newest, table_of
from skewless.adapters.known_rows import KnownRows
from skewless.adapters.materialization_rows import TakenRows
from skewless.canonical_json import digest
from skewless.dtypes import to_python
from skewless.features.materialization import (
    ASKED_FOR,
    EARLIER,
    EVERYTHING,
    FIRST_RUN,
    OTHER_DEFINITION,
    OTHER_STORE,
    SINCE,
    Asked,
    Bounds,
    Kind,
    Taking,
    Watermark,
    taking,
)
from skewless.features.point_in_time import OfflineSource

DEFINITION = digest("definition")
WATERMARK = Watermark("weather", "run", as_of=100, created_time=90, event_time=80, definition=DEFINITION)


def _taking(asked: Asked, watermark: Watermark | None = WATERMARK, *, definition: str = "", run: str = "run") -> Taking:
    return taking(
        asked, watermark, definition=digest(definition) if definition else DEFINITION, stored_run=run, overlap_us=10
    )


def test_a_run_is_incremental_only_where_that_is_right_and_says_why_it_is_not() -> None:
    assert _taking(Asked(200)) == Taking(Kind.INCREMENTAL, SINCE, 200, Bounds(80, 100))
    assert _taking(Asked(100)).kind is Kind.INCREMENTAL
    for found, reason in (
        (_taking(Asked(200), None), FIRST_RUN),
        (_taking(Asked(200, full=True)), ASKED_FOR),
        (_taking(Asked(200), definition="another"), OTHER_DEFINITION),
        (_taking(Asked(200), run="another"), OTHER_STORE),
        (_taking(Asked(99)), EARLIER),
    ):
        assert (found.kind, found.reason, found.bounds) == (Kind.FULL, reason, EVERYTHING)
    span = _taking(Asked(200, from_time=5))
    assert (span.kind, span.bounds) == (Kind.BACKFILL, Bounds(from_time=5))
    assert _taking(Asked(200)).told == (
        "incremental: rows known since the last run, created after 1970-01-01T00:00:00.000080Z"
    )


def _bounds(rng: random.Random) -> Bounds:
    def some() -> int | None:
        return rng.choice([None, micros(rng.randrange(100))])

    return Bounds(some(), some(), some(), some())


def _within(row: Row, bounds: Bounds, known: int) -> bool:
    """The rule, said once more."""
    since = [
        time > bound
        for time, bound in ((known, bounds.since_created_time), (micros(row.happened), bounds.since_event_time))
        if bound is not None
    ]
    after = bounds.from_time is None or micros(row.happened) >= bounds.from_time
    before = bounds.to_time is None or micros(row.happened) < bounds.to_time
    return (not since or any(since)) and after and before


@pytest.mark.parametrize("created", ["known", None])
@pytest.mark.parametrize("seed", range(8))
def test_a_run_takes_what_the_twin_takes_and_the_gate_sees_all_of_it(
    tmp_path: Path, seed: int, created: str | None
) -> None:
    rng = random.Random(seed)
    rows = drawn_rows(rng, 200, stations=30, until=100)
    path = tmp_path / "weather.parquet"
    pq.write_table(table_of(rows), path)
    source = OfflineSource("weather", str(path), "happened", created)
    if created is None:
        rows = [row._replace(known=row.happened) for row in rows]
    for _ in range(3):
        as_of, bounds = rng.randrange(120), _bounds(rng)
        taken = [row for row in rows if _within(row, bounds, micros(row.known))]
        visible = [row for row in taken if max(row.happened, row.known) <= as_of]
        found: dict[str, int] = {}
        with TakenRows(VIEW, source, Taking(Kind.INCREMENTAL, "", micros(as_of), bounds)) as reader:
            summary = reader.summary()
            for part in range(3):
                for batch in reader.part(part, 3):
                    stations = to_python(batch.keys["station"])
                    assert not found.keys() & set(stations), "each entity is in one part"
                    found |= zip(stations, batch.values["wind"].values.tolist(), strict=True)  # type: ignore[arg-type]
            sampled = reader.sample(7, entities=summary.entities, parts=range(3), seed=seed)
            sample = to_python(sampled.keys["station"])
        assert found == {station: row.wind for station, row in newest(visible, as_of).items()}
        assert summary.rows == len(visible)
        assert summary.newest_event_time == max((micros(row.happened) for row in visible), default=None)
        assert summary.newest_created_time == max((micros(row.known) for row in visible), default=None)
        assert len(sample) == len(set(sample)) <= 7
        winds = sampled.values["wind"].values.tolist()
        assert dict(zip(sample, winds, strict=True)).items() <= found.items(), "each by its newest row"
        judged = [
            row
            for part in KnownRows(source, micros(as_of), bounds=bounds).parts()
            for row in part.rows["wind"].to_pylist()
        ]
        known = [row.wind for row in taken if created is None or row.known <= as_of]
        assert sorted(judged) == sorted(known)


def test_a_row_without_event_time_is_nobodys(tmp_path: Path) -> None:
    table = table_of([Row("a", 1, 1, 5), Row("b", 1, 1, 6)])
    place = table.schema.get_field_index("happened")
    happened = pa.array([None, micros(1)], pa.int64()).cast(table.schema.types[place])
    path = tmp_path / "weather.parquet"
    pq.write_table(table.set_column(place, table.schema.field(place), happened), path)
    source = OfflineSource("weather", str(path), "happened", "known")
    with TakenRows(VIEW, source, Taking(Kind.FULL, "", micros(10))) as reader:
        assert reader.summary().rows == 1
        assert [to_python(each.keys["station"]) for each in reader.part(0, 1)] == [["b"]]
