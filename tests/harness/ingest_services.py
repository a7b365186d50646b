"""A running ingestion service over a real Valkey and registry database, with one view that it takes rows of."""

import io
import socket
import sqlite3
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import uvicorn

from harness import http_calls
from harness.naive_suites import NaiveRunner
from harness.servers import wait_until
from skewless.adapters.quality_files import save_suite
from skewless.aggregates.aggregation import count
from skewless.aggregates.declaration import StreamAggregates
from skewless.aggregates.windows import sliding
from skewless.canonical_json import digest
from skewless.dtypes import TABLE, Dtype
from skewless.features.compiled_registry import CompiledRegistry
from skewless.features.definition_metadata import (
    DefinitionSet,
    EntityMetadata,
    FeatureMetadata,
    SourceMetadata,
    StreamMetadata,
    ViewMetadata,
)
from skewless.quality.catalogue import BETWEEN, NOT_NULL, ROW_COUNT, UNIQUE
from skewless.quality.suite import Expectation, OnFailure, Suite
from skewless.registry import database
from skewless.registry.api_scopes import ApiScope
from skewless.registry.definitions import Compiled, Definitions
from skewless.registry.repository import Registry
from skewless_ingest.app import create_app
from skewless_ingest.composition import open_service
from skewless_ingest.service import IngestService
from skewless_ingest.settings import IngestSettings

PROJECT, VIEW = "shop", "clicks"
ASIDE = OnFailure.QUARANTINE
SUITE = Suite(
    VIEW,
    VIEW,
    (
        Expectation(NOT_NULL, {"column": "uid"}, on_failure=ASIDE),
        Expectation(NOT_NULL, {"column": "event_time"}, on_failure=ASIDE),
        Expectation(NOT_NULL, {"column": "spend", "mostly": 0.5}, on_failure=OnFailure.WARN),
        Expectation(NOT_NULL, {"column": "clicks_1h", "mostly": 0.5}, on_failure=OnFailure.WARN),
        Expectation(BETWEEN, {"column": "clicks_1h", "min_value": 0, "max_value": 1000}, on_failure=ASIDE),
        Expectation(BETWEEN, {"column": "spend", "max_value": 1e6}, on_failure=OnFailure.STOP),
        Expectation(UNIQUE, {"column_list": ["uid", "event_time"]}, on_failure=ASIDE),
        Expectation(NOT_NULL, {"column": "tag", "mostly": 0.5}, on_failure=OnFailure.WARN),
        Expectation(ROW_COUNT, {"min_value": 10}),
    ),
    owner="tests",
    reviewed="2024-01-01",
)
"""Looks at columns of the source: `uid` is what the view calls `user_id`."""


VISITS = StreamAggregates(
    name="visits",
    view="visit_counts",
    keys={"user_id": Dtype.INT64},
    fields={"page": Dtype.STRING},
    aggregates=[count(sliding("1h", every="5m"))],
    lateness="10m",
)
"""A stream of events that the view `visit_counts` is computed from."""


def clicks(folder: Path, **tags: str) -> DefinitionSet:
    """One view over a Delta table, whose source calls its join key otherwise; one that takes no rows, and one that a
    stream of events feeds.
    """
    source = SourceMetadata(
        VIEW,
        "FileSource",
        path=str(folder / "offline" / VIEW),
        format="delta",
        event_time="event_time",
        created_time="created_time",
        field_mapping=(("uid", "user_id"),),
    )
    features = (
        FeatureMetadata("clicks_1h", "Int64"),
        FeatureMetadata("spend", "Float32"),
        FeatureMetadata("tag", "String"),
    )
    view = ViewMetadata(VIEW, ("user",), (("user_id", "Int64"),), features, 0, source, tags=tags, owner="growth")
    parquet = SourceMetadata("old", "FileSource", path="old.parquet", format="parquet", event_time="event_time")
    old = ViewMetadata("old", ("user",), (("user_id", "Int64"),), features, 0, parquet)
    counts = SourceMetadata(
        VISITS.view, "FileSource", path=str(folder / "offline" / VISITS.view), format="delta", event_time="event_time",
        created_time="created_time",
    )  # fmt: skip
    counted = tuple(FeatureMetadata(name, TABLE[dtype].feast) for name, dtype in VISITS.features)
    fed = ViewMetadata(VISITS.view, ("user",), (("user_id", "Int64"),), counted, 0, counts)
    return DefinitionSet(
        PROJECT,
        {"user": EntityMetadata("user", "user_id", "Int64")},
        {VIEW: view, "old": old, VISITS.view: fed},
        streams={VISITS.name: StreamMetadata(VISITS.name, VISITS.view, VISITS.to_json())},
    )


