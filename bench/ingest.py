"""What ingestion takes: rows/s with their quality gate on, and how soon a row that was sent is read online.

A service of its own process, with its quality gate on, takes rows over loopback, keeps them in a SQLite
outbox and delivers them to a Valkey and a Delta table; load generator and all of them share the machine. Callers send
as soon as they are answered. Beside them a probe sends one row every 100 ms and reads the online store until the row is
there: its time is from before the request is sent to the moment the row is read. In one case requests come at a fixed
rate, since callers who wait for each other always fill whatever there is.
"""

import io
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bench.load_http import Connection, body_of, status_of
from bench.measure import Block, timing_of
from bench.read_store import running_valkey
from bench.report import Case, Goal, Options, SuiteResult, single
from skewless.adapters.quality_files import save_suite
from skewless.adapters.redis_blocking_store import BlockingRedisOnlineStore
from skewless.canonical_json import digest
from skewless.dtypes import Dtype, column_of
from skewless.errors import StackFailed
from skewless.features.compiled_registry import CompiledRegistry
from skewless.features.contract import FeatureContract, FeatureField, JoinKey, ViewRead
from skewless.features.definition_metadata import (
    DefinitionSet,
    EntityMetadata,
    FeatureMetadata,
    SourceMetadata,
    ViewMetadata,
)
from skewless.features.plan import ReadPlan
from skewless.quality.catalogue import BETWEEN, NOT_NULL, ROW_COUNT
from skewless.quality.suite import Expectation, OnFailure, Suite
from skewless.registry import database
from skewless.registry.definitions import Compiled, Definitions
from skewless.stack.ingest import ingest_spec
from skewless.stack.ports import LOOPBACK, free_ports
from skewless.stack.process import start, tail

PROJECT, VIEW = "bench_ingest", "clicks"
FEATURES = tuple(f"f{number}" for number in range(8))
ROWS_PER_S_MIN, VISIBLE_S, VISIBLE_SHARE_MIN = 5_000.0, 1.0, 0.99
PROBE_EVERY_S = 0.1
_READY_S = 60.0
_DRAIN_S = 300.0
_THREADS = 32
"""Of the load generator; each is several callers where there are more."""
_PROBES_FROM = 10_000_000
"""Users that only the probe writes."""
READ = ViewRead(
    VIEW, (JoinKey("user_id", Dtype.INT64),), 0, tuple(FeatureField(name, Dtype.FLOAT32) for name in FEATURES)
)
NOTES = (
    "Every row is held against the nineteen expectations of its suite before it is kept.",
    "Where callers never wait, more is accepted than delivered: what is visible within 1 s is told for a fixed rate.",
    "`visible` is a probe's time from before its request to the read that finds its row online, under that load.",
)


@dataclass(frozen=True, slots=True)
class Form:
    """What callers of one case send."""

    name: str
    media_type: str
    rows: int
    callers: int
    body: Callable[[Sequence[Mapping[str, Any]]], bytes]
    paced: float = 0.0
    """Rows that are sent each second, whatever the answers take; 0: as soon as callers are answered."""


def _json(rows: Sequence[Mapping[str, Any]]) -> bytes:
    return json.dumps({"rows": list(rows)}).encode()


def _ndjson(rows: Sequence[Mapping[str, Any]]) -> bytes:
    return b"\n".join(json.dumps(row).encode() for row in rows)


def _arrow(rows: Sequence[Mapping[str, Any]]) -> bytes:
    table = pa.Table.from_pylist([{**row, "event_time": datetime.now(UTC)} for row in rows])
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


JSON_TYPE, NDJSON_TYPE = "application/json", "application/x-ndjson"
ONE_ROW = Form("JSON, 1 row, 512 callers", JSON_TYPE, 1, 512, _json)
MANY = Form("NDJSON, 100 rows, 32 callers", NDJSON_TYPE, 100, 32, _ndjson)
PACED = Form("NDJSON, 100 rows, at 5,000 rows/s", NDJSON_TYPE, 100, 32, _ndjson, ROWS_PER_S_MIN)
COLUMNS = Form("Arrow, 500 rows, 8 callers", "application/vnd.apache.arrow.stream", 500, 8, _arrow)
FORMS = (ONE_ROW, MANY, PACED, COLUMNS)


