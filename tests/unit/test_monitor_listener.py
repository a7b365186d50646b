"""What a monitor tells over HTTP: its page, whether it is well, and how each job is doing."""

import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from harness.http_calls import get, post
from harness.servers import wait_until
from skewless.adapters.status_listener import PLAIN, health_answer, listening
from skewless.errors import InvalidSettings, Unavailable
from skewless.limits import MONITOR_SERIES_MAX
from skewless.monitor_settings import MonitorSettings
from skewless.stack.monitor import ToldJob, told_jobs
from skewless.stack.ports import LOOPBACK, free_ports
from skewless_monitor.listener import problem_of
from skewless_monitor.monitor_collector import LABEL, MonitorCollector
from skewless_monitor.running_job import RunningJob
from skewless_monitor.service import MonitorService

REFERENCE = (Path(__file__).parents[2] / "docs" / "reference.md").read_text()
UNITS = {"seconds", "bytes", "total"}
STATES = {"skewless_monitor_job_failing", "skewless_monitor_series", "skewless_monitor_series_left_out"}


class Finds:
    """A job that has found `series` values of each of `families` families."""

    name = "drift"
    interval_s = 3_600.0
    lag_s: float | None = 2.5

    def __init__(self, families: int = 1, series: int = 1, *, broken: bool = False) -> None:
        self._families, self._series, self._broken = families, series, broken

    def run_once(self, stop: threading.Event) -> bool:  # noqa: ARG002  # the port's form
        return False

    def collect(self) -> Iterator[Metric]:
        for number in range(self._families):
            family = GaugeMetricFamily(f"skewless_drift_found_{number}", "What it found.", labels=["feature"])
            for feature in range(self._series):
                family.add_metric([f"feature_{feature}"], feature)
            yield family
        if self._broken:
            raise KeyError("snapshot")

    def close(self) -> None:
        """Nothing to give back."""


@pytest.fixture
def stop() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def ran(job: Finds, stop: threading.Event, name: str = "drift") -> RunningJob:
    """A job that has run once."""
    running = RunningJob(name, lambda: job, stop)
    running.start()
    wait_until(lambda: running.state.runs == 1, "it has run")
    return running


def samples(page: bytes) -> dict[tuple[str, str], float]:
    """Values by name and job (or feature)."""
    return {
        (sample.name, next(iter(sample.labels.values()), "")): sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
    }


def test_the_page_has_every_jobs_state_and_what_it_found(stop: threading.Event) -> None:
    never = RunningJob("parity", lambda: Finds(), stop)
    found = samples(MonitorCollector([ran(Finds(series=3), stop), never]).page())
    assert found["skewless_drift_found_0", "feature_2"] == 2
    assert found["skewless_monitor_job_runs_total", "drift"] == 1
    assert found["skewless_monitor_job_lag_seconds", "drift"] == 2.5
    assert found["skewless_monitor_job_interval_seconds", "drift"] == 3_600
    assert found["skewless_monitor_series", "drift"] == 3
    assert ("skewless_monitor_job_last_success_timestamp_seconds", "drift") in found
    assert found["skewless_monitor_job_runs_total", "parity"] == 0
    for unknown in ("last_success_timestamp_seconds", "lag_seconds", "interval_seconds"):
        assert (f"skewless_monitor_job_{unknown}", "parity") not in found, "what is not known is not told as 0"
    assert ("process_resident_memory_bytes", "") in found


def test_a_job_whose_metrics_fail_costs_the_page_nothing_else(stop: threading.Event) -> None:
    collector = MonitorCollector([ran(Finds(broken=True), stop), ran(Finds(), stop, "parity")])
    collector.page()
    found = samples(collector.page())
    assert found["skewless_monitor_collect_failures_total", "drift"] == 2
    assert found["skewless_monitor_collect_failures_total", "parity"] == 0
    assert found["skewless_monitor_series", "drift"] == 0
    assert found["skewless_drift_found_0", "feature_0"] == 0, "the other's are told"


def test_families_beyond_the_bound_are_left_out_whole_and_counted(stop: threading.Event) -> None:
    collector = MonitorCollector([ran(Finds(families=3, series=4), stop)], series_max=9)
    found = samples(collector.page())
    assert found["skewless_monitor_series", "drift"] == 8
    assert found["skewless_monitor_series_left_out", "drift"] == 4
    assert ("skewless_drift_found_2", "feature_0") not in found
    assert MONITOR_SERIES_MAX >= 12 * 500 * 10, "ten bundles of 500 features, 12 series each"


