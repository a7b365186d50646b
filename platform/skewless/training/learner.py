"""What fits a model: a declared learner, or a training function of a feature repository.

::

    def fit(data: TrainingData) -> TrainedModel:       # at the top of a module beside the model's definition
        booster = lightgbm.train({"seed": data.seed, …}, lightgbm.Dataset(data.tensor, data.labels))
        return lightgbm_trainer.to_onnx(booster, data)

A training function runs in the training process, twice: on the rows known before the hold-out, for the metrics, and
on all rows, for the model that is shipped. Its source is pinned by digest in the bundle's provenance.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skewless.bundles.model_files import ModelFiles
from skewless.errors import InvalidDefinition
from skewless.features.function_source import digest_of, function_name
from skewless.serving.ports import ModelSignature

INPUT_NAME = "features"
OUTPUT_NAME = "probabilities"
"""The output of a binary classifier: (rows, 2) probabilities of the negative and the positive class."""
CLASSES = 2

Progress = Callable[[str], None]
Scorer = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Runs a model: tensor (rows, columns) to its outputs (rows, classes), float32."""

_OWN_MODULE = (
    "write it as a plain function `fit(data)` at the top of a module of the feature repository, beside the model"
)


@dataclass(frozen=True, slots=True)
class TrainingData:
    """Everything a learner is given; the hold-out is never in it while the metrics are made.

    `tensor` is float32 (rows, outputs of the transform), finite; `labels` bool (rows,) with both classes; `weights`
    float64 (rows,), all 1 where the model declares none; `as_of` int64 µs (rows,), never decreasing.
    """

    tensor: NDArray[np.float32]
    labels: NDArray[np.bool_]
    weights: NDArray[np.float64]
    as_of: NDArray[np.int64]
    output_names: tuple[str, ...]
    seed: int = 7
    progress: Progress = field(default=lambda _: None)

    def __post_init__(self) -> None:
        _check_arrays(self)
        _check_values(self)

    @property
    def rows(self) -> int:
        """How many examples."""
        return len(self.labels)

    @property
    def is_weighted(self) -> bool:
        """Whether any row weighs other than 1."""
        return bool((self.weights != 1.0).any())

    def newest(self, share: float) -> NDArray[np.bool_]:
        """A mask (rows,) of about the newest `share` of the rows, for early stopping; equal times stay together.

        Raises InvalidDefinition for a share that leaves one side empty.
        """
        count = round(self.rows * share)
        if not 0 < count < self.rows or self.as_of[-count] == self.as_of[0]:
            raise InvalidDefinition(f"the newest {share:g} of {self.rows} rows cannot be set aside")
        mask: NDArray[np.bool_] = self.as_of >= self.as_of[-count]
        return mask


def _check_arrays(data: TrainingData) -> None:
    rows = (len(data.labels),)
    shapes_fit = data.tensor.shape == (*rows, len(data.output_names)) and data.weights.shape == data.as_of.shape == rows
    if data.tensor.dtype != np.float32 or data.labels.dtype != np.bool_ or data.labels.ndim != 1 or not shapes_fit:
        raise InvalidDefinition(
            f"training takes float32 (rows, {len(data.output_names)}) and bool (rows,), got {data.tensor.dtype}"
            f" {data.tensor.shape} and {data.labels.dtype} {data.labels.shape} with weights {data.weights.shape}"
        )


def _check_values(data: TrainingData) -> None:
    positives = int(data.labels.sum())
    if not 0 < positives < data.rows:
        raise InvalidDefinition(
            f"{positives:,} of {data.rows:,} training labels are positive; both classes must occur",
            hint="check the training period and the label column of the examples",
        )
    if not np.isfinite(data.tensor).all():
        row, place = (int(each[0]) for each in np.nonzero(~np.isfinite(data.tensor)))
        name, value = data.output_names[place], data.tensor[row, place]
        raise InvalidDefinition(
            f"column `{name}` of training row {row} is {value}; it must be finite",
            hint="clean() and impute() the column in the transform",
        )


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """A fitted model. `notes` are facts for the provenance (plain data), such as the largest conversion error.

    `versions` names the libraries that shaped it. `score` runs a model whose format cannot be run from its files in
    the training process; None lets training run the files.
    """

    files: ModelFiles
    signature: ModelSignature
    notes: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    score: Scorer | None = None


TrainingFunction = Callable[[TrainingData], TrainedModel]


def classifier_signature(columns: int) -> ModelSignature:
    """The tensors of a binary classifier over `columns` inputs."""
    return ModelSignature(INPUT_NAME, columns, ((OUTPUT_NAME, CLASSES),))


def function_record(function: TrainingFunction) -> dict[str, str]:
    """What pins a training function: its name and the digest of its source. Raises InvalidDefinition for a lambda,
    a nested function, a method, and one whose source cannot be read."""
    try:
        name = function_name(function)
        return {"kind": "function", "function": name, "source_digest": digest_of(name, import_module)}
    except InvalidDefinition as error:
        raise InvalidDefinition(f"the training function cannot be pinned: {error.message}", hint=_OWN_MODULE) from error


def positive_probability(outputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """The probability of the positive class (rows,) of a binary model's output (rows, 1 or 2): its last column."""
    return np.ascontiguousarray(outputs[:, -1])
