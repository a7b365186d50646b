"""The batch route over fakes: what is answered, in which order, what ends it, and what it holds meanwhile."""

import asyncio
import io
import json
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pytest

from harness.bundles import instance
from harness.gateways import ENDPOINT, GatewayOverFakes
from harness.servers import wait_until
from skewless.errors import Unavailable
from skewless.limits import BATCH_CHUNK_ROWS, BATCH_CHUNKS_MAX, BATCH_REQUESTS_MAX, BATCH_UNREAD_BYTES_MAX
from skewless.registry.api_scopes import ApiScope
from skewless_gateway.edges.answer_buffer import AnswerBuffer
from skewless_http.security.callers import Caller

URL = f"/v1/endpoints/{ENDPOINT}/predict:batch"
NDJSON = "application/x-ndjson"
ARROW = "application/vnd.apache.arrow.stream"


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[GatewayOverFakes]:
    with GatewayOverFakes.build(tmp_path).running() as running:
        yield running


def ndjson(instances: Sequence[Mapping[str, object]]) -> bytes:
    return b"".join(json.dumps(each).encode() + b"\n" for each in instances)


def arrow(instances: Sequence[Mapping[str, Any]], *, rows: int = 1_000) -> bytes:
    schema = pa.schema(
        {
            "origin": pa.string(), "tailnum": pa.string(), "station": pa.int64(), "scheduled_departure": pa.string(),
            "distance": pa.float64(), "is_holiday": pa.bool_(), "party": pa.int64(),
        }
    )  # fmt: skip
    table = pa.Table.from_pylist(list(instances), schema=schema)
    moments = table["scheduled_departure"].cast(pa.timestamp("us", "UTC"))
    table = table.set_column(3, "scheduled_departure", moments)
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=rows)
    return sink.getvalue()


def post(gateway: GatewayOverFakes, body: bytes, media_type: str = NDJSON, query: str = "", **headers: str) -> Any:
    return gateway.client.post(URL + query, content=body, headers={"content-type": media_type, **headers})


