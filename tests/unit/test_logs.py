"""Lines of the log: their form, who gets one, and that neither a slow reader nor a flood can hold a request up."""

import io
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.asgi_calls import application_of, ask
from harness.bundles import instance
from harness.gateways import ENDPOINT, GatewayOverFakes
from harness.servers import wait_until
from skewless.errors import Unavailable
from skewless.limits import ACCESS_LINES_PER_S_MAX, LOG_LINES_WAITING_MAX
from skewless_gateway.access_log import AccessLog
from skewless_http.logs import JsonLines, TextLines, WaitingLines

LOGGER = logging.getLogger("skewless_gateway.test")
MS = 1_000_000


class Blocked(io.StringIO):
    """A stream whose reader has stopped, until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = threading.Event()

    def write(self, text: str) -> int:
        self.go_on.wait(30)
        return super().write(text)


@pytest.fixture
def everything() -> Iterator[io.StringIO]:
    """What the whole process logs, from debug on, as the gateway writes it."""
    stream = io.StringIO()
    handler = WaitingLines(stream)
    handler.setFormatter(JsonLines(worker=3))
    root, level = logging.getLogger(), logging.getLogger().level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield stream
    root.removeHandler(handler)
    root.setLevel(level)
    handler.close()


def record(message: str, *args: object, **told: object) -> logging.LogRecord:
    made = logging.LogRecord("skewless", logging.INFO, "", 0, message, args, None)
    made.told = told
    return made


def test_a_json_line_has_what_is_known_and_nothing_that_is_empty() -> None:
    line = json.loads(JsonLines(worker=1).format(record("took %d", 5, request_id="r", trace_id="", status=200)))
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "level": "info", "logger": "skewless", "message": "took 5", "worker": 1, "request_id": "r", "status": 200,
    }  # fmt: skip


@pytest.mark.parametrize("sent", ["a\nlevel=error b", "a\r\x1b[31mred", "a\u2028b"])
def test_no_caller_can_begin_a_line_of_its_own(sent: str) -> None:
    for formatter in (JsonLines(), TextLines()):
        line = formatter.format(record("request to %s", sent))
        assert len(line.splitlines()) == 1 or json.loads(line)["message"].endswith(sent)
        assert "\x1b" not in line


def test_an_error_has_its_trace_in_the_same_line() -> None:
    error = Unavailable("model backend", "it is away")
    failed = logging.LogRecord("skewless", logging.ERROR, "", 0, "failed", None, (type(error), error, None))
    assert "model backend" in json.loads(JsonLines().format(failed))["trace"]


def test_a_reader_that_stops_blocks_nobody_and_what_is_lost_is_told() -> None:
    stream = Blocked()
    handler = WaitingLines(stream)
    handler.setFormatter(JsonLines())
    for _ in range(LOG_LINES_WAITING_MAX + 500):
        handler.handle(record("line"))
    assert 400 <= handler.dropped <= 500, "the writer may have taken some"
    stream.go_on.set()
    wait_until(lambda: "were dropped" in stream.getvalue(), "the loss is told", timeout_s=30)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert f"{handler.dropped} lines of the log were dropped" in lines[-1]["message"]
    handler.close()


def test_closing_writes_what_waits() -> None:
    stream = io.StringIO()
    handler = WaitingLines(stream)
    handler.setFormatter(TextLines(worker=2))
    for number in range(100):
        handler.handle(record("line %d", number))
    handler.close()
    assert stream.getvalue().count("\n") == 100
    assert "skewless: line 99 worker=2" in stream.getvalue()


def test_libraries_warnings_and_uvicorn_write_in_the_same_form() -> None:
    program = (
        "import logging, warnings; from skewless_http.logs import configure_logging\n"
        "configure_logging(worker=1)\n"
        "warnings.warn('old', UserWarning); logging.getLogger('uvicorn.error').warning('of uvicorn')\n"
        "logging.getLogger('uvicorn').info('chatter'); logging.getLogger('grpc').error('of a library')\n"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=os.environ)
    lines = [json.loads(line) for line in told.stderr.splitlines()]
    assert [line["logger"] for line in lines] == ["py.warnings", "uvicorn.error", "grpc"]
    assert all(line["worker"] == 1 for line in lines)


def lines_of(log: AccessLog, took_ms: list[int], *, is_error: bool = False) -> int:
    """How many of requests that took so long get a line."""
    return sum(bool(log.ended(10**15 - each * MS, is_error=is_error)) for each in took_ms)


def test_errors_and_slow_requests_always_have_a_line_and_others_one_in_so_many() -> None:
    log = AccessLog(one_in=10, slow_ms=100, clock=lambda: 10**15)
    assert lines_of(log, [1] * 100) == 10
    assert lines_of(log, [100] * 5) == 5
    assert lines_of(log, [1] * 5, is_error=True) == 5


def test_one_in_none_leaves_errors_alone() -> None:
    log = AccessLog(one_in=0, slow_ms=100, clock=lambda: 10**15)
    assert lines_of(log, [1] * 1_000) == 0
    assert lines_of(log, [1], is_error=True) == 1


def test_a_flood_of_refusals_is_no_flood_of_lines() -> None:
    now = [10**15]
    log = AccessLog(one_in=1, slow_ms=100, clock=lambda: now[0])
    assert lines_of(log, [1] * 10_000, is_error=True) == ACCESS_LINES_PER_S_MAX
    assert log.dropped == 10_000 - ACCESS_LINES_PER_S_MAX
    now[0] += 1_000_000_000
    assert lines_of(log, [1], is_error=True) == 1


async def test_nothing_that_a_caller_sent_or_a_feature_said_is_logged(tmp_path: Path, everything: io.StringIO) -> None:
    gateway = GatewayOverFakes.build(tmp_path)
    path = f"/v1/endpoints/{ENDPOINT}/predict"
    secret = (b"authorization", b"Bearer sk_hidden-key"), (b"x-api-key", b"sk_hidden-key"), (b"cookie", b"hidden")
    given = json.dumps({"instances": [instance(tailnum="N-hidden")]}).encode()
    headers = ((b"content-type", b"application/json"),)
    async with application_of(gateway) as application:
        for extra in (headers, headers + secret):
            for body in (given, given[:-5], b'{"instances": [{"tailnum": "N-hidden"}]}'):
                await ask(application, "POST", path, body, headers=extra)
        gateway.backend.failure = Unavailable("model backend", "it is away")
        await ask(application, "POST", path, given, headers=headers)
        gateway.store.failure = RuntimeError("a bug")  # type: ignore[assignment]  # what no adapter raises
        await ask(application, "POST", path, given, headers=headers)

    wait_until(lambda: "a bug" in everything.getvalue(), "the bug is told", timeout_s=30)
    lines: list[dict[str, Any]] = [json.loads(line) for line in everything.getvalue().splitlines()]
    refused = [line for line in lines if line["logger"] == "skewless_gateway.access_log"]
    assert {line["code"] for line in refused} >= {"unauthenticated", "malformed_json", "missing_field", "unavailable"}
    assert all(line["request_id"] and line["took_ms"] >= 0 and line["worker"] == 3 for line in refused)
    assert {line["endpoint"] for line in refused} == {ENDPOINT}
    assert "hidden" not in everything.getvalue()
