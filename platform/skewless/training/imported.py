"""A bundle around a model that was fitted elsewhere: its transform, golden vectors, baseline and metrics are made here.

The transform must give the model what it was fitted on. Where the notebook that fitted the model used this repository's
definition, fitting the transform again on the same rows teaches it the same bits; otherwise the fitted transform that
was used is given.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from skewless.errors import InvalidDefinition
from skewless.features.contract import FeatureContract
from skewless.training.assembly import Parts, Training, assemble
from skewless.training.definition import ModelDefinition
from skewless.training.examples import select
from skewless.training.judgement import judge
from skewless.training.learner import Progress, Scorer, TrainedModel, TrainingData, positive_probability
from skewless.training.model_checks import check_model, check_scores
from skewless.training.training_set import OfflineFeatures, TrainingSet, read_training_set
from skewless.transforms import FittedTransform


@dataclass(frozen=True, slots=True)
class ImportedModel:
    """A model with where it came from (plain data), and the names of its inputs in order, empty where it has none."""

    model: TrainedModel
    source: Mapping[str, Any]
    input_names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ImportParts:
    """What an import needs. `transform` is the one that the model was fitted on; None fits the declared one again."""

    offline: OfflineFeatures
    run_model: Callable[[TrainedModel], Scorer]
    transform: FittedTransform | None = None
    code: Mapping[str, Any] = field(default_factory=dict)


def import_model(
    read: Callable[[int], ImportedModel],
    definition: ModelDefinition,
    contract: FeatureContract,
    parts: ImportParts,
    folder: Path,
    progress: Progress,
) -> Training:
    """Judge the model on the definition's hold-out and write the bundle into `folder`.

    `read` gives the model, told how many columns the transform has. Raises InvalidDefinition where the transform's
    outputs are not the model's inputs, BundleRefused as `assemble`.
    """
    progress("joining features to examples, point in time")
    rows = read_training_set(definition, contract, parts.offline)
    transform, data, columns = _prepared(rows, parts.transform, progress)
    imported = read(len(transform.output_names))
    check_model(imported.model, len(transform.output_names))
    _check_names(imported.input_names, transform.output_names)
    scorer = parts.run_model(imported.model)
    held = rows.held_out
    count = int(np.count_nonzero(held))
    progress(f"evaluating on {count:,} held-out rows")
    outputs = scorer(transform.prepare().apply(select(rows.columns, held), count))
    check_scores(outputs)
    judgement = judge(rows, positive_probability(outputs), fitted_rows=None)
    progress("writing the bundle")
    fitted = Parts(transform, imported.model, scorer, data, columns, dict(imported.source), parts.code)
    return assemble(rows, fitted, judgement, folder)


def _prepared(
    rows: TrainingSet, given: FittedTransform | None, progress: Progress
) -> tuple[FittedTransform, TrainingData, Mapping[str, Any]]:
    if given is None:
        return rows.prepared(rows.known, progress)
    known = rows.known
    columns = select(rows.columns, known)
    labels = rows.examples.labels[known]
    data = TrainingData(
        tensor=given.prepare().apply(columns, len(labels)),
        labels=labels,
        weights=np.ones(len(labels)),
        as_of=rows.examples.as_of[known],
        output_names=given.output_names,
        progress=progress,
    )
    return given, data, columns


def _check_names(inputs: tuple[str, ...], outputs: tuple[str, ...]) -> None:
    """Raise InvalidDefinition where a model that names its inputs was fitted on others, or in another order."""
    if not inputs or inputs == outputs:
        return
    place = next(index for index, (wanted, given) in enumerate(zip(inputs, outputs, strict=True)) if wanted != given)
    raise InvalidDefinition(
        f"the model's input {place} is `{inputs[place]}`, the transform's output {place} is `{outputs[place]}`",
        hint="give the transform that the model was fitted on, with its outputs under the same names and in that order",
    )
