"""What `skewless doctor` says of a stack's monitor and its jobs; and of a stack without Triton."""

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from prometheus_client.metrics_core import Metric

from harness.servers import wait_until
from skewless.errors import Unavailable
from skewless.monitor_settings import MonitorSettings
from skewless.settings import Home, Settings
from skewless.stack.doctor import Condition, Finding, examine
from skewless.stack.ports import LOOPBACK, free_ports
from skewless.stack.process import created_time_s
from skewless.stack.state import ProcessState, StackAddresses, StackState, read_state, write_state
from skewless.stack.supervision import Health, Phase
from skewless.timestamps import Micros
from skewless_monitor.service import MonitorService


class Watches:
    """A job that is 7 seconds behind."""

    name = "drift"
    interval_s = 3_600.0
    lag_s: float | None = 7.0

    def run_once(self, stop: threading.Event) -> bool:  # noqa: ARG002  # the port's form
        return False

    def collect(self) -> Iterator[Metric]:
        yield from ()

    def close(self) -> None:
        """Nothing to give back."""


def fails() -> Watches:
    raise Unavailable("registry", "nobody listens")


def findings(home: Path, *, monitor_url: str, processes: tuple[ProcessState, ...] = ()) -> dict[str, Finding]:
    """What doctor says of a stack that this process pretends to be, by check."""
    folders = Home(home)
    folders.root.mkdir(exist_ok=True)
    pid = os.getpid()
    addresses = StackAddresses(
        "", "", "", "", "", shipper_url=f"http://{LOOPBACK}:{free_ports(1)[0]}", monitor_url=monitor_url
    )
    state = StackState(str(home), pid, created_time_s(pid), Micros(0), Phase.UP, addresses, False, processes)
    write_state(folders, state)
    return {each.check: each for each in examine(Settings(home=home), runs_triton=False)}


def test_each_job_is_told_and_one_that_fails_is_a_warning_with_its_reason(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    settings = MonitorSettings(database_url="sqlite://", artifacts="a", log_store="s", port=port)
    service = MonitorService(settings, {"drift": Watches, "parity": fails})
    told: dict[str, Finding] = {}

    def ask() -> None:
        drift, parity = service.jobs
        wait_until(lambda: drift.state.runs == 1 and parity.state.failures >= 1, "both have run")
        told.update(findings(tmp_path, monitor_url=f"http://{LOOPBACK}:{port}"))

    assert service.run(ask)
    well, failing = told["monitor job drift"], told["monitor job parity"]
    assert well.condition is Condition.OK
    assert well.seen.startswith("1 runs, the last ")
    assert well.seen.endswith("7 s behind the newest record")
    assert failing.condition is Condition.WARNING, "what serves does not fail of it"
    assert "nobody listens" in failing.seen
    assert failing.remedy


def test_a_monitor_that_does_not_answer_and_a_stack_without_one_are_told(tmp_path: Path) -> None:
    away = findings(tmp_path, monitor_url=f"http://{LOOPBACK}:{free_ports(1)[0]}")["monitor"]
    assert away.condition is Condition.WARNING
    assert "/jobs" in away.seen
    none = findings(tmp_path, monitor_url="")["monitor"]
    assert (none.condition, none.remedy) == (Condition.WARNING, "unset SKEWLESS_STACK_MONITOR")


def test_a_stack_without_triton_is_examined_to_the_end(tmp_path: Path) -> None:
    shipper = ProcessState("shipper", os.getpid(), 0.0, Health.HEALTHY, 0, "", "shipper.log")
    told = findings(tmp_path, monitor_url="", processes=(shipper,))
    assert told["process shipper"].condition is Condition.UNHEALTHY, "nothing listens there"
    assert told["endpoints"].condition is Condition.MISSING


def test_the_state_of_a_stack_of_an_older_version_is_read_and_has_no_monitor(tmp_path: Path) -> None:
    findings(tmp_path, monitor_url="http://127.0.0.1:1")
    file = Home(tmp_path).stack_file
    document = json.loads(file.read_text())
    del document["addresses"]["monitor_url"]
    file.write_text(json.dumps(document))
    state = read_state(Home(tmp_path))
    assert state is not None
    assert state.monitor_url == ""
    assert state.summary.endswith("no monitor")
