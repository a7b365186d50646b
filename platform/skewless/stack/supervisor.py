"""The supervisor of the embedded stack: starts its processes, keeps them up, and leaves none behind.

Runs in the foreground of `skewless up`, or detached as `python -m skewless.stack.supervisor`. Whether to
start, restart, kill or give up is decided in `supervision`; here the decisions are carried out and written to
`stack.json`.
"""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from skewless.errors import Conflict, SkewlessError, StackFailed, Unavailable
from skewless.registry.database import upgrade
from skewless.settings import Home, Settings, StackSettings, describe, load_settings
from skewless.stack import process as processes
from skewless.stack.feature_watch import watching
from skewless.stack.leftovers import end_leftovers
from skewless.stack.lock import EXIT_CONFLICT, only_supervisor
from skewless.stack.plan import plan_stack
from skewless.stack.process import ProcessSpec, RunningProcess, created_time_s, describe_exit, tail
from skewless.stack.rollout_watch import adjusting_rollouts
from skewless.stack.state import ProcessState, StackAddresses, StackState, write_state
from skewless.stack.supervision import (
    RUNNING,
    Bounds,
    Health,
    Phase,
    Watched,
    exited,
    may_start,
    phase_of,
    probe_missed,
    probe_passed,
    restart_delay_s,
    started,
)
from skewless.timestamps import to_micros

TICK_S = 0.1
"""How often exits are noticed and starts are considered."""
STARTING_PROBE_INTERVAL_S = 0.2
EXIT_FAILED = 3

Report = Callable[[str], None]


