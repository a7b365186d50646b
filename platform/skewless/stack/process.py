"""One operating-system process: what to start, the running thing, and stopping it with its whole group."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from skewless.errors import StackFailed
from skewless.stack import launch

LOG_BYTES_MAX = 16 * 1024 * 1024
"""A log larger than this is set aside (`.1`, one kept) when its process starts, so logs stay bounded."""
TAIL_BYTES = 8 * 1024
CLOCK_STEP_S = 1.0
"""Creation times are derived from the wall clock, which may be adjusted a little between two looks at it."""
_POLL_S = 0.02
_NOT_HANDED_ON = ("SKEWLESS_", "PROMETHEUS_MULTIPROC")
"""Settings, which a spec decides, and what Feast sets when it is imported, which slows every metric of a gateway."""


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """How to start one process and tell whether it is well.

    `environment` is added to the starter's own, without the starter's `SKEWLESS_` variables. `probe` returns
    when the process answers and raises Unavailable when it does not; it bounds its own time.
    `death_signal` is what the kernel sends it when its starter dies without having stopped it.
    """

    name: str
    command: tuple[str, ...]
    log_file: Path
    probe: Callable[[], Awaitable[None]]
    environment: Mapping[str, str] = field(default_factory=dict)
    depends_on: tuple[str, ...] = ()
    stop_timeout_s: float = 10.0
    death_signal: signal.Signals = signal.SIGKILL
    clean_up: Callable[[], None] | None = None
    """Removes what a killed process of this kind leaves outside its folders; called before each start."""


class RunningProcess:
    """A started process, leader of a session and process group of its own."""

    def __init__(self, spec: ProcessSpec, process: subprocess.Popen[bytes]) -> None:
        self.spec = spec
        self._process = process
        self.created_s = created_time_s(process.pid)

    @property
    def pid(self) -> int:
        """Process id, and the id of its process group."""
        return self._process.pid

    def exit_status(self) -> int | None:
        """The exit status (negative: the signal that ended it), or None while it runs.

        When the leader has ended, what is left of its group is killed first: the group's id cannot be reused
        before the leader is reaped, so no stranger is hit.
        """
        if self._process.returncode is None and _has_exited(self.pid):
            self.signal_group(signal.SIGKILL)
        return self._process.poll()

    def signal_group(self, number: signal.Signals) -> None:
        """Send a signal to every process of the group; nothing happens when none is left."""
        signal_group(self.pid, number)

    def stop(self) -> int:
        """End the group: SIGTERM, a bounded wait, SIGKILL. Returns the exit status. Blocks meanwhile."""
        self.signal_group(signal.SIGTERM)
        if (status := self._wait(self.spec.stop_timeout_s)) is not None:
            return status
        self.signal_group(signal.SIGKILL)
        status = self._wait(self.spec.stop_timeout_s)
        if status is None:
            raise StackFailed(
                f"{self.spec.name} (process {self.pid}) is still there {self.spec.stop_timeout_s:g} s after SIGKILL",
                hint="it is stuck in the kernel, usually on a disk or device that does not answer; look at `dmesg`",
            )
        return status

    def _wait(self, timeout_s: float) -> int | None:
        deadline = time.monotonic() + timeout_s
        while (status := self.exit_status()) is None and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        return status


def start(spec: ProcessSpec) -> RunningProcess:
    """Start a process, with its output appended to its log. Raises StackFailed where that is not possible."""
    spec.log_file.parent.mkdir(parents=True, exist_ok=True)
    if spec.log_file.exists() and spec.log_file.stat().st_size > LOG_BYTES_MAX:
        set_log_aside(spec.log_file)
    if spec.clean_up is not None:
        spec.clean_up()
    launcher = (sys.executable, "-I", "-S", launch.__file__, str(int(spec.death_signal)), str(os.getpid()))
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_HANDED_ON)}
    try:
        with spec.log_file.open("ab") as log:
            process = subprocess.Popen(
                [*launcher, *spec.command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**inherited, **spec.environment},
                start_new_session=True,
            )
    except OSError as error:
        raise StackFailed(f"{spec.name} cannot be started: {error}", hint="run `skewless doctor`") from error
    return RunningProcess(spec, process)


def set_log_aside(log_file: Path) -> None:
    """Rename a log to `<name>.1`, over the one set aside before; nothing happens where there is no log."""
    if log_file.exists():
        log_file.replace(log_file.with_name(f"{log_file.name}.1"))


def signal_group(group: int, number: signal.Signals) -> None:
    """Send a signal to every process of a group; nothing happens when none is left."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return


def created_time_s(pid: int) -> float:
    """When a process was created, in seconds since 1970, or 0 where there is none.

    Together with the id it names one process for good: ids are reused, but not with the same creation time.
    """
    try:
        return psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return 0.0


def is_alive(pid: int, created_s: float) -> bool:
    """Whether the very process of that id and creation time still runs.

    A zombie does not, unless threads of it are still ending: until the last is gone, its files and locks are held.
    """
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - created_s) < CLOCK_STEP_S
        return same and (process.status() != psutil.STATUS_ZOMBIE or process.num_threads() > 1)
    except psutil.NoSuchProcess:
        return False


def describe_exit(status: int) -> str:
    """An exit status in words.

    >>> describe_exit(1), describe_exit(-9)
    ('exit status 1', 'signal 9 (SIGKILL)')
    """
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"signal {-status} ({signal.Signals(-status).name})"
    except ValueError:
        return f"signal {-status}"


def tail(log_file: Path, lines: int = 12) -> str:
    """The last lines of a log, or an empty text where there is no log."""
    try:
        with log_file.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(0, size - TAIL_BYTES))
            text = log.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def _has_exited(pid: int) -> bool:
    flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
    return os.waitid(os.P_PID, pid, flags) is not None
