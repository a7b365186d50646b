"""The ingestion service as a process: killed under load, everything acknowledged has its effect once; stopped politely,
every request is answered."""

import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa

from harness import http_calls
from harness.ingest_services import VIEW, IngestHome, row
from harness.servers import running_valkey, wait_until
from skewless.adapters.offline_sources import arrow_dataset
from skewless.features.point_in_time import OfflineSource, SourceForm
from skewless.stack.ingest import ingest_spec
from skewless.stack.ports import LOOPBACK, free_ports
from skewless.stack.process import RunningProcess, start, tail
from skewless.timestamps import format_timestamp, parse_timestamp

CALLERS = 4
KILLS = int(os.environ.get("SKEWLESS_TEST_INGEST_KILLS", "1"))
"""How often the service is killed; a start costs three seconds of a processor."""
START_US = parse_timestamp("2024-05-01T00:00:00Z")


@dataclass
class Service:
    """A service on ports that stay the same over restarts."""

    home: IngestHome
    port: int
    admin_port: int
    process: RunningProcess | None = None

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    def start(self) -> None:
        environment = {**self.home.values, "DEVELOPMENT": "true", "ADMIN_HOST": LOOPBACK}
        spec = ingest_spec(
            port=self.port, admin_port=self.admin_port, environment=environment, logs=self.home.folder / "logs"
        )
        self.process = start(spec)
        wait_until(self.is_ready, "the service is ready")

    def is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.exit_status() is None, self.log()
        with suppress(httpx.TransportError):
            return http_calls.get(f"{self.url}/readyz", timeout=5).status_code == 200
        return False

    def kill(self) -> None:
        assert self.process is not None
        self.process.signal_group(signal.SIGKILL)
        self.process.stop()

    def stop(self) -> int:
        assert self.process is not None
        process, self.process = self.process, None
        return process.stop()

    def log(self) -> str:
        return tail(self.home.folder / "logs" / "ingest.log")

    def waiting(self) -> dict[str, Any]:
        waiting: dict[str, Any] = http_calls.get(f"{self.url}/v1/features/{VIEW}", timeout=30).json()["waiting"]
        return waiting


@contextmanager
def a_service(folder: Path) -> Iterator[Service]:
    with running_valkey(folder / "servers") as valkey:
        (folder / "ingest").mkdir()
        home = IngestHome.made(folder / "ingest", valkey.url, suite=None)
        port, admin_port = free_ports(2)
        service = Service(home, port, admin_port)
        service.start()
        try:
            yield service
        finally:
            if service.process is not None:
                service.process.stop()


@dataclass
class Producer(threading.Thread):
    """Sends requests with keys, each again and again until it is acknowledged."""

    url: str
    number: int
    enough: threading.Event
    acknowledged: list[int] = field(default_factory=list)
    tried: int = 0
    failures: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(daemon=True)

    def __hash__(self) -> int:
        return id(self)

    def run(self) -> None:
        with http_calls.client(base_url=self.url, timeout=30) as client:
            while not self.enough.is_set():
                at = self.number * 1_000_000 + len(self.acknowledged)
                moment = format_timestamp(START_US + len(self.acknowledged) * 1_000_000)
                body = {"rows": [row(self.number, clicks_1h=at, event_time=moment)]}
                self.tried += 1
                try:
                    key = {"idempotency-key": str(at)}
                    answer = client.post(f"/v1/features/{VIEW}", json=body, headers=key)
                except httpx.TransportError:
                    continue  # it was killed: once more, with the same key
                if answer.status_code == 202:
                    self.acknowledged.append(at)
                elif answer.status_code != 503:
                    self.failures.append(answer.text)


def offline(home: IngestHome) -> pa.Table:
    source = OfflineSource(
        VIEW, str(home.folder / "offline" / VIEW), "event_time", "created_time", form=SourceForm.DELTA
    )
    return arrow_dataset(source).to_table()


def test_everything_acknowledged_by_a_service_that_is_killed_again_and_again_has_its_effect_once(
    tmp_path: Path,
) -> None:
    with a_service(tmp_path) as service:
        enough = threading.Event()
        producers = [Producer(service.url, number, enough) for number in range(1, CALLERS + 1)]
        for each in producers:
            each.start()
        for life in range(1, KILLS + 1):
            wanted = [len(each.acknowledged) + 15 * life for each in producers]
            wait_until(
                lambda wanted=wanted: all(  # type: ignore[misc]  # mypy knows no type of a default in a lambda
                    len(each.acknowledged) >= count for each, count in zip(producers, wanted, strict=True)
                ),
                "every producer goes on",
            )
            service.kill()
            service.start()
        enough.set()
        for each in producers:
            each.join(60)
        wait_until(lambda: service.waiting()["batches"] == 0, f"everything is delivered\n{service.log()}")
        told = sorted(at for each in producers for at in each.acknowledged)
        assert [each.failures for each in producers] == [[]] * CALLERS
        kept = sorted(offline(service.home).column("clicks_1h").to_pylist())
        # What was on its way at the last moment may be there without anybody knowing; nothing is there twice.
        assert sorted(set(kept)) == kept
        assert set(told) <= set(kept)
        assert len(kept) - len(told) <= CALLERS
        assert sum(each.tried for each in producers) > len(told), "some were cut off, or this shows nothing"
        assert service.stop() == 0


def test_a_service_that_is_asked_to_stop_answers_what_it_has_begun(tmp_path: Path) -> None:
    with a_service(tmp_path) as service:
        answers: list[int] = []
        enough = threading.Event()

        def bring() -> None:
            with http_calls.client(base_url=service.url, timeout=30) as client:
                while not enough.is_set():
                    try:
                        answers.append(client.post(f"/v1/features/{VIEW}", json={"rows": [row()]}).status_code)
                    except httpx.ConnectError:
                        return

        callers = [threading.Thread(target=bring, daemon=True) for _ in range(4)]
        for each in callers:
            each.start()
        wait_until(lambda: len(answers) > 20, "requests are answered")
        page = http_calls.get(f"http://{LOOPBACK}:{service.admin_port}/metrics", timeout=10).text
        assert "skewless_ingest_rows_total" in page
        assert "skewless_event_loop_lag_seconds_bucket" in page
        assert service.stop() == 0, service.log()
        enough.set()
        for each in callers:
            each.join(60)
        assert set(answers) == {202}
        lines = [json.loads(line) for line in (service.home.folder / "logs" / "ingest.log").read_text().splitlines()]
        assert not [line for line in lines if line["level"] in ("error", "critical")], lines
