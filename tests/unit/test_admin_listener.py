"""The admin listener: what it tells, whom, and that no question breaks it."""

import asyncio
import logging
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from skewless_gateway.admin import ROUTES, admin_app
from skewless_gateway.exposition import merge_expositions
from skewless_gateway.operations import set_log_level
from skewless_gateway.stacks import stacks
from skewless_http.http_server import HttpServer
from skewless_http.listening import open_listener

TOKEN = "a-token-of-the-operators"


class KnownOperations:
    """Says what a test wants to hear."""

    def __init__(self) -> None:
        self.is_ready = True

    async def metrics(self, *, open_metrics: bool = False) -> bytes:  # noqa: ARG002  # the admin listener's signature
        return b"up 1.0\n"

    async def readiness(self) -> tuple[bool, dict[str, Any]]:
        return self.is_ready, {"parts": {"routes": {"ok": self.is_ready, "detail": ""}}}

    async def workers(self) -> list[dict[str, Any]]:
        return [{"worker": 0}]

    async def stacks(self) -> str:
        return stacks()

    async def set_log_level(self, level: str) -> None:
        set_log_level(level)


@asynccontextmanager
async def admin(operations: KnownOperations, token: str | None = None) -> AsyncIterator[httpx.AsyncClient]:
    listener = open_listener("127.0.0.1", 0, variable="ADMIN_PORT")
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    secret = None if token is None else SecretStr(token)
    server = HttpServer(admin_app(operations, secret), listener, connections_max=10)
    await server.open()
    server.listen()
    try:
        async with httpx.AsyncClient(base_url=url, timeout=30) as client:
            yield client
    finally:
        await server.drain(0)
        await server.close()


@pytest.fixture
def root_level() -> Iterator[None]:
    before = logging.getLogger().level
    yield
    logging.getLogger().setLevel(before)


async def test_every_route_answers() -> None:
    async with admin(KnownOperations()) as client:
        assert (await client.get("/metrics")).text == "up 1.0\n"
        assert (await client.get("/healthz")).json() == {"status": "ok"}
        assert (await client.get("/readyz")).json()["ready"]
        assert (await client.get("/workers")).json() == {"workers": [{"worker": 0}]}
        assert "test_every_route_answers" in (await client.get("/debug/stacks")).text


async def test_a_gateway_that_is_not_ready_says_so_with_503() -> None:
    operations = KnownOperations()
    operations.is_ready = False
    async with admin(operations) as client:
        said = await client.get("/readyz")
        assert (said.status_code, said.json()["code"]) == (503, "not_ready")
        assert said.json()["parts"] == {"routes": {"ok": False, "detail": ""}}


async def test_the_log_level_changes_and_a_wrong_one_is_refused_by_name(root_level: None) -> None:
    async with admin(KnownOperations()) as client:
        assert (await client.put("/log-level", json={"level": "error"})).json() == {"level": "error"}
        assert logging.getLogger().level == logging.ERROR
        for body in ('{"level": "loud"}', '{"levels": "info"}', "[]", "{", ""):
            refused = await client.put("/log-level", content=body)
            assert (refused.status_code, refused.json()["code"]) == (400, "invalid_request")
        assert (await client.put("/log-level", content=b" " * 10_000)).status_code == 413
        assert logging.getLogger().level == logging.ERROR


async def test_with_a_token_only_probes_are_answered_without_it() -> None:
    async with admin(KnownOperations(), TOKEN) as client:
        for method, path in ROUTES:
            expected = 200 if path in ("/healthz", "/readyz") else 401
            assert (await client.request(method, path)).status_code == expected, path
        for wrong in ("Bearer wrong", TOKEN, f"Bearer {TOKEN}x"):
            assert (await client.get("/metrics", headers={"Authorization": wrong})).status_code == 401
        given = {"Authorization": f"Bearer {TOKEN}"}
        assert (await client.get("/metrics", headers=given)).status_code == 200