def told(response: httpx.Response) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The records of an answer in NDJSON, and its summary."""
    assert response.status_code == 200, response.text
    *records, last = [json.loads(line) for line in response.text.splitlines()]
    return records, last["summary"]


def told_in_arrow(response: httpx.Response) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    assert response.status_code == 200, response.text
    records: list[dict[str, Any]] = []
    with pa.ipc.open_stream(response.content) as reader:
        while True:
            batch, metadata = reader.read_next_batch_with_custom_metadata()
            if metadata is not None:
                assert batch.num_rows == 0
                return records, json.loads(metadata[b"skewless.summary"])
            records += batch.to_pylist()


def flights(rows: int) -> list[dict[str, object]]:
    return [
        instance(origin="JFK" if row % 3 else "LGA", tailnum=None if row % 5 else "N1", party=row % 700)
        for row in range(rows)
    ]


@pytest.mark.parametrize("accept", ["", NDJSON, ARROW, f"text/html, {ARROW};q=0.9, */*"])
@pytest.mark.parametrize("media_type", [NDJSON, ARROW])
def test_every_row_is_answered_in_order_with_the_bits_of_a_request_of_its_own(
    gateway: GatewayOverFakes, media_type: str, accept: str
) -> None:
    instances = flights(2 * BATCH_CHUNK_ROWS + 10)
    body = ndjson(instances) if media_type == NDJSON else arrow(instances)
    response = post(gateway, body, media_type, accept=accept)
    wanted = ARROW if ARROW in accept else accept or media_type
    assert response.headers["content-type"] == wanted
    records, summary = told(response) if wanted == NDJSON else told_in_arrow(response)
    expected = [
        each["probability"]
        for start in range(0, len(instances), 100)
        for each in gateway.predict(*instances[start : start + 100]).json()["predictions"]
    ]
    assert [each["row"] for each in records] == list(range(len(instances)))
    assert [each["probability"] for each in records] == expected
    assert len({each["prediction_id"] for each in records}) == len(instances)
    assert {each["rung"] for each in records} == {"normal"}
    assert (summary["complete"], summary["rows"], summary["answered"], summary["failed"]) == (True, 522, 522, 0)
    assert summary["rungs"] == {"normal": 522}
    assert summary["bundles"] == {gateway.built.digest: 522}
    assert summary["request_id"] == response.headers["x-request-id"]


def test_every_row_is_logged_like_any_prediction(gateway: GatewayOverFakes) -> None:
    instances = flights(BATCH_CHUNK_ROWS + 5)
    records, summary = told(post(gateway, ndjson(instances), **{"x-request-id": "nightly-7"}))
    assert summary["request_id"] == "nightly-7"
    batches = gateway.log.batches
    assert [each for batch in batches for each in batch.prediction_ids] == [each["prediction_id"] for each in records]
    assert [batch.request_id for batch in batches] == ["nightly-7.0", f"nightly-7.{BATCH_CHUNK_ROWS}"]
    assert max(batch.rows for batch in batches) <= BATCH_CHUNK_ROWS


@pytest.mark.parametrize("media_type", [NDJSON, ARROW])
def test_a_body_without_rows_is_answered_in_full(gateway: GatewayOverFakes, media_type: str) -> None:
    response = post(gateway, b"" if media_type == NDJSON else arrow([]), media_type)
    records, summary = told(response) if media_type == NDJSON else told_in_arrow(response)
    assert (records, summary["complete"], summary["rows"]) == ([], True, 0)


def test_what_is_wrong_with_the_first_rows_is_the_status(gateway: GatewayOverFakes) -> None:
    response = post(gateway, ndjson([instance(), instance(party="two")]))
    assert response.status_code == 400
    assert response.json()["path"] == "$.instances[1].party"
    refused = post(gateway, arrow(flights(3)).replace(b"party", b"partx"), ARROW)
    assert (refused.status_code, refused.json()["code"]) == (400, "missing_field")
    assert refused.json()["path"] == "$.columns.party"
    assert not gateway.log.batches


def test_a_wrong_row_ends_the_answer_by_default_and_says_how_far_it_came(gateway: GatewayOverFakes) -> None:
    instances = flights(1_000)
    instances[700]["party"] = 1 << 40
    for response, read in (
        (post(gateway, ndjson(instances)), told),
        (post(gateway, arrow(instances), ARROW), told_in_arrow),
    ):
        records, summary = read(response)
        *answered, last = records
        assert [each["row"] for each in answered] == list(range(512))
        assert last["row"] == 700
        error = last["error"] if isinstance(last["error"], dict) else json.loads(last["error"])
        assert (error["path"], error["code"]) == ("$.instances[700].party", "mistyped_field")
        assert (summary["complete"], summary["rows"], summary["error"]) == (False, 512, error)


@pytest.mark.parametrize("media_type", [NDJSON, ARROW])
def test_wrong_rows_are_recorded_one_by_one_where_the_caller_wants_that(
    gateway: GatewayOverFakes, media_type: str
) -> None:
    instances = flights(600)
    wrong = {0, 5, 6, 255, 256, 599}
    for row in wrong:
        instances[row]["party"] = 1 << 40
    body = ndjson(instances) if media_type == NDJSON else arrow(instances)
    response = post(gateway, body, media_type, "?on_error=record")
    records, summary = told(response) if media_type == NDJSON else told_in_arrow(response)
    assert [each["row"] for each in records] == list(range(600))
    assert {each["row"] for each in records if each.get("error")} == wrong
    assert (summary["complete"], summary["answered"], summary["failed"]) == (True, 594, 6)
    logged = {value for batch in gateway.log.batches for value in batch.prediction_ids}
    assert logged >= {each["prediction_id"] for each in records if each.get("prediction_id")}


def test_rows_that_are_all_wrong_cost_no_more_than_a_look_at_each(gateway: GatewayOverFakes) -> None:
    records, summary = told(post(gateway, ndjson([{"a": 1}] * 500), query="?on_error=record"))
    assert len(records) == 500
    assert (summary["complete"], summary["answered"], summary["failed"]) == (True, 0, 500)
    assert records[499]["error"]["path"] == "$.instances[499].origin"


def test_a_row_that_a_policy_rejects_is_recorded_and_costs_no_other_its_answer(tmp_path: Path) -> None:
    with GatewayOverFakes.build(tmp_path, reject_missing_weather=True).running() as gateway:
        instances = [instance(origin="QQQ" if row in (3, 300) else "JFK") for row in range(400)]
        records, summary = told(post(gateway, ndjson(instances), query="?on_error=record"))
        assert [each["row"] for each in records if "error" in each] == [3, 300]
        assert records[300]["error"]["code"] == "feature_rejected"
        assert (summary["answered"], summary["failed"]) == (398, 2)
        assert post(gateway, ndjson(instances)).status_code == 422


def test_a_caller_answers_for_its_own_entities_row_by_row(tmp_path: Path) -> None:
    built = GatewayOverFakes.build(tmp_path)
    built.anonymous = Caller("key:jfk", (ApiScope((ENDPOINT,), {"origin": ("JFK",)}),))
    with built.running() as gateway:
        instances = [instance(origin="LGA" if row == 2 else "JFK") for row in range(4)]
        records, summary = told(post(gateway, ndjson(instances), query="?on_error=record"))
        assert [each["row"] for each in records if "error" in each] == [2]
        assert records[2]["error"]["status"] == 403
        assert summary["answered"] == 3
        assert post(gateway, ndjson(instances)).status_code == 403


def test_what_cannot_be_asked_is_refused_before_the_body_is_read(gateway: GatewayOverFakes) -> None:
    assert gateway.client.post("/v1/endpoints/nobody/predict:batch", content=b"{}").status_code == 404
    for headers in ({"content-type": "application/json"}, {}, {"content-type": NDJSON, "content-encoding": "gzip"}):
        refused = gateway.client.post(URL, content=b"{}", headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (415, "unsupported_media_type")
    for query, path in (
        ("?on_error=skip", "$.options.on_error"),
        ("?deadline_ms=soon", "$.options.deadline_ms"),
        ("?deadline_ms=0", "$.options.deadline_ms"),
        ("?as_of=2013-05-01T12:30:00Z", "$.options.as_of"),
        ("?speed=high", "$.options.speed"),
    ):
        refused = post(gateway, b"", query=query)
        assert (refused.status_code, refused.json()["path"]) == (400, path)


def test_rows_wait_for_a_part_that_comes_back_but_the_first_ones_tell_at_once(gateway: GatewayOverFakes) -> None:
    away = Unavailable("online store", "it is away", retry_after_s=0.05)
    gateway.store.failure = away
    refused = post(gateway, ndjson(flights(10)))
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) >= 1
    gateway.store.failure = None
    gateway.backend.is_held = True

    def body() -> Iterator[bytes]:
        yield ndjson(flights(BATCH_CHUNK_ROWS))
        gateway.backend.is_held = False
        wait_until(lambda: bool(gateway.log.batches), "the first chunk is answered", timeout_s=30)
        gateway.store.failure = away
        yield ndjson(flights(BATCH_CHUNK_ROWS))
        wait_until(lambda: _retries(gateway) >= 2, "the second chunk was tried again", timeout_s=30)
        gateway.store.failure = None

    response = gateway.client.post(URL, content=body(), headers={"content-type": NDJSON})
    records, summary = told(response)
    assert (summary["complete"], len(records)) == (True, 2 * BATCH_CHUNK_ROWS)


def _retries(gateway: GatewayOverFakes) -> float:
    return gateway.metrics.registry.get_sample_value("skewless_batch_retries_total", {"endpoint": ENDPOINT}) or 0.0


def test_one_batch_more_than_a_process_takes_is_refused_at_once(gateway: GatewayOverFakes) -> None:
    gateway.backend.is_held = True
    host, port = gateway.client.base_url.host, gateway.client.base_url.port
    head = (
        f"POST {URL} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {NDJSON}\r\nContent-Length: 1000000\r\n\r\n".encode()
    )
    held = [socket.create_connection((host, port or 80)) for _ in range(BATCH_REQUESTS_MAX)]
    try:
        for each in held:
            each.sendall(head + ndjson(flights(BATCH_CHUNK_ROWS)))
        wait_until(lambda: _open(gateway) == BATCH_REQUESTS_MAX, "all places are taken", timeout_s=30)
        refused = post(gateway, ndjson(flights(1)))
        assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
    finally:
        for each in held:
            each.close()
    gateway.backend.is_held = False
    wait_until(lambda: _open(gateway) == 0, "their places are given back", timeout_s=30)
    assert told(post(gateway, ndjson(flights(1))))[1]["complete"]


def _open(gateway: GatewayOverFakes) -> float:
    return gateway.metrics.registry.get_sample_value("skewless_batches_open") or 0.0


def test_a_caller_that_hangs_up_stops_the_work(gateway: GatewayOverFakes) -> None:
    host, port = gateway.client.base_url.host, gateway.client.base_url.port
    head = f"POST {URL} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {NDJSON}\r\nContent-Length: 9999999\r\n\r\n"
    with closing(socket.create_connection((host, port or 80))) as connection:
        connection.sendall(head.encode() + ndjson(flights(2 * BATCH_CHUNK_ROWS)))
        wait_until(lambda: bool(gateway.log.batches), "work has begun", timeout_s=30)
        assert _open(gateway) == 1
    wait_until(lambda: _open(gateway) == 0, "the batch has ended", timeout_s=30)
    ended = {"endpoint": ENDPOINT, "outcome": "gone"}
    assert gateway.metrics.registry.get_sample_value("skewless_batches_total", ended) == 1


def test_no_more_is_read_than_can_be_scored_or_taken(gateway: GatewayOverFakes) -> None:
    gateway.backend.is_held = True
    before = gateway.backend.calls
    sent = 0
    piece = ndjson(flights(BATCH_CHUNK_ROWS))
    enough = 64 * 1024 * 1024

    def body() -> Iterator[bytes]:
        nonlocal sent
        while sent < enough:
            yield piece
            sent += len(piece)

    host, port = gateway.client.base_url.host, gateway.client.base_url.port
    with closing(socket.create_connection((host, port or 80))) as connection:
        connection.setblocking(False)
        head = f"POST {URL} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {NDJSON}\r\nTransfer-Encoding: chunked\r\n\r\n"
        data = head.encode()
        pieces = body()

        stalled = 0

        def is_refused() -> bool:
            """Whether nothing more was taken twenty times in a row."""
            nonlocal data, stalled
            sent_before = sent
            try:
                while True:
                    data = data[connection.send(data) :]
                    if not data:
                        each = next(pieces)
                        data = f"{len(each):x}\r\n".encode() + each + b"\r\n"
            except BlockingIOError:
                stalled = stalled + 1 if sent == sent_before else 0
            return stalled >= 20

        wait_until(is_refused, "the gateway takes no more", timeout_s=30)
        assert gateway.backend.calls - before == BATCH_CHUNKS_MAX
        assert sent < enough / 2
    gateway.backend.is_held = False


async def test_answers_that_nobody_takes_are_bounded_and_given_up() -> None:
    buffer = AnswerBuffer(bytes_max=10, stall_s=0.05)
    await buffer.put(b"x" * 10)
    with pytest.raises(TimeoutError):
        await buffer.put(b"y")
    assert await buffer.take() == b"x" * 10
    putting = asyncio.create_task(buffer.put(b"z"))
    assert await buffer.take() == b"z"
    await putting
    buffer.close()
    assert await buffer.take() == b""


def test_a_caller_that_reads_only_after_it_has_sent_all_gets_what_fits_into_the_bound(
    gateway: GatewayOverFakes,
) -> None:
    rows = 20_000
    response = post(gateway, ndjson([instance()] * rows))
    records, summary = told(response)
    assert (len(records), summary["complete"]) == (rows, True)
    assert len(response.content) < BATCH_UNREAD_BYTES_MAX
