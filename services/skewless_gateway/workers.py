"""The parent of several workers: starts them on one socket, replaces those that end or hang, and stops them.

When a worker is started, counts as hung, or is started again is decided by `skewless.stack.supervision`, as for the
processes of the embedded stack. A replacement takes connections once it is ready, unless nobody else does.
"""

import asyncio
import logging
import math
import signal
import socket
import sys
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import msgspec

from skewless.errors import Unavailable
from skewless.limits import (
    CONTROL_TIMEOUT_S,
    WORKER_BEAT_S,
    WORKER_CLOSE_S,
    WORKER_END_S,
    WORKER_READY_S,
    WORKER_RESTART_S,
    WORKER_RESTART_S_MAX,
    WORKER_STABLE_S,
    WORKER_START_S,
)
from skewless.stack.process import describe_exit
from skewless.stack.supervision import (
    Bounds,
    Health,
    Watched,
    exited,
    may_start,
    probe_missed,
    probe_passed,
    restart_delay_s,
    started,
)
from skewless_gateway.admin_server import admin_server
from skewless_gateway.pooled_operations import PooledOperations
from skewless_gateway.settings import GatewaySettings
from skewless_gateway.worker_place import Place
from skewless_gateway.worker_process import WorkerCommand, WorkerProcess
from skewless_gateway.worker_state import WorkerState
from skewless_http.lifecycle import Lifecycle
from skewless_http.listening import ConnectionBoard

_LOGGER = logging.getLogger(__name__)
_TICK_S = 0.05
_READY_AGAIN_S = 0.2
_ABORT_S = 1.0
"""How long a hung worker gets to write its stacks before it is killed."""
_AT_ONCE_S = 2.0


