"""Arrow streams cut into messages: whatever the pieces, whatever the bytes, and never more held than allowed."""

import io
import struct

import pyarrow as pa
import pytest

from skewless.adapters.arrow_messages import ArrowBatches
from skewless.errors import InvalidRequest, LimitExceeded
from skewless.limits import (
    ARROW_DICTIONARY_BYTES_MAX,
    ARROW_MESSAGE_BYTES_MAX,
    ARROW_MESSAGE_ROWS_MAX,
    ARROW_METADATA_BYTES_MAX,
)
from skewless.serving.arrow_framing import ArrowMessage, ArrowMessages, MessageKind

TABLE = pa.table(
    {
        "origin": pa.array(["JFK", "LGA", None, "JFK"]).dictionary_encode(),
        "party": pa.array([1, 2, 3, None], pa.int32()),
        "note": pa.array(["a", "bb", "ccc", ""], pa.large_string()),
    }
)


def stream(table: pa.Table = TABLE, *, rows: int = 2, **options: object) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table, max_chunksize=rows)
    return sink.getvalue()


def cut(data: bytes, size: int) -> list[ArrowMessage]:
    messages = ArrowMessages()
    found = [each for start in range(0, len(data), size) for each in messages.feed(data[start : start + size])]
    messages.finish()
    return found


@pytest.mark.parametrize("size", [1, 3, 8, 64, 1_000, 1 << 20])
def test_the_messages_are_the_same_in_whatever_pieces_the_stream_arrives(size: int) -> None:
    found = cut(stream(), size)
    assert [(each.kind, each.rows) for each in found] == [
        (MessageKind.SCHEMA, 0),
        (MessageKind.DICTIONARY, 2),
        (MessageKind.RECORD_BATCH, 2),
        (MessageKind.RECORD_BATCH, 2),
    ]
    batches = ArrowBatches()
    read = [batch for message in found if (batch := batches.read(message)) is not None]
    assert pa.Table.from_batches(read).equals(TABLE)


def test_dictionaries_that_grow_and_are_replaced_are_followed() -> None:
    words = [["a", "b"], ["a", "b", "c"], ["z"]]
    sink = io.BytesIO()
    schema = pa.schema({"word": pa.dictionary(pa.int8(), pa.string())})
    with pa.ipc.new_stream(sink, schema, options=pa.ipc.IpcWriteOptions(emit_dictionary_deltas=True)) as writer:
        for each in words:
            column = pa.DictionaryArray.from_arrays(pa.array([len(each) - 1], pa.int8()), pa.array(each))
            writer.write_batch(pa.record_batch([column], schema=schema))
    batches = ArrowBatches()
    read = [batch for message in cut(sink.getvalue(), 50) if (batch := batches.read(message)) is not None]
    assert [batch.column(0).to_pylist() for batch in read] == [["b"], ["c"], ["z"]]


def test_a_stream_may_end_without_saying_so_but_not_inside_a_message() -> None:
    data = stream()
    assert len(cut(data[:-8], 100)) == 4
    for end in (len(data) - 9, 300, 5):
        with pytest.raises(InvalidRequest, match="ends inside message"):
            cut(data[:end], 100)
    with pytest.raises(InvalidRequest, match="empty"):
        cut(b"", 1)


def test_what_follows_the_end_of_a_stream_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="more after the end"):
        cut(stream() + b"x", 1 << 20)
    with pytest.raises(InvalidRequest, match="more after the end"):
        cut(stream() + b"x", len(stream()))


def test_a_second_schema_is_refused_and_one_that_does_not_come_first() -> None:
    schema, dictionary, batch, *_ = cut(stream(), 1 << 20)
    for data in (schema.data + schema.data, batch.data, dictionary.data + schema.data):
        with pytest.raises(InvalidRequest, match="one schema"):
            cut(data, 1 << 20)


def test_compressed_buffers_are_refused_since_nobody_knows_how_large_they_become() -> None:
    zeros = pa.table({"party": pa.array([0] * 100_000, pa.int64())})
    with pytest.raises(InvalidRequest, match="compressed") as refused:
        cut(stream(zeros, rows=100_000, compression="zstd"), 1 << 20)
    assert "without compression" in refused.value.hint


def test_another_format_is_refused_by_its_first_bytes() -> None:
    for data in (b"PAR1" + bytes(100), b"ARROW1\0\0" + bytes(100), b'{"origin": "JFK"}', bytes(100)):
        with pytest.raises(InvalidRequest, match="no Arrow IPC stream") as refused:
            cut(data, 1 << 20)
        assert refused.value.code == "malformed_arrow"


def test_a_message_is_refused_by_the_size_it_announces_before_any_of_it_is_held() -> None:
    huge = struct.pack("<Ii", 0xFFFFFFFF, ARROW_METADATA_BYTES_MAX + 8)
    with pytest.raises(LimitExceeded, match="metadata"):
        cut(huge, 1)
    wide = pa.table({"note": pa.array(["x" * 1_000] * (ARROW_MESSAGE_BYTES_MAX // 1_000 + 1))})
    data = stream(wide, rows=1 << 20)
    messages = ArrowMessages()
    with pytest.raises(LimitExceeded, match="announces a body of") as refused:
        messages.feed(data[:2_000])
    assert "max_chunksize" in refused.value.hint


def test_rows_without_bytes_are_bounded_too() -> None:
    nothing = pa.table({"tailnum": pa.nulls(ARROW_MESSAGE_ROWS_MAX + 1)})
    with pytest.raises(LimitExceeded, match="announces 1048577 rows"):
        cut(stream(nothing, rows=1 << 30), 1 << 20)


def test_dictionaries_are_bounded_together() -> None:
    words = 20
    size = ARROW_DICTIONARY_BYTES_MAX // 10
    schema = pa.schema({"word": pa.dictionary(pa.int8(), pa.string())})
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, schema) as writer:
        for number in range(words):
            column = pa.DictionaryArray.from_arrays(pa.array([0], pa.int8()), pa.array([str(number) + "x" * size]))
            writer.write_batch(pa.record_batch([column], schema=schema))
    with pytest.raises(LimitExceeded, match="dictionaries"):
        cut(sink.getvalue(), 1 << 20)
