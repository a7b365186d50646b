"""Predictions as a gateway would have logged them, computed from given features, and a home whose registry has their
bundles."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.bundles import content, contract, transform
from skewless.adapters.folder_artifact_store import FolderArtifactStore
from skewless.adapters.onnx_scorer import onnx_scorer
from skewless.adapters.prediction_log import FolderPredictionLog
from skewless.bundles.bundle import Bundle, BundleContent, load_bundle, write_bundle
from skewless.canonical_json import Digest
from skewless.dtypes import Column, column_of
from skewless.features.contract import FeatureContract
from skewless.features.frame import NO_EVENT_TIME, STATUS_CODE, FeatureFrame
from skewless.features.visibility import Status
from skewless.registry.database import engine, upgrade
from skewless.registry.records import BundleRecord
from skewless.registry.repository import Registry
from skewless.replays.recheck import row_bytes
from skewless.replays.recorded import RecordedRows
from skewless.serving.log_privacy import LogMarks, LogPrivacy
from skewless.serving.records import AnsweredBatch, Outcome, tensor_digest
from skewless.settings import Home
from skewless.timestamps import HOUR_US, Micros, parse_timestamp

NOW = parse_timestamp("2013-05-01T12:30:00Z")
ENDPOINT = "flight-delay"
_STATIONS: tuple[object, ...] = ("JFK", "LGA", "EWR")


def prediction_id(number: int, *, moment: int = NOW) -> str:
    """A UUIDv7 of that moment, another one for each number."""
    stamp = f"{moment // 1_000:012x}"
    return f"{stamp[:8]}-{stamp[8:]}-7000-8000-{number:012x}"


def flights(rows: int, *, seed: int = 7) -> dict[str, Column]:
    """Random rows of every column of `harness.bundles.contract`, nulls among the features."""
    random = np.random.default_rng(seed)

    def some(values: NDArray[np.generic]) -> list[object]:
        return [None if random.random() < 0.1 else value for value in values.tolist()]

    items: dict[str, list[object]] = {
        "origin": [_STATIONS[each] for each in random.integers(0, 3, rows).tolist()],
        "tailnum": some(np.array([f"N{each}" for each in random.integers(0, 50, rows)], dtype=object)),
        "station": random.integers(0, 9, rows).tolist(),
        "scheduled_departure": [NOW + number for number in range(rows)],
        "distance": some(random.uniform(0, 2_000, rows).astype(np.float32)),
        "is_holiday": (random.random(rows) < 0.5).tolist(),
        "party": random.integers(1, 9, rows).tolist(),
        "weather__temp": some(random.normal(10, 9, rows).astype(np.float32)),
        "weather__wind_dir": some(random.integers(0, 360, rows)),
        "aircraft__seats": some(random.integers(20, 300, rows)),
        "noise__level": some(random.normal(0, 1, rows).astype(np.float32)),
    }
    return {name: column_of(dtype, items[name]) for name, dtype in contract().columns}


def frame_of(given: FeatureContract, columns: Mapping[str, Column], rows: int) -> FeatureFrame:
    """Features that were read an hour after they happened; nulls are stored nulls."""
    ok, null = STATUS_CODE[Status.OK], STATUS_CODE[Status.NULL]
    own = {name: columns[name] for name in given.view_of_column}
    return FeatureFrame(
        rows,
        own,
        {name: np.where(column.valid, ok, null).astype(np.uint8) for name, column in own.items()},
        {view: np.full(rows, NOW - HOUR_US, dtype=np.int64) for view in given.view_of_column.values()},
    )


def answered(
    bundle: Bundle,
    columns: Mapping[str, Column],
    *,
    frame: FeatureFrame | None = None,
    first: int = 0,
    as_of: int = NOW,
    role: str = "live",
    caller: str = "key:shop",
) -> AnsweredBatch:
    """What a bundle answers for rows of its contract's columns, as a gateway logs it; ids are numbered from `first`."""
    rows = len(next(iter(columns.values())))
    frame = frame or frame_of(bundle.contract, columns, rows)
    given = {name: each for name, each in columns.items() if name not in frame.columns}
    tensor = bundle.transform.prepare().apply({**given, **frame.columns}, rows)
    outputs = onnx_scorer(bundle.read_model(), bundle.signature)(tensor)
    labels, probabilities = bundle.post.apply(outputs)
    return AnsweredBatch(
        endpoint=ENDPOINT,
        bundle=bundle.digest,
        role=role,
        rung="normal",
        request_id=f"request-{first}",
        as_of=as_of,
        prediction_ids=[prediction_id(first + row, moment=as_of) for row in range(rows)],
        key_names=tuple(key.name for key in bundle.contract.join_keys),
        given=given,
        frame=frame,
        tensor=tensor,
        outputs=outputs,
        labels=labels,
        probabilities=probabilities,
        stage_ms={"features": 0.5, "model": 1.25},
        caller=caller,
        marks=LogMarks.of(bundle.contract, [name for name, _ in bundle.transform.inputs]),
    )


