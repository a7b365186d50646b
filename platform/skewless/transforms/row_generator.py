"""Rows made to find a difference: for every column the values at which something can turn out otherwise.

A column's values are of three sorts. *Special* ones belong to its dtype: null, NaN, infinities, -0.0, denormals,
extremes, whole numbers beyond 2**53, empty and unusual text, leap days and seconds. *Landmarks* belong to the
transform: every number or text in the settings and learned parameters of the operations that the column reaches
(bounds, edges, medians, vocabularies, changes of a zone's offset), with the nearest values on both sides. *Typical*
ones lie between the landmarks, or are the caller's samples.

Rows then come in three parts: one that is typical; that row with one value exchanged, for every special value and
landmark; and mixtures of all three sorts. The same seed gives the same rows.
"""

import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np

from skewless.dtypes import TABLE, Column, Dtype, column_of
from skewless.timestamps import DAY_US, SECOND_US, parse_timestamp
from skewless.transforms.catalogue import COLUMN
from skewless.transforms.graph import Graph, InputColumn
from skewless.transforms.operation import Settings
from skewless.transforms.spec import FittedTransform

LANDMARKS_MAX = 64
"""Landmarks kept per column: of a longer list its ends and an even choice between them."""
_NULL_SHARE, _SPECIAL_SHARE, _LANDMARK_SHARE = 0.12, 0.2, 0.38
"""Of a mixed row's values; the rest is typical."""
_SINGLE_SHARE = 0.5
"""Of all rows, at most this part holds one exchanged value each."""
_TEXT_UNSEEN_MAX = 64
"""Characters of known categories strung together into one that is unknown."""
_INT64 = (-(2**63), 2**63 - 1)
_INT32 = (-(2**31), 2**31 - 1)

_SPECIAL_TEXT = (
    "", " ", "\t\n", "a", "A", "oov", "null", "None", "nan", "0", "-1", "1.5", "1e400", '"quoted"', "back\\slash",
    "new\nline", "a|b", "é", "e\u0301", "ß", "\u1e9e", "\u0130", "\u0131", "\u01c5", "\ufb01", "ὈΔΥΣΣΕΎΣ", "\u03a9",
    "日本語", "مرحبا", "\u0663", "\U0001f469\u200d\U0001f467", "\U0001f1f3\U0001f1f1", "\u00a0", "\u2003x\u2003",
    "\u200b", "\ufeff", "\uffff", "\U0010ffff", "x" * 1_024,
)  # fmt: skip
"""Case that does not come back, two spellings of a letter, digits of other scripts, white space of many kinds."""
_SPECIAL_MOMENTS = tuple(
    parse_timestamp(text)
    for text in (
        "1970-01-01T00:00:00Z", "1969-12-31T23:59:59.999999Z", "0001-01-01T00:00:00Z", "1582-10-15T00:00:00Z",
        "1900-02-28T23:59:59Z", "1900-03-01T00:00:00Z", "2000-02-29T12:00:00Z", "2012-02-29T23:59:59.999999Z",
        "2013-03-10T06:59:59.999999Z", "2013-03-10T07:00:00Z", "2013-11-03T05:30:00Z", "2013-11-03T06:30:00Z",
        "2015-06-30T23:59:59.999999Z", "2016-12-31T23:59:59.999999Z", "2017-01-01T00:00:00Z", "2038-01-19T03:14:08Z",
        "2100-02-28T23:59:59Z", "2100-03-01T00:00:00Z", "9999-12-31T23:59:59.999999Z",
    )
)  # fmt: skip
"""Around the epoch, in leap and other centuries, at New York's changes of the clock, at leap seconds."""


