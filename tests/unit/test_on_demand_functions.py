"""On-demand functions: how they are named, pinned and loaded, what they are given and what is taken from them."""

import math
import random
import sys
import types
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest

from skewless.column_table import ColumnTable
from skewless.dtypes import TABLE, Column, Dtype, column_of, to_python
from skewless.errors import InvalidDefinition
from skewless.features.contract import (
    FeatureContract,
    FeatureField,
    JoinKey,
    Mode,
    OnDemandView,
    RequestField,
    ViewRead,
)
from skewless.features.frame import NO_EVENT_TIME, STATUS_CODES, FeatureFrame, Lines
from skewless.features.function_source import digest_of, function_name, pinned_text
from skewless.features.function_values import WrongValue, column_from, for_pandas, for_python
from skewless.features.on_demand import OnDemandPlan, oldest_event_times
from skewless.features.visibility import Status
from skewless.timestamps import from_micros

HELPER = "skewless_test_computed"
STORED = ViewRead(
    "weather",
    (JoinKey("station", Dtype.STRING),),
    0,
    (FeatureField("temp", Dtype.FLOAT32), FeatureField("wind", Dtype.INT64), FeatureField("rain", Dtype.BOOL)),
)
OTHER = ViewRead("leg", (JoinKey("station", Dtype.STRING),), 0, (FeatureField("late", Dtype.FLOAT64),))


@pytest.fixture
def write(tmp_path: Path) -> Iterator[Callable[[str], Callable[[str], ModuleType]]]:
    """Writes a module's source and gives what loads it, and pandas, by name."""
    numbers = count()

    def make(source: str) -> Callable[[str], ModuleType]:
        path = tmp_path / f"computed_{next(numbers)}.py"
        path.write_text(source)
        module = types.ModuleType(HELPER)
        module.__file__ = str(path)

        def load(name: str) -> ModuleType:
            if name == "pandas":
                return pd
            if name != HELPER:
                raise ModuleNotFoundError(f"No module named {name!r}")
            exec(compile(source, str(path), "exec"), vars(module))  # noqa: S102  # the source above
            return module

        return load

    yield make
    sys.modules.pop(HELPER, None)


def _contract(
    load: Callable[[str], ModuleType],
    inputs: tuple[tuple[str, str], ...],
    features: tuple[tuple[str, Dtype], ...],
    *,
    mode: Mode = Mode.PYTHON,
    request: tuple[RequestField, ...] = (RequestField("cars", Dtype.INT32),),
) -> FeatureContract:
    name = f"{HELPER}:compute"
    view = OnDemandView(
        "made", mode, name, digest_of(name, load), inputs, tuple(FeatureField(*feature) for feature in features)
    )
    bare = FeatureContract("prod", (STORED, OTHER), request, digest_of(name, load), (view,))
    return FeatureContract.from_json(bare.to_json())


def _frame(temp: list[object], wind: list[object], *, table: bool = True) -> FeatureFrame:
    rows = len(temp)
    columns = {
        "weather__temp": column_of(Dtype.FLOAT32, temp),
        "weather__wind": column_of(Dtype.INT64, wind),
        "weather__rain": column_of(Dtype.BOOL, [None] * rows),
        "leg__late": column_of(Dtype.FLOAT64, [None] * rows),
    }
    statuses = np.zeros((len(columns), rows), dtype=np.uint8)
    times = np.array([range(5, 5 + rows), [NO_EVENT_TIME] * rows], dtype=np.int64)
    if not table:
        named = {name: statuses[line] for line, name in enumerate(columns)}
        return FeatureFrame(rows, columns, named, {"weather": times[0], "leg": times[1]})
    lines = {name: line for line, name in enumerate(columns)}
    return FeatureFrame(
        rows, ColumnTable.from_columns(columns, rows), Lines(lines, statuses), Lines({"weather": 0, "leg": 1}, times)
    )


def _given(rows: int) -> dict[str, Column]:
    return {
        "station": column_of(Dtype.STRING, ["north"] * rows),
        "cars": column_of(Dtype.INT32, list(range(1, rows + 1))),
    }


