"""Training, from a definition to a bundle on disk.

    training set  examples with their features, point in time                 (rows, contract columns)
    tensor        the fitted transform of it                                   (rows, outputs) float32
    model         fitted on the rows before the hold-out and judged on it, then fitted again on all rows
    calibration   fitted on the hold-out's scores, judged by cross-fitting

The bundle carries the second model and the metrics of the first, and says so in its provenance.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from skewless.features.contract import FeatureContract
from skewless.training.assembly import Parts, Training, assemble
from skewless.training.definition import ModelDefinition
from skewless.training.examples import select
from skewless.training.judgement import Judgement, judge
from skewless.training.learner import Progress, Scorer, TrainedModel, TrainingFunction, positive_probability
from skewless.training.model_checks import check_model, check_scores
from skewless.training.training_set import OfflineFeatures, TrainingSet, read_training_set


@dataclass(frozen=True, slots=True)
class TrainingParts:
    """What training needs from the outside. `code` is the revision that trains, as plain data for the provenance."""

    offline: OfflineFeatures
    fit: TrainingFunction
    run_model: Callable[[TrainedModel], Scorer]
    code: Mapping[str, Any] = field(default_factory=dict)


def train(
    definition: ModelDefinition, contract: FeatureContract, parts: TrainingParts, folder: Path, progress: Progress
) -> Training:
    """Train, evaluate and write the bundle into `folder`.

    Raises InvalidDefinition where the examples cannot teach the model or the learner gives no usable one,
    BundleRefused where parts do not fit.
    """
    learner = definition.learner_record()  # first, so that a function that cannot be pinned costs no training
    progress("joining features to examples, point in time")
    rows = read_training_set(definition, contract, parts.offline)
    known = rows.known
    judgement = _judge(rows, parts, progress)
    progress(f"fitting on all {np.count_nonzero(known):,} rows")
    transform, data, columns = rows.prepared(known, progress)
    model = parts.fit(data)
    check_model(model, len(transform.output_names))
    progress("writing the bundle")
    fitted = Parts(transform, model, parts.run_model(model), data, columns, learner, parts.code)
    return assemble(rows, fitted, judgement, folder)


def _judge(rows: TrainingSet, parts: TrainingParts, progress: Progress) -> Judgement:
    """Fit on what was known when the hold-out began, and score the hold-out."""
    fit_rows, held = rows.before_holdout, rows.held_out
    progress(f"fitting on {np.count_nonzero(fit_rows):,} rows for the hold-out")
    transform, data, _ = rows.prepared(fit_rows, progress)
    model = parts.fit(data)
    check_model(model, len(transform.output_names))
    count = int(np.count_nonzero(held))
    progress(f"evaluating on {count:,} held-out rows")
    outputs = parts.run_model(model)(transform.prepare().apply(select(rows.columns, held), count))
    check_scores(outputs)
    return judge(rows, positive_probability(outputs), fitted_rows=data.rows)
