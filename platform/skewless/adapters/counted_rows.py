"""Arrow tables of logged predictions as rows that the monitor counts: a block of columns per dtype, statuses, ages.

    table    rows of one endpoint with one set of columns, of any bundles and roles
    parts    rows of one bundle in one role that have the same variables, see `drift/batch_counts.py`

Of a list or bytes only the length is counted, so only its length is made: an object of that length stands in its place.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from skewless.adapters.arrow_columns import ARROW_TYPES
from skewless.adapters.recorded_rows import log_names_of
from skewless.canonical_json import Digest
from skewless.column_table import ColumnLayout, ColumnTable
from skewless.drift.batch_counts import LoggedPart
from skewless.drift.watched_bundle import VariableKey, WatchedBundle
from skewless.dtypes import ELEMENTS, TABLE, Dtype
from skewless.features.frame import STATUS_CODES, Lines
from skewless.features.visibility import NO_EVENT_TIME, Status
from skewless.statistics.ages import NO_AGE
from skewless.statistics.observed import Observed
from skewless.statistics.variable import Part

_FACTS = ("as_of", "bundle_digest", "role", "probability", "tensor")
_PREFIXES = ("key.", "request.", "feature.", "status.", "event_time.", "output.")
_LENGTHS = tuple(range(length) for length in range(1_024))
TENSOR = "tensor"
SCORE = "score"
"""What a baseline calls the calibrated score, which the log has as `probability`."""

Group = tuple[Digest, str, Any]
"""Bundle and role of some rows, and the table of them."""


def counted_columns(names: Sequence[str]) -> list[str]:
    """Those of a log table's columns that are counted."""
    return [name for name in names if name in _FACTS or name.startswith(_PREFIXES)]


def times_of(table: Any) -> NDArray[np.int64]:
    """The `as_of` (rows,) of each row, in µs."""
    return _micros(table.column("as_of"), NO_EVENT_TIME)


