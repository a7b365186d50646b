"""How often something dear may be done in one process, whoever asks for it."""

import time
from collections.abc import Callable


class Budget:
    """`per_s` takings in every second, and as many at once. Not for threads."""

    def __init__(self, *, per_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_s
        self._clock = clock
        self._left = per_s
        self._seen_s = clock()

    def take(self) -> bool:
        """Whether it may be done now; where it may, it counts."""
        now_s = self._clock()
        self._left = min(self._per_s, self._left + (now_s - self._seen_s) * self._per_s)
        self._seen_s = now_s
        if self._left < 1:
            return False
        self._left -= 1
        return True
