"""What one bundle in one role predicted in one period, cut into slices.

Rows are held while there are at most MODEL_METRIC_ROWS_EXACT. More of them are folded into counts: sums stay exact,
scores fall into bins, and memory no longer grows with the rows.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from skewless.model_metrics.cell import Cell, added, cell_of, coarse
from skewless.model_metrics.judged import ALL, JudgedRows
from skewless.model_metrics.ranking import NO_RANKING, RankingSums
from skewless.monitor_limits import MODEL_METRIC_ROWS_EXACT


class PeriodCounts:
    """What one bundle in one role predicted in one period: rows come in chunks, cells are asked for at the end."""

    def __init__(self, *, rows_exact: int = MODEL_METRIC_ROWS_EXACT) -> None:
        self._rows_exact = rows_exact
        self._chunks: list[JudgedRows] = []
        self._held = 0
        self._folded: dict[str, Cell] = {}
        self._ranking: dict[str, RankingSums] = {}

    def add(self, rows: JudgedRows) -> None:
        """Count a chunk."""
        self._chunks.append(rows)
        self._held += len(rows)
        if self._held > self._rows_exact:
            self._fold()

    def add_ranking(self, part: str, sums: RankingSums) -> None:
        """Count requests whose rows are all of a part."""
        self._ranking[part] = self._ranking.get(part, NO_RANKING) + sums

    def cells(self) -> Iterator[tuple[str, Cell]]:
        """(slice, its cell), all rows first; a slice is called `name=part`."""
        if self._folded:
            self._fold()
            found: Iterator[tuple[str, Cell]] = iter(self._folded.items())
        else:
            found = _exact_cells(JudgedRows.joined(self._chunks)) if self._chunks else iter(())
        for name, cell in found:
            yield name, replace(cell, ranking=self._ranking.get(name, NO_RANKING))

    def _fold(self) -> None:
        if not self._held:
            return
        for name, cell in _exact_cells(JudgedRows.joined(self._chunks)):
            counted = coarse(cell)
            before = self._folded.get(name)
            self._folded[name] = counted if before is None else added(before, counted)
        self._chunks, self._held = [], 0


def slice_name(name: str, part: object) -> str:
    """What a part of a slice is called."""
    return f"{name}={part}"


def _exact_cells(rows: JudgedRows) -> Iterator[tuple[str, Cell]]:
    yield ALL, cell_of(rows)
    for name, parts in rows.parts.items():
        order = np.argsort(parts, kind="stable")
        begins = np.flatnonzero(np.append(True, parts[order][1:] != parts[order][:-1]))
        for places in np.split(order, begins[1:]):
            yield slice_name(name, parts[places[0]]), cell_of(rows.taken(places))