def by_bundle_and_role(table: Any) -> Iterator[Group]:
    """The rows of each bundle in each role, in order of first use."""
    coded = [_encoded(table.column(name)) for name in ("bundle_digest", "role")]
    (bundles, of_bundle), (roles, of_role) = coded
    codes = of_bundle.astype(np.int64) * len(roles) + of_role
    found, first = np.unique(codes, return_index=True)
    for code in found[np.argsort(first, kind="stable")].tolist():
        chosen = table if len(found) == 1 else table.filter(pa.array(codes == code))
        yield Digest(bundles[code // len(roles)]), roles[code % len(roles)], chosen


def logged_parts(table: Any, watched: WatchedBundle) -> Iterator[LoggedPart]:
    """Rows that the bundle answered in one role, as they are counted: those whose tensor was kept, and the others."""
    kept, misshapen = _tensor_rows(table, watched)
    if kept is None or kept.all() or not kept.any():
        yield _part(table, watched, has_tensor=kept is not None and bool(kept.all()), misshapen=misshapen)
        return
    for mask, has_tensor in ((kept, True), (~kept, False)):
        rows = table.filter(pa.array(mask))
        yield _part(rows, watched, has_tensor=has_tensor, misshapen=None if misshapen is None else misshapen[mask])


def foreign_part(table: Any, watched: WatchedBundle) -> LoggedPart:
    """Rows that other bundles answered, for this one's bins: what both read, and nothing that the others made of it."""
    own = _part(table, watched, has_tensor=False, misshapen=None)
    made = {each.key for each in watched.of(Part.SCORE)}
    return LoggedPart(replace(own.observed, scores={}), own.times_us, own.absent | made)


def _part(table: Any, watched: WatchedBundle, *, has_tensor: bool, misshapen: NDArray[np.bool_] | None) -> LoggedPart:
    rows = table.num_rows
    as_of = times_of(table)
    names = log_names_of(watched.contract)
    columns, absent = _columns(table, watched, names)
    statuses = _statuses(table, [each.name for each in watched.of(Part.COLUMN) if each.statuses is not None], absent)
    shapes = {} if misshapen is None or not misshapen.any() else {TENSOR: misshapen}
    shapes |= {f"column {name}": np.ones(rows, dtype=np.bool_) for part, name in absent if part is Part.COLUMN}
    shapes |= _odd_outputs(table, watched)
    ages = _ages(table, watched, as_of, absent)
    tensor = _matrix(table.column(TENSOR), len(watched.of(Part.OUTPUT))) if has_tensor else None
    if tensor is None:
        absent |= {each.key for each in watched.of(Part.OUTPUT)}
    scores = _scores(table, watched, absent)
    observed = Observed(rows, columns, statuses, ages, tensor, scores)
    return LoggedPart(observed, as_of, frozenset(absent), shapes)


def _columns(table: Any, watched: WatchedBundle, names: dict[str, str]) -> tuple[ColumnTable, set[VariableKey]]:
    """The kept columns of the contract that the table has in their own type, and which it has not."""
    absent: set[VariableKey] = set()
    chosen: dict[Dtype, list[str]] = {}
    types = {field.name: _plain(field.type) for field in table.schema}
    for variable in watched.of(Part.COLUMN):
        if _is(types.get(names[variable.name]), ARROW_TYPES[variable.dtype]):
            chosen.setdefault(variable.dtype, []).append(variable.name)
        else:
            absent.add(variable.key)
    values, valid = [], []
    for dtype, listed in chosen.items():
        block = np.empty((len(listed), table.num_rows), dtype=TABLE[dtype].numpy)
        known = np.ones((len(listed), table.num_rows), dtype=np.bool_)
        load = _loader(dtype)
        for line, name in enumerate(listed):
            array = _one(table.column(names[name]))
            if array.null_count:
                known[line] = array.is_valid().to_numpy(zero_copy_only=False)
            block[line] = load(array)
        values.append(block)
        valid.append(known)
    layout = ColumnLayout(tuple((dtype, tuple(listed)) for dtype, listed in chosen.items()))
    return ColumnTable(layout, values, valid, table.num_rows), absent


def _loader(dtype: Dtype) -> Callable[[Any], NDArray[Any]]:
    """What makes the values (rows,) of an Arrow array, the dtype's zero where it is null."""
    if dtype is Dtype.STRING:
        return _words
    if dtype is Dtype.BYTES:
        return lambda array: _sized(pc.binary_length(array))
    if dtype in ELEMENTS:
        return lambda array: _sized(pc.list_value_length(array))
    if dtype is Dtype.TIMESTAMP:
        return lambda array: _micros(array, 0)
    zero = TABLE[dtype].zero
    return lambda array: (array.fill_null(zero) if array.null_count else array).to_numpy(zero_copy_only=False)


def _words(array: Any) -> NDArray[Any]:
    words, codes = _encoded(array)
    listed = np.empty(len(words) + 1, dtype=object)
    listed[:-1], listed[-1] = words, ""
    return listed[codes]


def _sized(lengths: Any) -> NDArray[Any]:
    """Objects of these lengths."""
    found = np.empty(len(lengths), dtype=object)
    listed = lengths.fill_null(0).to_pylist()
    found[:] = [_LENGTHS[each] if each < len(_LENGTHS) else range(each) for each in listed]
    return found


def _statuses(table: Any, features: Sequence[str], absent: set[VariableKey]) -> Lines:
    """Codes of the features that are not absent. Where a status is missing its feature becomes absent."""
    known = [name for name in features if (Part.COLUMN, name) not in absent]
    codes = np.zeros((len(known), table.num_rows), dtype=np.uint8)
    for line, name in enumerate(known):
        words, of_rows = _encoded(table.column(f"status.{name}"))
        meaning = np.array([*(_CODES.get(word, _UNKNOWN) for word in words), 0], dtype=np.uint8)
        codes[line] = meaning[of_rows]
    return Lines({name: line for line, name in enumerate(known)}, codes)


def _ages(table: Any, watched: WatchedBundle, as_of: NDArray[np.int64], absent: set[VariableKey]) -> Lines:
    """Ages of the views that the table has event times of; the others become absent."""
    views = []
    for variable in watched.of(Part.AGE):
        if f"event_time.{variable.name}" in table.column_names:
            views.append(variable.name)
        else:
            absent.add(variable.key)
    ages = np.empty((len(views), table.num_rows), dtype=np.int64)
    for line, view in enumerate(views):
        times = _micros(table.column(f"event_time.{view}"), NO_EVENT_TIME)
        # As `ages_of` has it, a row at a time and without a dictionary of arrays.
        np.subtract(as_of, times, out=ages[line])
        ages[line][(times == NO_EVENT_TIME) | (times > as_of)] = NO_AGE
    return Lines({view: line for line, view in enumerate(views)}, ages)


def _scores(table: Any, watched: WatchedBundle, absent: set[VariableKey]) -> dict[str, NDArray[np.float32]]:
    found = {}
    for variable in watched.of(Part.SCORE):
        if variable.name == SCORE:
            array = _one(table.column("probability"))
            found[SCORE] = array.to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
        else:
            absent.add(variable.key)
    return found


def _tensor_rows(table: Any, watched: WatchedBundle) -> tuple[NDArray[np.bool_] | None, NDArray[np.bool_] | None]:
    """Which rows (rows,) have a tensor of the bundle's width, and which one of another; None where none has any."""
    column = table.column(TENSOR)
    if column.null_count == len(column):
        return None, None
    width = 4 * len(watched.of(Part.OUTPUT))
    lengths = pc.binary_length(_one(column)).fill_null(-1).to_numpy(zero_copy_only=False)
    return lengths == width, (lengths != width) & (lengths >= 0)


def _matrix(column: Any, width: int) -> NDArray[np.float32]:
    """The tensor (rows, width), over the memory of its rows' bytes; each of them has that width."""
    array = _one(column)
    data = array.buffers()[2]
    start = np.frombuffer(array.buffers()[1], dtype=np.int32, count=1, offset=4 * array.offset)[0]
    values = np.frombuffer(data, dtype="<f4", count=len(array) * width, offset=int(start))
    return values.reshape(len(array), width).astype(np.float32, copy=False)


def _odd_outputs(table: Any, watched: WatchedBundle) -> dict[str, NDArray[np.bool_]]:
    found = {}
    for name, width in watched.outputs:
        if f"output.{name}" not in table.column_names:
            continue
        lengths = pc.list_value_length(_one(table.column(f"output.{name}"))).fill_null(width)
        odd = lengths.to_numpy(zero_copy_only=False) != width
        if odd.any():
            found[f"output {name}"] = odd
    return found


def _encoded(column: Any) -> tuple[list[Any], NDArray[np.int32]]:
    """Distinct values, and which of them each row has; -1, the last place, for null."""
    array = _one(column)
    if not pa.types.is_dictionary(array.type):
        array = array.dictionary_encode()
    codes = array.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    return array.dictionary.to_pylist(), codes.astype(np.int32, copy=False)


def _micros(column: Any, null: int) -> NDArray[np.int64]:
    array = _one(column).cast(pa.int64())
    if array.null_count:
        array = array.fill_null(null)
    found: NDArray[np.int64] = array.to_numpy(zero_copy_only=False)
    return found


def _one(column: Any) -> Any:
    """A column as one array; dictionaries of its chunks become one."""
    if not isinstance(column, pa.ChunkedArray):
        return column
    if column.num_chunks == 1:
        return column.chunk(0)
    if pa.types.is_dictionary(column.type):
        column = column.unify_dictionaries()
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def _is(found: Any, wanted: Any) -> bool:
    """Whether a column has a type; files name the elements of lists otherwise than memory does."""
    if found is not None and pa.types.is_list(wanted):
        return pa.types.is_list(found) and bool(found.value_type == wanted.value_type)
    return bool(found == wanted)


def _plain(arrow_type: Any) -> Any:
    return arrow_type.value_type if pa.types.is_dictionary(arrow_type) else arrow_type


_CODES = {status.value: code for code, status in enumerate(STATUS_CODES)}
_UNKNOWN = _CODES[Status.INVALID.value]
"""What a status counts as that only a later version knows."""