def generate_rows(
    fitted: FittedTransform,
    *,
    rows: int,
    seed: int = 0,
    samples: Mapping[str, Sequence[object]] | None = None,
) -> dict[str, Column]:
    """`rows` rows of the transform's inputs, nulls only where an input is nullable.

    `samples` are typical values by column, such as some of training's, of the column's Python type and not None.
    Columns of it that the transform does not read are ignored.
    """
    chance = random.Random(seed)  # noqa: S311  # rows of a test, not a secret
    pools = [_Pool.of(each, fitted, (samples or {}).get(each.name, ())) for each in fitted.graph.inputs]
    made: list[list[object]] = [[pool.typical[0] for pool in pools]][:rows]
    singles = list(_singles(pools, made[0] if made else []))
    room = min(len(singles), int(_SINGLE_SHARE * rows))
    made += chance.sample(singles, room)
    made += [[pool.draw(chance) for pool in pools] for _ in range(rows - len(made))]
    columns = zip(*made, strict=True) if made else ((),) * len(pools)
    return {pool.column.name: column_of(pool.column.dtype, each) for pool, each in zip(pools, columns, strict=True)}


class _Pool:
    """The values of one column, by sort. Each sort but `special` holds one or more."""

    def __init__(self, column: InputColumn, special: list[object], landmarks: list[object], typical: list[object]):
        self.column = column
        self.special = special
        self.landmarks = landmarks
        self.typical = typical

    @classmethod
    def of(cls, column: InputColumn, fitted: FittedTransform, samples: Sequence[object]) -> "_Pool":
        found = landmarks(fitted, column.name)
        near = _distinct(_near(column.dtype, found))
        special = _distinct(_special(column.dtype, found))
        typical = _distinct([*_between(column.dtype, found), *samples])
        return cls(column, special, near or typical, typical)

    def draw(self, chance: random.Random) -> object:
        """One value, None for null."""
        at = chance.random()
        if at < _NULL_SHARE:
            return None if self.column.nullable else chance.choice(self.typical)
        if at < _NULL_SHARE + _SPECIAL_SHARE:
            return chance.choice(self.special)
        if at < _NULL_SHARE + _SPECIAL_SHARE + _LANDMARK_SHARE:
            return chance.choice(self.landmarks)
        return chance.choice(self.typical)


def _singles(pools: Sequence[_Pool], typical: list[object]) -> Iterator[list[object]]:
    for place, pool in enumerate(pools):
        null: list[object] = [None] if pool.column.nullable else []
        for value in (*null, *pool.special, *pool.landmarks):
            yield [*typical[:place], value, *typical[place + 1 :]]


def landmarks(fitted: FittedTransform, name: str) -> tuple[object, ...]:
    """Numbers and texts in the parameters of all operations that column `name` reaches, at most `LANDMARKS_MAX`.

    Literals that the column is computed with or compared to are among them.
    """
    graph = fitted.graph
    found: dict[object, None] = {}
    for index in _reached(graph, name):
        parameters: list[Settings] = [graph.nodes[index].settings, fitted.learned.get(index, {})]
        literals = [operand for operand in graph.operands[index] if _is_literal(graph, operand)]
        parameters += [graph.nodes[literal].settings for literal in literals]
        for value in _leaves(each for settings in parameters for each in settings.values()):
            found.setdefault(value)
    return tuple(_spread(list(found)))


def _reached(graph: Graph, name: str) -> list[int]:
    """Nodes computed from the column, without the column itself."""
    reached: set[int] = set()
    for index, (node, operands) in enumerate(zip(graph.nodes, graph.operands, strict=True)):
        if (node.operation is COLUMN and node.settings["name"] == name) or reached.intersection(operands):
            reached.add(index)
    return sorted(index for index in reached if graph.nodes[index].operation is not COLUMN)


def _is_literal(graph: Graph, index: int) -> bool:
    return not graph.operands[index] and graph.nodes[index].operation is not COLUMN


def _leaves(values: Iterable[object]) -> Iterator[object]:
    """Finite numbers and texts within plain data; of a long list its ends and an even choice between them."""
    for value in values:
        if isinstance(value, Mapping):
            yield from _leaves([*value.keys(), *value.values()])
        elif isinstance(value, list | tuple):
            yield from _leaves(_spread(value))
        elif isinstance(value, str) or (isinstance(value, int | float) and math.isfinite(value)):
            yield value


def _spread(items: Sequence[object]) -> list[object]:
    if len(items) <= LANDMARKS_MAX:
        return list(items)
    return [items[round(place * (len(items) - 1) / (LANDMARKS_MAX - 1))] for place in range(LANDMARKS_MAX)]