class Workers:
    """The workers of one gateway. Belongs to one event loop."""

    def __init__(self, settings: GatewaySettings, listener: socket.socket, *, command: WorkerCommand) -> None:
        self._settings = settings
        self._listener = listener
        self._command = command
        self._count = settings.worker_count
        self._board_descriptor = ConnectionBoard.create(self._count)
        self._board = ConnectionBoard(self._board_descriptor, self._count)
        self._bounds = Bounds(
            start_timeout_s=WORKER_START_S,
            probe_failures_max=max(1, math.ceil(settings.worker_silence_s / CONTROL_TIMEOUT_S)),
            restart_delay_s=WORKER_RESTART_S,
            restart_delay_max_s=WORKER_RESTART_S_MAX,
            # One that served once is started again for as long as the gateway runs.
            failures_max=sys.maxsize,
            stable_s=WORKER_STABLE_S,
        )
        self.places = [Place(number, Watched(f"worker {number}")) for number in range(self._count)]
        self._tasks: set[asyncio.Task[None]] = set()
        self._rolling = False
        self.is_draining = False

    @property
    def _everyone(self) -> list[Watched]:
        return [place.watched for place in self.places]

    async def run(self, lifecycle: Lifecycle) -> int:
        """Keep the workers up until asked to stop, and stop them; returns the exit status.

        Where none of them could ever start, the status is that of the last one that tried.
        """
        watching = asyncio.create_task(self._watch())
        stopping = asyncio.create_task(lifecycle.stop.wait())
        await asyncio.wait({watching, stopping}, return_when=asyncio.FIRST_COMPLETED)
        self.is_draining = True
        stopping.cancel()
        failed = watching.result() if watching.done() else 0
        watching.cancel()
        stopped = await self._stop(lifecycle)
        for task in [*self._tasks, watching, stopping]:
            task.cancel()
        await asyncio.gather(*self._tasks, watching, stopping, return_exceptions=True)
        return failed or stopped

    def roll(self) -> None:
        """Replace every worker by a new one, one after the other, each only once its successor is ready."""
        if self._rolling or self.is_draining:
            _LOGGER.warning("the workers are being replaced or stopped already")
            return
        self._rolling = True
        self._go_on(self._roll())

    async def _watch(self) -> int:
        """Runs until the gateway cannot start at all; then returns the exit status that says so."""
        while True:
            for place in self.places:
                status = self._reap(place)
                if status and not any(each.was_healthy for each in self._everyone):
                    if place.watched.health is Health.GIVEN_UP:
                        return abs(status)
                elif place.watched.health is Health.GIVEN_UP:
                    place.watched = replace(place.watched, health=Health.BACKING_OFF)
                if may_start(place.watched, self._everyone, now_s=time.monotonic(), bounds=self._bounds):
                    self._start(place)
            await asyncio.sleep(_TICK_S)

    def _reap(self, place: Place) -> int:
        """Notice what has ended; returns the exit status where it was who holds the place, else 0."""
        for gone in [each for each in place.leaving if each.exit_status() is not None]:
            place.leaving.remove(gone)
            _LOGGER.info("%s (process %d) ended with %s", gone.name, gone.pid, _ended(gone))
            self._go_on(gone.close())
        process = place.process
        status = None if process is None else process.exit_status()
        if process is None or status is None:
            return 0
        place.process = place.state = None
        self._board.show(place.number, None)
        self._go_on(process.close())
        after = place.watched = exited(
            place.watched, describe_exit(status), now_s=time.monotonic(), bounds=self._bounds
        )
        pause_s = restart_delay_s(after.failures, self._bounds)
        _LOGGER.error("%s ended: %s; it is started again in %g s", after.name, after.last_failure, pause_s)
        return status or 1

    def _start(self, place: Place) -> None:
        listen_now = not self._others_listen(place)
        process = place.process = self._process(place, listen_now=listen_now)
        place.watched = started(place.watched, now_s=time.monotonic())
        self._go_on(self._attend(place, process))
        if not listen_now:
            self._go_on(self._let_listen(place, process))

    def _process(self, place: Place, *, listen_now: bool) -> WorkerProcess:
        process = WorkerProcess(
            self._command,
            worker=place.number,
            workers=self._count,
            listener=self._listener.fileno(),
            board=self._board_descriptor,
            listen_now=listen_now,
        )
        _LOGGER.info("%s is starting (process %d)", process.name, process.pid)
        return process

    def _others_listen(self, place: Place) -> bool:
        states = [each.state for each in self.places if each is not place and each.watched.health is Health.HEALTHY]
        return any(state is not None and state.listening for state in states)

    async def _attend(self, place: Place, process: WorkerProcess) -> None:
        """Ask a worker how it is, for as long as it holds its place; end it when it counts as hung."""
        while place.process is process and not process.asking.is_over:
            asked_s = time.monotonic()
            try:
                said = await process.asking.ask("state", timeout_s=CONTROL_TIMEOUT_S)
            except Unavailable as error:
                place.misses += place.watched.health is not Health.STARTING
                after = probe_missed(place.watched, error.message, now_s=time.monotonic(), bounds=self._bounds)
            else:
                place.state = msgspec.json.decode(said, type=WorkerState)
                after = probe_passed(place.watched, now_s=time.monotonic(), bounds=self._bounds)
            if place.process is not process or process.asking.is_over:
                return  # it ended meanwhile, which is no sign of hanging
            if after.health is not place.watched.health:
                _LOGGER.info("%s is %s", after.name, after.health)
            place.watched = after
            if after.condemned:
                await self._end_hung(process, after.condemned)
                return
            pause_s = _TICK_S if after.health is Health.STARTING else WORKER_BEAT_S
            await asyncio.sleep(max(0.0, asked_s + pause_s - time.monotonic()))

    async def _end_hung(self, process: WorkerProcess, reason: str) -> None:
        _LOGGER.error("%s (process %d) is ended: %s; its stacks follow", process.name, process.pid, reason)
        process.signal(signal.SIGABRT)
        if not await _within(_ABORT_S, lambda: process.exit_status() is not None):
            process.signal(signal.SIGKILL)

    async def _let_listen(self, place: Place, process: WorkerProcess) -> None:
        """Have a worker take connections once it is ready, is the only one, or has been waited for long enough."""
        deadline_s = time.monotonic() + WORKER_READY_S
        while place.process is process and self._others_listen(place) and time.monotonic() < deadline_s:
            if await _is_ready(process):
                break
            await asyncio.sleep(_READY_AGAIN_S)
        while place.process is process:
            if await _asked(process, "listen"):
                return
            await asyncio.sleep(_READY_AGAIN_S)

    async def _roll(self) -> None:
        try:
            for place in self.places:
                if place.process is not None and not await self._succeed(place, place.process):
                    return
            _LOGGER.info("every worker has been replaced")
        finally:
            self._rolling = False

    async def _succeed(self, place: Place, before: WorkerProcess) -> bool:
        """Put a new worker into a place, and let the one before drain; False where the new one is no good."""
        process = self._process(place, listen_now=False)
        place.leaving.append(process)  # until it has the place, so that a stop ends it too
        was_ready = await _is_ready(before)
        deadline_s = time.monotonic() + WORKER_START_S
        while not await _is_ready(process):
            if process.exit_status() is not None or (was_ready and time.monotonic() > deadline_s):
                _LOGGER.error("%s keeps its process: a new one could not get ready", process.name)
                process.signal(signal.SIGTERM)
                return False
            if not was_ready and await _asked(process, "state"):
                break
            await asyncio.sleep(_READY_AGAIN_S)
        if place.process is not before or not await _asked(process, "listen"):
            process.signal(signal.SIGTERM)
            return True
        place.leaving.remove(process)
        place.process = process
        place.watched = probe_passed(
            started(place.watched, now_s=time.monotonic()), now_s=time.monotonic(), bounds=self._bounds
        )
        self._go_on(self._attend(place, process))
        place.leaving.append(before)
        before.signal(signal.SIGTERM)
        await _within(self._patience_s, lambda: before not in place.leaving)
        return True

    @property
    def _patience_s(self) -> float:
        """How long a worker may take from SIGTERM to its end; gRPC's calls get their time after HTTP's."""
        drains = 2 if self._settings.grpc_port else 1
        return self._settings.drain_delay_s + drains * self._settings.drain_s + WORKER_CLOSE_S + WORKER_END_S

    async def _stop(self, lifecycle: Lifecycle) -> int:
        # The workers have the socket too, and take from it to the last.
        self._listener.close()
        processes = [process for place in self.places for process in (place.process, *place.leaving) if process]
        for process in processes:
            process.signal(signal.SIGTERM)

        def have_ended() -> bool:
            return all(process.exit_status() is not None for process in processes)

        is_over = await _within(self._patience_s, lambda: have_ended() or lifecycle.at_once.is_set())
        if lifecycle.at_once.is_set():
            for process in processes:
                process.signal(signal.SIGTERM)
            is_over = await _within(_AT_ONCE_S, have_ended)
        if not is_over:
            for process in processes:
                process.signal(signal.SIGKILL)
            await _within(WORKER_END_S, have_ended)
        for process in processes:
            _LOGGER.info("%s (process %d) ended with %s", process.name, process.pid, _ended(process))
            await process.close()
        return int(any(process.exit_status() != 0 for process in processes))

    def _go_on(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _ended(process: WorkerProcess) -> str:
    status = process.exit_status()
    return "nothing, it is stuck in the kernel" if status is None else describe_exit(status)


async def _is_ready(process: WorkerProcess) -> bool:
    try:
        said = await process.asking.ask("readiness", timeout_s=CONTROL_TIMEOUT_S)
    except Unavailable:
        return False
    return bool(msgspec.json.decode(said)[0])


async def _asked(process: WorkerProcess, what: str) -> bool:
    """Whether the worker answered."""
    try:
        await process.asking.ask(what, timeout_s=CONTROL_TIMEOUT_S)
    except Unavailable:
        return False
    return True


async def _within(timeout_s: float, condition: Callable[[], bool]) -> bool:
    """Whether the condition came true in time."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            return False
        await asyncio.sleep(_TICK_S)
    return True


async def run_workers(
    settings: GatewaySettings, listener: socket.socket, *, command: WorkerCommand | None = None
) -> int:
    """Run the parent until asked to stop; returns the exit status."""
    lifecycle = Lifecycle()
    workers = Workers(settings, listener, command=command or WorkerCommand())
    lifecycle.follow_signals(on_hangup=workers.roll)
    async with admin_server(settings, PooledOperations(workers)):
        return await workers.run(lifecycle)
