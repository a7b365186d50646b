"""A baseline as plain data and back, checked in every respect: what is read is what some training can have written.

Numbers of a dtype are written in their shortest form of it (0.1, not 0.10000000149011612), and cast to it when read.
Fingerprints of words are the little-endian unsigned 32-bit numbers, in base64.
"""

import base64
import math
from collections.abc import Mapping, Set
from itertools import pairwise
from typing import Any

import numpy as np

from skewless.dtypes import Dtype
from skewless.errors import InvalidDefinition
from skewless.features.visibility import Status
from skewless.statistics.edges import EDGES_MAX
from skewless.statistics.moments import Moments
from skewless.statistics.variable import Measure, Part, Variable, counted_dtype, measure_of
from skewless.statistics.words import KNOWN_MAX, LISTED_MAX, WORD_BYTES_MAX, Vocabulary

FORMAT = 1
COUNT_MAX = 2**53
"""Whole numbers up to here are the same in every reader of JSON."""
LISTS = {Part.COLUMN: "columns", Part.OUTPUT: "outputs", Part.SCORE: "scores", Part.AGE: "ages"}
"""Where the variables of each part are kept."""
WORD_FIELDS = ("name", "dtype", "words", "rest", "closed", "counts")
NUMBER_FIELDS = ("name", "dtype", "edges", "counts", "moments")
MOMENT_FIELDS = ("count", "mean", "deviation", "minimum", "maximum")
STATUSES = "statuses"
"""Present for stored features only."""
_FINGERPRINT = np.dtype("<u4")
_STATUS_NAMES = frozenset(status.value for status in Status)


def to_json(rows: int, variables: tuple[Variable, ...]) -> dict[str, Any]:
    """Plain data of a baseline."""
    return {
        "format": FORMAT,
        "rows": rows,
        **{key: [_variable_json(each) for each in variables if each.part is part] for part, key in LISTS.items()},
    }


def from_json(data: object) -> tuple[int, tuple[Variable, ...]]:
    """The inverse of `to_json`: rows and variables. Raises InvalidDefinition naming what is wrong."""
    document = _fields(data, ("format", "rows", *LISTS.values()), "the baseline")
    if document["format"] != FORMAT:
        raise InvalidDefinition(
            f"the baseline has format {document['format']!r}; this version reads {FORMAT}",
            hint="train the bundle again with this version",
        )
    rows = _count(document["rows"], "rows")
    variables = tuple(
        _variable(part, each, rows, f"{key}[{place}]")
        for part, key in LISTS.items()
        for place, each in enumerate(_list(document[key], key))
    )
    if len({variable.key for variable in variables}) < len(variables):
        raise InvalidDefinition("the baseline has two variables of one part and name")
    return rows, variables


def _variable_json(variable: Variable) -> dict[str, Any]:
    data: dict[str, Any] = {"name": variable.name, "dtype": variable.dtype.value, "counts": list(variable.counts)}
    if variable.statuses is not None:
        data[STATUSES] = dict(variable.statuses)
    if (known := variable.vocabulary) is not None:
        rest = base64.b64encode(np.array(known.rest, dtype=_FINGERPRINT).tobytes()).decode()
        return {**data, "words": list(known.listed), "rest": rest, "closed": known.closed}
    edges = [_number_json(edge, variable) for edge in variable.edges]
    return {**data, "edges": edges, "moments": _moments_json(variable)}


def _moments_json(variable: Variable) -> dict[str, int | float] | None:
    if (moments := variable.moments) is None:
        return None
    return {
        "count": moments.count,
        "mean": moments.mean,
        "deviation": moments.deviation,
        "minimum": _number_json(moments.minimum, variable),
        "maximum": _number_json(moments.maximum, variable),
    }


