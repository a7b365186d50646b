"""Logged traffic to be watched: a small bundle in an artifact store, and hours of its answers in a log store."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from sqlalchemy import select

from harness.bundles import content, transform
from harness.replays import ENDPOINT, flights, frame_of, prediction_id
from skewless.adapters.drift_engine import DriftEngine
from skewless.adapters.folder_artifact_store import FolderArtifactStore
from skewless.adapters.log_store import LogStore, open_log_store
from skewless.adapters.log_tables import LogTable, segment_tables
from skewless.bundles.bundle import Bundle, load_bundle, write_bundle
from skewless.dtypes import Column
from skewless.registry import database
from skewless.registry.records import BundleRecord
from skewless.registry.repository import Registry
from skewless.registry.schema import Base
from skewless.serving.log_blocks import blocks
from skewless.serving.monitoring_policy import DriftPolicy, MonitoringPolicy
from skewless.serving.records import AnsweredBatch
from skewless.timestamps import DAY_US, HOUR_US, SECOND_US, Micros, parse_timestamp

START_US = parse_timestamp("2013-05-06")  # a Monday
TRAINED_ROWS = 1_500
WRITER = "shipper-1"

Columns = Mapping[str, Column]
Change = Callable[[dict[str, Column], int], Columns]
"""What is done to the columns of a batch that was answered at a moment (µs)."""


class Clock:
    """A clock that is set; it begins long after the traffic."""

    def __init__(self, now: int = parse_timestamp("2026-11-22")) -> None:
        self.now = Micros(now)

    def __call__(self) -> Micros:
        return self.now


def unchanged(columns: dict[str, Column], _at: int) -> Columns:
    """Nothing happens."""
    return columns


@dataclass(frozen=True, slots=True)
class Logged:
    """Where everything is."""

    url: str
    artifacts: FolderArtifactStore
    store: LogStore
    bundle: Bundle

    @classmethod
    def make(cls, folder: Path, url: str, *, policy: DriftPolicy | None = None) -> "Logged":
        """An endpoint whose live bundle has answered nothing yet."""
        artifacts = FolderArtifactStore(folder / "artifacts")
        store = open_log_store(str(folder / "store"), scratch=folder / "scratch")
        registry = Registry(database.engine(url))
        bundle = put_bundle(folder, artifacts, registry, seed=1)
        registry.create_endpoint(ENDPOINT, description="", bundle=bundle.digest, actor="test", reason="test")
        if policy is not None:
            registry.set_monitoring(ENDPOINT, MonitoringPolicy(drift=policy), actor="test", reason="test")
        registry.close()
        return cls(url, artifacts, store, bundle)

    def engine(self, clock: Clock | None = None) -> DriftEngine:
        """A monitor of it; to be closed."""
        return DriftEngine(self.url, self.artifacts, self.store, clock=clock or Clock())

    def ship(self, number: int, tables: Sequence[LogTable]) -> None:
        """Commit tables to the log store as one round."""
        self.store.append(WRITER, number, tables)


def put_bundle(folder: Path, artifacts: FolderArtifactStore, registry: Registry, *, seed: int) -> Bundle:
    """A registered bundle; another one for each seed, trained on other rows of the same kind."""
    made = content(fitted=transform(), columns=flights(TRAINED_ROWS, seed=seed), scale=2.0 ** -(11 + seed))
    written = folder / f"bundle-{seed}"
    digest = write_bundle(made, written)
    location = artifacts.put(written, digest)
    bundle = load_bundle(artifacts.open(digest), digest)
    registry.register_bundle(BundleRecord.of(bundle, artifact=location, created_time=Micros(1)))
    return bundle


def answers(
    bundle: Bundle, at: int, rows: int, *, role: str = "live", change: Change = unchanged, seed: int = 0
) -> AnsweredBatch:
    """What a bundle answered at a moment (µs): the same whenever it is asked for. Its model is not run."""
    number = at // SECOND_US
    columns = dict(change(flights(rows, seed=number + seed), at))
    random = np.random.default_rng([number, seed, 1])
    frame = frame_of(bundle.contract, columns, rows)
    frame = replace(frame, event_times={view: np.full(rows, at - HOUR_US) for view in frame.event_times})
    given = {name: each for name, each in columns.items() if name not in frame.columns}
    scores = random.beta(2, 5, rows).astype(np.float32)
    return AnsweredBatch(
        endpoint=ENDPOINT,
        bundle=bundle.digest,
        role=role,
        rung="normal",
        request_id=f"request-{number}",
        as_of=at,
        prediction_ids=[prediction_id(number % 1_000_000_000 * 100 + row, moment=at) for row in range(rows)],
        key_names=tuple(key.name for key in bundle.contract.join_keys),
        given=given,
        frame=frame,
        tensor=bundle.transform.prepare().apply({**given, **frame.columns}, rows),
        outputs={"probabilities": np.stack([1 - scores, scores], axis=1)},
        labels=["late" if each >= 0.5 else "on_time" for each in scores.tolist()],
        probabilities=scores,
        stage_ms={"model": 1.25},
        caller="key:shop",
    )


def segment(name: str, batches: Sequence[AnsweredBatch]) -> list[LogTable]:
    """The tables of a segment that holds these answers."""
    return segment_tables(name, blocks(batches))


def ship_days(
    logged: Logged, bundle: Bundle, days: range, *, every_us: int, rows: int, change: Change = unchanged, first: int = 0
) -> None:
    """Days of traffic, numbered from START_US, each a round of one segment; rounds are numbered from `first` on."""
    for day in days:
        start = START_US + day * DAY_US
        batches = [
            answers(bundle, at + every_us // 2, rows, change=change) for at in range(start, start + DAY_US, every_us)
        ]
        logged.ship(first + day + 1, segment(f"day-{day:04d}", batches))


def drain(logged: Logged, clock: Clock | None = None) -> None:
    """Run a new monitor until nothing is new."""
    engine, stop = logged.engine(clock), threading.Event()
    try:
        while engine.run_once(stop):
            pass
    finally:
        engine.close()


def kept(url: str) -> dict[str, list[tuple[object, ...]]]:
    """Every row that the monitor keeps, by table, sorted."""
    names = [name for name in Base.metadata.tables if name.startswith("drift_")] + ["consumed_segments"]
    opened = database.engine(url)
    try:
        with opened.connect() as connection:
            return {
                name: sorted((tuple(row) for row in connection.execute(select(Base.metadata.tables[name]))), key=repr)
                for name in names
            }
    finally:
        opened.dispose()
