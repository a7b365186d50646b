"""A counter compiled for one form of rows: which parts are given, and which column lies where in its table.

numbers   (lines, rows) float64: columns block by block, ages, outputs, scores; counted by one search
known     (columns and ages, rows) bool: what is not null; outputs and scores never are
words     one look-up for each row of a column of strings
statuses  (stored features, rows) codes, counted at once
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skewless.column_table import ColumnLayout, ColumnTable
from skewless.errors import InvalidDefinition
from skewless.features.frame import Lines
from skewless.statistics.ages import NO_AGE
from skewless.statistics.number_lines import NumberLines
from skewless.statistics.observed import Observed
from skewless.statistics.tally import Tally, TallyLayout
from skewless.statistics.variable import Measure, Part
from skewless.statistics.word_index import WordIndex
from skewless.timestamps import HOUR_US

_HOURS_OF_A_DAY = 24


def measured(measure: Measure, values: NDArray[Any]) -> NDArray[Any]:
    """What is counted of values of any shape: numbers; words are looked up instead."""
    if measure is Measure.HOUR:
        return values // HOUR_US % _HOURS_OF_A_DAY
    if measure is Measure.LENGTH:
        return np.fromiter(map(len, values.ravel()), np.float64, values.size).reshape(values.shape)
    return values


@dataclass(frozen=True, slots=True)
class _BlockLoad:
    """Some lines of a block become the lines `to` of the numbers."""

    block: int
    lines: slice | NDArray[np.intp]
    to: slice
    measure: Measure


@dataclass(frozen=True, slots=True)
class _WordLoad:
    """A line of a block is looked up, and counted from `start` on."""

    block: int
    line: int
    start: int
    index: WordIndex


class Form:
    """See the module. Made for the first rows of a form, used for all of them."""

    def __init__(self, layout: TallyLayout, observed: Observed) -> None:
        """Raises InvalidDefinition where a part that is given lacks one of its variables, or has it otherwise."""
        places = {part: _places(layout, part) for part in Part}
        self._blocks: tuple[_BlockLoad, ...] = ()
        self._words: tuple[_WordLoad, ...] = ()
        lines: list[int] = []
        if isinstance(observed.columns, ColumnTable):
            self._blocks, self._words, lines = _compile_columns(layout, places[Part.COLUMN], observed.columns.layout)
        self._views = _given(places[Part.AGE], observed.ages_us, "age of view")
        outputs = _compile_outputs(places[Part.OUTPUT], observed.tensor)
        self._scores = _given(places[Part.SCORE], observed.scores, "score")
        self._ages_from = len(lines)
        self._outputs_from = self._ages_from + len(self._views)
        self._scores_from = self._outputs_from + len(outputs)
        lines += [places[Part.AGE][view] for view in self._views]
        lines += [*outputs, *(places[Part.SCORE][score] for score in self._scores)]
        self._lines = NumberLines(layout, lines)
        self._features, self._status_starts = _compile_statuses(layout, observed.statuses)

    def count(self, observed: Observed, tally: Tally) -> None:
        """Add rows of this form to a tally, all at once."""
        numbers = np.empty((len(self._lines), observed.rows))
        known = np.empty((self._outputs_from, observed.rows), dtype=np.bool_)
        if isinstance(observed.columns, ColumnTable):
            self._load_columns(observed.columns, numbers, known)
            self._count_words(observed.columns, tally)
        for line, view in enumerate(self._views, start=self._ages_from):
            numbers[line] = observed.ages_us[view]
            np.not_equal(observed.ages_us[view], NO_AGE, out=known[line])
        if observed.tensor is not None:
            numbers[self._outputs_from : self._scores_from] = observed.tensor.T
        for line, score in enumerate(self._scores, start=self._scores_from):
            numbers[line] = observed.scores[score]
        self._lines.add(numbers, known, tally)
        if self._features:
            codes = _status_codes(observed.statuses, self._features) + self._status_starts
            np.add(tally.counts, np.bincount(codes.ravel(), minlength=len(tally.counts)), out=tally.counts)

    def _load_columns(self, table: ColumnTable, numbers: NDArray[np.float64], known: NDArray[np.bool_]) -> None:
        for load in self._blocks:
            numbers[load.to] = measured(load.measure, table.value_blocks[load.block][load.lines])
            known[load.to] = table.valid_blocks[load.block][load.lines]

    def _count_words(self, table: ColumnTable, tally: Tally) -> None:
        for load in self._words:
            words, known = table.value_blocks[load.block][load.line], table.valid_blocks[load.block][load.line]
            counts = load.index.counts(words, known)
            tally.counts[load.start : load.start + len(counts)] += counts


def _places(layout: TallyLayout, part: Part) -> dict[str, int]:
    """Where each variable of a part is in the layout, by name."""
    return {variable.name: place for place, variable in enumerate(layout.variables) if variable.part is part}


def _given(places: Mapping[str, int], given: Mapping[str, Any], what: str) -> tuple[str, ...]:
    """The names to count: all of the part, or none where nothing of it is given."""
    if not given:
        return ()
    missing = [name for name in places if name not in given]
    if missing:
        raise InvalidDefinition(f"{what} `{missing[0]}` is missing from what is counted; given: {sorted(given)}")
    return tuple(places)


def _compile_columns(
    layout: TallyLayout, places: Mapping[str, int], table: ColumnLayout
) -> tuple[tuple[_BlockLoad, ...], tuple[_WordLoad, ...], list[int]]:
    """How each block of a table is loaded, and the place of each line of numbers that comes of it."""
    _check_columns(layout, places, table)
    loads: list[_BlockLoad] = []
    words: list[_WordLoad] = []
    lines: list[int] = []
    for block, (_, names) in enumerate(table.blocks):
        counted = [(line, places[name]) for line, name in enumerate(names) if name in places]
        if not counted:
            continue
        if (measure := layout.variables[counted[0][1]].measure) is Measure.WORD:
            words += [_word_load(layout, block, line, place) for line, place in counted]
            continue
        everything = len(counted) == len(names)
        chosen = slice(None) if everything else np.array([line for line, _ in counted], dtype=np.intp)
        loads.append(_BlockLoad(block, chosen, slice(len(lines), len(lines) + len(counted)), measure))
        lines += [place for _, place in counted]
    return tuple(loads), tuple(words), lines


def _check_columns(layout: TallyLayout, places: Mapping[str, int], table: ColumnLayout) -> None:
    for name, place in places.items():
        dtype = layout.variables[place].dtype
        found = table.blocks[table.place[name][0]][0] if name in table.place else None
        if found is not dtype:
            seen = "missing" if found is None else f"`{found}`"
            raise InvalidDefinition(
                f"column `{name}` is {seen} in what is counted, the baseline has it as `{dtype}`",
                hint="count with the baseline of the bundle that was served",
            )


def _word_load(layout: TallyLayout, block: int, line: int, place: int) -> _WordLoad:
    vocabulary = layout.variables[place].vocabulary
    assert vocabulary is not None
    return _WordLoad(block, line, layout.starts[place], WordIndex(vocabulary))


def _compile_outputs(places: Mapping[str, int], tensor: NDArray[np.float32] | None) -> list[int]:
    if tensor is None:
        return []
    if tensor.ndim != 2 or tensor.shape[1] != len(places):
        raise InvalidDefinition(f"the tensor has shape {tensor.shape}, the baseline has {len(places)} outputs")
    return list(places.values())


def _compile_statuses(
    layout: TallyLayout, statuses: Mapping[str, NDArray[np.uint8]]
) -> tuple[tuple[str, ...], NDArray[np.intp]]:
    """The features whose statuses are counted, and where: (features, 1)."""
    starts = {
        variable.name: start
        for variable, start in zip(layout.variables, layout.status_starts, strict=True)
        if start is not None
    }
    features = _given(starts, statuses, "status of feature")
    return features, np.array([starts[name] for name in features], dtype=np.intp)[:, np.newaxis]


def _status_codes(statuses: Mapping[str, NDArray[np.uint8]], features: Sequence[str]) -> NDArray[np.uint8]:
    """Codes (features, rows)."""
    if isinstance(statuses, Lines):
        codes: NDArray[np.uint8] = statuses.matrix[[statuses.line[name] for name in features]]
        return codes
    return np.stack([statuses[name] for name in features])