def with_feature(batch: AnsweredBatch, name: str, column: Column) -> AnsweredBatch:
    """The batch with other values of one feature, and all that was computed from them left as it was."""
    return replace(batch, frame=replace(batch.frame, columns={**batch.frame.columns, name: column}))


def flipped(column: Column, row: int) -> Column:
    """The column with the least bit of one of its numbers flipped."""
    values = column.values.copy()
    values.view(f"u{values.dtype.itemsize}")[row] ^= 1
    return Column(column.dtype, values, column.valid)


def recorded(batch: AnsweredBatch) -> RecordedRows:
    """A batch as a replay is given it, every field kept."""
    return RecordedRows(
        bundle=batch.bundle,
        prediction_ids=batch.prediction_ids,
        as_of=np.full(batch.rows, batch.as_of, dtype=np.int64),
        roles=[batch.role] * batch.rows,
        rungs=[batch.rung] * batch.rows,
        columns={**batch.given, **batch.frame.columns},
        statuses=batch.frame.statuses,
        event_times=batch.frame.event_times,
        tensors=row_bytes(batch.tensor),
        tensor_digests=[tensor_digest(row) for row in batch.tensor],
        outputs=batch.outputs,
        labels=batch.labels,
        probabilities=batch.probabilities,
        not_kept={},
    )


def missing(frame: FeatureFrame, view: str, names: Sequence[str], rows: Sequence[int]) -> FeatureFrame:
    """The frame without a row of the view for some rows."""
    times = frame.event_times[view].copy()
    times[list(rows)] = NO_EVENT_TIME
    columns, statuses = dict(frame.columns), dict(frame.statuses)
    for name in names:
        valid, codes = columns[name].valid.copy(), statuses[name].copy()
        valid[list(rows)], codes[list(rows)] = False, STATUS_CODE[Status.MISSING]
        values = columns[name].values.copy()
        values[list(rows)] = column_of(columns[name].dtype, [None]).values[0]
        columns[name], statuses[name] = Column(columns[name].dtype, values, valid), codes
    return replace(frame, columns=columns, statuses=statuses, event_times={**frame.event_times, view: times})


@dataclass(frozen=True, slots=True)
class RecordingHome:
    """A home with a registry, an artifact store and a prediction log."""

    home: Home
    folder: Path

    @classmethod
    def make(cls, folder: Path) -> "RecordingHome":
        made = cls(Home(folder / "home"), folder)
        made.home.root.mkdir(parents=True)
        upgrade(f"sqlite:///{made.home.database}")
        return made

    def register(self, made: BundleContent | None = None) -> Bundle:
        """A bundle as `skewless bundle register` leaves it; by default everything of `harness.bundles`."""
        written = self.folder / f"bundle-{len(list(self.folder.iterdir()))}"
        digest = write_bundle(made or content(fitted=transform()), written)
        artifacts = FolderArtifactStore(self.home.artifacts)
        location = artifacts.put(written, digest)
        bundle = load_bundle(artifacts.open(digest), digest)
        registry = Registry(engine(f"sqlite:///{self.home.database}"))
        try:
            registry.register_bundle(BundleRecord.of(bundle, artifact=location, created_time=Micros(1)))
        finally:
            registry.close()
        return bundle

    def forget(self, digest: Digest) -> None:
        """Remove a bundle's files, as `skewless artifact gc` does once nothing refers to it."""
        FolderArtifactStore(self.home.artifacts).delete(digest)

    def log(self, *batches: AnsweredBatch, outcomes: Sequence[Outcome] = (), key: bytes = b"") -> None:
        """Log what was answered and what turned out, and seal it."""

        async def write() -> None:
            log = FolderPredictionLog(self.home.predictions, flush_ms=0, privacy=LogPrivacy(key))
            for batch in batches:
                log.append(batch)
            if outcomes:
                log.append_outcomes(outcomes)
            await log.commit()
            await log.close()

        asyncio.run(write())


def outcome(batch: AnsweredBatch, row: int, label: str) -> Outcome:
    """What turned out for a row of a batch, an hour later."""
    return Outcome(
        batch.prediction_ids[row],
        label,
        batch.as_of + HOUR_US,
        batch.as_of + HOUR_US + 1,
        outcome_id=prediction_id(row, moment=batch.as_of + HOUR_US),
    )