def run(options: Options) -> SuiteResult:
    """Measure; about a minute, half of it until both processes are there."""
    seconds = 3.0 if options.quick else 10.0
    cases = []
    with _service(options.scratch) as service:
        for form in FORMS:
            options.progress(form.name)
            _drain(service)
            cases.append(_case(service, form, seconds))
    facts = {case.name: case.facts for case in cases}
    goals = (
        Goal(f"rows/s, {MANY.name}", single(facts[MANY.name]["rows_per_s"]), ROWS_PER_S_MIN, unit=" rows/s"),
        Goal(f"rows/s, {COLUMNS.name}", single(facts[COLUMNS.name]["rows_per_s"]), ROWS_PER_S_MIN, unit=" rows/s"),
        Goal(
            f"visible within 1 s, {PACED.name}",
            single(facts[PACED.name]["visible_1s_share"]),
            VISIBLE_SHARE_MIN,
            unit="",
        ),
    )
    return SuiteResult(suite="ingest", cases=tuple(cases), goals=goals, notes=NOTES)


@dataclass(frozen=True, slots=True)
class _Service:
    port: int
    store_url: str


@contextmanager
def _service(folder: Path) -> Iterator[_Service]:
    url = f"sqlite:///{folder / 'registry.db'}"
    database.upgrade(url)
    repo = folder / "repo"
    (repo / "quality").mkdir(parents=True)
    (repo / "feature_store.yaml").write_text(f"project: {PROJECT}\nonline_store: {{type: redis}}\n")
    save_suite(repo / "quality" / f"{VIEW}.yaml", _suite(), note="of the benchmark")
    _define(url, folder)
    with running_valkey(folder) as valkey:
        (port,) = free_ports(1)
        store_url = f"redis://{LOOPBACK}:{valkey}"
        environment = {
            "ONLINE_STORE": store_url,
            "DATABASE_URL": url,
            "REPO": str(repo),
            "HOME": str(folder / "home"),
            "DEVELOPMENT": "true",
        }
        spec = ingest_spec(port=port, environment=environment, logs=folder / "logs")
        process = start(spec)
        try:
            deadline = time.monotonic() + _READY_S
            while not _is_warm(port):
                if process.exit_status() is not None or time.monotonic() > deadline:
                    raise StackFailed(f"the service does not come up:\n{tail(spec.log_file)}")
                time.sleep(0.1)
            yield _Service(port, store_url)
        finally:
            process.stop()


def _is_warm(port: int) -> bool:
    """Whether a row is taken, for which the judging process has to be there."""
    try:
        with closing(Connection(LOOPBACK, port)) as connection:
            return status_of(connection.ask(_request(port, ONE_ROW, [_row(0)]))) == 202
    except OSError:
        return False


def _define(url: str, folder: Path) -> None:
    source = SourceMetadata(
        VIEW, "FileSource", path=str(folder / "offline"), format="delta", event_time="event_time",
        created_time="created_time",
    )  # fmt: skip
    features = tuple(FeatureMetadata(name, "Float32") for name in FEATURES)
    view = ViewMetadata(VIEW, ("user",), (("user_id", "Int64"),), features, 0, source)
    definitions = DefinitionSet(PROJECT, {"user": EntityMetadata("user", "user_id", "Int64")}, {VIEW: view})
    compiled = Compiled(definitions, CompiledRegistry(PROJECT, {}, {}, {}), (), digest(definitions.to_json()))
    engine = database.engine(url)
    Definitions(engine).follow(compiled, plan={}, actor="bench", reason="bench")
    engine.dispose()


def _suite() -> Suite:
    needed = [
        Expectation(NOT_NULL, {"column": each}, on_failure=OnFailure.QUARANTINE) for each in ("user_id", "event_time")
    ]
    ranges = [
        Expectation(BETWEEN, {"column": name, "min_value": 0, "max_value": 1}, on_failure=OnFailure.QUARANTINE)
        for name in FEATURES
    ]
    nulls = [Expectation(NOT_NULL, {"column": name, "mostly": 0.5}, on_failure=OnFailure.WARN) for name in FEATURES]
    rows = Expectation(ROW_COUNT, {"min_value": 1})
    return Suite(VIEW, VIEW, (rows, *needed, *ranges, *nulls), owner="bench", reviewed="2026-01-01")


def _row(user: int) -> dict[str, Any]:
    values = np.random.default_rng(user).random(len(FEATURES)).astype(np.float32).tolist()
    return {"user_id": user, **dict(zip(FEATURES, values, strict=True)), "event_time": datetime.now(UTC).isoformat()}


