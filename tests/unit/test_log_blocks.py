"""Blocks of the prediction log: what goes in comes out bit for bit, whatever comes together within a flush."""

import struct
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from harness.log_batches import a_batch, ids_in
from skewless.canonical_json import digest
from skewless.column_table import ColumnTable
from skewless.dtypes import ELEMENTS, TABLE, Column, Dtype, column_of
from skewless.errors import InvalidDefinition
from skewless.features.frame import FeatureFrame, Lines
from skewless.limits import LOG_BLOCK_ROWS_ALONE, LOG_BLOCK_ROWS_MAX
from skewless.serving.log_blocks import FORMAT, AnsweredBlock, blocks, decode, encode, groups, logged_rows
from skewless.serving.records import AnsweredBatch, LogEntry, Outcome, TallyBatch

PLAIN = [each for each in Dtype if each not in ELEMENTS]
_TEXT = st.text(max_size=6)


def _float_from_bits(width: str) -> st.SearchStrategy[object]:
    """Every float there is, NaNs with their payloads too."""
    size = struct.calcsize(width)
    return st.binary(min_size=size, max_size=size).map(lambda raw: struct.unpack(width, raw)[0])


_VALUES: dict[Dtype, st.SearchStrategy[object]] = {
    Dtype.BOOL: st.booleans(),
    Dtype.INT32: st.integers(-(2**31), 2**31 - 1),
    Dtype.INT64: st.integers(-(2**63), 2**63 - 1),
    Dtype.FLOAT32: st.floats(width=32),
    Dtype.FLOAT64: _float_from_bits("<d"),
    Dtype.STRING: _TEXT,
    Dtype.BYTES: st.binary(max_size=6),
    Dtype.TIMESTAMP: st.integers(-(2**55), 2**55),
}
_VALUES |= {listed: st.lists(_VALUES[element], max_size=3).map(tuple) for listed, element in ELEMENTS.items()}


def _bits(width: str, count: int) -> st.SearchStrategy[NDArray[Any]]:
    size = np.dtype(width).itemsize * count
    return st.binary(min_size=size, max_size=size).map(lambda raw: np.frombuffer(raw, dtype=width))


@st.composite
def _columns(draw: st.DrawFn, layout: tuple[tuple[str, Dtype], ...], rows: int) -> dict[str, Column]:
    found = {}
    for name, dtype in layout:
        item = st.one_of(st.none(), _VALUES[dtype])
        column = column_of(dtype, draw(st.lists(item, min_size=rows, max_size=rows)))
        if dtype in (Dtype.FLOAT32, Dtype.FLOAT64):
            bits = draw(_bits("<f4" if dtype is Dtype.FLOAT32 else "<f8", rows))
            column = Column(dtype, np.where(column.valid, bits, column.values), column.valid)
        found[name] = column
    return found


@st.composite
def _batches(draw: st.DrawFn) -> list[LogEntry]:
    """Some batches of two bundles, as tables and as dictionaries, some of them of roles, with outcomes among them."""
    dtypes = draw(st.lists(st.sampled_from(list(Dtype)), max_size=5))
    features = tuple((f"v__{number}", dtype) for number, dtype in enumerate(dtypes))
    given_layout = (("origin", draw(st.sampled_from(PLAIN))), ("x", draw(st.sampled_from(list(Dtype)))))
    width = draw(st.integers(0, 3))
    entries: list[LogEntry] = []
    for number in range(draw(st.integers(1, 6))):
        if draw(st.integers(0, 5)) == 0:
            entries.append((Outcome(None, draw(_TEXT), None, number, "o", "e", "{}", 5, "c"),))
            continue
        rows = draw(st.integers(1, 4))
        columns = draw(_columns(features, rows))
        has_tables = draw(st.booleans())
        given_columns = draw(_columns(given_layout, rows))
        entries.append(
            AnsweredBatch(
                endpoint=draw(st.sampled_from(["e", "f"])),
                bundle=digest(draw(st.integers(0, 1))),
                role=draw(st.sampled_from(["live", "shadow"])),
                rung=draw(st.sampled_from(["normal", "constant"])),
                request_id=f"r{number}",
                as_of=draw(st.integers(0, 2**55)),
                prediction_ids=[f"{number}-{row}" for row in range(rows)],
                key_names=("origin",),
                given=ColumnTable.from_columns(given_columns, rows) if has_tables else given_columns,
                frame=FeatureFrame(
                    rows,
                    ColumnTable.from_columns(columns, rows) if has_tables else columns,
                    _lines(draw(_bits("u1", rows * len(features))), [name for name, _ in features], rows, has_tables),
                    _lines(draw(_bits("<i8", rows)), ["v"], rows, has_tables),
                ),
                tensor=draw(_bits("<f4", rows * width)).reshape(rows, width),
                outputs={"p": draw(_bits("<f4", rows * 2)).reshape(rows, 2)},
                labels=draw(st.lists(_TEXT, min_size=rows, max_size=rows)),
                probabilities=draw(_bits("<f4", rows)),
                stage_ms=draw(st.dictionaries(_TEXT, st.floats(allow_nan=False), max_size=2)),
                experiment=draw(_TEXT),
                arm=draw(_TEXT),
                positions=draw(st.one_of(st.none(), st.just(np.arange(rows) * 2 + 1))),
                twins=draw(st.one_of(st.just(()), st.just([f"twin{number}-{row}" for row in range(rows)]))),
                caller=draw(_TEXT),
            )
        )
    return entries


