"""Generated rows on which an on-demand function is tried before it serves: ordinary values, and nulls one by one."""

import random
from collections.abc import Iterator, Mapping

from skewless.dtypes import ELEMENTS, Dtype
from skewless.timestamps import DAY_US, HOUR_US, parse_timestamp

ROWS = 12
"""Enough that each pair of an input's values occurs; a check costs about as many calls plus one per input."""
_NEW_YEAR = parse_timestamp("2024-01-01")
_VALUES: dict[Dtype, tuple[object, ...]] = {
    Dtype.BOOL: (True, False),
    Dtype.INT32: (1, 2, 7, 40, -3, 0, 1_000),
    Dtype.INT64: (1, 2, 7, 40, -3, 0, 10**12),
    Dtype.FLOAT32: (0.5, 1.0, 2.25, 40.0, -3.75, 0.0, 1e6),
    Dtype.FLOAT64: (0.1, 1.0, 2.25, 40.0, -3.75, 0.0, 1e12),
    Dtype.STRING: ("a", "north", "süd", "", "2", "\N{CLOUD WITH RAIN}"),
    Dtype.BYTES: (b"a", b"\x00\xff", b"longer bytes"),
    Dtype.TIMESTAMP: (_NEW_YEAR, _NEW_YEAR + HOUR_US, _NEW_YEAR + 59 * DAY_US, 0),
}
"""Values that inputs of each dtype have in practice; extremes would only show that arithmetic overflows."""


def ordinary_rows(dtypes: Mapping[str, Dtype], *, seed: str) -> list[dict[str, object]]:
    """ROWS rows without nulls, the same for the same seed; the first has each dtype's first value."""
    rng = random.Random(seed)  # noqa: S311  # repeatable rows, no secret
    first = {name: _first(dtype) for name, dtype in dtypes.items()}
    return [first, *({name: _value(rng, dtype) for name, dtype in dtypes.items()} for _ in range(ROWS - 1))]


def rows_with_nulls(row: Mapping[str, object], nullable: frozenset[str]) -> Iterator[tuple[str, dict[str, object]]]:
    """The row with each column that may be null emptied in turn, then with all of them; and which were emptied."""
    emptied = [name for name in row if name in nullable]
    for name in emptied:
        yield f"`{name}`", {**row, name: None}
    if len(emptied) > 1:
        yield "all of its inputs", {**row, **dict.fromkeys(emptied)}


def _first(dtype: Dtype) -> object:
    return (_VALUES[ELEMENTS[dtype]][0],) if dtype in ELEMENTS else _VALUES[dtype][0]


def _value(rng: random.Random, dtype: Dtype) -> object:
    if dtype in ELEMENTS:
        return tuple(rng.choices(_VALUES[ELEMENTS[dtype]], k=rng.randrange(4)))
    return rng.choice(_VALUES[dtype])
