"""A transform reads a table of blocks as it reads columns: the same bits, and the same refusals."""

import numpy as np
import pytest

from skewless.column_table import ColumnLayout, ColumnTable
from skewless.dtypes import TABLE, Column, Dtype, column_of
from skewless.errors import InvalidDefinition
from skewless.transforms import FittedTransform, PreparedTransform, Transform, column
from skewless.transforms.execution import CHUNK_ROWS, KEPT_ROWS_MAX, LAYOUTS_MAX
from skewless.transforms.row_generator import generate_rows
from skewless.transforms.row_program import ROWS_MAX

DTYPES = {
    "flag": Dtype.BOOL,
    "small": Dtype.INT32,
    "count": Dtype.INT64,
    "single": Dtype.FLOAT32,
    "other": Dtype.FLOAT32,
    "double": Dtype.FLOAT64,
    "word": Dtype.STRING,
    "second": Dtype.STRING,
    "moment": Dtype.TIMESTAMP,
}
SIZES = (1, ROWS_MAX, ROWS_MAX + 1, 7, KEPT_ROWS_MAX, KEPT_ROWS_MAX + 1, CHUNK_ROWS, CHUNK_ROWS + 1)


def fitted() -> FittedTransform:
    flag, small, count, single, other, double, word, second = (
        column(name, dtype) for name, dtype in DTYPES.items() if name != "moment"
    )
    moment = column("moment", Dtype.TIMESTAMP, nullable=False)
    transform = Transform(
        {
            "single": single.clip(-3.0, 3.0).impute_median().standardise(),
            "other": other.clean(-100.0, 100.0).impute(0.0).abs().log1p(),
            "double": (double - single).impute_mean(),
            "count": (count / small).impute(0.0).clip(-9.0, 9.0),
            "flag": flag.impute(0.0),
            "missing": single.is_null() + word.is_null(),
            "word": word.one_hot(top_k=2),
            "second": second.lower().index(top_k=3),
            "hour": moment.hour("America/New_York").cyclical(24.0),
            "month": moment.month("America/New_York"),
        }
    )
    columns = {
        "flag": column_of(Dtype.BOOL, [True, None, False, True]),
        "small": column_of(Dtype.INT32, [1, 2, 3, None]),
        "count": column_of(Dtype.INT64, [5, 6, 7, 8]),
        "single": column_of(Dtype.FLOAT32, [0.5, 1.5, None, -2.0]),
        "other": column_of(Dtype.FLOAT32, [0.5, 1.5, None, -2.0]),
        "double": column_of(Dtype.FLOAT64, [0.5, 1.5, 2.5, 3.5]),
        "word": column_of(Dtype.STRING, ["a", "b", "a", None]),
        "second": column_of(Dtype.STRING, ["a", "B", "b", None]),
        "moment": column_of(Dtype.TIMESTAMP, [0, 1, 2, 1_362_900_000_000_000]),
    }
    return transform.fit(columns, 4)


def in_layout(layout: ColumnLayout, columns: dict[str, Column], rows: int) -> ColumnTable:
    """A table of that layout; columns it has more hold zeros and are valid nowhere."""
    values, valid = [], []
    for dtype, names in layout.blocks:
        block = np.full((len(names), rows), TABLE[dtype].zero, dtype=TABLE[dtype].numpy)
        known = np.zeros((len(names), rows), dtype=np.bool_)
        for line, name in enumerate(names):
            if name in columns:
                block[line], known[line] = columns[name].values, columns[name].valid
        values.append(block)
        valid.append(known)
    return ColumnTable(layout, values, valid, rows)


def layouts() -> dict[str, ColumnLayout]:
    """Blocks in the order of the transform, in another, with columns it does not read, and several of one dtype."""
    ordered = list(DTYPES.items())
    return {
        "as read": ColumnLayout.of(ordered),
        "reversed": ColumnLayout.of(ordered[::-1]),
        "with others": ColumnLayout.of([("x", Dtype.FLOAT32), *ordered, ("y", Dtype.STRING), ("z", Dtype.BYTES)]),
        "a block each": ColumnLayout(tuple((dtype, (name,)) for name, dtype in ordered)),
    }


@pytest.mark.parametrize("rows", SIZES)
@pytest.mark.parametrize("layout", layouts().values(), ids=layouts())
def test_blocks_of_any_layout_give_the_bits_of_columns(layout: ColumnLayout, rows: int) -> None:
    transform = fitted()
    columns = generate_rows(transform, rows=rows, seed=rows)
    prepared = transform.prepare()
    expected = prepared.apply(columns, rows).tobytes()
    for _ in range(2):  # the second call finds the layout known and a workspace made
        tensor = prepared.apply(in_layout(layout, columns, rows), rows)
        assert tensor.flags.c_contiguous
        assert tensor.dtype == np.float32
        assert tensor.tobytes() == expected