def test_metrics_are_named_by_one_rule_and_documented_with_their_labels(stop: threading.Event) -> None:
    page = MonitorCollector([ran(Finds(), stop)]).page().decode()
    families = [each for each in text_string_to_metric_families(page) if each.name.startswith("skewless_monitor")]
    assert len(families) >= 11
    for family in families:
        name = family.name + ("_total" if family.type == "counter" else "")
        assert re.fullmatch(r"skewless_monitor_[a-z]+(_[a-z]+)*", name), name
        assert name.rsplit("_", 1)[1] in UNITS or name in STATES, name
        assert family.documentation, f"{name} says nothing of itself"
        assert {label for sample in family.samples for label in sample.labels} == {LABEL}
        assert f"| `{name}` | `{LABEL}` |" in REFERENCE, f"docs/reference.md lacks a row for {name}"


def test_the_listener_answers_its_paths_and_a_client_reads_the_jobs() -> None:
    (port,) = free_ports(1)
    settings = MonitorSettings(database_url="sqlite://", artifacts="a", log_store="s", host=LOOPBACK, port=port)
    url = f"http://{LOOPBACK}:{port}"
    service = MonitorService(settings, {"drift": Finds})

    def ask() -> None:
        wait_until(lambda: service.jobs[0].state.runs == 1, "the job has run")
        assert b"skewless_drift_found_0" in get(f"{url}/metrics", timeout=30).content
        assert get(f"{url}/healthz", timeout=30).text == "ok\n"
        (told,) = told_jobs(url)
        assert (told.job, told.runs, told.failures_in_a_row, told.lag_s) == ("drift", 1, 0, 2.5)
        answer = get(f"{url}/other", timeout=30)
        assert (answer.status_code, answer.text) == (404, "there are /metrics, /healthz, /jobs\n")
        assert post(f"{url}/metrics", timeout=30).status_code == 501

    assert service.run(ask)
    with pytest.raises(Unavailable, match="/jobs"):
        told_jobs(url)


def test_a_job_that_only_a_new_process_can_put_right_makes_the_monitor_unwell(stop: threading.Event) -> None:
    well = ran(Finds(), stop)
    unborn = RunningJob("parity", lambda: Finds(), stop)
    assert health_answer(problem_of([well]))[0] == 200
    status, kind, body = health_answer(problem_of([well, unborn]))
    assert (status, kind, body) == (503, PLAIN, b"the thread of job parity has ended\n")


def test_a_port_that_is_taken_is_refused_by_the_name_of_the_setting() -> None:
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with (
            pytest.raises(InvalidSettings, match=f"SKEWLESS_MONITOR_PORT {port}"),
            listening(LOOPBACK, port, {}, setting="SKEWLESS_MONITOR_PORT", request_s=1.0),
        ):
            pass


@pytest.mark.parametrize(
    ("success_s", "lag_s", "told"),
    [
        (None, None, "its first run is under way"),
        (90.0, None, "7 runs, the last 10 s ago"),
        (90.0, 3.2, "7 runs, the last 10 s ago, 3 s behind the newest record"),
        (200.0, None, "7 runs, the last 0 s ago"),
    ],
)
def test_a_job_is_told_in_one_line(success_s: float | None, lag_s: float | None, told: str) -> None:
    assert ToldJob("drift", 7, 0, success_s, "", lag_s).summary(100.0) == told


def test_with_a_token_a_listener_tells_only_probes_without_it() -> None:
    answers = dict.fromkeys(("/metrics", "/readyz", "/healthz"), lambda: health_answer(""))
    with listening("127.0.0.1", 0, answers, setting="PORT", request_s=5, token="sixteen characters") as port:
        url = f"http://127.0.0.1:{port}"
        assert get(f"{url}/healthz").status_code == 200
        for path in ("/metrics", "/readyz", "/nothing"):
            for given in ({}, {"authorization": "Bearer wrong"}, {"authorization": "sixteen characters"}):
                refused = get(url + path, headers=given)
                assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
        assert get(f"{url}/metrics", headers={"authorization": "Bearer sixteen characters"}).status_code == 200
