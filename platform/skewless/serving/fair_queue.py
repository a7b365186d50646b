"""Waiting lines, one per endpoint, of which the next is chosen fairly by rows: deficit round robin. Pure.

Each line whose turn it is may let through as many rows as it has saved up, and saves up more with every turn; so an
endpoint of large requests and one of small ones get as many rows each, and one with a long line gets no more for it.
(Shreedhar and Varghese, Efficient Fair Queuing Using Deficit Round-Robin, 1995.)
"""

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Generic, TypeVar

QUANTUM_ROWS = 64
"""What a line saves up with each turn: a share of a model call, so that turns are short beside a call."""

Item = TypeVar("Item")


class Line(Generic[Item]):
    """Who waits for one endpoint, in order of arrival."""

    __slots__ = ("deficit_rows", "rows", "waiting")

    def __init__(self) -> None:
        self.waiting: OrderedDict[Item, int] = OrderedDict()
        """Rows of each who waits."""
        self.rows = 0
        """Rows of all who wait."""
        self.deficit_rows = 0

    def __len__(self) -> int:
        return len(self.waiting)

    def oldest(self) -> Item:
        """Who waits longest."""
        return next(iter(self.waiting))


class FairQueue(Generic[Item]):
    """Lines that take turns. Items are hashable, and each waits in one line at most."""

    def __init__(self) -> None:
        self._turns: deque[Line[Item]] = deque()
        """Lines in which somebody waits, the one whose turn it is first."""
        self._is_new_turn = True
        self.waiting = 0
        """Items in all lines."""
        self.rows = 0
        """Rows in all lines."""

    def push(self, line: Line[Item], item: Item, rows: int) -> None:
        """Let an item wait at the end of a line."""
        if not line.waiting:
            line.deficit_rows = 0
            self._turns.append(line)
        line.waiting[item] = rows
        line.rows += rows
        self.waiting += 1
        self.rows += rows

    def remove(self, line: Line[Item], item: Item) -> bool:
        """Take an item out wherever it stands; False where it waits no more."""
        rows = line.waiting.pop(item, None)
        if rows is None:
            return False
        line.rows -= rows
        self.waiting -= 1
        self.rows -= rows
        if not line.waiting:
            self._is_new_turn |= self._turns[0] is line
            self._turns.remove(line)
        return True

    def pop(self, *, may_go: Callable[[Line[Item]], bool], newest_first: Callable[[Line[Item]], bool]) -> Item | None:
        """The item whose turn it is, of the lines that may go; None where none may.

        `newest_first` says of which end of a line the next is taken.
        """
        blocked = 0
        while self._turns and blocked < len(self._turns):
            line = self._turns[0]
            if not may_go(line):
                blocked += 1
                self._next_turn()
                continue
            blocked = 0
            if self._is_new_turn:
                line.deficit_rows += QUANTUM_ROWS
                self._is_new_turn = False
            item = next(reversed(line.waiting)) if newest_first(line) else line.oldest()
            rows = line.waiting[item]
            # With nobody to be fair to there is nothing to save up for.
            if rows <= line.deficit_rows or len(self._turns) == 1:
                line.deficit_rows = max(0, line.deficit_rows - rows)
                self.remove(line, item)
                return item
            self._next_turn()
        return None

    def _next_turn(self) -> None:
        self._turns.rotate(-1)
        self._is_new_turn = True
