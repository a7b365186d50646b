"""Forks that are killed at a call or a return of chosen modules' functions: between any two steps of what they do."""

import os
import signal
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from types import FrameType

from harness.killed_forks import forked


def died(
    act: Callable[[], None],
    *,
    modules: Collection[str],
    at_step: int | None = None,
    after_s: float | None = None,
) -> bool:
    """Whether a fork was killed, at a step of modules of these names or after a time; with neither it goes to its end.

    A step is a call or a return of any of their functions, in the thread that acts.
    """

    def acted() -> None:
        if at_step is not None:
            _die_at(at_step, modules)
        act()

    return not forked(acted, kill_after_s=after_s)


def _die_at(step: int, modules: Collection[str]) -> None:
    seen = 0

    def hook(frame: FrameType, event: str, _argument: object) -> None:
        nonlocal seen
        if event in ("call", "return") and Path(frame.f_code.co_filename).stem in modules:
            if seen == step:
                os.kill(os.getpid(), signal.SIGKILL)
            seen += 1

    sys.setprofile(hook)
