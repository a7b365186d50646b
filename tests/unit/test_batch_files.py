"""Files through the batch route: every form in, every form out, and a client that sends and reads at once."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from harness.bundles import instance
from harness.gateways import ENDPOINT, GatewayOverFakes
from skewless.adapters.batch_client import ARROW, NDJSON, BatchClient
from skewless.adapters.batch_files import NdjsonAnswers, TableAnswers, body_pieces, media_type_of
from skewless.cli.file_prediction import predict_file
from skewless.errors import InvalidRequest, Unavailable
from skewless.limits import BATCH_UNREAD_BYTES_MAX
from skewless.stack.ports import free_ports

ROWS = 700
GUIDE = Path(__file__).parents[2] / "docs" / "batch.md"
NOON = datetime(2013, 5, 1, 12, 30, tzinfo=UTC)


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[GatewayOverFakes]:
    with GatewayOverFakes.build(tmp_path / "gateway").running() as running:
        yield running


def url(gateway: GatewayOverFakes) -> str:
    return str(gateway.client.base_url)


def flights(rows: int = ROWS) -> list[dict[str, Any]]:
    return [instance(tailnum=None if row % 2 else "N1", distance=row / 7, party=row) for row in range(rows)]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix in (".ndjson", ".jsonl"):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path
    table = pa.Table.from_pylist([{**row, "note": "not asked for"} for row in rows])
    moments = pa.array([NOON] * len(rows), pa.timestamp("us", "UTC"))
    table = table.set_column(table.column_names.index("scheduled_departure"), "scheduled_departure", moments)
    if path.suffix == ".csv":
        pa.csv.write_csv(table, path)
    elif path.suffix == ".parquet":
        pa.parquet.write_table(table, path, row_group_size=100)
    else:
        with pa.ipc.new_stream(path, table.schema.remove(table.column_names.index("note"))) as writer:
            writer.write_table(table.drop_columns("note"), max_chunksize=100)
    return path


def answers(path: Path) -> list[dict[str, Any]]:
    if path.suffix in (".ndjson", ".jsonl"):
        return [json.loads(line) for line in path.read_text().splitlines()]
    readers = {".csv": pa.csv.read_csv, ".parquet": pa.parquet.read_table, ".arrow": _read_stream}
    rows: list[dict[str, Any]] = readers[path.suffix](path).to_pylist()
    return rows


def _read_stream(path: Path) -> Any:
    return pa.ipc.open_stream(path.read_bytes()).read_all()


@pytest.mark.parametrize(
    "source", ["flights.ndjson", "flights.jsonl", "flights.csv", "flights.parquet", "flights.arrow"]
)
def test_every_row_of_a_file_is_answered_with_the_bits_of_a_single_request(
    gateway: GatewayOverFakes, tmp_path: Path, source: str
) -> None:
    rows = flights()
    given = write(tmp_path / source, rows)
    expected = [each["probability"] for each in gateway.predict(*rows).json()["predictions"]]
    for output in ("answers.ndjson", "answers.csv", "answers.parquet", "answers.arrow"):
        predict_file(url(gateway), ENDPOINT, given, tmp_path / output, on_error="fail", as_of=None)
        found = answers(tmp_path / output)
        assert [each["row"] for each in found] == list(range(ROWS)), output
        # CSV writes a float32 with the fewest digits that name it.
        assert [np.float32(each["probability"]) for each in found] == [np.float32(each) for each in expected], output


def test_answers_go_to_standard_output_where_no_file_is_named(
    gateway: GatewayOverFakes, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    predict_file(url(gateway), ENDPOINT, write(tmp_path / "in.ndjson", flights(3)), None, on_error="fail", as_of=None)
    told = capfdbinary.readouterr()
    assert [json.loads(line)["row"] for line in told.out.splitlines()] == [0, 1, 2]
    assert b"3 rows answered" in told.err


def test_a_wrong_row_ends_with_its_place_and_keeps_what_was_answered(gateway: GatewayOverFakes, tmp_path: Path) -> None:
    rows = flights()
    rows[600]["party"] = "many"
    source, output = write(tmp_path / "in.ndjson", rows), tmp_path / "out.ndjson"
    with pytest.raises(InvalidRequest, match="after 512 rows") as refused:
        predict_file(url(gateway), ENDPOINT, source, output, on_error="fail", as_of=None)
    assert refused.value.path == "$.instances[600].party"
    assert len(answers(output)) == 513
    predict_file(url(gateway), ENDPOINT, source, output, on_error="record", as_of=None)
    assert [each["row"] for each in answers(output) if "error" in each] == [600]


def test_what_cannot_be_a_batch_is_refused_before_anything_is_predicted(
    gateway: GatewayOverFakes, tmp_path: Path
) -> None:
    def refusal(source: Path, output: Path | None = None) -> str:
        with pytest.raises(InvalidRequest) as refused:
            predict_file(url(gateway), ENDPOINT, source, output, on_error="fail", as_of=None)
        return refused.value.message

    assert "ends in `.xlsx`" in refusal(tmp_path / "in.xlsx")
    assert "ends in `.txt`" in refusal(write(tmp_path / "in.ndjson", flights(1)), tmp_path / "out.txt")
    (tmp_path / "in.parquet").write_bytes(b"no parquet")
    assert "cannot be read" in refusal(tmp_path / "in.parquet")
    (tmp_path / "in.csv").write_text("origin,tailnum\nJFK,N1\n")
    assert "no column `station`" in refusal(tmp_path / "in.csv")
    assert not gateway.log.batches


def test_a_csv_cell_is_read_by_the_type_of_its_field(gateway: GatewayOverFakes, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text(
        "party,origin,tailnum,station,scheduled_departure,distance,is_holiday\n"
        "2,007,,7,2013-05-01T08:30:00-04:00,1089.5,false\n"
    )
    predict_file(url(gateway), ENDPOINT, tmp_path / "in.csv", tmp_path / "out.csv", on_error="fail", as_of=None)
    (batch,) = gateway.log.batches
    assert batch.given["origin"].values.tolist() == ["007"]
    assert batch.given["tailnum"].valid.tolist() == [False]
    assert batch.given["scheduled_departure"].values.tolist() == [int(NOON.timestamp() * 1_000_000)]
    assert batch.given["distance"].values.tolist() == [1089.5]


async def test_a_client_reads_while_it_sends_so_that_neither_side_waits_for_the_other(
    gateway: GatewayOverFakes,
) -> None:
    line = json.dumps(instance()).encode() + b"\n"
    chunk, sent, taken, seen = line * 1_000, 0, 0, 0

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal sent
        while taken < 3 * BATCH_UNREAD_BYTES_MAX // 4 and sent < 400:
            yield chunk
            sent += 1

    async for piece in BatchClient(url(gateway)).predict(ENDPOINT, pieces(), media_type=NDJSON):
        taken += len(piece)
        seen = max(seen, taken if sent < 400 else 0)
        gateway.log.entries.clear()
    assert seen > 0, "answers came while the body was being sent"
    assert taken > 0


async def test_a_refusal_before_the_answer_ends_the_sending(gateway: GatewayOverFakes) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield json.dumps(instance(party="two")).encode() + b"\n"

    with pytest.raises(InvalidRequest, match="the gateway answered 400") as refused:
        async for _ in BatchClient(url(gateway)).predict(ENDPOINT, endless(), media_type=NDJSON):
            pass
    assert refused.value.path == "$.instances[0].party"


async def test_a_gateway_that_is_away_is_unavailable() -> None:
    with pytest.raises(Unavailable):
        async for _ in BatchClient(f"http://127.0.0.1:{free_ports(1)[0]}").predict("x", _nothing(), media_type=ARROW):
            pass
    with pytest.raises(InvalidRequest):
        BatchClient("ftp://somewhere")


async def _nothing() -> AsyncIterator[bytes]:
    for piece in list[bytes]():
        yield piece


@asynccontextmanager
async def answering(reply: bytes) -> AsyncIterator[str]:
    """A server that reads a little, says `reply` and hangs up."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(reply)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield "http://{}:{}".format(*server.sockets[0].getsockname())


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"no http\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello",
    ],
)
async def test_an_answer_that_is_cut_off_is_never_taken_for_whole(reply: bytes) -> None:
    async with answering(reply) as address:
        with pytest.raises(Unavailable):
            async for _ in BatchClient(address).predict("x", _nothing(), media_type=NDJSON):
                pass