PYTHON = """
SCALE = 2.0
def double(value):
    return None if value is None else SCALE * value
def compute(inputs):
    return {"warm": [double(temp) for temp in inputs["temp"]], "cars": [n + 1 for n in inputs["cars"]]}
"""
PANDAS = """
def compute(rows):
    return rows.assign(warm=rows["temp"] * 2.0, cars=rows["cars"] + 1)[["warm", "cars"]]
"""
INPUTS = (("temp", "weather__temp"), ("cars", "cars"))
OUTPUTS = (("warm", Dtype.FLOAT32), ("cars", Dtype.INT64))


@pytest.mark.parametrize(("source", "mode"), [(PYTHON, Mode.PYTHON), (PANDAS, Mode.PANDAS)])
@pytest.mark.parametrize("table", [True, False], ids=["online", "offline"])
def test_features_are_added_behind_the_stored_ones(write: Any, source: str, mode: Mode, table: bool) -> None:
    load = write(source)
    plan = OnDemandPlan.compile(_contract(load, INPUTS, OUTPUTS, mode=mode), load)
    stored = _frame([1.5, None, -0.0], [1, 2, None], table=table)
    frame = plan.extend(stored, _given(3))
    assert list(frame.columns)[: len(stored.columns)] == list(stored.columns)
    assert to_python(frame.columns["made__warm"]) == [3.0, None, 0.0]
    assert frame.columns["made__warm"].values.dtype == np.float32
    assert to_python(frame.columns["made__cars"]) == [2, 3, 4]
    assert [STATUS_CODES[code] for code in frame.statuses["made__warm"]] == [Status.OK, Status.NULL, Status.OK]
    assert frame.event_times["made"].tolist() == [5, 6, 7]
    assert frame.event_times["leg"].tolist() == [NO_EVENT_TIME] * 3


def test_an_extended_frame_of_the_online_reader_can_be_cut(write: Any) -> None:
    load = write(PYTHON)
    plan = OnDemandPlan.compile(_contract(load, INPUTS, OUTPUTS), load)
    cut = plan.extend(_frame([1.5, None, 4.0], [1, 2, 3]), _given(3)).slice(1, 3)
    assert to_python(cut.columns["made__warm"]) == [None, 8.0]
    assert cut.statuses["made__warm"].tolist() == [1, 0]
    assert cut.event_times["made"].tolist() == [6, 7]


def test_no_rows_call_nothing(write: Any) -> None:
    load = write(PYTHON)
    plan = OnDemandPlan.compile(_contract(load, INPUTS, OUTPUTS), load)
    assert len(plan.extend(_frame([], []), _given(0)).columns["made__warm"]) == 0


def test_a_contract_without_on_demand_views_leaves_the_frame_alone(write: Any) -> None:
    frame = _frame([1.0], [1])
    plan = OnDemandPlan.compile(
        FeatureContract("prod", (STORED,), (), digest_of(f"{HELPER}:compute", write(PYTHON))), write(PYTHON)
    )
    assert plan.extend(frame, {}) is frame


def test_the_event_time_is_that_of_the_oldest_row_that_is_there() -> None:
    times = np.array([[5, 9, NO_EVENT_TIME], [3, NO_EVENT_TIME, NO_EVENT_TIME]], dtype=np.int64)
    assert oldest_event_times(times).tolist() == [3, 9, NO_EVENT_TIME]
    assert oldest_event_times(np.empty((0, 2), dtype=np.int64)).tolist() == [NO_EVENT_TIME] * 2


# --- naming and pinning ----------------------------------------------------------------------------------------------


def test_a_function_is_named_by_the_module_it_was_written_in() -> None:
    namespace: dict[str, Any] = {"__name__": "shop.computed"}
    exec("def fresh(rows): return rows\nclass Box:\n    def inside(rows): return rows", namespace)  # noqa: S102
    namespace["fresh"].__module__ = "__main__"  # as Feast's decorator leaves it
    assert function_name(namespace["fresh"]) == "shop.computed:fresh"
    with pytest.raises(InvalidDefinition, match="nested in something else"):
        function_name(namespace["Box"].inside)