async def test_what_is_no_route_is_told_which_there_are() -> None:
    async with admin(KnownOperations()) as client:
        for method, path in (("GET", "/"), ("POST", "/metrics"), ("GET", "/v1/endpoints")):
            said = await client.request(method, path)
            assert said.status_code == 404
            assert "GET /metrics" in said.json()["allowed"]
        assert (await client.get("/healthz")).headers["x-request-id"]


def test_pages_of_workers_become_one_with_each_sample_told_apart() -> None:
    page = b'# HELP a_total A "b" \\n c.\n# TYPE a_total counter\na_total{x="1 {2}"} 1.0\na_total{x="z"} 2.0\n'
    only = b"# HELP b B.\n# TYPE b gauge\nb 3.0\n"
    assert merge_expositions({"0": page, "1": page + only}).decode().splitlines() == [
        '# HELP a_total A "b" \\n c.',
        "# TYPE a_total counter",
        'a_total{worker="0",x="1 {2}"} 1.0',
        'a_total{worker="0",x="z"} 2.0',
        'a_total{worker="1",x="1 {2}"} 1.0',
        'a_total{worker="1",x="z"} 2.0',
        "# HELP b B.",
        "# TYPE b gauge",
        'b{worker="1"} 3.0',
    ]
    assert merge_expositions({}) == b""


def test_a_histogram_stays_one_family_when_pages_are_merged() -> None:
    code = (
        "from prometheus_client import CollectorRegistry, Histogram, generate_latest;"
        "from prometheus_client.parser import text_string_to_metric_families as parse;"
        "from skewless_gateway.exposition import merge_expositions;"
        "r = CollectorRegistry(); Histogram('h', 'H.', ('e',), registry=r).labels('x').observe(1);"
        "page = merge_expositions({'0': generate_latest(r), '1': generate_latest(r)}).decode();"
        "(h,) = [f for f in parse(page) if f.name == 'h'];"
        "print(h.type, len({s.labels['worker'] for s in h.samples}))"
    )
    assert _run(code) == "histogram 2\n"


def test_a_gateway_that_was_started_by_whoever_imported_feast_keeps_its_metrics_in_memory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    # Feast sets the variable when it is imported, and every process started from there inherits it.
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    leave = "from skewless_gateway.main import leave_multiprocess_mode; leave_multiprocess_mode();"
    kind = "from prometheus_client import values; print(values.ValueClass.__name__)"
    assert _run(f"{leave} import skewless_gateway.metrics; {kind}") == "MutexValue\n"
    assert not list(tmp_path.iterdir())
    assert _run(f"import skewless_gateway.metrics; {kind}") != "MutexValue\n", "the variable has lost its meaning"


def test_feast_in_the_same_process_cannot_move_metrics_that_were_imported_before() -> None:
    code = (
        "import skewless_gateway.metrics, feast, os; from prometheus_client import values;"
        "os.environ['PROMETHEUS_MULTIPROC_DIR'];"  # or Feast no longer does this
        "print(values.ValueClass.__name__)"
    )
    # Optimised, Python leaves out the checks that take Feast longest to prepare.
    assert _run(code, "-O") == "MutexValue\n"


def test_the_parent_of_workers_loads_nothing_that_answers_predictions() -> None:
    loaded = _run("import sys, skewless_gateway.workers; print(*sys.modules)").split()
    assert not {"numpy", "sqlalchemy", "fastapi", "pyarrow", "hiredis", "tritonclient", "grpc"} & set(loaded)


def _run(code: str, *options: str) -> str:
    done = subprocess.run(
        [sys.executable, *options, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


async def test_stacks_say_where_each_task_waits() -> None:
    async def wait_for_the_tide() -> None:
        await asyncio.Event().wait()

    waiting = asyncio.create_task(wait_for_the_tide())
    await asyncio.sleep(0)
    assert "wait_for_the_tide" in stacks()
    waiting.cancel()