@pytest.mark.parametrize("size", [1, 10, 1 << 20])
def test_an_answer_is_written_the_same_in_whatever_pieces_it_arrives(
    gateway: GatewayOverFakes, tmp_path: Path, size: int
) -> None:
    body = b"".join(body_pieces(write(tmp_path / "in.ndjson", flights(300)), {}))
    opened: list[tuple[str, Callable[[], Any]]] = [
        (NDJSON, lambda: NdjsonAnswers((tmp_path / "out.ndjson").open("wb"), closes=True)),
        (ARROW, lambda: TableAnswers(tmp_path / "out.parquet")),
    ]
    for accept, open_file in opened:
        response = gateway.client.post(
            f"/v1/endpoints/{ENDPOINT}/predict:batch",
            content=body,
            headers={"content-type": NDJSON, "accept": accept},
        )
        with open_file() as file:
            for start in range(0, len(response.content), size):
                file.take(response.content[start : start + size])
            file.finish()
        assert file.summary["rows"] == 300
    assert [each["row"] for each in answers(tmp_path / "out.ndjson")] == list(range(300))
    assert [each["row"] for each in answers(tmp_path / "out.parquet")] == list(range(300))


def test_suffixes_say_how_rows_travel() -> None:
    assert media_type_of(Path("a.NDJSON")) == NDJSON
    assert {media_type_of(Path(f"a.{each}")) for each in ("csv", "parquet", "arrow", "arrows")} == {ARROW}


def test_the_guides_program_runs(gateway: GatewayOverFakes, tmp_path: Path) -> None:
    (program,) = re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(), re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {}
    exec(program, names)  # noqa: S102  # it is our own guide
    rows = flights(50)
    table = pa.ipc.open_stream(write(tmp_path / "in.arrow", rows).read_bytes()).read_all()
    found = names["predict"](url(gateway), table)
    expected = [each["probability"] for each in gateway.predict(*rows).json()["predictions"]]
    assert found["probability"].to_pylist() == expected


def test_the_guides_answers_have_the_members_of_real_ones(gateway: GatewayOverFakes) -> None:
    shown = [
        json.loads(each) for each in re.findall(r"^```json\n(.*?)^```", GUIDE.read_text(), re.DOTALL | re.MULTILINE)
    ]
    headers = {"content-type": NDJSON}
    response = gateway.client.post(
        f"/v1/endpoints/{ENDPOINT}/predict:batch", content=json.dumps(instance()).encode(), headers=headers
    )
    told = [json.loads(line) for line in response.text.splitlines()]
    assert [each.keys() for each in shown] == [each.keys() for each in told]
    assert shown[1]["summary"].keys() == told[1]["summary"].keys()