def test_an_empty_table_gives_an_empty_tensor() -> None:
    transform = fitted()
    table = ColumnTable.from_columns(generate_rows(transform, rows=0), 0)
    assert transform.prepare().apply(table, 0).shape == (0, len(transform.output_names))


def test_a_part_of_a_table_gives_the_bits_of_its_rows() -> None:
    transform = fitted()
    columns = generate_rows(transform, rows=50, seed=2)
    prepared = transform.prepare()
    whole = prepared.apply(columns, 50)
    table = ColumnTable.from_columns(columns, 50)
    for start, stop in ((0, 1), (13, 15), (20, 50)):
        assert prepared.apply(table.slice(start, stop), stop - start).tobytes() == whole[start:stop].tobytes()


def test_nothing_of_a_call_is_seen_by_the_next_with_as_many_rows() -> None:
    transform = fitted()
    for rows in (1, 5):
        prepared = transform.prepare()
        first = ColumnTable.from_columns(generate_rows(transform, rows=rows, seed=1), rows)
        second = generate_rows(transform, rows=rows, seed=2)
        kept = prepared.apply(first, rows)
        copy = kept.copy()
        after = prepared.apply(ColumnTable.from_columns(second, rows), rows)
        assert after.tobytes() == transform.prepare().apply(second, rows).tobytes()
        assert kept.tobytes() == copy.tobytes(), "a tensor is the caller's own"


def broken(rows: int) -> dict[str, tuple[ColumnTable, str]]:
    """Tables that must be refused, with what the refusal says."""
    columns = generate_rows(fitted(), rows=rows)
    moment = columns["moment"]
    null = Column(moment.dtype, moment.values, np.arange(rows) != rows - 1)
    renamed = {("gone" if name == "single" else name): each for name, each in columns.items()}
    retyped = {**columns, "count": column_of(Dtype.INT32, [1] * rows)}
    table = ColumnTable.from_columns(columns, rows)
    wider = [block.astype(np.float64) if block.dtype == np.float32 else block for block in table.value_blocks]
    return {
        "missing": (ColumnTable.from_columns(renamed, rows), "`single` is missing"),
        "retyped": (ColumnTable.from_columns(retyped, rows), "`count` is int32"),
        "null": (ColumnTable.from_columns({**columns, "moment": null}, rows), f"`moment` is null in row {rows - 1}"),
        "wider": (ColumnTable(table.layout, wider, table.valid_blocks, rows), "in an array of float64"),
        "longer": (ColumnTable.from_columns(generate_rows(fitted(), rows=rows + 1), rows + 1), "both must be"),
    }


@pytest.mark.parametrize("rows", [1, 2, 10])
@pytest.mark.parametrize("kind", broken(1))
def test_a_table_that_does_not_fit_is_refused(kind: str, rows: int) -> None:
    prepared = fitted().prepare()
    good = generate_rows(fitted(), rows=rows)
    prepared.apply(ColumnTable.from_columns(good, rows), rows)
    table, said = broken(rows)[kind]
    for _ in range(2):
        with pytest.raises(InvalidDefinition, match=said):
            prepared.apply(table, rows)
    assert prepared.apply(ColumnTable.from_columns(good, rows), rows).tobytes() == prepared.apply(good, rows).tobytes()


def test_what_is_kept_between_calls_is_bounded() -> None:
    transform = fitted()
    prepared: PreparedTransform = transform.prepare()
    columns = generate_rows(transform, rows=1)
    for place in range(3 * LAYOUTS_MAX):
        layout = ColumnLayout.of([*DTYPES.items(), (f"extra{place}", Dtype.BOOL)])
        prepared.apply(in_layout(layout, columns, 1), 1)
        assert len(prepared._loaders) <= LAYOUTS_MAX
    for rows in (*range(1, 20), KEPT_ROWS_MAX, KEPT_ROWS_MAX + 1, 500):
        prepared.apply(ColumnTable.from_columns(generate_rows(transform, rows=rows), rows), rows)
    assert max(prepared._kept) == KEPT_ROWS_MAX
    assert list(prepared._kept_large) == [500]
    for workspace in [*prepared._kept.values(), *prepared._kept_large.values()]:
        kept = [each for each in workspace.others if len(each.values)]
        assert not kept, "the rows' strings and moments are let go"