def _lines(data: NDArray[Any], names: list[str], rows: int, as_matrix: bool) -> Mapping[str, NDArray[Any]]:
    matrix = data.reshape(len(names), rows)
    place = {name: line for line, name in enumerate(names)}
    return Lines(place, matrix) if as_matrix else {name: matrix[line] for name, line in place.items()}


def _plain_column(column: Column, row: int) -> object:
    """One value to the last bit."""
    if not column.valid[row]:
        return column.dtype, None
    value = column.values[row]
    return column.dtype, msgspec.msgpack.encode(value) if column.values.dtype.hasobject else value.tobytes()


def _rows_of_batch(batch: AnsweredBatch) -> dict[str, object]:
    """Everything about each prediction, by id."""
    frame = batch.frame
    return {
        prediction_id: (
            (batch.endpoint, batch.bundle, list(batch.key_names)),
            (batch.request_id, batch.as_of, batch.role, batch.rung, batch.experiment, batch.arm, batch.caller),
            dict(batch.stage_ms),
            row if batch.positions is None else int(batch.positions[row]),
            batch.twins[row] if batch.twins else "",
            {name: _plain_column(column, row) for name, column in batch.given.items()},
            {name: _plain_column(column, row) for name, column in frame.columns.items()},
            {name: int(codes[row]) for name, codes in frame.statuses.items()},
            {name: int(times[row]) for name, times in frame.event_times.items()},
            batch.tensor[row].tobytes(),
            {name: values[row].tobytes() for name, values in batch.outputs.items()},
            (batch.labels[row], batch.probabilities[row].tobytes()),
        )
        for row, prediction_id in enumerate(batch.prediction_ids)
    }


def _rows_of_block(block: AnsweredBlock) -> dict[str, object]:
    """The same of a block; a naive walk over its rows."""
    frame = block.frame
    found: dict[str, object] = {}
    assert block.tensor is not None
    row = 0
    for request in block.requests:
        for _ in range(request.rows):
            found[block.prediction_ids[row]] = (
                (block.endpoint, block.bundle, list(block.key_names)),
                msgspec.structs.astuple(request)[:-2],
                dict(request.stage_ms),
                int(block.positions[row]),
                block.twins[row],
                {name: _plain_column(column, row) for name, column in block.given.items()},
                {name: _plain_column(column, row) for name, column in frame.columns.items()},
                {name: int(codes[row]) for name, codes in frame.statuses.items()},
                {name: int(times[row]) for name, times in frame.event_times.items()},
                block.tensor[row].tobytes(),
                {name: values[row].tobytes() for name, values in block.outputs.items()},
                (block.labels[row], block.probabilities[row].tobytes()),
            )
            row += 1
    assert row == block.rows == len(block.tensor_digests)
    return found


