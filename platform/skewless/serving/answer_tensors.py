"""What a model of the Open Inference Protocol gives back: tensors with a row per instance, as JSON or as raw bytes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skewless.errors import InvalidRequest
from skewless.serving.data_plane import Answer
from skewless.serving.instances import unknown_name


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, datatype and shape of an input or output, as a model's metadata tells them; -1 is the number of rows."""

    name: str
    datatype: str
    shape: tuple[int, ...] = (-1, 1)
    optional: bool = False


OUTPUTS = (TensorSpec("label", "BYTES"), TensorSpec("probability", "FP32"), TensorSpec("prediction_id", "BYTES"))
"""What an endpoint gives as a model, in the order of the request's rows."""


@dataclass(slots=True)
class AnswerTensor:
    """One output. `values` are texts (rows,) for BYTES, and float32 of any shape for FP32.

    Not frozen, because making it would take three times as long, and three are made for every request.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: Sequence[str] | NDArray[np.float32]

    def data(self) -> list[str] | list[float]:
        """Its elements in row-major order, for JSON. A float32 is told exactly; NaN and infinities become null."""
        if isinstance(self.values, np.ndarray):
            floats: list[float] = self.values.ravel().tolist()
            return floats
        return list(self.values)

    def raw(self) -> bytes:
        """Its elements in row-major order, little-endian; texts in UTF-8, each after its length in four bytes."""
        if isinstance(self.values, np.ndarray):
            return self.values.astype("<f4", copy=False).tobytes()
        return raw_strings(self.values)


def answer_tensors(answer: Answer) -> tuple[AnswerTensor, ...]:
    """The outputs of an endpoint, as `OUTPUTS` lists them."""
    shape = (len(answer.prediction_ids), 1)
    label, probability, prediction_id = OUTPUTS
    return (
        AnswerTensor(label.name, label.datatype, shape, answer.labels),
        AnswerTensor(probability.name, probability.datatype, shape, answer.probabilities),
        AnswerTensor(prediction_id.name, prediction_id.datatype, shape, answer.prediction_ids),
    )


def checked_names(wanted: Sequence[str], offered: Sequence[TensorSpec]) -> tuple[str, ...]:
    """The names of outputs that a caller wants, in its order; all where it names none. Raises InvalidRequest."""
    known = tuple(spec.name for spec in offered)
    for index, name in enumerate(wanted):
        if name not in known:
            raise unknown_name(name, known, path="$.outputs", what="output")
        if name in wanted[:index]:
            raise InvalidRequest(
                f"output `{name}` is asked for twice",
                path=f"$.outputs[{index}].name",
                allowed="each output once",
                code="invalid_tensor",
            )
    return tuple(wanted) or known


def selected(tensors: Sequence[AnswerTensor], names: Sequence[str]) -> list[AnswerTensor]:
    """The tensors of these names, in the order of the names; each must be there."""
    by_name = {tensor.name: tensor for tensor in tensors}
    return [by_name[name] for name in names]


def answer_parameters(answer: Answer) -> dict[str, str]:
    """What the protocol's parameters tell of an answer: its rung, and the digests of the bundles that gave it."""
    bundles = dict.fromkeys(served.digest for _, served in answer.parts)
    return {"rung": answer.rung, "bundle": ",".join(bundles)}


def raw_strings(texts: Sequence[str]) -> bytes:
    """Each text in UTF-8 after its length in four bytes, little-endian.

    >>> raw_strings(["ab", ""])
    b'\\x02\\x00\\x00\\x00ab\\x00\\x00\\x00\\x00'
    """
    elements = [text.encode() for text in texts]
    return b"".join([part for each in elements for part in (len(each).to_bytes(4, "little"), each)])