class Supervisor:
    """The processes of one stack while it runs."""

    def __init__(
        self, specs: tuple[ProcessSpec, ...], state: StackState, *, home: Home, stack: StackSettings, report: Report
    ) -> None:
        self._specs = {spec.name: spec for spec in specs}
        self._watched = {spec.name: Watched(spec.name, spec.depends_on) for spec in specs}
        self._running: dict[str, RunningProcess] = {}
        self._next_probe_s: dict[str, float] = {}
        self._state = state
        self._home = home
        self._probe_interval_s = stack.probe_interval_s
        self._bounds = bounds_of(stack)
        self._report = report

    async def run(self, stop: asyncio.Event) -> None:
        """Supervise until `stop` is set. Raises StackFailed when a process cannot come up at all.

        On the way out, every process is ended in reverse order, whatever happened.
        """
        supervision = asyncio.create_task(self._supervise())
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({supervision, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if supervision.done():
                supervision.result()
        finally:
            supervision.cancel()
            stopping.cancel()
            self._stop_all()

    async def _supervise(self) -> None:
        while True:
            self._reap()
            self._start_due()
            await self._probe_due()
            self._publish()
            if self._state.phase is Phase.FAILED:
                raise StackFailed(self._state.failure, hint="`skewless doctor` says what is missing on this machine")
            await asyncio.sleep(TICK_S)

    def _reap(self) -> None:
        for name, running in list(self._running.items()):
            status = running.exit_status()
            if status is None:
                continue
            del self._running[name]
            reason = describe_exit(status)
            after = exited(self._watched[name], reason, now_s=time.monotonic(), bounds=self._bounds)
            self._watched[name] = after
            if after.health is Health.GIVEN_UP:
                self._report(self._given_up(after))
            else:
                delay_s = restart_delay_s(after.failures, self._bounds)
                self._report(f"{name} ended: {after.last_failure}; starting it again in {delay_s:g} s")

    def _start_due(self) -> None:
        for name, watched in self._watched.items():
            now_s = time.monotonic()
            if may_start(watched, list(self._watched.values()), now_s=now_s, bounds=self._bounds):
                self._running[name] = processes.start(self._specs[name])
                self._watched[name] = started(watched, now_s=now_s)
                self._next_probe_s[name] = now_s
                self._report(f"{name} is starting (process {self._running[name].pid})")

    async def _probe_due(self) -> None:
        now_s = time.monotonic()
        due = [name for name in self._running if self._next_probe_s[name] <= now_s]
        await asyncio.gather(*(self._probe(name) for name in due))

    async def _probe(self, name: str) -> None:
        before = self._watched[name]
        try:
            await self._specs[name].probe()
        except Unavailable as error:
            now_s = time.monotonic()
            after = probe_missed(before, error.message, now_s=now_s, bounds=self._bounds)
        else:
            now_s = time.monotonic()
            after = probe_passed(before, now_s=now_s, bounds=self._bounds)
        waiting = after.health is Health.STARTING
        self._next_probe_s[name] = now_s + (STARTING_PROBE_INTERVAL_S if waiting else self._probe_interval_s)
        self._watched[name] = after
        if after.condemned:
            self._report(f"{name} is killed: {after.condemned}")
            self._running[name].signal_group(signal.SIGKILL)
        elif after.health is not before.health:
            self._report(f"{name} is {after.health}")

    def _publish(self) -> None:
        watched = list(self._watched.values())
        given_up = [self._given_up(each) for each in watched if each.health is Health.GIVEN_UP]
        state = replace(
            self._state,
            phase=phase_of(watched),
            processes=tuple(self._process_state(each) for each in watched),
            failure="\n".join(given_up),
        )
        if state != self._state:
            self._state = state
            write_state(self._home, state)

    def _process_state(self, watched: Watched) -> ProcessState:
        running = self._running.get(watched.name) if watched.health in RUNNING else None
        return ProcessState(
            name=watched.name,
            pid=running.pid if running else 0,
            created_s=running.created_s if running else 0.0,
            health=watched.health,
            restarts=watched.restarts,
            last_failure=watched.last_failure,
            log=str(self._specs[watched.name].log_file),
        )

    def _given_up(self, watched: Watched) -> str:
        log = self._specs[watched.name].log_file
        times = f"{watched.failures} times in a row" if watched.failures > 1 else "once"
        return (
            f"{watched.name} is given up after failing {times}: {watched.last_failure}. "
            f"The last lines of {log}:\n{tail(log)}"
        )

    def _stop_all(self) -> None:
        for name in reversed(self._specs):
            if (running := self._running.pop(name, None)) is not None:
                self._report(f"{name} ended with {describe_exit(running.stop())}")


def bounds_of(stack: StackSettings) -> Bounds:
    """The bounds of supervision that the settings ask for."""
    return Bounds(
        start_timeout_s=stack.start_timeout_s,
        probe_failures_max=stack.probe_failures_max,
        restart_delay_s=stack.restart_delay_s,
        restart_delay_max_s=stack.restart_delay_max_s,
        failures_max=stack.restarts_max,
        stable_s=stack.stable_s,
    )


def run(settings: Settings, stack: StackSettings, report: Report) -> None:
    """Run the stack until SIGINT, SIGTERM or SIGHUP, then stop it.

    Raises Conflict when a stack of this home is up, which it leaves alone, and StackFailed when this one cannot
    come up; then `stack.json` stays behind with the reason, otherwise it is removed.
    """
    home = settings.folders
    with only_supervisor(home):
        end_leftovers(home, report)
        # A new file for each run: its creation is also how waiting callers see that this supervisor is at work.
        home.stack_file.unlink(missing_ok=True)
        nowhere = StackAddresses("", "", "", "", "")
        state = _initial_state(home, stack, nowhere)
        try:
            write_state(home, state)
            addresses, specs = plan_stack(settings, stack)
            upgrade(settings.registry_url)
            state = _initial_state(home, stack, addresses)
            for spec in specs:
                # What a message quotes from a log is then of this run.
                processes.set_log_aside(spec.log_file)
            supervisor = Supervisor(specs, state, home=home, stack=stack, report=report)
            with watching(settings, report), adjusting_rollouts(settings, report):
                asyncio.run(_until_signalled(supervisor))
        except SkewlessError as error:
            write_state(home, replace(state, phase=Phase.FAILED, failure=str(error)))
            raise
        home.stack_file.unlink(missing_ok=True)


async def _until_signalled(supervisor: Supervisor) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    await supervisor.run(stop)


def _initial_state(home: Home, stack: StackSettings, addresses: StackAddresses) -> StackState:
    pid = os.getpid()
    return StackState(
        home=str(home.root),
        pid=pid,
        created_s=created_time_s(pid),
        started=to_micros(datetime.now(UTC)),
        phase=Phase.STARTING,
        addresses=addresses,
        allow_as_of=stack.allow_as_of,
    )


def main() -> None:
    """Entry of the detached supervisor: settings from the environment, reports to its log (standard output)."""

    def report(text: str) -> None:
        sys.stdout.write(f"{datetime.now(UTC).isoformat(timespec='milliseconds')} {text}\n")
        sys.stdout.flush()

    try:
        settings, stack = load_settings(Settings), load_settings(StackSettings)
        report(f"starting with\n{describe(settings)}\n{describe(stack)}")
        run(settings, stack, report)
    except Conflict as error:
        report(str(error))
        sys.exit(EXIT_CONFLICT)
    except SkewlessError as error:
        report(str(error))
        sys.exit(EXIT_FAILED)


if __name__ == "__main__":
    main()
