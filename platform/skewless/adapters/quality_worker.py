"""A process that judges batches, kept warm: Great Expectations is imported there, once, and never here.

    parent → child   a line of JSON per batch: the suite, the moment, and two files of a folder that only both may read
    child → parent   a line of JSON when it is done, with the reason where it could not

Rows go as an Arrow file, which the child maps into memory, and results come back as another. The child ends when its
standard input does, so that it never outlives its parent. A batch that takes too long costs the child, not the caller.
"""

import json
import os
import selectors
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
import pyarrow as pa

from skewless.errors import InvalidDefinition, Unavailable
from skewless.monitor_limits import QUALITY_RUN_S_MAX, QUALITY_START_S_MAX
from skewless.quality.binding import bound_to
from skewless.quality.results import ExpectationResult
from skewless.quality.suite import Suite

_PART = "the process that judges batches"
_READY = "ready"
_FIELDS = ("position", "success", "rows", "missing", "unexpected", "observed", "examples", "error")
_RESULTS = pa.schema([("result", pa.string()), ("failing_rows", pa.list_(pa.int64()))])


class SuiteWorker(AbstractContextManager["SuiteWorker"]):
    """Runs suites in a child process, one batch at a time; threads may share it.

    The child is started by `start`, or by the first batch. One that ended or hangs is replaced for the next batch.
    """

    def __init__(self, *, start_s_max: float = QUALITY_START_S_MAX, run_s_max: float = QUALITY_RUN_S_MAX) -> None:
        self._limits_s = (start_s_max, run_s_max)
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._is_ready = False
        self._folder = tempfile.TemporaryDirectory(prefix="skewless-quality-")
        self._said = Path(self._folder.name) / "said.log"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Start the child without waiting for it: it imports while the caller does other things."""
        with self._lock:
            self._alive()

    def wait(self) -> None:
        """Return when the child can judge, so that what it took to start is not part of a batch. Raises as `run`."""
        with self._lock:
            self._await_ready(self._alive())

    def run(self, suite: Suite, table: pa.Table, *, as_of: int, times: frozenset[str]) -> tuple[ExpectationResult, ...]:
        """Results of a suite on a table, in the suite's order, judged for the moment `as_of` (µs).

        `times` are the table's columns of times. Raises InvalidDefinition where Great Expectations refuses the suite,
        Unavailable where the child cannot start, ends, or takes too long.
        """
        with self._lock:
            child = self._alive()
            self._await_ready(child)
            rows, results = (Path(self._folder.name) / name for name in ("rows.arrow", "results.arrow"))
            with pa.OSFile(str(rows), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
                writer.write_table(table)
            asked = {"suite": suite.to_json(), "as_of": as_of, "times": sorted(times)}
            try:
                answer = self._ask(child, {**asked, "rows": str(rows), "results": str(results)})
                if "error" in answer:
                    raise InvalidDefinition(answer["error"], hint=answer["hint"])
                return _read(results)
            finally:
                rows.unlink(missing_ok=True)
                results.unlink(missing_ok=True)

    def close(self) -> None:
        """End the child and remove what lies between both."""
        with self._lock:
            self._end()
            self._folder.cleanup()

    def _alive(self) -> "subprocess.Popen[bytes]":
        if self._child is None or self._child.poll() is not None:
            self._end()
            command = [sys.executable, "-m", "skewless.adapters.quality_worker"]
            environment = {**os.environ, "GX_ANALYTICS_ENABLED": "false"}
            with self._said.open("wb") as said:  # a file, because nobody reads a pipe while the child works
                self._child = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, env=environment
                )
            self._is_ready = False
        return self._child

    def _await_ready(self, child: "subprocess.Popen[bytes]") -> None:
        if not self._is_ready:
            answer = self._answer(child, self._limits_s[0])
            if answer.get("state") != _READY:
                self._end()
                raise Unavailable(_PART, str(answer.get("error")), hint=str(answer.get("hint")))
            self._is_ready = True

    def _ask(self, child: "subprocess.Popen[bytes]", asked: dict[str, Any]) -> dict[str, Any]:
        assert child.stdin is not None, "it was opened with pipes"
        try:
            child.stdin.write(json.dumps(asked).encode() + b"\n")
            child.stdin.flush()
        except BrokenPipeError as error:
            raise self._lost(child) from error
        return self._answer(child, self._limits_s[1])

    def _answer(self, child: "subprocess.Popen[bytes]", wait_s: float) -> dict[str, Any]:
        """The next line of the child, which writes whole ones. A child that takes longer is ended."""
        assert child.stdout is not None, "it was opened with pipes"
        deadline_s, line = time.monotonic() + wait_s, b""
        with selectors.DefaultSelector() as selector:
            selector.register(child.stdout, selectors.EVENT_READ)
            while not line.endswith(b"\n"):
                if not selector.select(max(deadline_s - time.monotonic(), 0.0)):
                    self._end()
                    raise Unavailable(_PART, f"it did not answer within {wait_s:g} s", hint="judge a smaller batch")
                part = os.read(child.stdout.fileno(), 1 << 16)
                if not part:
                    raise self._lost(child)
                line += part
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _lost(self, child: "subprocess.Popen[bytes]") -> Unavailable:
        self._end()
        lines = self._said.read_text(errors="replace").strip().splitlines()
        said = f": {lines[-1]}" if lines else ""
        return Unavailable(_PART, f"it ended with status {child.returncode}{said}", hint="run the command again")

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                with suppress(OSError):  # what was written to a child that ended cannot be flushed
                    pipe.close()


def _read(path: Path) -> tuple[ExpectationResult, ...]:
    with pa.OSFile(str(path), "rb") as source, pa.ipc.open_file(source) as reader:
        table = reader.read_all()
    found = []
    for text, rows in zip(table.column("result").to_pylist(), table.column("failing_rows"), strict=True):
        plain = json.loads(text)
        plain["examples"] = tuple(plain["examples"])
        numbers = np.asarray(rows.values, dtype=np.int64) if rows.is_valid else None
        found.append(ExpectationResult(**plain, failing_rows=numbers))
    return tuple(found)


def _write(path: str, results: tuple[ExpectationResult, ...]) -> None:
    texts = [json.dumps({name: getattr(each, name) for name in _FIELDS}) for each in results]
    rows = pa.array([each.failing_rows for each in results], type=_RESULTS.field("failing_rows").type)
    with pa.OSFile(path, "wb") as sink, pa.ipc.new_file(sink, _RESULTS) as writer:
        writer.write_table(pa.table([pa.array(texts, pa.string()), rows], schema=_RESULTS))


def _serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    """The child's life: answer batches until there are none."""

    def answer(**fields: object) -> None:
        answers.write(json.dumps(fields).encode() + b"\n")
        answers.flush()

    try:
        from skewless.adapters.great_expectations_runner import run_suite
    except ImportError as error:
        answer(error=f"it cannot import {error.name}", hint="install the extra `skewless[monitor]`")
        return
    answer(state=_READY)
    for line in requests:
        asked = json.loads(line)
        suite = bound_to(Suite.from_json(asked["suite"]), asked["as_of"], frozenset(asked["times"]))
        with pa.memory_map(asked["rows"]) as source, pa.ipc.open_file(source) as reader:
            table = reader.read_all()
            try:
                _write(asked["results"], run_suite(suite, table))
            except InvalidDefinition as error:
                answer(error=error.message, hint=error.hint)
                continue
        answer(state="done")


def main() -> None:
    """Serve on standard input and output; whatever libraries print goes to standard error instead."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    _serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
