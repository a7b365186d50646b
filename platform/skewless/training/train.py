"""Training, from a definition to a bundle on disk.

    examples   questions of the training period with their answers           (rows)
    features   every stored feature as it was visible at each question       (rows, contract columns)
    tensor     the fitted transform of both                                  (rows, outputs) float32
    model      fitted on the rows before the hold-out, evaluated on it, then fitted again on all rows

The bundle carries the second model and the metrics of the first, and says so in its provenance.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from skewless import __version__
from skewless.bundles.bundle import BundleContent, write_bundle
from skewless.bundles.golden import GoldenVectors
from skewless.canonical_json import Digest, digest, digest_bytes
from skewless.dtypes import Column, Dtype, to_python
from skewless.errors import InvalidDefinition
from skewless.features.contract import FeatureContract
from skewless.features.frame import FeatureFrame
from skewless.serving.ports import ModelSignature
from skewless.timestamps import format_timestamp
from skewless.training.definition import ExampleTable, ModelDefinition, Period
from skewless.training.evaluation import Evaluation, evaluate
from skewless.training.examples import Examples, select
from skewless.transforms import out_of_fold
from skewless.transforms.golden_rows import choose

Progress = Callable[[str], None]
Scorer = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Runs a model: tensor (rows, columns) to its outputs (rows, classes), float32."""


class OfflineFeatures(Protocol):
    """The offline store as training needs it."""

    def examples(self, table: ExampleTable, contract: FeatureContract, period: Period) -> Examples:
        """Example rows asked in a period, ordered by `as_of`."""
        ...

    def features_at(
        self, contract: FeatureContract, keys: Mapping[str, Column], as_of: NDArray[np.int64]
    ) -> FeatureFrame:
        """Every stored feature for each row at its `as_of`, by the visibility rule."""
        ...


@dataclass(frozen=True, slots=True)
class LearnedModel:
    """An ONNX file with one FP32 input and one FP32 output of `output_columns` per row."""

    onnx: bytes
    input_name: str
    output_name: str
    output_columns: int
    notes: Mapping[str, Any]
    """Facts for the provenance, such as the largest conversion error; plain data."""


class Learner(Protocol):
    """Fits a model and runs one."""

    def fit(self, tensor: NDArray[np.float32], labels: NDArray[np.bool_], progress: Progress) -> LearnedModel: ...

    def scorer(self, model: LearnedModel) -> Scorer: ...

    def versions(self) -> Mapping[str, str]:
        """Library versions that shaped the model, for the provenance."""
        ...


@dataclass(frozen=True, slots=True)
class Training:
    """What training gave. `evaluation` is of the hold-out fit; `rows` were used by the final fit."""

    digest: Digest
    folder: Path
    rows: int
    evaluation: Evaluation


def train(
    definition: ModelDefinition,
    contract: FeatureContract,
    offline: OfflineFeatures,
    learner: Learner,
    folder: Path,
    progress: Progress,
) -> Training:
    """Train, evaluate and write the bundle into `folder`.

    Raises InvalidDefinition where the examples cannot teach the model, BundleRefused where parts do not fit.
    """
    progress("joining features to examples, point in time")
    examples = offline.examples(definition.examples, contract, definition.training)
    frame = offline.features_at(contract, examples.keys, examples.as_of)
    columns = {**examples.keys, **frame.columns}
    known = examples.known_by(definition.training.end)
    _require_both_classes(examples, known, definition.name)

    evaluation = _evaluate_holdout(definition, examples, columns, learner, progress)
    progress(f"fitting on all {np.count_nonzero(known):,} rows")
    training_columns = select(columns, known)
    rows = int(np.count_nonzero(known))
    transform, tensor = out_of_fold(definition.transform, training_columns, rows, _target(examples, known))
    model = learner.fit(tensor, examples.labels[known], progress)

    progress("writing the bundle")
    golden = choose(transform, training_columns, rows)
    golden_tensor = transform.prepare().apply(golden.columns, golden.rows)
    outputs = learner.scorer(model)(golden_tensor)
    content = BundleContent(
        name=definition.name,
        contract=contract,
        transform=transform,
        model=model.onnx,
        signature=ModelSignature(model.input_name, tensor.shape[1], ((model.output_name, model.output_columns),)),
        labels=definition.labels,
        golden=GoldenVectors(golden.columns, golden_tensor, {model.output_name: outputs}, golden.reasons),
        provenance=_provenance(definition, examples, training_columns, known, evaluation, model, learner),
    )
    return Training(write_bundle(content, folder), folder, rows, evaluation)


