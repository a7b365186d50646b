"""Whether what a model backend gave is what the model's signature says."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from skewless.errors import BundleRefused
from skewless.serving.ports import ModelSignature


class CallRefused(BundleRefused):
    """A backend answered a call with an error: of the rows, of the model, or of what runs it."""


class WrongOutputs(CallRefused):
    """A backend answered with other tensors than its model's signature says: nothing of it is used."""


def checked_outputs(
    model: str, signature: ModelSignature, rows: int, given: Mapping[str, NDArray[np.float32] | None]
) -> dict[str, NDArray[np.float32]]:
    """The outputs that the signature names, each (rows, columns) float32; one that is None or absent was not given.

    Raises WrongOutputs naming the first that is otherwise.
    """
    outputs: dict[str, NDArray[np.float32]] = {}
    for name, columns in signature.outputs:
        output = given.get(name)
        if output is None or output.shape != (rows, columns) or output.dtype != np.float32:
            seen = "no such output" if output is None else f"{output.dtype} {output.shape}"
            raise WrongOutputs(
                f"model `{model}` gave {seen} for `{name}`, its signature says float32 ({rows}, {columns})"
            )
        outputs[name] = output
    return outputs
