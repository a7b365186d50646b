"""Where requests wait unread while the process has more to do than it can, so that refusing takes nothing from answers.

A refusal costs the event loop a good part of what an answer does: the head is parsed, a task runs, a reply is written.
Looked at as they come, several times more requests than can be answered would leave no time to answer any. So while
requests are being refused, those who were and come back on the same connection are looked at in a pace: as many as are
answered, and some more. The others stay in their connections, which are not read meanwhile. Who came last is looked at
first: it has the best chance that somebody still waits for its answer. Nobody else waits here, so that callers of
another endpoint do not.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

from skewless.limits import REFUSALS_PER_S_MAX

REFUSED = "refused"
"""In the state of a request's scope once it was refused because too much is asked."""
_TURN_S = 0.005
_TURN_MAX = 32
"""Requests looked at in one turn when there is room again, so that those under way are not kept waiting by them."""
_SAVED_MAX = 64.0
"""Requests that a quiet moment saves up for the next."""


class Visitor(Protocol):
    """A connection with a request that was not looked at yet."""

    def go_on(self) -> None:
        """Look at it now."""
        ...


class Lobby:
    """Belongs to one event loop."""

    def __init__(
        self,
        *,
        is_crowded: Callable[[], bool],
        answered: Callable[[], int],
        per_s: float = REFUSALS_PER_S_MAX,
    ) -> None:
        """`is_crowded` says whether requests are being refused; `answered` counts predictions that were answered."""
        self._is_crowded = is_crowded
        self._answered = answered
        self._per_s = per_s
        self._waiting: OrderedDict[Visitor, None] = OrderedDict()
        self._tokens = _SAVED_MAX
        self._filled_s = 0.0
        self._seen = 0
        self._turn: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def keeps(self, visitor: Visitor) -> bool:
        """Whether a request that begins now has to wait; if so, the visitor is told to go on later."""
        if not self._waiting and not self._is_crowded():
            return False
        self._fill()
        if self._tokens >= 1.0:
            self._tokens -= 1.0
            return False
        self._waiting[visitor] = None
        if self._turn is None:
            self._turn = asyncio.get_running_loop().call_later(_TURN_S, self._take_turn)
        return True

    def leaves(self, visitor: Visitor) -> None:
        """The visitor is gone; nothing happens where it did not wait."""
        self._waiting.pop(visitor, None)

    def _take_turn(self) -> None:
        self._turn = None
        self._fill()
        if not self._is_crowded():
            self._tokens = max(self._tokens, float(_TURN_MAX))
        while self._waiting and self._tokens >= 1.0:
            self._tokens -= 1.0
            visitor, _ = self._waiting.popitem()
            visitor.go_on()
        if self._waiting:
            self._turn = asyncio.get_running_loop().call_later(_TURN_S, self._take_turn)

    def _fill(self) -> None:
        """Tokens for the time that has passed and for the answers that were given."""
        now_s, answered = asyncio.get_running_loop().time(), self._answered()
        self._tokens = min(_SAVED_MAX, self._tokens + (now_s - self._filled_s) * self._per_s + (answered - self._seen))
        self._filled_s, self._seen = now_s, answered
