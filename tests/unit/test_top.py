"""`skewless top`: rates and latencies out of two pages of metrics, and what it says when something is wrong."""

import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from click.testing import CliRunner
from rich.console import Console

from skewless.adapters.metrics_pages import MetricsPage, read_page
from skewless.cli.top_command import top
from skewless.cli.top_frame import Frame, Look, frame_of
from skewless.cli.top_view import rendered
from skewless.errors import Unavailable

BEFORE = """
skewless_requests_total{endpoint="e",code="200"} 100
skewless_requests_total{endpoint="e",code="503"} 0
skewless_rows_total{endpoint="e"} 200
skewless_rungs_total{endpoint="e",rung="normal"} 100
skewless_feature_statuses_total{endpoint="e",status="ok"} 1000
skewless_feature_statuses_total{endpoint="e",status="stale"} 0
skewless_stage_seconds_bucket{stage="total",le="0.001"} 0
skewless_stage_seconds_bucket{stage="total",le="0.01"} 100
skewless_stage_seconds_bucket{stage="total",le="+Inf"} 100
skewless_bundle_live{endpoint="e",bundle="0123456789ab"} 1
skewless_registry_up 1
"""
AFTER = """
skewless_requests_total{endpoint="e",code="200"} 118
skewless_requests_total{endpoint="e",code="503"} 2
skewless_rows_total{endpoint="e"} 240
skewless_rungs_total{endpoint="e",rung="normal"} 109
skewless_rungs_total{endpoint="e",rung="last_known"} 9
skewless_feature_statuses_total{endpoint="e",status="ok"} 1300
skewless_feature_statuses_total{endpoint="e",status="stale"} 100
skewless_stage_seconds_bucket{stage="total",le="0.001"} 10
skewless_stage_seconds_bucket{stage="total",le="0.01"} 120
skewless_stage_seconds_bucket{stage="total",le="+Inf"} 120
skewless_bundle_live{endpoint="e",bundle="0123456789ab"} 1
skewless_admission_refused_total{endpoint="e",reason="queue_full"} 4
skewless_circuit_open{part="online_store"} 1
skewless_circuit_open{part="triton"} 0
skewless_registry_up 0
"""
MONITOR = """
skewless_drift_alarm_level{endpoint="e",bundle="0123456789ab",role="live"} 1.5
skewless_drift_alarm_open{endpoint="e",bundle="0123456789ab",role="live"} 1
skewless_parity_equal_ratio{endpoint="e",stratum="entity",level="values"} 0.999
skewless_monitor_job_failing{monitor_job="parity"} 1
"""


def _look(moment_s: float, gateway: str, monitor: str | None = "") -> Look:
    pages = {"gateway": MetricsPage.parse(gateway), "monitor": None if monitor is None else MetricsPage.parse(monitor)}
    return Look(moment_s, pages)


def _text(frame: Frame) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(rendered(frame, home="/home"))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_rates_shares_and_quantiles_are_of_the_time_between_two_looks() -> None:
    frame = frame_of(_look(10.0, BEFORE), _look(12.0, AFTER, MONITOR))
    (line,) = frame.endpoints
    assert (line.requests_per_s, line.rows_per_s, line.refused_per_s) == (10.0, 20.0, 2.0)
    assert line.failed == pytest.approx(2 / 20)
    assert line.degraded == pytest.approx(9 / 18)
    assert line.not_ok == pytest.approx(100 / 400)
    assert (line.bundle, line.drift_level, line.is_alarmed, line.equal) == ("0123456789ab", 1.5, True, 0.999)
    # Ten of the twenty new answers took up to a millisecond, the others up to ten.
    assert frame.p50_ms == pytest.approx(1.0)
    assert frame.p99_ms == pytest.approx(1.0 + 9.0 * (19.8 - 10) / 10)
    assert frame.circuits == ("online_store",)


def test_a_gateway_that_started_anew_counts_from_nothing() -> None:
    frame = frame_of(_look(0.0, AFTER), _look(1.0, BEFORE))
    (line,) = frame.endpoints
    assert line.requests_per_s == 100.0
    assert frame.p50_ms is not None
    assert frame.p50_ms > 1.0


def test_nothing_that_happened_is_shown_as_nothing_and_not_as_zero() -> None:
    frame = frame_of(_look(0.0, BEFORE), _look(1.0, BEFORE))
    (line,) = frame.endpoints
    assert (frame.p50_ms, frame.p99_ms, line.failed, line.degraded, line.not_ok, line.equal) == (None,) * 6


def test_what_is_wrong_is_said_in_words() -> None:
    told = _text(frame_of(_look(0.0, BEFORE), _look(2.0, AFTER, MONITOR)))
    for words in ("the registry is away", "job `parity` fails", "online_store does not answer", "ALARM", "99.900%"):
        assert words in told
    silent = _text(frame_of(_look(0.0, BEFORE), _look(2.0, BEFORE, None)))
    assert "monitor does not answer its metrics" in silent
    assert "ALARM" not in silent


def test_a_stack_without_endpoints_says_what_to_do_next() -> None:
    assert "skewless endpoint create" in _text(frame_of(_look(0.0, ""), _look(1.0, "")))


def test_a_narrow_terminal_gets_fewer_columns_and_whole_words() -> None:
    frame = frame_of(_look(0.0, BEFORE), _look(2.0, AFTER, MONITOR))
    console = Console(file=io.StringIO(), width=80)
    console.print(rendered(frame, home="/home", width=console.width))
    assert isinstance(console.file, io.StringIO)
    told = console.file.getvalue()
    for word in ("endpoint", "req/s", "refused/s", "degraded", "not ok", "1.50 ALARM", "99.900%"):
        assert word in told
    assert "0123456" not in told


@contextmanager
def _served(*answers: tuple[int, str]) -> Iterator[str]:
    """A server on loopback that gives these answers in turn, the last one for ever."""
    left = list(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, text = left.pop(0) if len(left) > 1 else left[0]
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_arguments: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("answer", [(404, "none"), (200, "no{page"), (503, "")])
def test_a_page_of_no_use_is_unavailable(answer: tuple[int, str]) -> None:
    with _served(answer) as url, pytest.raises(Unavailable, match="metrics"):
        read_page(url)


def test_the_command_prints_a_frame_of_a_gateway_that_is_named() -> None:
    with _served((200, BEFORE), (200, AFTER)) as url:
        done = CliRunner().invoke(top, ["--gateway", url, "--every", "0.2", "--once", "--json"])
    assert done.exit_code == 0, done.output
    frame = json.loads(done.stdout)
    (line,) = frame["endpoints"]
    assert line["name"] == "e"
    assert line["requests_per_s"] * frame["seconds"] == pytest.approx(20)
    assert frame["silent"] == []


def test_a_gateway_that_does_not_answer_is_named_and_the_command_goes_on() -> None:
    with _served((500, "")) as url:
        done = CliRunner().invoke(top, ["--gateway", url, "--every", "0.2", "--once"])
    assert done.exit_code == 0, done.output
    assert "gateway does not answer" in done.stdout
