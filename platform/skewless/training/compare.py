"""Two bundles side by side: metrics, slices, contract, transform, baseline, and everything that is stated of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from skewless.bundles.bundle import Bundle
from skewless.canonical_json import Digest
from skewless.errors import InvalidDefinition
from skewless.features.contract_changes import contract_differences
from skewless.statistics.comparison import BaselineComparison, compare_baselines
from skewless.training.facts import EvaluationFacts, facts_of
from skewless.training.gates import HIGHER_IS_BETTER, worsening
from skewless.transforms.difference import Difference, compare

_METRICS = (
    "rows",
    "positives",
    "auroc",
    "auroc_low",
    "auroc_high",
    "average_precision",
    "brier",
    "log_loss",
    "ece",
    "mean_score",
)
_SLICE_METRIC = "auroc"
_NOT_STATED = ("holdout", "gates", "dataset_digest")
"""Parts of a provenance that are told elsewhere, or only as whether they differ."""


@dataclass(frozen=True, slots=True)
class Row:
    """One thing of both bundles, as plain data; None where a bundle has none.

    `better` is whether the second is better, None where it cannot be said or makes no difference.
    """

    name: str
    before: Any
    after: Any
    better: bool | None = None


@dataclass(frozen=True, slots=True)
class MetricRows:
    """Metrics of both. `note` says on which rows; `comparable` whether those are the same."""

    comparable: bool
    note: str
    rows: tuple[Row, ...]
    slices: tuple[Row, ...]
    """AUROC of each part of the slices that both have, by `slice/part`."""


@dataclass(frozen=True, slots=True)
class BundleComparison:
    """Everything in which two bundles differ; `stated` are serving profile, model, post-processing and provenance."""

    before: Digest
    after: Digest
    metrics: MetricRows
    contract: tuple[str, ...]
    transform: Difference
    baseline: BaselineComparison
    stated: tuple[Row, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "before": self.before,
            "after": self.after,
            "metrics": {
                "comparable": self.metrics.comparable,
                "note": self.metrics.note,
                "rows": [asdict(row) for row in self.metrics.rows],
                "slices": [asdict(row) for row in self.metrics.slices],
            },
            "contract": list(self.contract),
            "transform": self.transform.to_json(),
            "baseline": self.baseline.to_json(),
            "stated": [asdict(row) for row in self.stated],
        }


def compare_bundles(
    before: Bundle, after: Bundle, evaluated: Mapping[Digest, EvaluationFacts] | None = None
) -> BundleComparison:
    """Compare two loaded bundles. `evaluated` has evaluations of the first by hold-out, apart from its own."""
    return BundleComparison(
        before=before.digest,
        after=after.digest,
        metrics=_metrics(before, after, evaluated or {}),
        contract=tuple(contract_differences(before.contract, after.contract)),
        transform=compare(before.transform, after.transform),
        baseline=compare_baselines(before.baseline, after.baseline),
        stated=tuple(_changed(_stated(before), _stated(after))),
    )


def _metrics(before: Bundle, after: Bundle, evaluated: Mapping[Digest, EvaluationFacts]) -> MetricRows:
    old, new = _facts(before), _facts(after)
    if old is None or new is None:
        without = " and ".join(each.digest[:12] for each, facts in ((before, old), (after, new)) if facts is None)
        return MetricRows(comparable=False, note=f"no held-out evaluation of {without}", rows=(), slices=())
    if old.dataset == new.dataset:
        note, comparable = "both on one hold-out", True
    elif (found := evaluated.get(new.dataset)) is not None:
        old, note, comparable = found, "both on the second bundle's hold-out", True
    else:
        note, comparable = "each on its own hold-out: the numbers are not comparable", False
    slices = [
        _row(f"{name}/{part}", _SLICE_METRIC, old.slices[name][part], metrics, comparable=comparable)
        for name, parts in new.slices.items()
        for part, metrics in parts.items()
        if part in old.slices.get(name, {})
    ]
    rows = [_row(name, name, old.metrics, new.metrics, comparable=comparable) for name in _METRICS]
    return MetricRows(comparable, note, tuple(rows), tuple(slices))


def _facts(bundle: Bundle) -> EvaluationFacts | None:
    try:
        return facts_of(bundle.provenance)
    except InvalidDefinition:
        return None


def _row(name: str, metric: str, before: Mapping[str, Any], after: Mapping[str, Any], *, comparable: bool) -> Row:
    old, new = before.get(metric), after.get(metric)
    if not comparable or metric not in HIGHER_IS_BETTER or old is None or new is None or old == new:
        return Row(name, old, new)
    return Row(name, old, new, better=worsening(metric, old, new) < 0)


def _stated(bundle: Bundle) -> dict[str, Any]:
    """What the bundle states of itself, as one table of dotted paths."""
    provenance = {name: value for name, value in bundle.provenance.items() if name not in _NOT_STATED}
    return {
        **_flat("serving", bundle.serving.to_json()),
        **_flat("post_processing", bundle.post.to_json()),
        "model.format": bundle.model.format.value,
        "dataset": bundle.provenance.get("dataset_digest"),
        **_flat("gates", bundle.provenance.get("gates", [])),
        **_flat("", provenance),
    }


def _flat(path: str, value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping) and value:
        below = ((f"{path}.{name}" if path else str(name), each) for name, each in value.items())
    elif isinstance(value, Sequence) and not isinstance(value, str) and value:
        below = ((f"{path}[{index}]", each) for index, each in enumerate(value))
    else:
        return {path: value}
    return {name: leaf for place, each in below for name, leaf in _flat(place, each).items()}


def _changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Row]:
    for name in dict.fromkeys((*before, *after)):
        if before.get(name) != after.get(name):
            yield Row(name, before.get(name), after.get(name))
