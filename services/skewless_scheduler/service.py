"""The loop of the scheduler, and its listener, until it is told to stop."""

import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, closing, nullcontext
from http import HTTPStatus

from skewless.adapters.status_listener import Answer, health_answer, listening
from skewless.errors import SkewlessError
from skewless.ingest_limits import SCHEDULE_REQUEST_S, SCHEDULE_STUCK_S
from skewless.registry.database import engine
from skewless.registry.definitions import Definitions
from skewless.registry.schedules import Schedules
from skewless.settings import Settings, variable_name
from skewless_scheduler.children import COMMAND, Children
from skewless_scheduler.metrics import CONTENT_TYPE, SchedulerMetrics
from skewless_scheduler.scheduler import Scheduler
from skewless_scheduler.settings import SchedulerSettings

_LOGGER = logging.getLogger(__name__)


class SchedulingService:
    """Runs a scheduler on the registry of `settings` until `stop` is called."""

    def __init__(
        self, settings: Settings, scheduling: SchedulerSettings, *, command: tuple[str, ...] = COMMAND
    ) -> None:
        """`command` is what materializes a view, given its name and two options."""
        self._scheduling = scheduling
        self._stopped = threading.Event()
        self._alive_at_s = time.monotonic()
        connections = engine(settings.registry_url)
        self._schedules, definitions = Schedules(connections), Definitions(connections)
        self._scheduler = Scheduler(
            self._schedules,
            definitions,
            Children(run_s_max=scheduling.run_s_max, command=command),
            owner=f"{socket.gethostname()[:80]}:{os.getpid()}:{secrets.token_hex(4)}",
            runs_max=scheduling.runs_max,
        )
        self._metrics = SchedulerMetrics(self._scheduler)

    def stop(self) -> None:
        """End what runs, and return. For any thread, and for no signal's handler."""
        self._stopped.set()

    def run(self) -> None:
        """Schedule. Raises InvalidSettings where the port cannot be listened on."""
        with closing(self._schedules), self._listening():
            try:
                while not self._stopped.is_set():
                    self._attempt("a look at what is due", self._scheduler.look)
                    self._alive_at_s = time.monotonic()
                    self._stopped.wait(self._scheduling.look_s)
            finally:
                self._attempt("ending", self._scheduler.stop)
        _LOGGER.info("ended")

    def _listening(self) -> AbstractContextManager[int | None]:
        scheduling = self._scheduling
        if not scheduling.port:
            return nullcontext()
        paths: dict[str, Answer] = {
            "/metrics": lambda: (HTTPStatus.OK, CONTENT_TYPE, self._metrics.page()),
            "/healthz": lambda: health_answer(self._problem()),
        }
        setting = variable_name(SchedulerSettings, "port")
        _LOGGER.info("metrics are on %s:%d", scheduling.host, scheduling.port)
        return listening(scheduling.host, scheduling.port, paths, setting=setting, request_s=SCHEDULE_REQUEST_S)

    def _attempt(self, what: str, work: Callable[[], None]) -> None:
        """Do the work; a failure is told, and the next look makes it good."""
        try:
            work()
        except (SkewlessError, OSError) as error:
            self._metrics.failures += 1
            _LOGGER.error("%s failed, and is tried again: %s", what, error)  # noqa: TRY400  # expected kinds, in words
        except Exception:  # a task's boundary: all that counts is in the database, and the next look may do
            self._metrics.failures += 1
            _LOGGER.exception("%s failed, and is tried again", what)

    def _problem(self) -> str:
        silent_s = time.monotonic() - self._alive_at_s
        return f"no look at what is due has ended for {silent_s:.0f} s" if silent_s > SCHEDULE_STUCK_S else ""
