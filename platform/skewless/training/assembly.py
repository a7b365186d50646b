"""A bundle out of what training gave: golden vectors, baseline and provenance are made here, whoever fitted it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skewless.bundles.bundle import BundleContent, write_bundle
from skewless.bundles.golden import GoldenVectors
from skewless.bundles.post_processing import PostProcessing
from skewless.canonical_json import Digest
from skewless.dtypes import Column
from skewless.statistics.ages import ages_of
from skewless.statistics.baseline import Baseline, baseline_of
from skewless.training.dataset import Dataset
from skewless.training.examples import select
from skewless.training.holdout import HoldoutEvaluation
from skewless.training.judgement import Judgement
from skewless.training.learner import Scorer, TrainedModel, TrainingData
from skewless.training.model_checks import batch_difference, check_scores
from skewless.training.provenance import provenance_of
from skewless.training.training_set import TrainingSet
from skewless.transforms import FittedTransform
from skewless.transforms.golden_rows import choose


@dataclass(frozen=True, slots=True)
class Training:
    """What training gave. `judgement` is of the hold-out; `rows` were used by the final fit."""

    digest: Digest
    folder: Path
    rows: int
    dataset: Dataset
    judgement: Judgement

    @property
    def evaluation(self) -> HoldoutEvaluation:
        """Metrics on the hold-out."""
        return self.judgement.evaluation


@dataclass(frozen=True, slots=True)
class Parts:
    """The fitted transform and model, and the rows `data` with their `columns` that the transform was fitted on."""

    transform: FittedTransform
    model: TrainedModel
    scorer: Scorer
    data: TrainingData
    columns: Mapping[str, Column]
    learner: Mapping[str, Any]
    """Who fitted the model, as plain data for the provenance."""
    code: Mapping[str, Any]


def assemble(rows: TrainingSet, parts: Parts, judgement: Judgement, folder: Path) -> Training:
    """Write the bundle into `folder`. Raises BundleRefused where parts do not fit."""
    definition, transform = rows.definition, parts.transform
    golden, left_out = _golden(parts)
    dataset = rows.dataset(parts.data, parts.columns)
    content = BundleContent(
        name=definition.name,
        contract=rows.contract,
        transform=transform,
        model=parts.model.files,
        signature=parts.model.signature,
        serving=definition.serving,
        post=PostProcessing(definition.labels, judgement.calibration, *golden.outputs),
        baseline=_baseline(rows, parts, judgement),
        golden=golden,
        provenance=provenance_of(
            definition,
            dataset,
            judgement,
            learner=parts.learner,
            model=parts.model,
            code=parts.code,
            batch_difference=batch_difference(parts.scorer, golden.tensor),
            golden_left_out=left_out,
        ),
    )
    return Training(write_bundle(content, folder), folder, parts.data.rows, dataset, judgement)


def _golden(parts: Parts) -> tuple[GoldenVectors, int]:
    """Golden vectors, and how many rows are none because the model gives no probability for them.

    Those are made rows, with infinities where no column is cleaned: a tree has an answer for them, a product has none.
    """
    chosen = choose(parts.transform, parts.columns, parts.data.rows)
    tensor = parts.transform.prepare().apply(chosen.columns, chosen.rows)
    outputs = parts.scorer(tensor)
    kept = np.asarray(np.isfinite(outputs).all(axis=1))
    check_scores(outputs[kept])
    reasons = tuple(reason for reason, keep in zip(chosen.reasons, kept.tolist(), strict=True) if keep)
    (name, _), *_ = parts.model.signature.outputs
    golden = GoldenVectors(select(chosen.columns, kept), tensor[kept], {name: outputs[kept]}, reasons)
    return golden, int(np.count_nonzero(~kept))


def _baseline(rows: TrainingSet, parts: Parts, judgement: Judgement) -> Baseline:
    """What serving will be compared with. The scores are the hold-out's: those of rows trained on are too sure."""
    known = rows.known
    event_times = {view: times[known] for view, times in rows.frame.event_times.items()}
    return baseline_of(
        rows.contract,
        parts.transform,
        parts.columns,
        _served_tensor(parts),
        {"score": judgement.scores},
        ages_of(event_times, parts.data.as_of),
        parts.data.rows,
        statuses={name: codes[known] for name, codes in rows.frame.statuses.items()},
    )


def _served_tensor(parts: Parts) -> NDArray[np.float32]:
    """The training rows as serving transforms them, which differs from what a learner was given by target encodings."""
    if any(node.operation.needs_target for node in parts.transform.graph.nodes):
        return parts.transform.prepare().apply(parts.columns, parts.data.rows)
    return parts.data.tensor