@settings(max_examples=80, deadline=None)
@given(entries=_batches())
def test_whatever_comes_within_a_flush_is_read_back_bit_for_bit(entries: list[LogEntry]) -> None:
    kept = [decode(encode(each)) for each in blocks(entries)]
    expected: dict[str, object] = {}
    for entry in entries:
        if isinstance(entry, AnsweredBatch):
            expected |= _rows_of_batch(entry)
    found: dict[str, object] = {}
    for each in kept:
        if isinstance(each, AnsweredBlock):
            found |= _rows_of_block(each)
    assert found == expected
    assert [each for each in kept if isinstance(each, tuple)] == [each for each in entries if isinstance(each, tuple)]
    assert [encode(each) for each in kept] == [encode(each) for each in blocks(entries)]


def test_batches_of_one_bundle_share_a_frame_up_to_a_bound() -> None:
    small, large = LOG_BLOCK_ROWS_ALONE - 1, LOG_BLOCK_ROWS_ALONE
    entries: list[LogEntry] = [a_batch(f"r{number}", rows=small) for number in range(6)]
    sizes = [sum(logged_rows(each) for each in blocks(group)) for group in groups(entries)]
    assert sizes == [4 * small, 2 * small]
    assert max(sizes) <= LOG_BLOCK_ROWS_MAX
    mixed: list[LogEntry] = [a_batch("a", rows=1), a_batch("large", rows=large), a_batch("b", rows=1)]
    assert [len(group) for group in groups(mixed)] == [2, 1]
    assert ids_in(each for each in blocks(entries) if isinstance(each, AnsweredBlock)) == [
        prediction_id for entry in entries if isinstance(entry, AnsweredBatch) for prediction_id in entry.prediction_ids
    ]


@pytest.mark.parametrize(
    "other",
    [
        {"endpoint": "other"},
        {"bundle": digest("two")},
        {"key_names": ("distance",)},
        {"tensor": np.zeros((2, 4), np.float32)},
        {"outputs": {"other": np.zeros((2, 2), np.float32)}},
        {"outputs": {"probabilities": np.zeros((2, 3), np.float32)}},
        {"given": {"origin": column_of(Dtype.STRING, ["JFK", None])}},
        {"given": {"origin": column_of(Dtype.STRING, ["JFK"] * 2), "distance": column_of(Dtype.INT64, [1, 2])}},
    ],
    ids=lambda other: "-".join(other),
)
def test_batches_that_differ_in_form_have_frames_of_their_own(other: dict[str, Any]) -> None:
    first = a_batch("a")
    entries: list[LogEntry] = [first, replace(first, **other), first]
    assert [len(group) for group in groups(entries)] == [2, 1]


def test_batches_whose_features_differ_have_frames_of_their_own() -> None:
    first = a_batch("a")
    frame = first.frame
    fewer = replace(frame, statuses={name: frame.statuses[name] for name in list(frame.statuses)[1:]})
    older = replace(frame, event_times={"w": frame.event_times["v"]})
    entries: list[LogEntry] = [first, replace(first, frame=fewer), replace(first, frame=older)]
    assert [len(group) for group in groups(entries)] == [1, 1, 1]


# --- frames of older gateways ----------------------------------------------------------------------------------------


def _old_document(kept: int) -> dict[str, Any]:
    """A request as formats 1 to 3 wrote it: two rows, one of which has nulls."""
    table = [["string", ["origin"], ["JFK", ""], b"\1\0"]]
    features = [["float32", ["v__a", "v__b"], np.array([[1.5, 0.0], [-2.0, 3.0]], "<f4").tobytes(), b"\1\0\1\1"]]
    statuses = [["v__a", "v__b"], b"\0\1\0\0"]
    times = [["v"], np.array([7, -1], "<i8").tobytes()]
    if kept < 3:
        table = {"origin": ["string", ["JFK", ""], b"\1\0"]}  # type: ignore[assignment]  # it was a dictionary
        values = np.array([[1.5, 0.0], [-2.0, 3.0]], "<f4")
        features = {  # type: ignore[assignment]  # as above
            "v__a": ["float32", values[0].tobytes(), b"\1\0"],
            "v__b": ["float32", values[1].tobytes(), b"\1\1"],
        }
        statuses = {"v__a": b"\0\1", "v__b": b"\0\0"}  # type: ignore[assignment]  # as above
        times = {"v": times[1]}  # type: ignore[assignment]  # as above
    batch: dict[str, Any] = {
        "endpoint": "flight-delay",
        "bundle": digest("one"),
        "role": "live",
        "rung": "normal",
        "request_id": "r",
        "as_of": 9,
        "prediction_ids": ["r-0", "r-1"],
        "key_names": ["origin"],
        "given": table,
        "columns": features,
        "statuses": statuses,
        "event_times": times,
        "tensor": np.array([[1], [2]], "<f4").tobytes(),
        "outputs": {"p": np.array([[0.25, 0.75], [0.5, 0.5]], "<f4").tobytes()},
        "labels": ["late", "on_time"],
        "probabilities": np.array([0.75, 0.5], "<f4").tobytes(),
        "stage_ms": {"model": 1.25},
    }
    if kept > 1:
        batch |= {"experiment": "size", "arm": "larger", "positions": np.array([2, 5], "<i8").tobytes(), "twins": []}
    return {"format": kept, "batch": batch}


