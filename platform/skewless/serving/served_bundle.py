"""A bundle made ready to answer: everything that a request would otherwise look up, resolved once."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from types import MappingProxyType

import numpy as np

from skewless.bundles.bundle import Bundle
from skewless.bundles.degrade_ladder import DEFAULT_LADDER, DegradeLadder
from skewless.bundles.golden import GoldenVectors, check_near
from skewless.bundles.post_processing import PostProcessing
from skewless.bundles.serving_profile import Place, Target
from skewless.canonical_json import Digest
from skewless.dtypes import Column
from skewless.errors import BundleRefused, DeadlineExceeded
from skewless.features.on_demand import OnDemandPlan
from skewless.features.plan import ReadPlan
from skewless.limits import MODEL_TIMEOUT_S, ROWS_MAX
from skewless.serving.compiled_request import RequestDecoder
from skewless.serving.instances import InstanceValidator
from skewless.serving.log_privacy import LogMarks
from skewless.serving.ports import ModelBackend, ModelSignature
from skewless.serving.recent_low import StageNeeds
from skewless.training.definition import BinaryLabels
from skewless.transforms import PreparedTransform


@dataclass(frozen=True, slots=True)
class ServedBundle:
    """A bundle with its validator, read plan and transform compiled. `model` is its name at the model backend."""

    digest: Digest
    name: str
    model: str
    validator: InstanceValidator
    requests: RequestDecoder
    """Reads the bodies of its requests."""
    key_names: tuple[str, ...]
    field_names: tuple[str, ...]
    """What callers give with each instance: join keys and request fields."""
    view_of_column: Mapping[str, str]
    """`view__feature` → view, for the age of a value."""
    plan: ReadPlan
    """The same object in every bundle of a gateway that reads the same, see `prepare_bundle`."""
    on_demand: OnDemandPlan
    transform: PreparedTransform
    signature: ModelSignature
    post: PostProcessing
    call_timeout_s: float
    """Longest wait for one call of the model."""
    warm_up_rows: tuple[int, ...]
    """Rows of each call with which the model is warmed up before the first request."""
    output_tolerance: float
    """Greatest difference of an output from the golden one; 0: bit for bit."""
    reads_store: bool
    """Whether it reads any stored feature."""
    place: Place = Place.SERVER
    """Where the model runs as long as all is well."""
    degrade: DegradeLadder = DEFAULT_LADDER
    fallback: "ServedBundle | None" = None
    """The bundle that answers where this one cannot; its model runs in this process."""
    stands_by: bool = False
    """Whether its model is ready in this process too, for when its servers are away."""
    log_marks: LogMarks | None = None
    """What of its predictions the log must not keep as it is; None: nothing."""
    needs: StageNeeds = field(default_factory=StageNeeds.unknown, compare=False, repr=False)
    """What its stages were seen to take at least."""

    @property
    def runs_here(self) -> bool:
        """Whether its model runs in this process anyway, so that there is no server to stand in for."""
        return self.place is Place.GATEWAY

    @property
    def goes_on_without_servers(self) -> bool:
        """Whether it is answered while no model server is there."""
        return self.runs_here or self.spares

    @property
    def goes_on_without_store(self) -> bool:
        """Whether it is answered while the online store is away, whatever is known of its features."""
        degrade, fallback = self.degrade, self.fallback
        return (
            not self.reads_store
            or degrade.defaults
            or degrade.constant is not None
            or (fallback is not None and not fallback.reads_store)
        )

    @property
    def spares(self) -> bool:
        """Whether something else may answer where the model cannot be asked, and needs time left to do so."""
        return self.stands_by or self.fallback is not None or self.degrade.constant is not None

    @property
    def labels(self) -> BinaryLabels:
        """Names of the classes, and the threshold."""
        return self.post.labels


def prepare_bundle(
    bundle: Bundle,
    model: str,
    hash_sizes: Mapping[tuple[str, ...], int] = MappingProxyType({}),
    *,
    target: Target = Target.EMBEDDED_CPU,
    plan: ReadPlan | None = None,
    fallback: ServedBundle | None = None,
) -> ServedBundle:
    """The served form of a verified bundle; `hash_sizes` as for `ReadPlan.compile`.

    `plan` is that of a bundle that reads the same; requests that are split between two such bundles then read once.
    `fallback` is the bundle that its degrade ladder names, where that is at hand.
    Raises InvalidDefinition where the function of an on-demand view is away or differs.
    """
    profile = bundle.serving.on(target)
    transform = bundle.transform.prepare()
    validator = InstanceValidator.compile(bundle.contract)
    return ServedBundle(
        digest=bundle.digest,
        name=bundle.name,
        model=model,
        validator=validator,
        requests=RequestDecoder.compile(validator),
        key_names=tuple(key.name for key in bundle.contract.join_keys),
        field_names=tuple(field.name for field in validator.fields),
        view_of_column=bundle.contract.view_of_column,
        plan=plan or ReadPlan.compile(bundle.contract, hash_sizes),
        on_demand=OnDemandPlan.compile(bundle.contract, import_module),
        transform=transform,
        signature=bundle.signature,
        post=bundle.post,
        call_timeout_s=min(MODEL_TIMEOUT_S, profile.call_timeout_ms / 1_000),
        warm_up_rows=tuple(rows for rows in profile.warm_up_rows if rows <= ROWS_MAX),
        output_tolerance=profile.output_tolerance,
        reads_store=bool(bundle.contract.views),
        place=profile.place,
        degrade=profile.degrade,
        fallback=fallback,
        log_marks=LogMarks.of(bundle.contract, [name for name, _ in transform.inputs]),
    )


async def admit_model(served: ServedBundle, golden: GoldenVectors, backend: ModelBackend) -> None:
    """Load the bundle's model, let it reproduce the golden outputs as requests will ask it, and warm it up.

    Raises BundleRefused for a model that cannot load or answers otherwise, Unavailable when the backend is away.
    """
    await backend.load(served.model)
    if not golden.rows:
        return
    await reproduce(golden, served.model, served.signature, backend, tolerance=served.output_tolerance)
    await _warm_up(served, golden, backend)


async def reproduce(
    golden: GoldenVectors, model: str, signature: ModelSignature, backend: ModelBackend, *, tolerance: float
) -> None:
    """Let a loaded model give the golden outputs again. Raises BundleRefused where one is off by more than `tolerance`,
    Unavailable when the backend is away."""
    try:
        outputs = await backend.infer(model, signature, golden.tensor, timeout_s=MODEL_TIMEOUT_S)
    except DeadlineExceeded as error:
        raise BundleRefused(
            f"model `{model}` did not score {golden.rows} golden rows within {MODEL_TIMEOUT_S:g} s"
        ) from error
    for name, _ in signature.outputs:
        check_near(golden.outputs[name], outputs[name], tolerance=tolerance, what=f"output `{name}` of model `{model}`")


async def _warm_up(served: ServedBundle, golden: GoldenVectors, backend: ModelBackend) -> None:
    """Calls of usual sizes, through the transform too, so that no request pays for what is done at the first."""
    for rows in served.warm_up_rows:
        index = np.resize(np.arange(golden.rows), rows)
        columns = {
            name: Column(column.dtype, column.values[index], column.valid[index])
            for name, column in golden.columns.items()
        }
        tensor = served.transform.apply(columns, rows)
        await backend.infer(served.model, served.signature, tensor, timeout_s=MODEL_TIMEOUT_S)
