"""Commands of `skewless`, each a process of its own that is forked from one which has imported Feast already.

Feast takes seconds of processor time to import, and a command line test runs dozens of commands. What a command is
stays: its own arguments, environment, folder, files for output, exit code, and whatever signals are sent to its pid.
Only what it imports is there before it begins; that commands import little is shown by tests of that.
"""

import contextlib
import gc
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from harness.servers import wait_until
from skewless.cli.main import COMMANDS, main

TESTS = Path(__file__).parents[1]
READY_TIMEOUT_S = 240.0
"""Importing takes about 6 s of processor time; the rest is for a machine that is busy with other tests."""
REQUEST_BYTES_MAX = 1 << 20
REAP_EVERY_S = 0.5
POLL_S = 0.01
# What commands import when they run.
ALSO = (
    "skewless.adapters.feast_repository",
    "skewless.adapters.sklearn_trainer",
    "skewless.adapters.log_reader",
    "skewless.adapters.onnx_session",
    "skewless.registry.repository",
)


@dataclass(frozen=True, slots=True)
class ForkedCommand:
    """A command that runs, or has ended."""

    pid: int
    _connection: socket.socket

    def poll(self) -> int | None:
        """Its exit code, negative for a signal's; None while it runs."""
        try:
            return self.wait(0.0)
        except TimeoutError:
            return None

    def wait(self, timeout_s: float) -> int:
        """Its exit code, as `poll`. Raises TimeoutError."""
        deadline = time.monotonic() + timeout_s
        while True:
            with contextlib.suppress(BlockingIOError):
                told = self._connection.recv(64, socket.MSG_PEEK | socket.MSG_DONTWAIT)
                assert told, "the process that forks commands has ended"
                return int(told)
            if time.monotonic() >= deadline:
                raise TimeoutError(f"command {self.pid} runs for more than {timeout_s:g} s")
            time.sleep(POLL_S)

    def send_signal(self, number: signal.Signals) -> None:
        """As the shell does: nothing where it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)


@dataclass(frozen=True, slots=True)
class CommandForks:
    """Where commands are asked for."""

    address: Path

    @contextmanager
    def started(
        self, *arguments: str, environment: Mapping[str, str], folder: Path, stdout: int, stderr: int
    ) -> Iterator[ForkedCommand]:
        """`skewless ARGUMENTS` in a process that writes to these files and reads nothing. Killed on leaving."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.connect(str(self.address))
            asked = json.dumps({"arguments": arguments, "environment": dict(environment), "folder": str(folder)})
            socket.send_fds(connection, [asked.encode()], [stdout, stderr])
            command = ForkedCommand(int(connection.recv(64)), connection)
            try:
                yield command
            finally:
                command.send_signal(signal.SIGKILL)

    def run(
        self, *arguments: str, environment: Mapping[str, str], folder: Path, timeout_s: float
    ) -> subprocess.CompletedProcess[str]:
        """The command once it has ended, with what it said. Raises TimeoutError past the time."""
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            descriptors = {"stdout": out.fileno(), "stderr": err.fileno()}
            with self.started(*arguments, environment=environment, folder=folder, **descriptors) as command:
                status = command.wait(timeout_s)
            said = []
            for each in (out, err):
                each.seek(0)
                said.append(each.read().decode())
            return subprocess.CompletedProcess(["skewless", *arguments], status, *said)


@contextmanager
def running_command_forks() -> Iterator[CommandForks]:
    """The process that forks commands, ended on leaving."""
    with tempfile.TemporaryDirectory(prefix="skewless-commands-") as folder:
        address = Path(folder) / "socket"
        server = subprocess.Popen([sys.executable, "-m", __name__, str(address)], cwd=TESTS, stdin=subprocess.PIPE)
        try:
            wait_until(
                lambda: address.exists() or server.poll() is not None, "commands can run", timeout_s=READY_TIMEOUT_S
            )
            assert server.poll() is None, "the process that forks commands has ended; its trace is above"
            yield CommandForks(address)
        finally:
            server.kill()
            server.communicate()


def serve(address: Path) -> None:
    """Fork for every connection, until this process is killed or its starter has ended."""
    for each in (*dict.fromkeys(command.module for command in COMMANDS.values()), *ALSO):
        importlib.import_module(each)
    gc.collect()
    gc.freeze()  # what is never looked at again is not copied by forks either
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(address.with_suffix(".new")))
        listener.listen()
        listener.settimeout(REAP_EVERY_S)
        address.with_suffix(".new").rename(address)
        starter = os.getppid()
        while os.getppid() == starter:
            with contextlib.suppress(TimeoutError):
                connection, _ = listener.accept()
                _fork(connection)
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG) != (0, 0):
                    pass


def _fork(connection: socket.socket) -> None:
    """A fork that starts the command, tells its pid, and how it ended."""
    with connection:
        if os.fork():
            return
        connection.settimeout(None)
        asked, descriptors, _, _ = socket.recv_fds(connection, REQUEST_BYTES_MAX, 2)
        pid = os.fork()
        if pid == 0:
            connection.close()
            _become(json.loads(asked), *descriptors)
        for each in descriptors:
            os.close(each)
        connection.send(b"%d" % pid)
        _, status = os.waitpid(pid, 0)
        connection.send(b"%d" % os.waitstatus_to_exitcode(status))
        os._exit(0)


def _become(asked: Mapping[str, Sequence[str] | Mapping[str, str] | str], stdout: int, stderr: int) -> NoReturn:
    """Be the command, in this process, to its end."""
    status = 1
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(stdout, 1)
        os.dup2(stderr, 2)
        os.environ.clear()
        os.environ.update(asked["environment"])  # type: ignore[arg-type]  # as `start` made it
        os.chdir(str(asked["folder"]))
        sys.path[0] = str(asked["folder"])  # where `python -m` looks first
        sys.argv = ["skewless", *asked["arguments"]]
        main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001  # a process ends here, and says why
        traceback.print_exc()
    finally:
        with contextlib.suppress(BrokenPipeError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
