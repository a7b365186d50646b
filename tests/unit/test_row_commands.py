"""Rows packed column by column are byte for byte what packing each value by itself gives."""

import random

import numpy as np
import pytest

from skewless.adapters.redis_replies import packed
from skewless.dtypes import ELEMENTS, Column, Dtype, column_of
from skewless.features.contract import FeatureField, JoinKey, ViewRead
from skewless.features.feature_rows import FeatureRows
from skewless.features.redis_layout import KeyTemplate, feature_field, timestamp_field
from skewless.features.row_commands import RowPacker, bulk, bulks, varints
from skewless.features.row_order import layout_of, row_time_field, stored_row_times
from skewless.features.value_codec import varint
from skewless.features.value_encoding import stored_event_time, stored_values

ROWS = 40
_EXTREMES: dict[Dtype, list[object]] = {
    Dtype.BOOL: [True, False],
    Dtype.INT32: [0, 1, -1, 2**31 - 1, -(2**31), 127, 128],
    Dtype.INT64: [0, 1, -1, 2**63 - 1, -(2**63), 127, 128, 300],
    Dtype.FLOAT32: [0.0, -0.0, float(np.float32(3.4e38)), float("inf"), float(np.float32(1e-45))],
    Dtype.FLOAT64: [0.0, -0.0, 1.7e308, float("-inf"), 5e-324],
    Dtype.STRING: ["", "a", "ü", "x" * 200, "\r\n$3"],
    Dtype.BYTES: [b"\x00", b"\r\n", b"y" * 300],
    Dtype.TIMESTAMP: [0, 1_700_000_000_000_000, -86_400_000_000, 999_999],
}


def _column(dtype: Dtype, rng: random.Random) -> Column:
    if dtype in ELEMENTS:
        element = _EXTREMES[ELEMENTS[dtype]]
        items: list[object] = [tuple(rng.choices(element, k=rng.randrange(4))) for _ in range(ROWS)]
    else:
        items = rng.choices(_EXTREMES[dtype], k=ROWS)
    return column_of(dtype, [None if rng.random() < 0.2 else item for item in items])


@pytest.mark.parametrize("has_created_time", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_packed_rows_are_what_naive_packing_gives_for_every_dtype(seed: int, has_created_time: bool) -> None:
    rng = random.Random(seed)
    features = tuple(FeatureField(each.value, each) for each in Dtype)
    features += (FeatureField("document", Dtype.STRING, feast_type="Json"),)
    view = ViewRead("all", (JoinKey("id", Dtype.INT64), JoinKey("line", Dtype.STRING)), 0, features)
    keys = {
        "id": column_of(Dtype.INT64, [rng.randrange(-5, 5) for _ in range(ROWS)]),
        "line": column_of(Dtype.STRING, [rng.choice("ab") for _ in range(ROWS)]),
    }
    values = {each.name: _column(each.dtype, rng) for each in features}
    events = np.array([rng.choice([0, 1, 10**6, 1_700_000_000_123_456, -1_500_000]) for _ in range(ROWS)], np.int64)
    rows = FeatureRows(keys, values, events, events + 5)

    packer = RowPacker.compile(view, "project", has_created_time=has_created_time)
    found = [b"".join(parts) for parts in zip(*packer.field_pieces(rows), strict=True)]
    columns = {each.name: stored_values(values[each.name], each.feast_type) for each in features}
    times = stored_row_times(rows.event_times, rows.created_times, layout_of(view))
    for row, mine in enumerate(found):
        naive = [timestamp_field("all"), stored_event_time(int(events[row]))]
        if has_created_time:
            naive += [row_time_field("all"), times[row]]
        for each in features:
            naive += [feature_field("all", each.name), columns[each.name][row]]
        assert packed(*naive) == b"*%d\r\n" % len(naive) + mine
        assert packer.fields == len(naive) / 2

    entities = list(zip(keys["id"].values.tolist(), keys["line"].values.tolist(), strict=True))
    assert packer.keys(rows) == KeyTemplate.compile(view.join_keys, "project").keys(entities)


def test_varints_are_those_of_one_number_at_a_time() -> None:
    rng = random.Random(1)
    numbers = [0, 1, -1, 2**63 - 1, -(2**63), *(rng.getrandbits(64) - 2**63 >> rng.randrange(64) for _ in range(500))]
    matrix, lengths = varints(np.array(numbers, dtype=np.int64))
    found = [bytes(line[:length]) for line, length in zip(matrix, lengths.tolist(), strict=True)]
    assert found == [varint(each % 2**64) for each in numbers]


def test_no_rows_have_no_pieces() -> None:
    view = ViewRead("all", (), 0, tuple(FeatureField(each.value, each) for each in Dtype))
    values = {each.name: column_of(each.dtype, []) for each in view.features}
    nothing = np.empty(0, dtype=np.int64)
    rows = FeatureRows({}, values, nothing, nothing)
    packer = RowPacker.compile(view, "project", has_created_time=True)
    assert packer.keys(rows) == []
    assert all(each == [] for each in packer.field_pieces(rows))


def test_arguments_are_written_as_the_protocol_has_them() -> None:
    assert packed(b"a", b"", b"a") == b"*3\r\n" + b"".join(bulks([b"a", b"", b"a"]))
    assert bulk(b"\r\n") == b"$2\r\n\r\n\r\n"
