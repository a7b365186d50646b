"""What is known of a bundle when its gates are checked: held-out metrics, overall and per slice, and latencies."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from skewless.canonical_json import Digest
from skewless.errors import InvalidDefinition

Metrics = Mapping[str, float | int | None]


NO_DATASET = Digest("")
"""The hold-out of a bundle that was never evaluated."""


@dataclass(frozen=True, slots=True)
class Latency:
    """Time of one call of the optimised model with `rows` rows, over `calls` calls, in milliseconds."""

    rows: int
    p50_ms: float
    p99_ms: float
    calls: int

    def to_json(self) -> dict[str, Any]:
        """Plain data by field name."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class EvaluationFacts:
    """What is known of a bundle: metrics on the hold-out `dataset` overall, per slice and part, and latencies.

    `evaluated_on` has the metrics on other hold-outs by their digest, so that two bundles that were held out
    differently can still be compared on the same rows.
    """

    dataset: Digest
    metrics: Metrics
    slices: Mapping[str, Mapping[str, Metrics]]
    latencies: tuple[Latency, ...] = ()
    evaluated_on: Mapping[Digest, "EvaluationFacts"] | None = None

    def on(self, dataset: Digest) -> "EvaluationFacts | None":
        """The facts of an evaluation on a hold-out; None where there is none."""
        if self.dataset == dataset != NO_DATASET:
            return self
        return (self.evaluated_on or {}).get(dataset)

    def latency(self, rows: int) -> Latency | None:
        """The latency of calls of so many rows; None where it was not measured."""
        return next((each for each in self.latencies if each.rows == rows), None)

    def to_json(self) -> dict[str, Any]:
        """Plain data of the evaluation and the latencies."""
        return {
            "dataset": self.dataset,
            "metrics": dict(self.metrics),
            "slices": {name: {part: dict(each) for part, each in parts.items()} for name, parts in self.slices.items()},
            "latencies": [each.to_json() for each in self.latencies],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "EvaluationFacts":
        """The inverse of `to_json`. Raises InvalidDefinition for anything else."""
        try:
            return cls(
                dataset=Digest(str(data["dataset"])),
                metrics=_numbers(data["metrics"]),
                slices={
                    name: {part: _numbers(each) for part, each in parts.items()}
                    for name, parts in data["slices"].items()
                },
                latencies=tuple(Latency(**each) for each in data.get("latencies", ())),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InvalidDefinition(f"this is no held-out evaluation: {error!r}") from error


def facts_of(provenance: Mapping[str, Any]) -> EvaluationFacts:
    """The held-out evaluation of a bundle, from its provenance. Raises InvalidDefinition where it has none."""
    holdout = provenance.get("holdout")
    if not isinstance(holdout, Mapping) or "dataset" not in holdout:
        raise InvalidDefinition(
            "the bundle's provenance has no held-out evaluation, so no gate can be checked",
            hint="train the model with `skewless train`, or `skewless bundle evaluate` the bundle",
        )
    return EvaluationFacts.from_json(holdout)


def _numbers(data: Mapping[str, Any]) -> dict[str, float | int | None]:
    numbers = dict(data)
    for name, value in numbers.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise ValueError(f"metric `{name}` is {value!r}, no number")
    return numbers
