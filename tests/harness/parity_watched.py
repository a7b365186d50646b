"""A parity world whose answers are logged and sampled, watched by the running monitor at a time that a test sets."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import uuid_utils

from harness.parity_world import SERVICE, TRANSFORM, ParityWorld, Row, hour, score
from skewless.adapters.log_reader import LogReader, open_log
from skewless.adapters.parity_checker import CheckedBundle, Checker
from skewless.adapters.parity_watch import ParityWatch, Ran, Watched
from skewless.adapters.spool import SPOOL, SpoolFile
from skewless.canonical_json import Digest, digest
from skewless.errors import NotFound
from skewless.features.compiled_registry import CompiledRegistry
from skewless.features.contract import FeatureContract
from skewless.features.point_in_time import OfflineSource
from skewless.parity.check import Served
from skewless.parity.subset import served_rows
from skewless.registry.parity_history import ParityHistory, ParityResult
from skewless.serving.log_blocks import blocks, encode
from skewless.serving.log_privacy import LogMarks, LogPrivacy
from skewless.serving.log_sampling import LogSampling, SampleShares
from skewless.serving.monitoring_policy import ParityPolicy
from skewless.serving.records import AnsweredBatch
from skewless.timestamps import SECOND_US

ENDPOINT = "comfort"
BUNDLE = digest("the bundle of the parity world")
APART = digest("the same over a file of its own")
APART_SERVICE = "apart"
APART_FILE = "apart.parquet"
"""In the world's folder: where the weather of APART lies, unless it is away."""


@dataclass(frozen=True, slots=True)
class WorldParts:
    """The world's parts of a check. Bundles but one are not known, and one whose sources `apart.parquet` has alone."""

    world: ParityWorld
    contract: FeatureContract

    def bundle(self, wanted: Digest) -> CheckedBundle:
        if wanted not in (BUNDLE, APART):
            raise NotFound("bundle", wanted)
        service = SERVICE if wanted == BUNDLE else APART_SERVICE
        return CheckedBundle(wanted, self.contract, TRANSFORM, service, score, "probabilities")

    def sources(self, feature_service: str) -> Mapping[str, OfflineSource]:
        if feature_service != APART_SERVICE:
            return self.world.repository.sources(feature_service)
        found = self.world.repository.sources(SERVICE)
        return {**found, "weather": replace(found["weather"], path=str(self.world.folder / APART_FILE))}

    def materialized(self, feature_service: str) -> Mapping[str, tuple[tuple[int, int], ...]]:
        return self.world.repository.materialized(SERVICE if feature_service == APART_SERVICE else feature_service)

    def ingested(self) -> None:
        """Nothing is ingested in the world."""

    def registered(self) -> CompiledRegistry | None:
        registered = self.world.repository.compiled()
        if self.contract == self.world.contract():
            return registered
        # The test marked columns in the contract alone, which Feast's tags would do.
        return replace(registered, contracts={SERVICE: self.contract})

    def online_store(self) -> str | None:
        return self.world.url


@dataclass(slots=True)
class WatchedWorld:
    """See the module. `now` is the wall clock of the monitor, in µs."""

    world: ParityWorld
    folder: Path
    history: ParityHistory
    contract: FeatureContract
    policy: ParityPolicy = field(default_factory=lambda: ParityPolicy(entity_share=1.0, uniform_share=1.0))
    now: int = hour(0)
    privacy: LogPrivacy = field(default_factory=LogPrivacy)
    watch: ParityWatch | None = None

    def at(self, number: float, *, seconds: float = 0.0) -> "WatchedWorld":
        """Set the clock to so many hours, and seconds."""
        self.now = hour(number) + int(seconds * SECOND_US)
        return self

    def answer(
        self,
        entities: list[Row],
        at: float,
        *,
        bundle: Digest = BUNDLE,
        marks: LogMarks | None = None,
        endpoint: str = ENDPOINT,
    ) -> Served:
        """Serve entities at an hour from the online store, and log that."""
        served = self.world.serve(entities, at, contract=self.contract)
        self.log(served, bundle=bundle, marks=marks, endpoint=endpoint)
        return served

    def log(
        self, served: Served, *, bundle: Digest = BUNDLE, marks: LogMarks | None = None, endpoint: str = ENDPOINT
    ) -> None:
        """Log answers in a segment of the spool, sampled by the policy."""
        sampling = LogSampling({endpoint: SampleShares(self.policy.entity_share, self.policy.uniform_share)})
        folder = self.folder / SPOOL
        folder.mkdir(parents=True, exist_ok=True)
        spool = SpoolFile.create(folder)
        for entry in blocks(batches_of(served, self.contract, bundle, marks, endpoint), self.privacy, sampling):
            spool.append(encode(entry))
        spool.seal()

    def run(self) -> Ran:
        """What one run of the monitor comes to."""
        if self.watch is None:
            self.watch = self.restarted()
        return self.watch.run([Watched(ENDPOINT, self.policy)], threading.Event())

    def restarted(
        self, checker: type[Checker] = Checker, monotonic: Callable[[], float] = time.monotonic
    ) -> ParityWatch:
        """A monitor that knows nothing but what is kept."""
        return ParityWatch(
            self.history,
            self._open_log,
            lambda: checker(WorldParts(self.world, self.contract), privacy=self.privacy),
            clock=lambda: self.now,
            monotonic=monotonic,
        )

    @contextmanager
    def _open_log(self) -> Iterator[LogReader]:
        with open_log(self.folder) as log:
            yield log

    def results(self, **wanted: Any) -> list[ParityResult]:
        """Stored results with these fields."""
        found = self.history.results(ENDPOINT)
        return [each for each in found if all(getattr(each, name) == value for name, value in wanted.items())]

    def causes(self) -> dict[str, set[str]]:
        """Every cause in the stored results, with its views."""
        found: dict[str, set[str]] = {}
        for each in self.results(level="causes"):
            found.setdefault(each.cause, set()).add(each.view)
        return found


def batches_of(
    served: Served,
    contract: FeatureContract,
    bundle: Digest,
    marks: LogMarks | None = None,
    endpoint: str = ENDPOINT,
) -> list[AnsweredBatch]:
    """What a gateway hands to its log about some answers: a batch for each moment."""
    keys = [key.name for key in contract.join_keys]
    found = []
    for moment in sorted(set(served.as_of.tolist())):
        part = served_rows(served, np.flatnonzero(served.as_of == moment).astype(np.int64))
        found.append(
            AnsweredBatch(
                endpoint=endpoint,
                bundle=bundle,
                role="live",
                rung="normal",
                request_id="request",
                as_of=moment,
                prediction_ids=_ids(part.prediction_ids),
                key_names=keys,
                given=part.given,
                frame=part.frame,
                tensor=part.tensor,
                outputs={"probabilities": part.outputs},
                labels=["late"] * part.rows,
                probabilities=part.outputs[:, 0],
                stage_ms={"total": 1.0},
                marks=marks,
            )
        )
    return found


def _ids(named: Sequence[str]) -> list[str]:
    """Ids of their own: a world numbers its answers from 0 on each time."""
    return [str(uuid_utils.uuid7()) for _ in named]


def other_bundle(served: Served) -> Served:
    """The same answers, for another bundle's part of the log."""
    return replace(served, prediction_ids=_ids(served.prediction_ids))
