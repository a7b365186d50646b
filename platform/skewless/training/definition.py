"""What a model is, as declared in a feature repository: its features, transform, examples, learner and gates."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from skewless.bundles.serving_profile import ServingProfile
from skewless.errors import InvalidDefinition
from skewless.features.contract import Policy, RequestField
from skewless.timestamps import Micros, parse_timestamp
from skewless.training.calibration import CalibrationKind
from skewless.training.gates import Gate, SliceGate
from skewless.training.learner import TrainingFunction, function_record
from skewless.training.slices import Slice
from skewless.training.weights import RowWeights
from skewless.transforms import Transform


@dataclass(frozen=True, slots=True)
class Period:
    """A half-open span of time, `start <= t < end`."""

    start: Micros
    end: Micros

    def __post_init__(self) -> None:
        if self.start >= self.end:
            raise InvalidDefinition(f"a period must end after it starts, got {self.start} to {self.end} µs")

    @classmethod
    def between(cls, start: str, end: str) -> "Period":
        """A period from RFC 3339 texts or dates (UTC midnight).

        >>> Period.between("1970-01-01", "1970-01-02").end
        86400000000
        """
        return cls(parse_timestamp(start), parse_timestamp(end))


@dataclass(frozen=True, slots=True)
class ExampleTable:
    """A Parquet file with one row per question asked: join keys, request fields, `as_of`, label, outcome time.

    `path` is relative to the repository's data folder. `label` is null where no outcome ever arrives; such a
    row is asked in a replay but never trained on. `outcome_time` is when the label becomes known.
    """

    path: str
    as_of: str = "as_of"
    label: str = "label"
    outcome_time: str = "outcome_time"


@dataclass(frozen=True, slots=True)
class BoostedTrees:
    """Histogram gradient boosting for a binary label, and its parameters (scikit-learn's names)."""

    max_iter: int = 150
    learning_rate: float = 0.08
    max_leaf_nodes: int = 31
    min_samples_leaf: int = 80
    l2_regularization: float = 1.0
    seed: int = 7


@dataclass(frozen=True, slots=True)
class BinaryLabels:
    """Post-processing of a binary classifier: names of the two classes and the threshold of the second."""

    negative: str
    positive: str
    threshold: float = 0.5


@dataclass(frozen=True, slots=True)
class ModelDefinition:
    """One model. `feature_service` names a Feast FeatureService; `nullable_keys` may be null in a request.

    `policies` maps `view__feature` to (on_missing, on_stale); a feature not named has `null` for both.
    The model of the bundle is trained on all of `training`; its metrics come from a fit on `training` without
    `holdout`, evaluated on `holdout`, overall and for each of `slices`. `gates` decide whether a bundle may go live.
    `calibration` is fitted on the hold-out's scores. `seed` is what a training function is given.
    """

    name: str
    description: str
    feature_service: str
    request_fields: tuple[RequestField, ...]
    transform: Transform
    examples: ExampleTable
    training: Period
    holdout: Period
    labels: BinaryLabels
    learner: BoostedTrees | TrainingFunction = BoostedTrees()
    nullable_keys: frozenset[str] = frozenset()
    policies: Mapping[str, tuple[Policy, Policy]] = field(default_factory=dict)
    weights: RowWeights = field(default_factory=RowWeights)
    calibration: CalibrationKind = CalibrationKind.NONE
    slices: tuple[Slice, ...] = ()
    gates: tuple[Gate, ...] = ()
    serving: ServingProfile = field(default_factory=ServingProfile)
    seed: int = 7

    def __post_init__(self) -> None:
        names = [each.name for each in self.slices]
        for gate in self.gates:
            if isinstance(gate, SliceGate) and gate.slice not in names:
                raise InvalidDefinition(
                    f"model `{self.name}`: a gate is about slice `{gate.slice}`; declared: {', '.join(names) or 'none'}"
                )
        if len(set(names)) != len(names):
            raise InvalidDefinition(f"model `{self.name}`: two slices have one name: {', '.join(names)}")
        if not (self.training.start < self.holdout.start and self.holdout.end <= self.training.end):
            raise InvalidDefinition(
                f"model `{self.name}`: the hold-out must lie at the end of the training period, after its start"
            )

    def learner_record(self) -> dict[str, Any]:
        """What pins the learner, as plain data: a declared one's parameters, or a function's name and source digest.

        Raises InvalidDefinition for a training function that cannot be named or read.
        """
        if isinstance(self.learner, BoostedTrees):
            return {"kind": type(self.learner).__name__, **asdict(self.learner)}
        return {**function_record(self.learner), "seed": self.seed}
