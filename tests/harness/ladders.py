"""A data plane over fakes with everything that a degrade ladder stands on: near cache, standby, fallback bundle."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.bundles import BuiltBundle, content, contract, flights_at, instance, sample_columns
from harness.fakes import FakeModelBackend, FakeOnlineStore, MemoryPredictionLog
from harness.gateways import ENDPOINT, NOW
from skewless.adapters.onnx_runtime import OnnxModel
from skewless.bundles.bundle import Bundle, BundleContent, load_bundle, write_bundle
from skewless.bundles.degrade_ladder import DegradeLadder
from skewless.bundles.model_repository import model_name
from skewless.bundles.serving_profile import ServingProfile
from skewless.canonical_json import Digest, digest
from skewless.dtypes import Dtype
from skewless.features.contract import Action, FeatureContract, Policy, RequestField
from skewless.features.near_cache import NearCache
from skewless.features.reader import FeatureReads
from skewless.rollout.routes import Role, Route
from skewless.serving.data_plane import Answer, DataPlane
from skewless.serving.deadline import Deadline
from skewless.serving.in_process import InProcessBackend, Run
from skewless.serving.ports import RoleObserver
from skewless.serving.request import read_request
from skewless.serving.served_bundle import ServedBundle, prepare_bundle
from skewless.serving.served_route import ServedRoute
from skewless.serving.shadows import Shadows
from skewless.transforms import Transform, column
from skewless_gateway.composition import new_prediction_id

AGE_MAX_S = 60.0


def ladder_content(degrade: DegradeLadder, *, near: bool = True, reject: bool = False) -> BundleContent:
    """The harness's bundle with a ladder of its own, all of its views kept near where `near`.

    With `reject` a missing number of seats refuses the row.
    """
    given = contract()
    views = [replace(view, near_cache=near) for view in given.views]
    if reject:
        (seats,) = views[1].features
        views[1] = replace(views[1], features=(replace(seats, on_missing=Policy(Action.REJECT)),))
    made = content(given=replace(given, views=tuple(views)))
    return replace(made, serving=ServingProfile(degrade=degrade))


def storeless_content() -> BundleContent:
    """A cheaper bundle that reads no stored feature, for callers of the harness's own."""
    request_fields = (RequestField("distance", Dtype.FLOAT32, nullable=True), RequestField("party", Dtype.INT32))
    given = FeatureContract("demo", (), request_fields, digest("definitions of the tests"))
    columns = {name: sample_columns()[name] for name in ("distance", "party")}
    declared = Transform(
        {
            "distance": column("distance", Dtype.FLOAT32).impute(0.0),
            "party": column("party", Dtype.INT32, nullable=False),
        }
    )
    return content(name="cheap", given=given, fitted=declared.fit(columns, 4), columns=columns)


def ladder_bundle(artifacts: Path, degrade: DegradeLadder, *, fallback: Digest | None = None) -> BuiltBundle:
    """The harness's bundle with a ladder, where an artifact store keeps it."""
    return _kept(ladder_content(replace(degrade, fallback=fallback)), artifacts)


def cheap_bundle(artifacts: Path) -> BuiltBundle:
    """The bundle that reads no stored feature, where an artifact store keeps it."""
    return _kept(storeless_content(), artifacts)


def _kept(made: BundleContent, artifacts: Path) -> BuiltBundle:
    incoming = artifacts / "incoming"
    kept = artifacts / write_bundle(made, incoming)
    incoming.rename(kept)
    return built_bundle(kept)


def built_bundle(folder: Path) -> BuiltBundle:
    """A bundle on disk with its model to compare with."""
    bundle = load_bundle(folder)
    files = bundle.read_model()
    return BuiltBundle(bundle, OnnxModel(files.files[files.entry]))