@cache
def _migrated() -> bytes:
    """A registry database without anything in it: migrating one takes half a second, and each test wants its own."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "registry.db"
        database.upgrade(f"sqlite:///{file}")
        with closing(sqlite3.connect(file)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return file.read_bytes()


def apply(url: str, definitions: DefinitionSet) -> None:
    """Put definitions in force."""
    registry = CompiledRegistry(definitions.project, {}, {}, {})
    engine = database.engine(url)
    try:
        compiled = Compiled(definitions, registry, (), digest(definitions.to_json()))
        Definitions(engine).follow(compiled, plan={}, actor="test", reason="test")
    finally:
        engine.dispose()


@dataclass
class IngestHome:
    """A folder with everything a service needs but its servers."""

    folder: Path
    store_url: str
    url: str = ""
    environment: dict[str, str] = field(default_factory=dict)

    @classmethod
    def made(cls, folder: Path, store_url: str, *, suite: Suite | None = SUITE, **tags: str) -> "IngestHome":
        """A new one, with the view `clicks` applied; `suite` None: nothing judges its rows."""
        home = cls(folder, store_url, f"sqlite:///{folder / 'registry.db'}")
        (folder / "registry.db").write_bytes(_migrated())
        (home.repo / "quality").mkdir(parents=True)
        (home.repo / "feature_store.yaml").write_text("project: shop\nonline_store: {type: redis}\n")
        if suite is not None:
            save_suite(home.repo / "quality" / f"{VIEW}.yaml", suite, note="for tests")
        apply(home.url, clicks(folder, **tags))
        return home

    @property
    def repo(self) -> Path:
        """The feature repository, of which only suites are read."""
        return self.folder / "repo"

    @property
    def values(self) -> dict[str, str]:
        """The service's settings, without their prefix."""
        return {
            "ONLINE_STORE": self.store_url,
            "DATABASE_URL": self.url,
            "REPO": str(self.repo),
            "HOME": str(self.folder / "home"),
            **self.environment,
        }

    def settings(self, **more: Any) -> IngestSettings:
        """The same, as settings; in development mode unless told otherwise."""
        values = {name.lower(): value for name, value in self.values.items()}
        return IngestSettings(**{"development": True, **values, **more})

    def key(self, name: str, *scopes: ApiScope) -> str:
        """A new API key's secret."""
        engine = database.engine(self.url)
        try:
            return Registry(engine).add_api_key(name, scopes)
        finally:
            engine.dispose()


@dataclass
class RunningIngest:
    """A service that answers on a socket of this process."""

    home: IngestHome
    client: httpx.Client
    service: IngestService

    def post(self, rows: Sequence[Mapping[str, Any]], **headers: str) -> httpx.Response:
        """Bring rows as JSON."""
        return self.client.post(f"/v1/features/{VIEW}", json={"rows": list(rows)}, headers=headers)

    def send(self, body: bytes, media_type: str, **headers: str) -> httpx.Response:
        """Bring a body."""
        return self.client.post(f"/v1/features/{VIEW}", content=body, headers={"content-type": media_type, **headers})

    def wait_until_done(self, batch_id: str) -> dict[str, Any]:
        """The batch, once both stores have it."""
        found: dict[str, Any] = {}

        def is_done() -> bool:
            found.update(self.client.get(f"/v1/batches/{batch_id}").json())
            return str(found["state"]) == "done"

        wait_until(is_done, f"batch {batch_id} is delivered: {found}")
        return found


def row(number: int = 1, **changes: Any) -> dict[str, Any]:
    """One row that everything is right with."""
    made = {"user_id": number, "clicks_1h": 3, "spend": 1.5, "tag": "a", "event_time": "2024-05-01T00:00:00Z"}
    return {**made, **changes}


def arrow(rows: Sequence[Mapping[str, Any]], schema: pa.Schema | None = None) -> bytes:
    """Rows as an Arrow stream; texts of times are times."""
    table = pa.Table.from_pylist([dict(each) for each in rows], schema=schema)
    for name in ("event_time", "created_time"):
        if schema is None and name in table.column_names:
            times = table.column(name).cast(pa.timestamp("us", tz="UTC"))
            table = table.set_column(table.column_names.index(name), name, times)
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


@contextmanager
def running_ingest(home: IngestHome, **settings: Any) -> Iterator[RunningIngest]:
    """A service in a thread of this process, on a free loopback port; a fake judges, as Great Expectations would."""
    opened: list[IngestService] = []

    @asynccontextmanager
    async def service() -> AsyncIterator[IngestService]:
        async with open_service(home.settings(**settings), runner=NaiveRunner()) as made:
            opened.append(made)
            yield made

    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        create_app(service), http="httptools", loop="uvloop", ws="none", access_log=False, log_config=None
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        wait_until(lambda: server.started or not thread.is_alive(), "the server started")
        assert thread.is_alive(), "the server ended at its start"
        url = "http://{}:{}".format(*listener.getsockname())
        with http_calls.client(base_url=url, timeout=60) as client:
            yield RunningIngest(home, client, opened[0])
    finally:
        server.should_exit = True
        thread.join(60)
        listener.close()