def _request(port: int, form: Form, rows: Sequence[Mapping[str, Any]]) -> bytes:
    body = form.body(rows)
    head = (
        f"POST /v1/features/{VIEW} HTTP/1.1\r\nHost: {LOOPBACK}:{port}\r\nContent-Type: {form.media_type}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


@dataclass
class _Load:
    """What callers of one case saw, all of them together."""

    took_ns: list[int] = field(default_factory=list)
    refused: int = 0
    visible_s: list[float] = field(default_factory=list)


def _case(service: _Service, form: Form, seconds: float) -> Case:
    load, stop = _Load(), threading.Event()
    threads = min(form.callers, _THREADS)
    callers = [
        threading.Thread(target=_call, args=(service.port, form, number, form.callers // threads, load, stop))
        for number in range(threads)
    ]
    probe = threading.Thread(target=_probe, args=(service, load, stop))
    begun = time.monotonic()
    for each in (*callers, probe):
        each.start()
    time.sleep(seconds)
    stop.set()
    for each in callers:
        each.join()
    took_s = time.monotonic() - begun
    probe.join()
    visible = np.array(load.visible_s)
    facts = {
        "rows_per_s": form.rows * len(load.took_ns) / took_s,
        "refused": float(load.refused),
        "probes": float(len(visible)),
        "visible_1s_share": float((visible <= VISIBLE_S).mean()),
        "visible_p50_ms": float(np.quantile(visible, 0.5) * 1e3),
        "visible_p99_ms": float(np.quantile(visible, 0.99) * 1e3),
    }
    timing = timing_of([Block(tuple(load.took_ns), 0)])
    return Case(form.name, {"rows": form.rows, "callers": form.callers}, {"answered": timing}, form.rows, facts)


def _drain(service: _Service) -> None:
    """Return once nothing of the case before waits for the stores."""
    request = f"GET /v1/features/{VIEW} HTTP/1.1\r\nHost: {LOOPBACK}:{service.port}\r\n\r\n".encode()
    deadline = time.monotonic() + _DRAIN_S
    with closing(Connection(LOOPBACK, service.port)) as connection:
        while json.loads(body_of(connection.ask(request)))["waiting"]["batches"]:
            if time.monotonic() > deadline:
                raise StackFailed(f"rows still wait for the stores after {_DRAIN_S:g} s")
            time.sleep(0.2)


def _call(port: int, form: Form, number: int, connections: int, load: _Load, stop: threading.Event) -> None:
    """Be some callers: each sends its request, and sends it again once all of them were answered."""
    first = number * 10_000
    requests = [
        _request(port, form, [_row(first + each * form.rows + row) for row in range(form.rows)])
        for each in range(connections)
    ]
    with ExitStack() as stack:
        opened = [stack.enter_context(closing(Connection(LOOPBACK, port))) for _ in range(connections)]
        round_s = connections * form.rows * min(form.callers, _THREADS) / form.paced if form.paced else 0.0
        due_s = time.monotonic() + round_s * number / _THREADS
        while not stop.wait(max(0.0, due_s - time.monotonic()) if form.paced else 0.0):
            due_s += round_s
            for connection, request in zip(opened, requests, strict=True):
                connection.sent_ns = time.perf_counter_ns()
                connection.send(request)
            for connection in opened:
                while (reply := connection.receive()) is None:
                    pass
                if status_of(reply) == 202:
                    load.took_ns.append(time.perf_counter_ns() - connection.sent_ns)
                else:
                    load.refused += 1


def _probe(service: _Service, load: _Load, stop: threading.Event) -> None:
    """How long one row takes to be read online."""
    plan = ReadPlan.compile(FeatureContract(PROJECT, (READ,), (), digest("bench")))
    user = _PROBES_FROM + time.time_ns() % 1_000_000_000
    with (
        closing(Connection(LOOPBACK, service.port)) as connection,
        closing(BlockingRedisOnlineStore(service.store_url)) as store,
    ):
        while not stop.is_set():
            user += 1
            request = _request(service.port, ONE_ROW, [_row(user)])
            prepared = plan.prepare({"user_id": column_of(Dtype.INT64, [user])}, 1)
            before = time.perf_counter()
            if status_of(connection.ask(request)) != 202:
                load.refused += 1
                continue
            while True:
                replies = store.read(prepared.keys, prepared.commands, timeout_s=10)
                frame = prepared.decode(replies, time.time_ns() // 1_000).frame
                if int(frame.event_times[VIEW][0]) > 0:
                    break
                time.sleep(0.002)
            load.visible_s.append(time.perf_counter() - before)
            stop.wait(PROBE_EVERY_S)