def test_what_cannot_be_imported_by_name_is_refused() -> None:
    def nested(rows: object) -> object:
        return rows

    script: dict[str, Any] = {"__name__": "__main__"}
    exec("def plain(rows): return rows", script)  # noqa: S102  # what a script defines
    refused = {
        "a lambda": lambda rows: rows,
        "nested": nested,
        "lives in a script": script["plain"],
        "is not a func": 3,
    }
    for reason, function in refused.items():
        with pytest.raises(InvalidDefinition, match=reason):
            function_name(function)


def test_only_what_a_function_uses_pins_it() -> None:
    source = (
        "import math\nimport json\nLIMIT = 3\nOTHER = 4\n\n@math.f\ndef helper(x):\n    return LIMIT\n\n"
        "def f(x):\n    return helper(x)\n"
    )
    assert pinned_text(source, "f") == (
        "import math\nLIMIT = 3\n@math.f\ndef helper(x):\n    return LIMIT\ndef f(x):\n    return helper(x)"
    )
    changed = source.replace("OTHER = 4", "OTHER = 5").replace("import json", "import os")
    assert pinned_text(changed, "f") == pinned_text(source, "f")
    for before, after in (("LIMIT = 3", "LIMIT = 4"), ("return LIMIT", "return -LIMIT"), ("math.f", "math.g")):
        assert pinned_text(source.replace(before, after), "f") != pinned_text(source, "f")


def test_a_name_bound_in_a_branch_or_by_a_star_pins_too() -> None:
    source = "from shop import *\nif True:\n    LIMIT = 3\nelse:\n    LIMIT = 4\ndef f(x):\n    return LIMIT"
    assert pinned_text(source, "f") == source


def test_another_source_than_the_pinned_one_is_refused(write: Any) -> None:
    contract = _contract(write(PYTHON), INPUTS, OUTPUTS)
    with pytest.raises(InvalidDefinition, match="is not the one that was registered"):
        OnDemandPlan.compile(contract, write(PYTHON.replace("SCALE = 2.0", "SCALE = 2.5")))
    OnDemandPlan.compile(contract, write("UNUSED = 1\n" + PYTHON))


def test_a_module_that_is_away_or_broken_is_refused(write: Any) -> None:
    contract = _contract(write(PYTHON), INPUTS, OUTPUTS)

    def nothing(name: str) -> ModuleType:
        raise ModuleNotFoundError(f"No module named {name!r}")

    with pytest.raises(InvalidDefinition, match="cannot be imported: ModuleNotFoundError"):
        OnDemandPlan.compile(contract, nothing)
    with pytest.raises(InvalidDefinition, match="cannot be imported: ZeroDivisionError"):
        OnDemandPlan.compile(contract, write("1 / 0"))
    with pytest.raises(InvalidDefinition, match="is nothing, not a function"):
        OnDemandPlan.compile(contract, write("x = 1"))
    with pytest.raises(InvalidDefinition, match="is a str, not a function"):
        OnDemandPlan.compile(contract, write("compute = 'text'"))


# --- admission -------------------------------------------------------------------------------------------------------

REFUSED = {
    "depends on the other rows": ("[sum(t or 0 for t in i['temp'])] * len(i['temp'])", "alone and .* among"),
    "depends on the order": ("[n for n, _ in enumerate(i['temp'])]", "alone and .* among"),
    "depends on a clock": ("[__import__('time').perf_counter_ns() % 1e9 for _ in i['temp']]", "alone and .* among"),
    "cannot take a null": ("[t + 1 for t in i['temp']]", r"cannot take a null in `weather__temp`"),
    "raises always": ("[1 // 0 for _ in i['temp']]", "raised ZeroDivisionError"),
    "gives too few values": ("i['temp'][:-1]", r"has 0 values, the function was given 1 rows"),
    "gives no list": ("3.0", "is a float and not a list"),
    "gives another type": ("['1'] * len(i['temp'])", r"row 0 has '1': a str is no number"),
}


