"""What a source holds, out of footers and few row groups: the same as by reading all of it, at every moment."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from skewless.adapters.freshness_source import SourceReader
from skewless.dtypes import Dtype
from skewless.features.arrivals import arrivals_of, cadence_of
from skewless.features.contract import JoinKey
from skewless.features.point_in_time import OfflineSource, SourceForm
from skewless.timestamps import DAY_US, HOUR_US, MINUTE_US, parse_timestamp

START = int(parse_timestamp("2026-03-01"))
STATION = (JoinKey("station", Dtype.STRING),)
_UTC = pa.timestamp("us", tz="UTC")
Rows = list[tuple[str | None, int | None, int | None]]


def source(path: Path, *, created: bool = True, form: SourceForm = SourceForm.PARQUET) -> OfflineSource:
    return OfflineSource("weather", str(path), "happened", "known" if created else None, form=form)


def table(rows: Rows, unit: str = "us") -> pa.Table:
    kind = pa.timestamp(unit, tz="UTC")
    return pa.table(
        {
            "station": pa.array([row[0] for row in rows], pa.string()),
            "happened": pa.array([row[1] for row in rows], _UTC).cast(kind),
            "known": pa.array([row[2] for row in rows], _UTC).cast(kind),
        }
    )


def random_rows(chance: random.Random, count: int) -> Rows:
    """Late rows, rows of the future, nulls."""
    rows: Rows = []
    for _ in range(count):
        event = START + chance.randrange(20 * DAY_US) // 1_000 * 1_000
        known = event + chance.choice([0, HOUR_US, 3 * DAY_US, -HOUR_US])
        rows.append(
            (
                chance.choice(["a", "b", "c", None]),
                None if chance.random() < 0.02 else event,
                None if chance.random() < 0.02 else known,
            )
        )
    return sorted(rows, key=lambda row: row[1] or 0) if chance.random() < 0.5 else rows


def naive(rows: Rows, as_of: int) -> tuple[int | None, int | None, list[int]]:
    known = [(event, seen) for _, event, seen in rows if seen is None or seen <= as_of]
    events = [event for event, _ in known if event is not None and event <= as_of]
    seen = [seen for _, seen in known if seen is not None]
    return max(events, default=None), max(seen, default=None), seen


@pytest.mark.parametrize("seed", range(12))
def test_ages_are_those_of_a_naive_twin_at_every_moment(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    unit = ("us", "ms", "ns")[seed % 3]
    rows: Rows = []
    for number in range(chance.randrange(1, 4)):
        part = random_rows(chance, chance.randrange(1, 300))
        rows += part
        statistics = chance.random() < 0.8
        pq.write_table(
            table(part, unit), tmp_path / f"{number}.parquet", row_group_size=40, write_statistics=statistics
        )
    reader = SourceReader(source(tmp_path), STATION)
    for _ in range(8):
        as_of = START + chance.randrange(-DAY_US, 25 * DAY_US)
        event, seen, arrived = naive(rows, as_of)
        found = reader.look(as_of)
        assert (found.newest_event, found.newest_created, found.problem) == (event, seen, "")
        expected = cadence_of(arrivals_of(np.array(arrived, dtype=np.int64)), as_of) if arrived else None
        if expected is None or found.cadence is None:
            assert found.cadence is None or len({each // (5 * MINUTE_US) for each in arrived}) >= 4
        else:
            assert found.cadence.silent_us == expected.silent_us


def test_a_source_without_created_times_is_known_as_it_happens(tmp_path: Path) -> None:
    rows: Rows = [("a", START + hour * HOUR_US, None) for hour in range(240)]
    pq.write_table(table(rows), tmp_path / "weather.parquet")
    found = SourceReader(source(tmp_path / "weather.parquet", created=False), STATION).look(START + 100 * HOUR_US + 5)
    assert found.newest_event == found.newest_created == START + 100 * HOUR_US
    assert found.cadence is not None
    assert found.cadence.typical_us == HOUR_US


def test_what_has_not_changed_is_not_read_again_and_what_has_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    original = pq.ParquetFile

    def counting(path: Path, **options: Any) -> Any:
        opened.append(Path(path).name)
        return original(path, **options)

    rows: Rows = [("a", START + hour * HOUR_US, START + hour * HOUR_US) for hour in range(240)]
    for number in range(3):
        pq.write_table(table(rows[80 * number : 80 * number + 80]), tmp_path / f"{number}.parquet", row_group_size=20)
    monkeypatch.setattr(pq, "ParquetFile", counting)
    reader = SourceReader(source(tmp_path), STATION)
    as_of = START + 300 * HOUR_US
    first = reader.look(as_of)
    assert first.newest_event == START + 239 * HOUR_US
    entities = reader.entities(as_of)
    opened.clear()
    assert reader.look(as_of + HOUR_US) == reader.look(as_of + HOUR_US)
    assert opened == []
    assert reader.entities(as_of + HOUR_US) == entities
    assert set(opened) <= {"0.parquet"}, "whether it has the keys"
    opened.clear()
    pq.write_table(table([("b", as_of, as_of)]), tmp_path / "3.parquet")
    (tmp_path / "0.parquet").unlink()
    second = reader.look(as_of + HOUR_US)
    assert (second.newest_event, second.rows) == (as_of, 161)
    assert set(opened) == {"3.parquet"}
    assert reader.entities(as_of + HOUR_US) != entities, "b is new"


def test_the_future_of_a_replay_is_not_told_and_costs_few_row_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: Rows = [("a", START + minute * MINUTE_US, START + minute * MINUTE_US) for minute in range(20_000)]
    pq.write_table(table(rows), tmp_path / "weather.parquet", row_group_size=1_000)
    reader = SourceReader(source(tmp_path / "weather.parquet"), STATION)
    reader.look(START + 20 * DAY_US)
    read: list[int] = []
    original = SourceReader._batches

    def counting(self: SourceReader, group: Any, columns: Any) -> Any:
        read.append(group.index)
        return original(self, group, columns)

    monkeypatch.setattr(SourceReader, "_batches", counting)
    as_of = START + 10_500 * MINUTE_US
    found = reader.look(as_of)
    assert (found.newest_event, found.newest_created) == (as_of, as_of)
    assert read == [10, 10], "its row group alone, once for each"


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("nowhere.parquet", "is not there"),
        ("torn.parquet", "cannot be read"),
        ("other.parquet", "has no column `happened`"),
        ("dates.parquet", "is no timestamp"),
        ("s3://bucket/rows", "lies in a bucket"),
    ],
)
def test_a_source_that_cannot_be_read_is_told_and_raises_nothing(tmp_path: Path, path: str, told: str) -> None:
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 and no more")
    pq.write_table(pa.table({"x": [1]}), tmp_path / "other.parquet")
    pq.write_table(pa.table({"station": ["a"], "happened": [1], "known": [1]}), tmp_path / "dates.parquet")
    where = path if "://" in path else str(tmp_path / path)
    reader = SourceReader(OfflineSource("weather", where, "happened", "known"), STATION)
    assert told in reader.look(START).problem
    assert reader.entities(START).evenly == ()


def test_an_empty_source_has_no_age(tmp_path: Path) -> None:
    pq.write_table(table([]), tmp_path / "weather.parquet")
    found = SourceReader(source(tmp_path / "weather.parquet"), STATION).look(START)
    assert (found.newest_event, found.newest_created, found.cadence, found.problem) == (None, None, None, "")


def test_entities_lie_evenly_over_the_source_and_come_from_rows_that_were_known(tmp_path: Path) -> None:
    count = 60_000
    rows: Rows = [(f"s{number}", START + number * 1_000_000, START + number * 1_000_000) for number in range(count)]
    pq.write_table(table(rows), tmp_path / "weather.parquet", row_group_size=2_000)
    reader = SourceReader(source(tmp_path / "weather.parquet"), STATION)
    as_of = START + 30_000 * 1_000_000
    found = reader.entities(as_of)
    numbers = sorted(int(str(key[0])[1:]) for key in found.evenly)
    assert 300 < len(numbers) <= 1_000
    assert numbers[-1] <= 30_000
    assert max(np.diff(numbers)) < 6_000, "no part of the time is left out"
    newest = sorted(int(str(key[0])[1:]) for key in found.newest)
    assert newest == list(range(30_001 - len(newest), 30_001))
    assert len(newest) == 200


def test_keys_of_several_columns_under_other_names_come_in_order(tmp_path: Path) -> None:
    rows = pa.table(
        {
            "nr": pa.array([1, 2, None], pa.int32()),
            "place": ["x", "y", "z"],
            "happened": pa.array([START] * 3, _UTC),
            "known": pa.array([START] * 3, _UTC),
        }
    )
    pq.write_table(rows, tmp_path / "leg.parquet")
    renamed = (("line", "nr"), ("station", "place"))
    leg = OfflineSource("leg", str(tmp_path / "leg.parquet"), "happened", "known", columns=renamed)
    keys = (JoinKey("station", Dtype.STRING), JoinKey("line", Dtype.INT64))
    found = SourceReader(leg, keys).entities(START)
    assert sorted(found.evenly) == sorted(found.newest) == [("x", 1), ("y", 2)]
