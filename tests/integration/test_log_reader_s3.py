"""The log read from a real S3-compatible server: the same answers as from a folder, and nothing beside the log."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.logged_rows import ENDPOINT, NOW, a_batch, spool, told, told_of
from harness.s3 import S3Server, running_s3, use_credentials
from harness.shipped_logs import ship
from skewless.adapters.log_reader import open_log
from skewless.errors import InvalidRequest, Unavailable
from skewless.timestamps import DAY_US


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    use_credentials(monkeypatch)
    with running_s3(tmp_path / "s3") as running:
        yield running


def test_a_bucket_answers_as_a_folder_does_with_what_the_spool_holds_beside_it(
    tmp_path: Path, server: S3Server
) -> None:
    folder, url = tmp_path / "log", server.url("prod/log")
    batches = [a_batch(("EWR", "JFK"), as_of=NOW + day * DAY_US) for day in range(3)]
    by_id = [told(batch.prediction_ids[0]) for batch in batches]
    spool(folder, *batches[:2], by_id, [told_of('{"origin":"JFK"}', NOW + 1)], seal=True)
    ship(folder, keep=True)
    ship(folder, url)
    spool(folder, batches[2])
    with open_log(folder) as local, open_log(folder, url) as remote:
        assert remote.predictions(ENDPOINT).num_rows == 6
        for start, end in ((None, None), (NOW + 1, NOW + 2 * DAY_US)):
            assert remote.predictions(ENDPOINT, start, end).equals(local.predictions(ENDPOINT, start, end))
            assert remote.joined(ENDPOINT, start, end).equals(local.joined(ENDPOINT, start, end))
        assert remote.outcome_counts().equals(local.outcome_counts())
        for each in batches:
            assert remote.find(each.prediction_ids[1]).num_rows == 1
    with open_log(None, url) as store_alone:
        assert store_alone.predictions(ENDPOINT).num_rows == 4


def test_sql_over_a_bucket_reads_the_log_and_nothing_else(tmp_path: Path, server: S3Server) -> None:
    folder, url = tmp_path / "log", server.url("log")
    spool(folder, a_batch(), seal=True)
    ship(folder, url)
    with open_log(folder, url) as log:
        assert log.sql("SELECT count(*) AS n FROM predictions").read_all().to_pylist() == [{"n": 1}]
        for stolen in ("s3://models/other.parquet", str(tmp_path / "s3.log")):
            with pytest.raises(InvalidRequest, match="disabled"):
                log.sql(f"SELECT * FROM read_text('{stolen}')").read_all()


def test_a_bucket_that_is_away_is_unavailable(tmp_path: Path, server: S3Server) -> None:
    folder, url = tmp_path / "log", server.url("log")
    spool(folder, a_batch(), seal=True)
    ship(folder, url)
    elsewhere = server.url("log", port=9)  # nothing listens there
    with open_log(folder, elsewhere) as log, pytest.raises(Unavailable):
        log.predictions(ENDPOINT)
