"""Counts what a model read and gave: the one function for training's baseline and for traffic.

A counter is prepared for the bins of one baseline, and compiled (`forms.py`) for each form of table that it meets.
Rows are gone through in chunks that stay in the caches. For few rows the count of calls is the cost: 64 rows at once
cost a twentieth of 64 single ones, so collect rows before counting them.
"""

from collections.abc import Sequence

from skewless.column_table import ColumnTable
from skewless.statistics.forms import Form
from skewless.statistics.observed import Observed
from skewless.statistics.tally import ROWS, Tally, TallyLayout, check_rows
from skewless.statistics.variable import Variable

CHUNK_NUMBERS = 1 << 15
"""Numbers counted at once: 256 KiB for each of the arrays that a search works on. Half of it took a quarter longer."""
CHUNK_ROWS_MIN = 64
FORMS_MAX = 8
"""Forms of rows that a counter stays compiled for. A gateway has one per bundle."""


class Counter:
    """Counts rows in the bins of some variables. Threads may share it, each with a tally of its own."""

    def __init__(self, variables: Sequence[Variable]) -> None:
        self.layout = TallyLayout(tuple(variables))
        self._forms: dict[tuple[object, ...], Form] = {}
        self._chunk_rows = max(CHUNK_NUMBERS // max(self.layout.numbers, 1), CHUNK_ROWS_MIN)

    def empty(self) -> Tally:
        """A tally of no rows, to add to."""
        return self.layout.empty()

    def add(self, observed: Observed, tally: Tally) -> None:
        """Count rows into a tally of this counter, in place.

        Raises InvalidDefinition for a column, output, view or score that is missing from a part that is given, or is
        of another dtype, width or length, and where the tally would have too many rows; the tally is as before then.
        """
        assert tally.layout == self.layout.digest, "a tally of other bins"
        check_rows(tally.rows + observed.rows)
        observed.check_lengths()
        for start in range(0, observed.rows, self._chunk_rows):
            chunk = observed.table(start, min(start + self._chunk_rows, observed.rows))
            self._form(chunk).count(chunk, tally)
        tally.counts[ROWS] += observed.rows

    def _form(self, observed: Observed) -> Form:
        columns, tensor = observed.columns, observed.tensor
        key = (
            columns.layout if isinstance(columns, ColumnTable) else None,
            tuple(observed.statuses),
            tuple(observed.ages_us),
            None if tensor is None else tensor.shape[1:],
            tuple(observed.scores),
        )
        if (form := self._forms.get(key)) is None:
            form = Form(self.layout, observed)
            if len(self._forms) >= FORMS_MAX:
                self._forms = {}
            self._forms[key] = form
        return form
