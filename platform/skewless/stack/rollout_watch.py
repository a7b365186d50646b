"""Has rollouts adjusted for as long as there is one to adjust: a canary that goes by steps, or an experiment.

Whether there is one is a question to the registry every few seconds. Adjusting reads the prediction log, with Arrow and
NumPy, so it is done by `skewless rollout watch` in a process of its own, which ends once nothing is left to do.
"""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from skewless.errors import SkewlessError
from skewless.registry.database import engine
from skewless.registry.repository import Registry
from skewless.registry.rollout_needs import needing_adjustment
from skewless.settings import Settings, as_environment
from skewless.stack.beside import beside
from skewless.stack.process import ProcessSpec, describe_exit, set_log_aside, start

EVERY_S = 5.0
"""Between two looks, and between two looks of the process that adjusts."""
_LOG = "rollouts"

Report = Callable[[str], None]


class Adjusting(Protocol):
    """A process that adjusts."""

    def exit_status(self) -> int | None:
        """How it ended; None while it runs."""
        ...

    def stop(self) -> int:
        """End it."""
        ...


class RolloutWatch:
    """Keeps a process that adjusts while `needed` names endpoints. What goes wrong is reported once, while it lasts."""

    def __init__(
        self, needed: Callable[[], tuple[str, ...]], start_adjusting: Callable[[], Adjusting], report: Report
    ) -> None:
        self._needed = needed
        self._start = start_adjusting
        self._report = report
        self._running: Adjusting | None = None
        self._told = ""

    def look(self) -> None:
        """Look once."""
        if self._running is not None:
            status = self._running.exit_status()
            if status is None:
                return
            self._running = None
            if status:
                self._tell(f"adjusting rollouts ended with {describe_exit(status)}; see logs/{_LOG}.log")
                return
        try:
            names = self._needed()
        except SkewlessError as error:
            self._tell(f"rollouts are not adjusted: {error.message}")
            return
        self._told = ""
        if names:
            self._report(f"adjusting the rollouts of {', '.join(names)}")
            self._running = self._start()

    def stop(self) -> None:
        """End the process that adjusts."""
        if self._running is not None:
            self._running.stop()
            self._running = None

    def _tell(self, text: str) -> None:
        if text != self._told:
            self._report(text)
        self._told = text


@contextmanager
def adjusting_rollouts(settings: Settings, report: Report) -> Iterator[None]:
    """Inside, a thread of this process watches."""

    def watch(stop: threading.Event) -> None:
        registry = Registry(engine(settings.registry_url))
        watcher = RolloutWatch(lambda: needing_adjustment(registry), lambda: start(_spec(settings)), report)
        try:
            while not stop.wait(EVERY_S):
                watcher.look()
        finally:
            watcher.stop()
            registry.close()

    with beside("rollout-watch", watch):
        yield


def _spec(settings: Settings) -> ProcessSpec:
    log_file = settings.folders.logs / f"{_LOG}.log"
    set_log_aside(log_file)
    command = (sys.executable, "-P", "-m", "skewless.cli.main", "rollout", "watch", "--while-needed")
    return ProcessSpec(
        _LOG, (*command, "--every", f"{EVERY_S:g}s"), log_file, _unprobed, environment=as_environment(settings)
    )


async def _unprobed() -> None:
    """A process that ends by itself is not asked for its health."""
