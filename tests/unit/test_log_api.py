"""`skewless.logs`: times as people write them, and rows as Arrow, pandas, polars and files."""

import math
from datetime import UTC, datetime
from pathlib import Path

import polars
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest

from harness.logged_rows import ENDPOINT, NOW, a_batch, spool, told
from skewless.errors import InvalidRequest
from skewless.logs import Log, LogRows, OutcomeTerms, open_log
from skewless.timestamps import DAY_US, HOUR_US


@pytest.fixture
def log(tmp_path: Path) -> Log:
    batches = [a_batch(("EWR", "JFK"), as_of=NOW + day * DAY_US) for day in range(2)]
    spool(tmp_path, *batches, [told(batches[0].prediction_ids[0], after_us=2 * HOUR_US)])
    return open_log(tmp_path, terms={ENDPOINT: OutcomeTerms(label_horizon_us=HOUR_US)})


def test_moments_are_text_or_datetimes_with_a_zone(log: Log) -> None:
    assert log.predictions(ENDPOINT, since="2013-05-02").arrow().num_rows == 2
    assert log.predictions(ENDPOINT, until=datetime(2013, 5, 2, tzinfo=UTC)).arrow().num_rows == 2
    for wrong in ("tomorrow", datetime(2013, 5, 2)):  # noqa: DTZ001  # without a zone, which is the point
        with pytest.raises(InvalidRequest, match="is no time"):
            log.predictions(ENDPOINT, since=wrong)


def test_rows_come_as_each_library_has_them(log: Log) -> None:
    columns = ["prediction_id", "as_of", "probability"]
    arrow = log.predictions(ENDPOINT, columns=columns).arrow()
    assert log.predictions(ENDPOINT, columns=columns).columns == tuple(columns)
    assert log.predictions(ENDPOINT, columns=columns).polars().equals(polars.from_arrow(arrow))
    assert log.predictions(ENDPOINT, columns=columns).pandas()["probability"].tolist() == [0.5] * 4
    assert sum(batch.num_rows for batch in log.sql("SELECT * FROM predictions")) == 4
    assert log.find(arrow.column(0)[0].as_py()).arrow().num_rows == 1


def test_outcomes_and_maturity_go_by_the_terms_given(log: Log) -> None:
    assert log.outcome_counts(ENDPOINT).arrow().to_pylist() == [
        {"endpoint": ENDPOINT, "class": "first", "is_late": True, "outcomes": 1}
    ]
    assert log.outcomes().arrow().num_rows == 1
    assert log.joined(ENDPOINT, columns=["label"]).arrow().column("outcome").null_count == 3
    assert log.maturity(ENDPOINT, now=datetime.now(UTC)).declared_horizon_us == HOUR_US


def test_files_are_written_whole_or_not_at_all(log: Log, tmp_path: Path) -> None:
    query = "SELECT prediction_id, as_of, probability FROM predictions ORDER BY prediction_id"
    expected = log.sql(query).arrow()
    assert log.sql(query).write_parquet(tmp_path / "rows.parquet") == 4
    assert pq.read_table(tmp_path / "rows.parquet").equals(expected)
    assert log.sql(query).write_csv(tmp_path / "rows.csv") == 4
    assert csv.read_csv(tmp_path / "rows.csv").column("prediction_id").equals(expected.column("prediction_id"))
    with pytest.raises(InvalidRequest, match="CSV has no form for the column `tensor`"):
        log.sql("SELECT tensor FROM predictions").write_csv(tmp_path / "tensors.csv")
    with pytest.raises(InvalidRequest, match="cannot be written"):
        log.sql(query).write_parquet(tmp_path / "nowhere" / "rows.parquet")
    with pytest.raises(InvalidRequest, match="Conversion"):
        log.sql("SELECT CAST(prediction_id AS INT) FROM predictions").write_parquet(tmp_path / "failed.parquet")
    assert not list(tmp_path.glob("*failed*"))


def test_plain_rows_are_json() -> None:
    table = pa.table(
        {
            "number": [1.5, math.nan],
            "bytes": [b"\x00\xff", None],
            "time": pa.array([NOW, None], pa.timestamp("us", tz="UTC")),
            "list": [[1.0, math.inf], []],
        }
    )
    assert list(LogRows(table).plain()) == [
        {"number": 1.5, "bytes": "AP8=", "time": "2013-05-01T12:30:00Z", "list": [1.0, None]},
        {"number": None, "bytes": None, "time": None, "list": []},
    ]