@pytest.mark.parametrize(("result", "reason"), REFUSED.values(), ids=REFUSED)
def test_a_function_is_refused_before_it_serves_when_it(write: Any, result: str, reason: str) -> None:
    load = write(f"def compute(i):\n    return {{'warm': {result}}}")
    with pytest.raises(InvalidDefinition, match=rf"(?s)on-demand view `made`: function `{HELPER}:compute`.*{reason}"):
        OnDemandPlan.compile(_contract(load, INPUTS, (("warm", Dtype.FLOAT64),)), load)


@pytest.mark.parametrize(
    ("returned", "reason"),
    [
        ("rows['temp']", "is asked of a DataFrame, and the function returned a Series"),
        ("rows.assign(warm=rows['temp'] - rows['temp'].mean())", "alone and .* among"),
        ("rows.assign(warm=rows['temp'].shift())", "alone and .* among"),
        ("rows.assign(cold=1.0)", r"is not among the columns that the function returned: \['cars', 'cold', 'temp'\]"),
        ("rows.assign(warm=1.0).set_index('cars')", "has another index"),
        ("rows.assign(warm=rows['temp'].astype(int))", "cannot take a null in `weather__temp`"),
    ],
)
def test_a_pandas_function_is_held_to_the_same(write: Any, returned: str, reason: str) -> None:
    load = write(f"def compute(rows):\n    return {returned}")
    with pytest.raises(InvalidDefinition, match=f"(?s){reason}"):
        OnDemandPlan.compile(_contract(load, INPUTS, (("warm", Dtype.FLOAT64),), mode=Mode.PANDAS), load)


def test_rows_that_a_function_refuses_for_their_value_prove_nothing(write: Any) -> None:
    load = write("def compute(i):\n    return {'warm': [None if t is None else 1 / t for t in i['temp']]}")
    plan = OnDemandPlan.compile(_contract(load, INPUTS, (("warm", Dtype.FLOAT64),)), load)
    with pytest.raises(InvalidDefinition, match=r"`made`.* raised ZeroDivisionError: float division by zero"):
        plan.extend(_frame([2.0, 0.0], [1, 1]), _given(2))


def test_a_function_may_change_what_it_was_given(write: Any) -> None:
    load = write("def compute(i):\n    i['temp'].append(1)\n    i.clear()\n    return {'warm': [1.0]}")
    contract = _contract(load, INPUTS, (("warm", Dtype.FLOAT64),))
    frame = _frame([2.0], [1])
    with pytest.raises(InvalidDefinition, match="has 1 values, the function was given"):
        OnDemandPlan.compile(contract, load)
    assert to_python(frame.columns["weather__temp"]) == [2.0]


def test_a_view_that_reads_what_its_contract_lacks_is_refused(write: Any) -> None:
    load = write(PYTHON)
    with pytest.raises(InvalidDefinition, match="reads column `weather__humidity`"):
        OnDemandPlan.compile(_contract(load, (("x", "weather__humidity"),), OUTPUTS), load)


def test_pandas_is_loaded_only_for_a_view_that_uses_it(write: Any) -> None:
    load, asked = write(PYTHON), []

    def watching(name: str) -> ModuleType:
        asked.append(name)
        return load(name)  # type: ignore[no-any-return]  # a module

    OnDemandPlan.compile(_contract(load, INPUTS, OUTPUTS), watching)
    assert asked == [HELPER]


# --- values ----------------------------------------------------------------------------------------------------------

