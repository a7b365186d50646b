"""What is wrong whatever the statistics say: columns that emptied, stand still or are full of news, and no traffic.

Rules without a model of chance, each with a run of windows, so that one odd window wakes nobody, and twice as long a
run as history ever had: what is usual (constant at night, an hour without measurements) breaks nothing.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skewless.drift.streams import ROWS_MIN, Floats
from skewless.drift.traffic import Series
from skewless.statistics.tally import ROWS, TallyLayout
from skewless.statistics.variable import BELOW, LISTED, NULL, UNSEEN, Measure, Part, Variable

EXCESS_SHARE = 0.2
"""Share of values that are null or unseen beyond the usual share from which it is a break."""
RUN_MIN = 2
"""Windows in a row."""
ROWS_EXPECTED_MIN = 20.0
"""Rows that would have come usually from which none at all is a break: chance would have to be 1 in 10⁸."""
_CHANCE = 1e-9
"""What chance alone may make constant: the usual heaviest value, drawn for every row of the run."""


class Rule(StrEnum):
    """What is broken."""

    NULLS = "nulls"
    UNSEEN = "unseen values"
    CONSTANT = "constant"
    NO_TRAFFIC = "no traffic"
    SHAPE = "shape"
    """A tensor or output of another width, or a column of another type, than the bundle's."""


@dataclass(frozen=True, slots=True)
class Break:
    """A rule that holds of a variable since `since` (window number), for `windows` windows; of none for NO_TRAFFIC, and
    for SHAPE, which names what has another shape.

    `share` is that of the last window, `usual` what it is otherwise; both 0 to 1, and rows for NO_TRAFFIC.
    """

    rule: Rule
    part: Part | None
    name: str
    since: int
    windows: int
    share: float
    usual: float

    def to_json(self) -> dict[str, Any]:
        """Plain data, without window numbers."""
        part = None if self.part is None else self.part.value
        return {"rule": self.rule.value, "part": part, "name": self.name, "share": self.share, "usual": self.usual}


