"""An event loop whose clock jumps to the next timer: minutes of waiting pass in milliseconds, the same in every run."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")
START_S = 1_000.0


class _JumpingSelector(selectors.SelectSelector):
    """Waits for nothing: the time that a wait would have taken is added to the clock."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = START_S

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise AssertionError("everybody waits, and no timer is left to wake anybody")
        # A nanosecond more, or rounding could leave the loop just before its timer for ever.
        self.now_s += timeout + 1e-9 if timeout > 0 else 0.0
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """See above. Nothing that runs on it may use a socket or a thread."""

    def __init__(self) -> None:
        self._selector_of_time = _JumpingSelector()
        super().__init__(self._selector_of_time)

    def time(self) -> float:
        return self._selector_of_time.now_s

    def time_ns(self) -> int:
        return round(self.time() * 1e9)


def in_virtual_time(main: Coroutine[Any, Any, Result]) -> Result:
    """What `main` returns, run to its end in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


def virtual_clock() -> int:
    """Nanoseconds of the running virtual loop."""
    return round(asyncio.get_running_loop().time() * 1e9)
