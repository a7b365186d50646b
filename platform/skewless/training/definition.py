"""What a model is, as declared in a feature repository: its features, transform, examples and learner."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from skewless.errors import InvalidDefinition
from skewless.features.contract import Policy, RequestField
from skewless.timestamps import Micros, parse_timestamp
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
    `holdout`, evaluated on `holdout`.
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
    learner: BoostedTrees = BoostedTrees()
    nullable_keys: frozenset[str] = frozenset()
    policies: Mapping[str, tuple[Policy, Policy]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not (self.training.start < self.holdout.start and self.holdout.end <= self.training.end):
            raise InvalidDefinition(
                f"model `{self.name}`: the hold-out must lie at the end of the training period, after its start"
            )