def _number_json(number: float, variable: Variable) -> int | float:
    """The shortest number that is this one in what is counted of the variable."""
    dtype = counted_dtype(variable.dtype)
    if dtype is Dtype.FLOAT32:
        return float(str(np.float32(number)))
    return number if dtype is Dtype.FLOAT64 else int(number)


def _variable(part: Part, data: object, rows: int, where: str) -> Variable:
    is_word = isinstance(data, Mapping) and "words" in data
    required = WORD_FIELDS if is_word else NUMBER_FIELDS
    optional = {STATUSES} if part is Part.COLUMN else set()
    entry = _fields(data, required, where, optional=optional)
    name = _text(entry["name"], f"{where}.name")
    where = f"`{name}` ({where})"
    dtype = _dtype(entry["dtype"], part, where)
    if is_word != (measure_of(dtype) is Measure.WORD):
        raise InvalidDefinition(f"{where} of the baseline is `{dtype}` and has {'words' if is_word else 'edges'}")
    counts = tuple(_count(each, f"{where}.counts") for each in _list(entry["counts"], f"{where}.counts"))
    statuses = _statuses(entry.get(STATUSES), rows, where)
    if is_word:
        variable = Variable(part, name, dtype, counts, vocabulary=_vocabulary(entry, where), statuses=statuses)
    else:
        edges = _edges(entry["edges"], dtype, where)
        variable = Variable(part, name, dtype, counts, edges, None, _moments(entry["moments"], dtype, where), statuses)
    _check_counts(variable, rows, where)
    return variable


def _check_counts(variable: Variable, rows: int, where: str) -> None:
    if len(variable.counts) != variable.size:
        raise InvalidDefinition(f"{where} has {len(variable.counts)} counts of the {variable.size} that its bins are")
    if variable.part is not Part.SCORE and variable.total != rows:
        raise InvalidDefinition(f"{where} counts {variable.total} values of the baseline's {rows} rows")
    if variable.vocabulary is None:
        finite = int(variable.finite_counts.sum())
        if finite != (variable.moments.count if variable.moments else 0):
            raise InvalidDefinition(f"{where} has moments of another number of values than the {finite} in its bins")


def _vocabulary(entry: Mapping[str, Any], where: str) -> Vocabulary:
    listed = tuple(_text(word, f"{where}.words") for word in _list(entry["words"], f"{where}.words"))
    if len(listed) > LISTED_MAX or len(set(listed)) < len(listed):
        raise InvalidDefinition(f"{where}.words lists {len(listed)} words; allowed: {LISTED_MAX}, each once")
    too_long = [word for word in listed if len(word.encode(errors="surrogatepass")) > WORD_BYTES_MAX]
    if too_long:
        raise InvalidDefinition(f"{where}.words lists {too_long[0]!r}; allowed: {WORD_BYTES_MAX} bytes of UTF-8")
    try:
        data = base64.b64decode(_text(entry["rest"], f"{where}.rest"), validate=True)
        rest = tuple(np.frombuffer(data, dtype=_FINGERPRINT).tolist())
    except ValueError as error:
        raise InvalidDefinition(f"{where}.rest holds no 32-bit numbers in base64: {error}") from error
    if len(rest) > KNOWN_MAX or list(rest) != sorted(set(rest)):
        raise InvalidDefinition(f"{where}.rest must hold up to {KNOWN_MAX} ascending numbers, it has {len(rest)}")
    if type(entry["closed"]) is not bool or (rest and not entry["closed"]):
        raise InvalidDefinition(f"{where}.closed is {entry['closed']!r}; allowed: true, or false where `rest` is empty")
    return Vocabulary(listed, rest, entry["closed"])


def _edges(data: object, dtype: Dtype, where: str) -> tuple[float, ...]:
    edges = tuple(_counted_number(each, dtype, f"{where}.edges") for each in _list(data, f"{where}.edges"))
    if len(edges) > EDGES_MAX or any(left >= right for left, right in pairwise(edges)):
        raise InvalidDefinition(f"{where}.edges must be up to {EDGES_MAX} strictly ascending numbers, got {edges}")
    return edges


