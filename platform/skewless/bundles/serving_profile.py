"""Serving profiles: how a model server is to run a bundle's model. Part of the bundle, so of its digest.

The defaults are what every bundle is deployed with. An override replaces the whole profile on one target:

    ServingProfile(overrides={Target.GPU_TENSORRT: ServingProfile(batch_rows_max=8_192, instances=2)})
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, TypeVar

from skewless.bundles.degrade_ladder import DEFAULT_LADDER, DegradeLadder
from skewless.canonical_json import Digest
from skewless.errors import InvalidDefinition
from skewless.limits import MODEL_BATCH_ROWS_MAX, MODEL_TIMEOUT_S, ROWS_MAX

BATCH_ROWS_MAX = 65_536
"""Rows of a dynamic batch on any target; 64 calls of a gateway."""
QUEUE_DELAY_US_MAX = 1_000_000
INSTANCES_MAX = 64
QUEUED_MAX = 1_000_000
WARM_UP_CALLS_MAX = 16
"""Every warm-up call delays loading, and with it a promotion."""
OUTPUT_TOLERANCE_MAX = 0.1
"""Further off than this an output is another output."""

_LATER = frozenset({"place", "degrade"})
"""Fields that the first profiles did not have."""

_Kind = TypeVar("_Kind", bound=StrEnum)


class Target(StrEnum):
    """A kind of model server that bundles are written for; see docs/models.md."""

    EMBEDDED_CPU = "embedded-cpu"
    """Triton's Python backend alone, on a CPU: what the embedded stack starts."""
    GPU_ONNXRUNTIME = "gpu-onnxruntime"
    """A GPU server with the backends of NVIDIA's image; ONNX runs in ONNX Runtime on CUDA."""
    GPU_TENSORRT = "gpu-tensorrt"
    """The same server; ONNX runs in TensorRT, through ONNX Runtime, and TensorRT plans run too."""


class VersionPolicy(StrEnum):
    """Which versions of a model Triton serves. A bundle's model has version 1 only, so each of them serves it."""

    LATEST = "latest"
    ALL = "all"
    SPECIFIC = "specific"
    """Version 1 and no other, also where somebody puts a folder `2` beside it."""


class TimeoutAction(StrEnum):
    """What happens to a request that has waited in Triton's queue for too long."""

    REJECT = "reject"
    DELAY = "delay"
    """It is answered after those that have not."""


class Precision(StrEnum):
    """What TensorRT computes in. FP16 needs an output tolerance."""

    FP32 = "FP32"
    FP16 = "FP16"


class Place(StrEnum):
    """Where a bundle's model runs as long as everything is well."""

    SERVER = "server"
    """In the model servers that the gateway is told of; in the gateway where it is told of none."""
    GATEWAY = "gateway"
    """In the gateway itself: ONNX models so small that a call would cost more than the computing."""


