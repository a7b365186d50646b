"""A bundle judged on a model's hold-out that is not its own, so that two bundles can be compared on the same rows."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from skewless.bundles.bundle import Bundle
from skewless.errors import InvalidDefinition
from skewless.timestamps import format_timestamp, parse_timestamp
from skewless.training.dataset import Dataset
from skewless.training.definition import ModelDefinition
from skewless.training.examples import select
from skewless.training.holdout import HoldoutEvaluation, evaluate_holdout
from skewless.training.learner import Progress, Scorer
from skewless.training.training_set import OfflineFeatures, holdout_dataset, read_training_set


@dataclass(frozen=True, slots=True)
class BundleEvaluation:
    """Metrics of a bundle's served scores on a hold-out; `slices_left_out` cannot be cut by what the bundle reads."""

    dataset: Dataset
    evaluation: HoldoutEvaluation
    slices_left_out: tuple[str, ...]


def evaluate_bundle(
    bundle: Bundle,
    definition: ModelDefinition,
    offline: OfflineFeatures,
    run_model: Callable[[Bundle], Scorer],
    progress: Progress,
) -> BundleEvaluation:
    """Score the definition's hold-out with the bundle, as it would be served, and judge the scores.

    Raises InvalidDefinition where the bundle was trained on rows of the hold-out: its metrics would flatter it.
    """
    _require_unseen(bundle, definition)
    progress("joining features to held-out examples, point in time")
    rows = read_training_set(definition, bundle.contract, offline, definition.holdout)
    held = rows.held_out
    labels, count = rows.examples.labels[held], int(np.count_nonzero(held))
    columns = select(rows.columns, held)
    progress(f"scoring {count:,} rows")
    outputs = run_model(bundle)(bundle.transform.prepare().apply(columns, count))
    _, scores = bundle.post.apply({bundle.post.output: outputs})
    slices = [each for each in definition.slices if each.source in columns]
    return BundleEvaluation(
        dataset=holdout_dataset(rows),
        evaluation=evaluate_holdout(labels, scores, columns, slices),
        slices_left_out=tuple(each.name for each in definition.slices if each not in slices),
    )


def _require_unseen(bundle: Bundle, definition: ModelDefinition) -> None:
    try:
        trained_until = parse_timestamp(bundle.provenance["training"]["end"])
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidDefinition(
            f"bundle {bundle.digest[:12]} does not say until when it was trained, so it may have seen the hold-out"
        ) from error
    if trained_until > definition.holdout.start:
        raise InvalidDefinition(
            f"bundle {bundle.digest[:12]} was trained on what was known by {format_timestamp(trained_until)}; the"
            f" hold-out of `{definition.name}` begins at {format_timestamp(definition.holdout.start)}",
            hint="its own held-out metrics are in its provenance; choose a model whose hold-out is later",
        )