def _moments(data: object, dtype: Dtype, where: str) -> Moments | None:
    if data is None:
        return None
    entry = _fields(data, MOMENT_FIELDS, f"{where}.moments")
    moments = Moments(
        _count(entry["count"], f"{where}.moments.count"),
        _number(entry["mean"], f"{where}.moments.mean"),
        _number(entry["deviation"], f"{where}.moments.deviation"),
        _counted_number(entry["minimum"], dtype, f"{where}.moments.minimum"),
        _counted_number(entry["maximum"], dtype, f"{where}.moments.maximum"),
    )
    if not moments.count or moments.deviation < 0 or moments.minimum > moments.maximum:
        raise InvalidDefinition(f"{where}.moments are those of no numbers: {moments}")
    return moments


def _statuses(data: object, rows: int, where: str) -> dict[str, int] | None:
    if data is None:
        return None
    entry = _fields(data, (), f"{where}.statuses", optional=_STATUS_NAMES)
    counts = {name: _count(each, f"{where}.statuses.{name}") for name, each in entry.items()}
    if counts and sum(counts.values()) != rows:
        raise InvalidDefinition(f"{where}.statuses count {sum(counts.values())} values of the baseline's {rows} rows")
    return counts


def _dtype(data: object, part: Part, where: str) -> Dtype:
    expected = {Part.OUTPUT: Dtype.FLOAT32, Part.SCORE: Dtype.FLOAT32, Part.AGE: Dtype.INT64}.get(part)
    allowed = list(Dtype) if expected is None else [expected]
    if data not in [each.value for each in allowed]:
        raise InvalidDefinition(f"{where}.dtype is {data!r}; allowed: {', '.join(each.value for each in allowed)}")
    return Dtype(str(data))


def _fields(data: object, required: tuple[str, ...], where: str, *, optional: Set[str] = frozenset()) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise InvalidDefinition(f"{where} is {_shown(data)}, not an object with {', '.join(required)}")
    missing = [name for name in required if name not in data]
    unknown = sorted(data.keys() - {*required, *optional})
    if missing or unknown:
        wrong = f"lacks `{missing[0]}`" if missing else f"has an unknown field `{unknown[0]}`"
        raise InvalidDefinition(f"{where} {wrong}; allowed: {', '.join((*required, *sorted(optional)))}")
    return data


def _list(data: object, where: str) -> list[Any]:
    if not isinstance(data, list):
        raise InvalidDefinition(f"{where} is {_shown(data)}, not a list")
    return data


def _text(data: object, where: str) -> str:
    if not isinstance(data, str):
        raise InvalidDefinition(f"{where} is {_shown(data)}, not a text")
    return data


def _count(data: object, where: str) -> int:
    if type(data) is not int or not 0 <= data <= COUNT_MAX:
        raise InvalidDefinition(f"{where} has {_shown(data)}; allowed: whole numbers from 0 to 2**53")
    return data


def _number(data: object, where: str) -> float:
    """A finite number."""
    if type(data) is int or type(data) is float:
        try:
            number = float(data)
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return number
    raise InvalidDefinition(f"{where} has {_shown(data)}; allowed: finite numbers")


def _counted_number(data: object, dtype: Dtype, where: str) -> float:
    """A number as it is counted of a column: one of float32, of float64, or a whole one."""
    number = _number(data, where)
    counted = counted_dtype(dtype)
    if counted is Dtype.FLOAT32:
        with np.errstate(over="ignore"):
            return _number(float(np.float32(number)), where)
    if counted is not Dtype.FLOAT64 and not number.is_integer():
        raise InvalidDefinition(f"{where} has {_shown(data)}; of `{dtype}` only whole numbers are counted")
    return number


def _shown(data: object) -> str:
    text = repr(data)
    return text if len(text) <= 40 else f"{text[:40]}…"