@dataclass(frozen=True, slots=True)
class QueuePolicy:
    """A bound on Triton's own queue. With one a call can sleep for up to 500 ms in Triton (docs/adr/0004).

    So it is never written for the embedded target, whose only callers are gateways that bound their calls themselves.
    It is there for GPU servers that others call too.
    """

    timeout_us: int = 0
    """How long a request may wait; 0 is for ever."""
    on_timeout: TimeoutAction = TimeoutAction.REJECT
    allow_override: bool = False
    """Whether a request may name a shorter timeout of its own."""
    requests_max: int = 0
    """Requests in the queue; one more is refused. 0 is any number."""

    def __post_init__(self) -> None:
        _check_range("queue.timeout_us", self.timeout_us, 0, int(MODEL_TIMEOUT_S * 1_000_000))
        _check_range("queue.requests_max", self.requests_max, 0, QUEUED_MAX)
        if not (self.timeout_us or self.allow_override or self.requests_max):
            raise InvalidDefinition(
                "the serving profile's queue policy bounds nothing: it has no timeout and takes any number of requests",
                hint="leave the queue policy away, or give it a bound",
            )

    def to_json(self) -> dict[str, Any]:
        """Plain data for `canonical_json.encode`."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "QueuePolicy":
        """The inverse of `to_json`. Raises InvalidDefinition for anything else."""
        _check_names("queue", data, {each.name for each in fields(cls)})
        _check_bool("queue.allow_override", data["allow_override"])
        return cls(**{**data, "on_timeout": _member("queue.on_timeout", TimeoutAction, data["on_timeout"])})


@dataclass(frozen=True, slots=True)
class ServingProfile:
    """See the module. Raises InvalidDefinition for a value that is out of bounds."""

    batch_rows_max: int = MODEL_BATCH_ROWS_MAX
    """Rows of one dynamic batch; no fewer than a gateway may send in one call."""
    preferred_batch_rows: tuple[int, ...] = ()
    """Sizes at which a batch is sent on without waiting for more rows; only of use with a queue delay."""
    max_queue_delay_us: int = 0
    """How long a request may wait for others to share its batch; 0: what arrives while a batch runs forms the next."""
    instances: int = 1
    """Copies of the model that run at once: in all on a CPU, on each GPU elsewhere."""
    queue: QueuePolicy | None = None
    call_timeout_ms: int = int(MODEL_TIMEOUT_S * 1_000)
    """Longest wait of a gateway for one call, also where the request has more time left."""
    version_policy: VersionPolicy = VersionPolicy.LATEST
    warm_up_rows: tuple[int, ...] = (1, 64)
    """Rows of each call with which a loading model is warmed up, each with another golden row; none is allowed."""
    output_tolerance: float = 0.0
    """Greatest difference of an output from the golden one. 0: bit for bit. A GPU does not compute a CPU's bits."""
    precision: Precision = Precision.FP32
    place: Place = Place.SERVER
    degrade: DegradeLadder = DEFAULT_LADDER
    """What may be answered while a part is away."""
    overrides: Mapping[Target, "ServingProfile"] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_range("batch_rows_max", self.batch_rows_max, ROWS_MAX, BATCH_ROWS_MAX)
        _check_range("max_queue_delay_us", self.max_queue_delay_us, 0, QUEUE_DELAY_US_MAX)
        _check_range("instances", self.instances, 1, INSTANCES_MAX)
        _check_range("call_timeout_ms", self.call_timeout_ms, 1, int(MODEL_TIMEOUT_S * 1_000))
        for name, sizes in (("preferred_batch_rows", self.preferred_batch_rows), ("warm_up_rows", self.warm_up_rows)):
            for rows in sizes:
                _check_range(name, rows, 1, self.batch_rows_max)
            if len(set(sizes)) != len(sizes) or len(sizes) > WARM_UP_CALLS_MAX:
                raise _refused(name, list(sizes), f"up to {WARM_UP_CALLS_MAX} different sizes")
        if not 0.0 <= self.output_tolerance <= OUTPUT_TOLERANCE_MAX:  # also false for NaN
            raise _refused("output_tolerance", self.output_tolerance, f"0.0 to {OUTPUT_TOLERANCE_MAX}")
        if self.precision is not Precision.FP32 and not self.output_tolerance:
            raise InvalidDefinition(
                f"the serving profile asks for {self.precision} and for outputs that equal the golden ones bit for bit",
                hint="state the output tolerance that the model's users can live with",
            )
        if any(override.overrides for override in self.overrides.values()):
            raise InvalidDefinition("an override of a serving profile has overrides of its own")

    def on(self, target: Target) -> "ServingProfile":
        """What holds on a target."""
        return self.overrides.get(target, self)

    @property
    def fallbacks(self) -> frozenset[Digest]:
        """Bundles that may have to stand in for this one, on any target."""
        ladders = [self.degrade, *(override.degrade for override in self.overrides.values())]
        return frozenset(ladder.fallback for ladder in ladders if ladder.fallback is not None)

    def to_json(self) -> dict[str, Any]:
        """Plain data for `canonical_json.encode`: every field, so that a later default changes no stored profile.

        Fields that came later are left out where they have the value that all earlier bundles have.
        """
        plain = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in _LATER}
        return {
            **plain,
            **({} if self.place is Place.SERVER else {"place": self.place}),
            **({} if self.degrade == DEFAULT_LADDER else {"degrade": self.degrade.to_json()}),
            "preferred_batch_rows": list(self.preferred_batch_rows),
            "warm_up_rows": list(self.warm_up_rows),
            "queue": None if self.queue is None else self.queue.to_json(),
            "overrides": {target.value: profile.to_json() for target, profile in self.overrides.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "ServingProfile":
        """The inverse of `to_json`. Raises InvalidDefinition naming the field that is missing, unknown or wrong."""
        _check_names("", data, {each.name for each in fields(cls)}, optional=_LATER)
        tolerance = data["output_tolerance"]
        if not isinstance(tolerance, int | float) or isinstance(tolerance, bool):
            raise _refused("output_tolerance", tolerance, "a number")
        if not isinstance(data["overrides"], Mapping):
            raise _refused("overrides", data["overrides"], "an object of profiles by target")
        return cls(
            **{
                **data,
                "preferred_batch_rows": _sizes("preferred_batch_rows", data["preferred_batch_rows"]),
                "warm_up_rows": _sizes("warm_up_rows", data["warm_up_rows"]),
                "queue": None if data["queue"] is None else QueuePolicy.from_json(data["queue"]),
                "version_policy": _member("version_policy", VersionPolicy, data["version_policy"]),
                "precision": _member("precision", Precision, data["precision"]),
                "output_tolerance": float(tolerance),
                "place": _member("place", Place, data.get("place", Place.SERVER)),
                "degrade": DegradeLadder.from_json(data["degrade"]) if "degrade" in data else DEFAULT_LADDER,
                "overrides": {
                    _member("overrides", Target, target): cls.from_json(profile)
                    for target, profile in data["overrides"].items()
                },
            }
        )


def _check_range(name: str, value: object, least: int, most: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        hint = f"a gateway sends up to {ROWS_MAX} rows in one call" if name == "batch_rows_max" else ""
        raise _refused(name, value, f"a whole number from {least} to {most}", hint=hint)


def _check_bool(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise _refused(name, value, "true or false")


def _check_names(path: str, data: object, expected: set[str], *, optional: frozenset[str] = frozenset()) -> None:
    if not isinstance(data, Mapping):
        raise _refused(path or "the whole", data, "an object")
    if odd := sorted((data.keys() ^ expected) - (optional - data.keys())):
        what = "does not know" if odd[0] in data else "lacks"
        raise InvalidDefinition(
            f"a serving profile {what} `{path and path + '.'}{odd[0]}`. Fields: {', '.join(sorted(expected))}"
        )


def _sizes(name: str, value: object) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise _refused(name, value, "a list of whole numbers")
    return tuple(value)


def _member(name: str, kind: type[_Kind], value: object) -> _Kind:
    try:
        return kind(str(value))
    except ValueError:
        raise _refused(name, value, ", ".join(f"`{each}`" for each in kind)) from None


def _refused(name: str, value: object, allowed: str, *, hint: str = "") -> InvalidDefinition:
    return InvalidDefinition(f"`{name}` of a serving profile is {value!r}; allowed: {allowed}", hint=hint)