@pytest.mark.parametrize("kept", [1, 2, 3])
def test_frames_of_older_gateways_become_blocks(kept: int) -> None:
    block = decode(msgspec.msgpack.encode(_old_document(kept)))
    assert isinstance(block, AnsweredBlock)
    (request,) = block.requests
    assert (request.request_id, request.as_of, request.rows, request.caller) == ("r", 9, 2, "")
    assert (request.experiment, request.arm) == (("", "") if kept == 1 else ("size", "larger"))
    assert block.positions.tolist() == ([0, 1] if kept == 1 else [2, 5])
    assert block.given["origin"].valid.tolist() == [True, False]
    assert block.frame.columns["v__b"].values.tolist() == [-2.0, 3.0]
    assert block.frame.columns["v__a"].valid.tolist() == [True, False]
    assert block.frame.statuses["v__a"].tolist() == [0, 1]
    assert block.frame.event_times["v"].tolist() == [7, -1]
    assert block.tensor is not None
    assert block.tensor.tolist() == [[1], [2]]
    assert block.twins == ["", ""]
    assert encode(decode(encode(block))) == encode(block)


@pytest.mark.parametrize("kept", [1, 2, 3])
def test_outcomes_and_tallies_of_older_gateways_are_read(kept: int) -> None:
    outcomes = decode(msgspec.msgpack.encode({"format": kept, "outcomes": [["p", "late", None, 7]]}))
    assert outcomes == (Outcome("p", "late", None, 7),)
    assert decode(msgspec.msgpack.encode({"format": kept, "tallies": [{"rows": 1}]})) == TallyBatch(({"rows": 1},))


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"\xc1",
        msgspec.msgpack.encode("text"),
        msgspec.msgpack.encode({"format": FORMAT}),
        msgspec.msgpack.encode({"format": FORMAT + 1, "outcomes": []}),
        msgspec.msgpack.encode({"format": FORMAT, "outcomes": [["p"]]}),
        msgspec.msgpack.encode({"format": FORMAT, "block": []}),
        msgspec.msgpack.encode({"format": 3, "batch": {"prediction_ids": ["p"]}}),
    ],
)
def test_what_is_no_log_entry_is_refused(document: bytes) -> None:
    with pytest.raises(InvalidDefinition, match=r"log entr"):
        decode(document)


@settings(max_examples=150, deadline=None)
@given(where=st.integers(min_value=0), byte=st.integers(0, 255))
def test_any_byte_changed_gives_a_block_or_a_refusal(where: int, byte: int) -> None:
    (block,) = blocks([a_batch("a", rows=3)])
    data = bytearray(encode(block))
    data[where % len(data)] = byte
    try:
        found = decode(bytes(data))
    except InvalidDefinition:
        return
    if isinstance(found, AnsweredBlock):
        assert found.rows == sum(each.rows for each in found.requests)


def test_a_dtype_has_one_form_in_blocks() -> None:
    for dtype in Dtype:
        column = column_of(dtype, [None, TABLE[dtype].zero])
        batch = replace(a_batch("a"), given={"origin": column_of(Dtype.STRING, ["a", "b"]), "x": column})
        (block,) = blocks([batch])
        again = decode(encode(block))
        assert isinstance(again, AnsweredBlock)
        assert again.given["x"].dtype is dtype
        assert again.given["x"].values.tolist() == column.values.tolist()
        assert again.given["x"].valid.tolist() == [False, True]
