"""The comparing process as the monitor sees it: started when there is work, replaced when it is old or large."""

import json
import selectors
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import Any

from skewless.errors import Unavailable
from skewless.monitor_limits import (
    PARITY_WORKER_ANSWER_S,
    PARITY_WORKER_IDLE_S,
    PARITY_WORKER_MEMORY_BYTES,
    PARITY_WORKER_S_MAX,
)

PART = "parity worker"
MODULE = "skewless_monitor.parity_worker"
_LOOK_S = 0.5
"""How often a wait looks whether the monitor is to end."""
_END_S = 5.0
"""How long it may take to end by itself before it is killed; all that it does is in transactions."""


class ParityProcess:
    """At most one process at a time. For one thread."""

    def __init__(self, command: tuple[str, ...] = (sys.executable, "-P", "-m", MODULE)) -> None:
        self._command = command
        self._process: subprocess.Popen[str] | None = None
        self._started_s = 0.0
        self._used_s = 0.0
        self.bytes = 0
        """Resident memory that it last told; 0 while there is none."""

    @property
    def is_running(self) -> bool:
        """Whether there is one."""
        return self._process is not None

    def ask(self, stop: threading.Event) -> dict[str, Any]:
        """What a run came to. Raises Unavailable where it failed, did not answer in time, or `stop` was set."""
        process = self._running()
        assert process.stdin is not None, "it was started with pipes"
        try:
            process.stdin.write("run\n")
            process.stdin.flush()
            line = self._line(process, stop)
        except OSError as error:
            self.close()
            raise Unavailable(PART, f"it has ended: {error}", hint="the monitor's log has its last words") from error
        if not line:
            status = process.poll()
            self.close()
            raise Unavailable(PART, f"it has ended with {status}", hint="the monitor's log has its last words")
        found: dict[str, Any] = json.loads(line)
        self._used_s = time.monotonic()
        self.bytes = int(found["bytes"])
        if "error" in found:
            self.close()
            raise Unavailable(PART, str(found["error"]), hint=str(found["hint"]))
        return found

    def replace_if_due(self) -> None:
        """End it where it is old, large, or was not needed for a while; the next question starts another."""
        if self._process is None:
            return
        now_s = time.monotonic()
        is_old = now_s - self._started_s >= PARITY_WORKER_S_MAX or self.bytes >= PARITY_WORKER_MEMORY_BYTES
        if is_old or now_s - self._used_s >= PARITY_WORKER_IDLE_S:
            self.close()

    def close(self) -> None:
        """End it, where there is one."""
        process, self._process, self.bytes = self._process, None, 0
        if process is None:
            return
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(OSError):  # a question that it no longer read
                    pipe.close()
        process.terminate()
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            self._started_s = self._used_s = time.monotonic()
        return self._process

    def _line(self, process: subprocess.Popen[str], stop: threading.Event) -> str:
        """Its answer; empty where it has ended. Raises Unavailable after PARITY_WORKER_ANSWER_S, and at the end."""
        assert process.stdout is not None, "it was started with pipes"
        give_up_s = time.monotonic() + PARITY_WORKER_ANSWER_S
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while not selector.select(_LOOK_S):
                if stop.is_set() or time.monotonic() >= give_up_s:
                    self.close()
                    why = "the monitor ends" if stop.is_set() else f"no answer within {PARITY_WORKER_ANSWER_S:g} s"
                    raise Unavailable(PART, why)
            return process.stdout.readline()