def _near(dtype: Dtype, found: Sequence[object]) -> Iterator[object]:
    """The landmarks as values of the dtype, each with the nearest values on both sides."""
    for landmark in found:
        if dtype is Dtype.STRING:
            if isinstance(landmark, str):
                yield from (landmark, landmark.upper(), f" {landmark} ", f"{landmark}x", landmark[:-1])
        elif isinstance(landmark, int | float):
            yield from _near_number(dtype, landmark)


def _near_number(dtype: Dtype, landmark: float) -> Iterator[object]:
    if dtype is Dtype.BOOL:
        return
    if dtype in (Dtype.FLOAT32, Dtype.FLOAT64):
        with np.errstate(all="ignore"):  # the largest number has no next one
            value = np.asarray(landmark, dtype=TABLE[dtype].numpy)
            near = [float(value), float(np.nextafter(value, -np.inf)), float(np.nextafter(value, np.inf))]
        yield from near
        return
    low, high = _INT32 if dtype is Dtype.INT32 else _INT64
    # A zone's changes of offset are in seconds, a moment in microseconds.
    unit = SECOND_US if dtype is Dtype.TIMESTAMP else 1
    for whole in (math.floor(landmark) * unit + step for step in (-unit, -1, 0, 1, unit)):
        if low <= whole <= high:
            yield whole


def _special(dtype: Dtype, found: Sequence[object]) -> tuple[object, ...]:
    """Values of the dtype that are unusual whatever the transform."""
    match dtype:
        case Dtype.BOOL:
            return (False, True)
        case Dtype.INT32:
            return (0, 1, -1, *_INT32, 2**24 + 1, -(2**24) - 1)
        case Dtype.INT64:
            return (0, 1, -1, *_INT64, 2**53 + 1, -(2**53) - 1, 2**31, 2**24 + 1)
        case Dtype.FLOAT32:
            return _special_numbers(np.finfo(np.float32))
        case Dtype.FLOAT64:
            return _special_numbers(np.finfo(np.float64))
        case Dtype.TIMESTAMP:
            return (*_SPECIAL_MOMENTS, *_INT64, _INT64[0] + 1)
        case _:
            unseen = "".join(each for each in found if isinstance(each, str))[:_TEXT_UNSEEN_MAX] + "?"
            return (*_SPECIAL_TEXT, unseen)


def _special_numbers(limits: "np.finfo[np.float32] | np.finfo[np.float64]") -> tuple[object, ...]:
    small = (float(limits.smallest_subnormal), float(limits.smallest_normal), float(limits.eps))
    sizes = (*small, 0.5, 1.0, 2.0, float(limits.max))
    return (0.0, -0.0, math.nan, math.inf, -math.inf, *sizes, *(-size for size in sizes))


def _between(dtype: Dtype, found: Sequence[object]) -> list[object]:
    """Values that an ordinary row could hold, the first of them plain."""
    if dtype is Dtype.BOOL:
        return [False, True]
    if dtype is Dtype.STRING:
        return [*(each for each in found if isinstance(each, str)), "a", "b"]
    if dtype is Dtype.TIMESTAMP:
        start = parse_timestamp("2013-01-01T12:34:56Z")
        return [start + day * (DAY_US + 12_345_678_901) for day in range(0, 730, 23)]
    numbers = sorted({float(each) for each in found if isinstance(each, int | float)} | {1.0, 10.0})
    middles = [low / 2 + high / 2 for low, high in pairwise(numbers)]
    if dtype in (Dtype.FLOAT32, Dtype.FLOAT64):
        with np.errstate(over="ignore"):
            return [float(np.asarray(each, dtype=TABLE[dtype].numpy)) for each in (1.0, *middles)]
    low_end, high_end = _INT32 if dtype is Dtype.INT32 else _INT64
    return [1, *(whole for each in middles if low_end <= (whole := math.floor(each)) <= high_end)]


def _distinct(values: Iterable[object]) -> list[object]:
    """Each value once, in order; -0.0 and 0.0 are two, as are True and 1."""
    return list({(type(value), repr(value)): value for value in values}.values())
