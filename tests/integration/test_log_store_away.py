"""An hour of traffic while the log store is away, and a spool that is full: what was kept arrives, each once."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import pytest

from harness import http_calls
from harness.bundles import instance
from harness.log_crash_truth import PREDICTIONS
from harness.log_crashes import SwitchedStore
from harness.log_hours import ENDPOINT, write_hour
from harness.machines import AS_OF, Machine, running_machine
from harness.s3 import running_s3, use_credentials
from harness.servers import running, wait_until
from skewless.adapters.log_reader import open_log
from skewless.adapters.log_store import open_log_store
from skewless.adapters.spool import SPOOL, open_segments, sealed_segments
from skewless.limits import MIB
from skewless.stack.ports import LOOPBACK, free_ports
from skewless.stack.process import RunningProcess, tail
from skewless.stack.shipper import shipper_spec
from skewless.timestamps import parse_timestamp

START = parse_timestamp("2013-05-01T23:30:00Z")
"""The hour crosses midnight, so that it lies in two days of the store."""
SEGMENTS, ROWS = 240, 15
FAILURES = 2
"""Times in a row that the shipper finds the store away before it comes back."""
EMPTY_S = 90.0


@dataclass
class Shipping:
    """A shipper on a folder, and what it says."""

    process: RunningProcess
    port: int
    spool: Path

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels; 0 where it is not told."""
        lines = http_calls.get(f"http://{LOOPBACK}:{self.port}/metrics", timeout=10).text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name}{{", f"{name} ")))

    def is_empty(self) -> bool:
        """Whether everything is shipped."""
        return not open_segments(self.spool) and not sealed_segments(self.spool)

    def wait_until_empty(self) -> None:
        """Return when everything is shipped."""
        wait_until(self.is_empty, f"everything is shipped\n{tail(self.process.spec.log_file)}", timeout_s=EMPTY_S)


@contextmanager
def shipping(folder: Path, logs: Path, store: str) -> Iterator[Shipping]:
    """A shipper of a log's folder as a process of its own."""
    port = free_ports(1)[0]
    settings = {"PREDICTION_LOG": str(folder), "LOG_STORE": store, "LOOK_S": "0.1", "ROUND_S": "0.2"}
    with running(shipper_spec(port=port, environment=settings, logs=logs)) as process:
        yield Shipping(process, port, folder / SPOOL)


class Switch(Protocol):
    """Something that can be away for a while."""

    def go_away(self) -> None: ...

    def come_back(self) -> None: ...


StoreOf = Callable[[Path], AbstractContextManager[tuple[str, Switch]]]


@contextmanager
def folder_store(tmp_path: Path) -> Iterator[tuple[str, Switch]]:
    """A folder that can go away."""
    store = SwitchedStore(tmp_path / "kept")
    yield str(store.path), store


class SwitchedBucket:
    """A bucket whose server is started and stopped, on one port."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_ports(1)[0]
        self._running = ExitStack()
        self.url = ""
        """Known once the server runs."""

    def come_back(self) -> None:
        """Start the server."""
        self.url = self._running.enter_context(running_s3(self._folder, port=self._port)).url("log")

    def go_away(self) -> None:
        """Stop the server."""
        self._running.close()


@contextmanager
def bucket_store(tmp_path: Path) -> Iterator[tuple[str, Switch]]:
    """A bucket that can go away."""
    bucket = SwitchedBucket(tmp_path / "s3")
    try:
        bucket.come_back()
        yield bucket.url, bucket
    finally:
        bucket.go_away()


@pytest.mark.parametrize("store", [folder_store, bucket_store], ids=["folder", "bucket"])
def test_an_hour_of_traffic_while_the_store_is_away_is_complete_once_it_is_back(
    store: StoreOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_credentials(monkeypatch)
    log = tmp_path / "log"
    with store(tmp_path) as (address, switch), shipping(log, tmp_path / "logs", address) as shipper:
        before = write_hour(log, start=START, segments=2, rows=ROWS)
        shipper.wait_until_empty()
        switch.go_away()
        during = write_hour(log, start=START, segments=SEGMENTS, rows=ROWS)
        wait_until(
            lambda: shipper.metric("skewless_shipper_sink_failures_total") >= FAILURES, "the shipper tries again"
        )
        assert len(sealed_segments(shipper.spool)) == SEGMENTS, "nothing is given up"
        assert shipper.metric("skewless_shipper_waiting_segments") == SEGMENTS
        switch.come_back()
        shipper.wait_until_empty()
        assert shipper.process.exit_status() is None, "it is the same process as before"
        with open_log(log, address) as reader:
            found = Counter(reader.predictions(ENDPOINT, columns=["prediction_id"]).column(0).to_pylist())
            assert found == Counter(before.predictions | during.predictions)
            told = Counter(reader.outcomes().column("outcome_id").to_pylist())
            assert told == Counter(before.outcomes | during.outcomes)
        files = [file for table in open_log_store(address).tables(PREDICTIONS) for file in table.entries]
        assert {file.day for file in files} == {"2013-05-01", "2013-05-02"}


SPOOL_BYTES = MIB
REQUEST_ROWS, FLUSH_BYTES = 100, 65_536
"""Of one request, and more than what is written of it."""


@dataclass
class Caller:
    """Asks for many predictions at once, and remembers those that it got."""

    machine: Machine
    answered: list[str] = field(default_factory=list)

    def is_refused(self) -> bool:
        """Whether the next request is refused, as one is where the log cannot be written."""
        rows = [instance(tailnum=f"T{len(self.answered)}-{row}") for row in range(REQUEST_ROWS)]
        body = {"instances": rows, "options": {"as_of": AS_OF, "deadline_ms": 10_000}}
        response = http_calls.post(f"{self.machine.url}/v1/endpoints/{ENDPOINT}/predict", json=body, timeout=30)
        if response.status_code == 200:
            self.answered += response.json()["prediction_ids"]
            return False
        assert (response.status_code, response.json()["code"]) == (503, "unavailable"), response.text
        assert "Retry-After" in response.headers
        return True

    def is_answered(self) -> bool:
        """Whether the next request is answered."""
        return not self.is_refused()


def test_a_full_spool_refuses_until_it_is_shipped_and_keeps_whatever_was_answered(tmp_path: Path) -> None:
    settings = {"TRITON": "in-process", "LOG_SPOOL_BYTES_MAX": str(SPOOL_BYTES), "LOG_SEGMENT_AGE_S": "0.5"}
    with running_machine(tmp_path, tritons=0, **settings) as machine:
        machine.serve(1)
        caller = Caller(machine)
        wait_until(caller.is_refused, "the spool is full", timeout_s=EMPTY_S)
        spooled = sum(path.stat().st_size for path in (machine.log / SPOOL).iterdir())
        assert SPOOL_BYTES <= spooled < SPOOL_BYTES + FLUSH_BYTES, "the bound holds, but for the flush that reached it"
        store = str(machine.log / "store")
        with shipping(machine.log, tmp_path / "logs", store) as shipper:
            wait_until(caller.is_answered, "what was shipped makes room", timeout_s=EMPTY_S)
            machine.stop("gateway")
            shipper.wait_until_empty()
        with open_log(machine.log, store) as reader:
            found = Counter(reader.predictions(ENDPOINT, columns=["prediction_id"]).column(0).to_pylist())
        assert set(caller.answered) <= found.keys()
        assert set(found.values()) == {1}
