"""What a fitted model must be before it is judged or shipped, whoever fitted it."""

import numpy as np
from numpy.typing import NDArray

from skewless.errors import InvalidDefinition
from skewless.training.learner import CLASSES, Scorer, TrainedModel

SUM_ERROR_MAX = 1e-3
"""How far from 1 the two probabilities of a row may add up; float32 is good for 1e-6, rounded models for less."""
_ROWS_ALONE = 64
"""Rows that are run one by one to compare with the batch."""


def check_model(model: TrainedModel, columns: int) -> None:
    """Raise InvalidDefinition unless a learner gave a binary classifier over `columns` inputs."""
    if not isinstance(model, TrainedModel):
        raise InvalidDefinition(
            f"the training function returned {type(model).__name__}, it must return a TrainedModel",
            hint="end it with one of the adapters' to_onnx functions",
        )
    signature = model.signature
    if signature.input_columns != columns:
        raise InvalidDefinition(
            f"the model takes {signature.input_columns} columns, the transform gives {columns}",
            hint="train on all of `data.tensor`; leave a column out in the transform",
        )
    if len(signature.outputs) != 1 or signature.outputs[0][1] not in (1, CLASSES):
        raise InvalidDefinition(
            f"the model has the outputs {list(signature.outputs)}; a binary classifier has one, with the positive class"
            f" in its last of 1 or {CLASSES} columns"
        )


def check_scores(outputs: NDArray[np.float32]) -> None:
    """Raise InvalidDefinition unless outputs (rows, 1 or 2) are probabilities."""
    if outputs.dtype != np.float32 or outputs.ndim != 2:
        raise InvalidDefinition(f"the model gave {outputs.dtype} {outputs.shape}; it must give float32 (rows, columns)")
    wrong = ~((outputs >= 0.0) & (outputs <= 1.0)).all(axis=1)
    if outputs.shape[1] == CLASSES:
        wrong |= np.abs(outputs.sum(axis=1, dtype=np.float64) - 1.0) > SUM_ERROR_MAX
    if wrong.any():
        row = int(wrong.argmax())
        raise InvalidDefinition(
            f"the model gave {outputs[row].tolist()} for row {row}, which are no probabilities",
            hint="end the model with a sigmoid or softmax; finite inputs must give finite outputs",
        )


def batch_difference(scorer: Scorer, tensor: NDArray[np.float32]) -> float:
    """The largest difference between outputs of rows alone and in a batch; 0.0 when their bits are equal.

    Trees give 0.0. A matrix product may add in another order for one row than for many, and then live predictions
    differ from batch scoring in their last bits; the provenance says by how much.
    """
    rows = tensor[:_ROWS_ALONE]
    together = scorer(tensor)[:_ROWS_ALONE]
    alone = np.concatenate([scorer(rows[row : row + 1]) for row in range(len(rows))]) if len(rows) else together
    return float(np.abs(together.astype(np.float64) - alone).max(initial=0.0))