@dataclass(slots=True)
class Runs:
    """For how many windows in a row each rule has held of each variable, and how many rows those should have had."""

    nulls: NDArray[np.int64]
    unseen: NDArray[np.int64]
    constant: NDArray[np.int64]
    constant_rows: NDArray[np.int64]
    empty: int = 0
    rows_missing: float = 0.0

    @classmethod
    def none(cls, variables: int) -> "Runs":
        """Nothing has held yet."""
        nulls, unseen, constant, rows = (np.zeros(variables, dtype=np.int64) for _ in range(4))
        return cls(nulls, unseen, constant, rows)

    @property
    def by_variable(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Runs of nulls, unseen values and constants."""
        return self.nulls, self.unseen, self.constant

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "nulls": self.nulls.tolist(),
            "unseen": self.unseen.tolist(),
            "constant": self.constant.tolist(),
            "constant_rows": self.constant_rows.tolist(),
            "empty": self.empty,
            "rows_missing": self.rows_missing,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Runs":
        """The inverse of `to_json`."""
        arrays = [np.array(data[name], dtype=np.int64) for name in ("nulls", "unseen", "constant", "constant_rows")]
        nulls, unseen, constant, rows = arrays
        return cls(nulls, unseen, constant, rows, empty=data["empty"], rows_missing=data["rows_missing"])


@dataclass(frozen=True, slots=True, eq=False)
class ContractRules:
    """Prepared for one layout. `usual` are the longest runs of each rule, by variable, that history had."""

    layout: TallyLayout
    parts: frozenset[Part]
    usual: Runs
    _starts: NDArray[np.intp] = field(init=False)
    _ends: NDArray[np.intp] = field(init=False)
    _watched: NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        variables = self.layout.variables
        starts = np.array(self.layout.starts, dtype=np.intp)
        object.__setattr__(self, "_starts", starts)
        object.__setattr__(self, "_ends", starts + np.array([each.size for each in variables], dtype=np.intp))
        object.__setattr__(self, "_watched", np.array([each.part in self.parts for each in variables], dtype=np.bool_))

    @classmethod
    def of(cls, history: Series, parts: frozenset[Part]) -> "ContractRules":
        """Rules that know for how long each held in history, beside history's own shares."""
        longest, running = (Runs.none(len(history.layout.variables)) for _ in range(2))
        rules = cls(history.layout, parts, longest)
        usual = history.counts.sum(axis=0).astype(np.float64)
        for place in np.flatnonzero(history.rows).tolist():
            rules._count(history, place, usual, running)
            for most, now in zip(longest.by_variable, running.by_variable, strict=True):
                np.maximum(most, now, out=most)
        return rules

    def step(self, series: Series, place: int, usual: Floats, usual_rows: float, runs: Runs) -> tuple[Break, ...]:
        """The breaks after a window of a series; `usual` (layout.size,) are counts of its slot, of which a window has
        `usual_rows` rows. Changes `runs`."""
        counts, window = series.counts[place], series.first + place
        found = [*self._no_traffic(int(counts[ROWS]), usual_rows, window, runs)]
        if not counts[ROWS]:
            return tuple(found)
        shares = self._count(series, place, usual, runs)
        for rule, running, longest, (share, ordinary) in zip(
            (Rule.NULLS, Rule.UNSEEN), runs.by_variable, self.usual.by_variable, shares, strict=False
        ):
            found += [
                self._break(rule, at, window, int(running[at]), float(share[at]), float(ordinary[at]))
                for at in np.flatnonzero(running >= _needed(longest)).tolist()
            ]
        found += self._standing(usual, window, runs)
        return tuple(found)

    def _count(self, series: Series, place: int, usual: Floats, runs: Runs) -> list[tuple[Floats, Floats]]:
        """Let the runs go on, or end. Shares of nulls and of unseen values, each with the usual ones (variables,)."""
        counts = series.counts[place]
        totals, usual_totals = self._totals(counts), self._totals(usual)
        scored = self._watched & (totals >= ROWS_MIN) & (usual_totals > 0)
        shares = []
        for running, cells in ((runs.nulls, self._nulls), (runs.unseen, self._unseen)):
            with np.errstate(invalid="ignore", divide="ignore"):
                share, ordinary = cells(counts) / totals, cells(usual) / usual_totals
            high = scored & (share - ordinary >= EXCESS_SHARE)
            running[:] = np.where(high, running + 1, np.where(scored, 0, running))
            shares.append((share, ordinary))
        still, enough = self._constant(series, place)
        still &= self._watched
        runs.constant[:] = np.where(still, runs.constant + 1, np.where(enough, 0, runs.constant))
        runs.constant_rows[:] = np.where(still, runs.constant_rows + totals, np.where(enough, 0, runs.constant_rows))
        return shares

    def _no_traffic(self, rows: int, usual_rows: float, window: int, runs: Runs) -> tuple[Break, ...]:
        if rows:
            runs.empty, runs.rows_missing = 0, 0.0
            return ()
        runs.empty += 1
        runs.rows_missing += usual_rows
        if runs.empty < RUN_MIN or runs.rows_missing < ROWS_EXPECTED_MIN:
            return ()
        return (Break(Rule.NO_TRAFFIC, None, "", window - runs.empty + 1, runs.empty, 0.0, usual_rows),)

    def _standing(self, usual: Floats, window: int, runs: Runs) -> list[Break]:
        heaviest = np.maximum.reduceat(usual[1 : self._ends[-1]], self._starts - 1) / np.maximum(
            self._totals(usual), 1.0
        )
        # A share of 1 was constant before; otherwise so many rows of one value must be beyond chance.
        unlikely = runs.constant_rows * np.log(np.clip(heaviest, 1e-12, 1.0)) < np.log(_CHANCE)
        broken = (runs.constant >= _needed(self.usual.constant)) & unlikely
        return [
            self._break(Rule.CONSTANT, at, window, int(runs.constant[at]), 1.0, float(heaviest[at]))
            for at in np.flatnonzero(broken).tolist()
        ]

    def _break(self, rule: Rule, at: int, window: int, windows: int, share: float, usual: float) -> Break:
        variable = self.layout.variables[at]
        return Break(rule, variable.part, variable.name, window - windows + 1, windows, share, usual)

    def _totals(self, counts: NDArray[Any]) -> Floats:
        return np.add.reduceat(counts[1 : self._ends[-1]], self._starts - 1).astype(np.float64)

    def _nulls(self, counts: NDArray[Any]) -> Floats:
        return counts[self._starts + NULL].astype(np.float64)

    def _unseen(self, counts: NDArray[Any]) -> Floats:
        return np.array([_unseen(counts, start, each) for start, each in self._each()], dtype=np.float64)

    def _constant(self, series: Series, place: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which variables had one value only in a window, and which had enough values to tell."""
        counts = series.counts[place]
        still, enough = (np.zeros(len(self.layout.variables), dtype=np.bool_) for _ in range(2))
        for at, (start, variable) in enumerate(self._each()):
            cells = counts[start : start + variable.size]
            if (line := self.layout.number_lines[at]) is not None:
                enough[at] = cells[BELOW:-1].sum() >= ROWS_MIN
                still[at] = enough[at] and series.lows[place, line] == series.highs[place, line]
            else:
                enough[at] = cells[LISTED:].sum() >= ROWS_MIN
                still[at] = enough[at] and cells[1:].sum() == cells[LISTED:].max(initial=0)
        return still, enough

    def _each(self) -> Iterator[tuple[int, Variable]]:
        return zip(self.layout.starts, self.layout.variables, strict=True)


def _needed(longest: NDArray[np.int64]) -> NDArray[np.int64]:
    """How long a run must be to break a contract, by variable."""
    return np.maximum(RUN_MIN, 2 * longest + 1)


def _unseen(counts: NDArray[Any], start: int, variable: Variable) -> float:
    """Values that the reference never saw; 0 where that is not known, as `Variable.unseen` has it."""
    if variable.vocabulary is not None:
        return float(counts[start + UNSEEN]) if variable.vocabulary.closed else 0.0
    if variable.part is Part.AGE or variable.measure is Measure.HOUR or not variable.edges:
        return 0.0
    return float(counts[start + BELOW] + counts[start + variable.size - 2])