def _evaluate_holdout(
    definition: ModelDefinition,
    examples: Examples,
    columns: Mapping[str, Column],
    learner: Learner,
    progress: Progress,
) -> Evaluation:
    """Fit on what was known when the hold-out began, score the hold-out."""
    fit_rows = examples.known_by(definition.holdout.start)
    held_out = (
        examples.labelled & (examples.as_of >= definition.holdout.start) & (examples.as_of < definition.holdout.end)
    )
    _require_both_classes(examples, fit_rows, definition.name)
    _require_both_classes(examples, held_out, definition.name)
    progress(f"fitting on {np.count_nonzero(fit_rows):,} rows for the hold-out")
    fit_columns, held_columns = select(columns, fit_rows), select(columns, held_out)
    rows = int(np.count_nonzero(fit_rows))
    transform, tensor = out_of_fold(definition.transform, fit_columns, rows, _target(examples, fit_rows))
    model = learner.fit(tensor, examples.labels[fit_rows], progress)
    progress(f"evaluating on {np.count_nonzero(held_out):,} held-out rows")
    outputs = learner.scorer(model)(transform.prepare().apply(held_columns, int(np.count_nonzero(held_out))))
    return evaluate(examples.labels[held_out], positive_probability(outputs))


def _target(examples: Examples, rows: NDArray[np.bool_]) -> Column:
    """What target encodings learn from: the labels of some rows."""
    labels = examples.labels[rows]
    return Column(Dtype.BOOL, labels, np.ones(len(labels), dtype=np.bool_))


def positive_probability(outputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """The probability of the positive class (rows,) of a binary model's output (rows, 2)."""
    return np.ascontiguousarray(outputs[:, 1])


def _require_both_classes(examples: Examples, rows: NDArray[np.bool_], name: str) -> None:
    positives = int(np.count_nonzero(examples.labels[rows]))
    count = int(np.count_nonzero(rows))
    if not 0 < positives < count:
        raise InvalidDefinition(
            f"model `{name}`: {count} labelled rows, {positives} of them positive, cannot teach or test a classifier",
            hint="check the example table's label and the model's periods",
        )


def _provenance(
    definition: ModelDefinition,
    examples: Examples,
    columns: Mapping[str, Column],
    known: NDArray[np.bool_],
    evaluation: Evaluation,
    model: LearnedModel,
    learner: Learner,
) -> dict[str, Any]:
    return {
        "model": definition.name,
        "training": _period_json(definition.training),
        "rows": int(np.count_nonzero(known)),
        "dataset_digest": _dataset_digest(columns, examples.as_of[known], examples.labels[known]),
        "holdout": {
            **_period_json(definition.holdout),
            "metrics": evaluation.to_json(),
            "note": "metrics are of a fit on the rows known before the hold-out; the shipped model is fitted on all",
        },
        "learner": {"kind": type(definition.learner).__name__, **asdict(definition.learner)},
        "conversion": dict(model.notes),
        "versions": {"skewless": __version__, **learner.versions()},
    }


def _period_json(period: Period) -> dict[str, str]:
    return {"start": format_timestamp(period.start), "end": format_timestamp(period.end)}


def _dataset_digest(columns: Mapping[str, Column], as_of: NDArray[np.int64], labels: NDArray[np.bool_]) -> Digest:
    """SHA-256 over every input value of the training set, column by column."""
    parts = {name: _column_digest(column) for name, column in columns.items()}
    return digest({**parts, "as_of": digest(as_of.tolist()), "label": digest(labels.tolist())})


def _column_digest(column: Column) -> Digest:
    if column.values.dtype == np.dtype(object):
        return digest([item.hex() if isinstance(item, bytes) else item for item in to_python(column)])
    little_endian = column.values.astype(column.values.dtype.newbyteorder("<"))
    return digest_bytes(little_endian.tobytes() + column.valid.tobytes())