EAST = timezone(timedelta(hours=2))
MOMENT = datetime(2024, 1, 1, 12, 0, 0, 5, tzinfo=EAST)
TAKEN: list[tuple[Dtype, object, object]] = [
    (Dtype.BOOL, np.bool_(True), True),
    (Dtype.INT32, 3.0, 3),
    (Dtype.INT64, np.int64(2**62), 2**62),
    (Dtype.FLOAT32, 0.1, float(np.float32(0.1))),
    (Dtype.FLOAT64, 7, 7.0),
    (Dtype.FLOAT64, float("nan"), None),
    (Dtype.INT64, float("nan"), None),
    (Dtype.STRING, "", ""),
    (Dtype.BYTES, b"\x00", b"\x00"),
    (Dtype.TIMESTAMP, MOMENT, 1_704_103_200_000_005),
    (Dtype.TIMESTAMP, pd.Timestamp(MOMENT), 1_704_103_200_000_005),
    (Dtype.INT32_LIST, [1, np.int64(2)], (1, 2)),
    (Dtype.FLOAT32_LIST, np.array([0.5]), (0.5,)),
    (Dtype.TIMESTAMP_LIST, (MOMENT,), (1_704_103_200_000_005,)),
    (Dtype.STRING_LIST, [], ()),
]
NOT_TAKEN: list[tuple[Dtype, object, str]] = [
    (Dtype.BOOL, 1, "no truth value"),
    (Dtype.INT32, True, "no whole number"),
    (Dtype.INT32, 3.5, "no whole number"),
    (Dtype.INT32, 2**31, "out of range"),
    (Dtype.INT64, 2.0**60, "no whole number"),
    (Dtype.FLOAT64, True, "no number"),
    (Dtype.FLOAT64, 10**400, "out of range"),
    (Dtype.STRING, b"text", "no string"),
    (Dtype.BYTES, "text", "no bytes"),
    (Dtype.TIMESTAMP, 5, "no datetime"),
    (Dtype.TIMESTAMP, datetime(2024, 1, 1), "without a time zone"),  # noqa: DTZ001  # what is refused
    (Dtype.INT32_LIST, "12", "no list"),
    (Dtype.INT32_LIST, [1, None], "no whole number"),
]


@pytest.mark.parametrize(("dtype", "given", "expected"), TAKEN)
def test_a_result_is_cast_where_nothing_is_lost(dtype: Dtype, given: object, expected: object) -> None:
    column = column_from([given, None], dtype)
    assert to_python(column) == [expected, None]
    assert column.values.dtype == TABLE[dtype].numpy


@pytest.mark.parametrize(("dtype", "given", "reason"), NOT_TAKEN)
def test_a_result_of_another_type_is_refused_with_its_row(dtype: Dtype, given: object, reason: str) -> None:
    with pytest.raises(WrongValue, match=f"(?s)declared `{dtype}`, but row 1 has .*{reason}"):
        column_from([None, given], dtype)


@pytest.mark.parametrize("dtype", list(Dtype))
@pytest.mark.parametrize("nullable", [True, False])
def test_what_a_function_is_given_and_gives_back_is_the_same_column(dtype: Dtype, nullable: bool) -> None:
    from skewless.features.function_rows import ordinary_rows

    items: list[object] = [row["x"] for row in ordinary_rows({"x": dtype}, seed=dtype)]
    column = column_of(dtype, [*items, None] if nullable else items)
    assert to_python(column_from(for_python(column), dtype)) == to_python(column)
    series = pd.DataFrame({"x": for_pandas(pd, column, nullable=nullable)})["x"]
    listed = [None if missing else item for item, missing in zip(series.tolist(), series.isna().tolist(), strict=True)]
    assert to_python(column_from(listed, dtype)) == to_python(column)


def test_a_datetime_given_to_a_function_is_in_utc() -> None:
    (moment,) = for_python(column_of(Dtype.TIMESTAMP, [1_999_999]))
    assert moment == from_micros(1_999_999)
    assert moment.tzinfo is UTC


def test_dtypes_of_a_dataframe_do_not_depend_on_which_rows_are_null() -> None:
    rng = random.Random(4)
    for dtype in (Dtype.BOOL, Dtype.INT32, Dtype.INT64, Dtype.FLOAT32, Dtype.TIMESTAMP):
        columns = [column_of(dtype, [rng.choice([None, 1]) for _ in range(3)]) for _ in range(9)]
        kinds = {str(pd.DataFrame({"x": for_pandas(pd, each, nullable=True)})["x"].dtype) for each in columns}
        assert len(kinds) == 1, f"{dtype}: {kinds}"
    assert math.isnan(for_pandas(pd, column_of(Dtype.FLOAT32, [None]), nullable=True)[0])