@dataclass
class Silent(RoleObserver):
    """Keeps what it is told."""

    told: list[tuple[str, str]] = field(default_factory=list)

    def answered(self, batch: Any, *, took_ms: float) -> None:  # noqa: ARG002
        self.told.append(("answered", str(batch.role)))

    def failed(self, endpoint: str, role: Role, arm: str, bundle: str, **_: Any) -> None:  # noqa: ARG002
        self.told.append(("failed", str(role)))

    def mirrored(self, shadow: Any, live: Any, rows: Any) -> None:  # noqa: ARG002
        self.told.append(("mirrored", "shadow"))

    def dropped(self, endpoint: str, bundle: str, *, rows: int) -> None:  # noqa: ARG002
        self.told.append(("dropped", "shadow"))


@dataclass
class LadderPlane:
    """A data plane and what stands behind it. `ask` asks it; features of JFK, LGA, N1 and station 7 are stored."""

    plane: DataPlane
    store: FakeOnlineStore
    backend: FakeModelBackend
    standby: InProcessBackend
    log: MemoryPredictionLog
    live: ServedBundle
    route: Route
    observer: Silent
    clock: "SecondsClock"
    candidates: Mapping[Any, ServedBundle] = field(default_factory=dict)

    async def ask(self, *instances: Mapping[str, object], deadline_ms: int = 5_000) -> Answer:
        body = {"instances": list(instances) or [instance()]}
        request = read_request(body, self.live.validator, as_of_allowed=False)
        started_ns = time.monotonic_ns()
        deadline = Deadline(time.monotonic_ns, started_ns=started_ns, deadline_ms=deadline_ms)
        serving = ServedRoute(self.route, self.live, self.candidates)
        return await self.plane.predict(serving, request, deadline=deadline, request_id="r")


@dataclass
class SecondsClock:
    """Seconds that a test moves."""

    now_s: float = 1_000.0

    def __call__(self) -> float:
        return self.now_s


def written(made: BundleContent, folder: Path) -> Bundle:
    """A bundle written and read back."""
    place = folder / digest(made.name + str(len(list(folder.iterdir()))) if folder.exists() else made.name)[:8]
    return load_bundle(place, write_bundle(made, place))


def outputs_of(bundle: Bundle) -> Run:
    """What the bundle's model computes."""
    files = bundle.read_model()
    run = OnnxModel(files.files[files.entry]).run
    return lambda tensor: {"probabilities": run(tensor)}


def ladder_plane(
    folder: Path,
    degrade: DegradeLadder,
    *,
    near: bool = True,
    reject: bool = False,
    fallback: bool = False,
    stands_by: bool = True,
) -> LadderPlane:
    """Everything up. With `fallback` the live bundle falls back to `storeless_content`."""
    cheap = written(storeless_content(), folder)
    if fallback:
        degrade = replace(degrade, fallback=cheap.digest)
    bundle = written(ladder_content(degrade, near=near, reject=reject), folder)
    models = {model_name(each.digest): outputs_of(each) for each in (bundle, cheap)}
    standing_in = prepare_bundle(cheap, model_name(cheap.digest)) if fallback else None
    live = prepare_bundle(bundle, model_name(bundle.digest), fallback=standing_in)
    live = replace(live, stands_by=stands_by and degrade.in_process)
    store, clock = FakeOnlineStore(flights_at(NOW)), SecondsClock()
    backend = FakeModelBackend({live.model: lambda tensor: dict(models[live.model](tensor))})
    backend.loaded.add(live.model)
    standby = InProcessBackend(models.__getitem__)
    standby._models.update(models)
    log, observer = MemoryPredictionLog(), Silent()
    features = FeatureReads(
        store,
        near_cache=NearCache(store, bytes_max=1_000_000, age_max_s=AGE_MAX_S, clock=clock),
        rows_max=1_024,
        flushes_max=2,
        rows_waiting_max=10_000,
    )
    shadows = Shadows(features, backend, log, clock=time.monotonic_ns, new_id=new_prediction_id, observer=observer)
    plane = DataPlane(
        features,
        backend,
        log,
        now=lambda: NOW,
        new_id=new_prediction_id,
        observer=observer,
        shadows=shadows,
        standby=standby,
    )
    route = Route(ENDPOINT, "Late?", bundle.digest)
    return LadderPlane(plane, store, backend, standby, log, live, route, observer, clock)
