"""Requests and upkeep of a shipper when things go wrong: deletions that wait, files that cannot be read."""

import logging
from pathlib import Path

import pytest

from harness.servers import wait_until
from harness.stored_logs import answers, stored_ids, tables_of, write_segment
from skewless.adapters.log_shipping import LogShipping, log_shipping
from skewless.adapters.log_store import LogStore, open_log_store
from skewless.adapters.shipper_requests import Request, Requests, Work
from skewless.adapters.spool import SPOOL, SpoolFile
from skewless.cli.log_status import log_status, status_lines
from skewless.errors import NotFound
from skewless.limits import LOG_COMPACT_FILES_MIN
from skewless.serving.log_blocks import blocks, encode
from skewless.settings import ShipperSettings
from skewless.timestamps import DAY_US, Micros, parse_timestamp

MAY = parse_timestamp("2013-05-01T12:00:00Z")


def store_of(folder: Path) -> LogStore:
    return open_log_store(str(folder / "store"))


def stored_files(folder: Path) -> list[Path]:
    return [Path(path) for table in store_of(folder).tables() for path in table.files()]


def a_deletion(shipping: LogShipping, endpoint: str = "flight-delay") -> Request:
    return shipping.requests.ask(Work.DELETE, endpoint=endpoint, keys={"origin": "JFK"})


def is_done(shipping: LogShipping, request: Request) -> bool:
    shipping.serve()
    return not shipping.requests.waits(request)


def test_a_deletion_waits_until_the_store_can_be_read_and_status_shows_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    batch = answers(2)
    write_segment(tmp_path, [batch])
    with log_shipping(ShipperSettings(prediction_log=tmp_path)) as shipping:
        shipping.look(at_once=True)
        (file,) = stored_files(tmp_path)
        sound = file.read_bytes()
        file.write_bytes(b"no Parquet at all")
        request = a_deletion(shipping)
        for _ in range(3):
            assert not is_done(shipping, request), "nobody may be there any more to be told that it failed"
        told = [each for each in caplog.messages if request.name in each]
        assert len(told) == 1, "it is tried again after a while, and not at every look"
        (shown,) = log_status(tmp_path, str(tmp_path / "store"))["requests"]
        assert (shown["request"], shown["work"], shown["endpoint"]) == (request.name, "delete", "flight-delay")
        lines = list(status_lines(log_status(tmp_path, str(tmp_path / "store"))))
        assert any(f"{request.name} (delete of `flight-delay`) is pending" in line for line in lines)
        assert "JFK" not in "".join(lines)
        file.write_bytes(sound)
        wait_until(lambda: is_done(shipping, request), "it is deleted")
        answer = shipping.requests.answer(request)
        assert answer is not None
        assert answer.result["predictions"] == 1
    assert stored_ids(store_of(tmp_path)) == [batch.prediction_ids[1]]
    assert f"the deletion {request.name} is done: 1 predictions and 0 outcomes of `flight-delay`" in caplog.messages


def test_a_deletion_of_what_is_not_there_is_refused_at_once(tmp_path: Path) -> None:
    with log_shipping(ShipperSettings(prediction_log=tmp_path)) as shipping:
        request = a_deletion(shipping, "none")
        assert is_done(shipping, request)
        answer = shipping.requests.answer(request)
    assert answer is not None
    assert answer.code == NotFound.code


def test_a_count_of_what_would_be_deleted_says_at_once_why_it_fails(tmp_path: Path) -> None:
    write_segment(tmp_path, [answers(2)])
    with log_shipping(ShipperSettings(prediction_log=tmp_path)) as shipping:
        shipping.look(at_once=True)
        stored_files(tmp_path)[0].write_bytes(b"no Parquet at all")
        request = shipping.requests.ask(Work.DELETE, endpoint="flight-delay", keys={"origin": "JFK"}, dry_run=True)
        assert is_done(shipping, request)
        answer = Requests(tmp_path).answer(request)
    assert answer is not None
    assert answer.failure


def test_a_deletion_that_waits_for_a_writer_leaves_other_segments_to_their_round(tmp_path: Path) -> None:
    written = answers(2)
    (tmp_path / SPOOL).mkdir()
    spool = SpoolFile.create(tmp_path / SPOOL)
    spool.append(encode(*blocks([written])))
    with log_shipping(ShipperSettings(prediction_log=tmp_path, round_s=3600)) as shipping:
        request = a_deletion(shipping)
        assert not is_done(shipping, request)
        late = answers(2)
        write_segment(tmp_path, [late])
        for _ in range(3):
            assert not is_done(shipping, request)
        assert (shipping.shipper.waiting().segments, shipping.store_sink.rounds) == (1, 0)
        spool.seal()
        assert is_done(shipping, request), "nothing that it waits for is being written any more"
        assert shipping.store_sink.rounds == 1
    assert stored_ids(store_of(tmp_path)) == sorted([written.prediction_ids[1], *late.prediction_ids])


def test_a_file_that_cannot_be_read_keeps_neither_other_days_nor_retention_from_their_turn(tmp_path: Path) -> None:
    store = store_of(tmp_path)
    days = [Micros(MAY + day * DAY_US) for day in (0, 1)]
    for number in range(1, LOG_COMPACT_FILES_MIN + 1):
        store.append("writer", number, tables_of(f"s{number}", [answers(1, as_of=day) for day in days]))
    stored_files(tmp_path)[0].write_bytes(b"no Parquet at all")
    settings = ShipperSettings(prediction_log=tmp_path, upkeep_s=0.1, retention_days=1)
    with log_shipping(settings) as shipping:

        def all_is_kept_up() -> bool:
            shipping.keep_up()
            return shipping.upkeep.rows_dropped > 0

        wait_until(all_is_kept_up, "retention had its turn")
        assert shipping.upkeep.compactions == 1, "of the other day"
        assert shipping.upkeep.failures >= 1, "in each round until retention takes the day"
    assert stored_files(tmp_path) == []
