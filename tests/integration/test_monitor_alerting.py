"""From the monitor to whoever is on call, through a real Prometheus and a real Alertmanager, by the very rules."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.bundles import content, transform
from harness.http_calls import post
from harness.prometheus import (
    Webhook,
    asked,
    running_alertmanager,
    running_prometheus,
    running_webhook,
    unhealthy_rules,
)
from harness.replays import ENDPOINT, RecordingHome, answered, flights, frame_of
from harness.rules import alerts
from harness.servers import running, wait_until
from harness.shipped_logs import ship
from skewless.bundles.bundle import Bundle
from skewless.dtypes import Column
from skewless.registry.database import engine
from skewless.registry.repository import Registry
from skewless.serving.records import AnsweredBatch
from skewless.stack.monitor import monitor_spec
from skewless.stack.ports import LOOPBACK, free_ports
from skewless.timestamps import HOUR_US, MINUTE_US, parse_timestamp

BROKEN = "DriftContractBroken"
START = parse_timestamp("2013-05-06T08:00:00Z")
WINDOWS, EMPTY_FROM, ROWS = 24, 16, 60
NAMES = {rule.name for rule in alerts()}
LONG_S = 120.0
"""On a machine that is busy: Prometheus, Alertmanager and the monitor take turns with other tests."""


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    with running_webhook() as told:
        yield told


def log_with_an_emptied_feature(folder: Path) -> RecordingHome:
    """A home whose log store has two hours of predictions; in the last forty minutes no temperature is known.

    Of 2013, as a replay's: windows are judged by the time of what was asked.
    """
    made = RecordingHome.make(folder)
    bundle = made.register(content(fitted=transform(), columns=flights(1_500, seed=1)))
    with closing(Registry(engine(f"sqlite:///{made.home.database}"))) as registry:
        registry.create_endpoint(ENDPOINT, description="", bundle=bundle.digest, actor="ann", reason="to be watched")
    made.log(*(_window(bundle, number) for number in range(WINDOWS)))
    ship(made.home.predictions)
    return made


def _window(bundle: Bundle, number: int) -> AnsweredBatch:
    columns = flights(ROWS, seed=number)
    if number >= EMPTY_FROM:
        temp = columns["weather__temp"]
        columns["weather__temp"] = Column(temp.dtype, np.zeros_like(temp.values), np.zeros(ROWS, dtype=bool))
    as_of = START + (number * 5 + 1) * MINUTE_US
    frame = frame_of(bundle.contract, columns, ROWS)
    frame = replace(frame, event_times={view: np.full(ROWS, as_of - HOUR_US) for view in frame.event_times})
    return answered(bundle, columns, frame=frame, first=number * ROWS, as_of=as_of)


def test_drift_in_the_log_arrives_with_its_endpoint_and_what_to_do(tmp_path: Path, webhook: Webhook) -> None:
    made = log_with_an_emptied_feature(tmp_path / "made")
    (port,) = free_ports(1)
    environment = {
        "DATABASE_URL": f"sqlite:///{made.home.database}",
        "ARTIFACTS": str(made.home.artifacts),
        "LOG_STORE": str(made.home.predictions / "store"),
        "HOME": str(made.home.root),
        "JOBS": "drift",
    }
    spec = monitor_spec(port=port, environment=environment, logs=tmp_path / "logs")
    with (
        running_alertmanager(tmp_path / "alertmanager", webhook.url) as alertmanager,
        running_prometheus(tmp_path / "prometheus", targets={"monitor": port}, alertmanager=alertmanager) as prometheus,
        running(spec),
    ):
        wait_until(lambda: bool(webhook.alerts(BROKEN)), "the page arrives", timeout_s=LONG_S)
        assert unhealthy_rules(prometheus) == []
        counted = asked(prometheus, "skewless_drift_rows_total")
        assert counted == {f"endpoint={ENDPOINT}": WINDOWS * ROWS}, "each once"
        assert list(asked(prometheus, "max by (feature) (skewless_drift_feature_null_ratio) > 0.5")) == [
            "feature=weather__temp"
        ]
    (told, *_) = webhook.alerts(BROKEN)
    (rule,) = [each for each in alerts() if each.name == BROKEN]
    assert (told["receiver"], told["status"]) == ("page", "firing")
    assert (told["labels"]["endpoint"], told["labels"]["role"]) == (ENDPOINT, "live")
    assert ENDPOINT in told["annotations"]["summary"]
    assert told["annotations"]["hint"] == rule.annotations["hint"].replace("{{ $labels.endpoint }}", ENDPOINT)
    assert not webhook.alerts("MonitorJobFails"), "the monitor itself does well"


def test_what_follows_from_a_part_that_is_down_is_not_told_and_what_does_not_is(
    tmp_path: Path, webhook: Webhook
) -> None:
    def raised(name: str, **labels: str) -> dict[str, object]:
        return {"labels": {"alertname": name, "severity": "page", **labels}, "annotations": {}}

    with running_alertmanager(tmp_path / "alertmanager", webhook.url) as alertmanager:
        at_once = [
            raised("GatewayDown", instance="a"),
            raised("GatewaySlow", instance="a"),
            raised("GatewaySlow", instance="b"),
            raised("SegmentsWait", instance="a"),
            raised("MonitorDown", instance="m"),
            raised("FeatureBatchStopped", instance="m"),
            raised("FeatureBatchStopped", instance="n"),
            raised("ParityFault", endpoint="e"),
        ]
        answer = post(f"http://{LOOPBACK}:{alertmanager}/api/v2/alerts", json=at_once, timeout=30)
        assert answer.status_code == 200
        # What has one instance is told in one message, so that whatever was not silenced has come with it.
        wait_until(lambda: len(webhook.messages) >= 5, "all instances are told of", timeout_s=LONG_S)
    told = {
        (each["labels"]["alertname"], each["labels"].get("instance", ""))
        for name in NAMES
        for each in webhook.alerts(name)
    }
    assert told == {
        ("GatewayDown", "a"),
        ("SegmentsWait", "a"),
        ("GatewaySlow", "b"),
        ("MonitorDown", "m"),
        ("FeatureBatchStopped", "n"),
        ("ParityFault", ""),
    }


def test_a_job_that_fails_is_a_ticket_with_what_to_do_and_a_monitor_that_is_down_a_page(
    tmp_path: Path, webhook: Webhook
) -> None:
    (port,) = free_ports(1)
    environment = {
        "DATABASE_URL": f"sqlite:///{tmp_path / 'missing.db'}",
        "ARTIFACTS": str(tmp_path / "artifacts"),
        "LOG_STORE": str(tmp_path / "store"),
        "HOME": str(tmp_path),
        "JOBS": "quality",
    }
    spec = monitor_spec(port=port, environment=environment, logs=tmp_path / "logs")
    with (
        running_alertmanager(tmp_path / "alertmanager", webhook.url) as alertmanager,
        running_prometheus(tmp_path / "prometheus", targets={"monitor": port}, alertmanager=alertmanager) as prometheus,
    ):
        with running(spec):
            wait_until(lambda: bool(webhook.alerts("MonitorJobFails")), "the ticket arrives", timeout_s=LONG_S)
            assert unhealthy_rules(prometheus) == []
            assert asked(prometheus, "skewless_monitor_job_failing") == {"monitor_job=quality": 1.0}
        (told, *_) = webhook.alerts("MonitorJobFails")
        (rule,) = [each for each in alerts() if each.name == "MonitorJobFails"]
        assert (told["receiver"], told["status"]) == ("ticket", "firing")
        assert told["labels"]["monitor_job"] == "quality"
        assert told["annotations"]["hint"] == rule.annotations["hint"]
        assert told["annotations"]["summary"].startswith("The job quality of the monitor 127.0.0.1:")
        wait_until(lambda: bool(webhook.alerts("MonitorDown")), "the page arrives", timeout_s=LONG_S)
        (told, *_) = webhook.alerts("MonitorDown")
        assert told["receiver"] == "page"
