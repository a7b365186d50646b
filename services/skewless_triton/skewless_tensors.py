"""Requests of Triton's python backend as NumPy arrays, and answers to them; deployed beside the model.py that uses it.

Tensors are exchanged by DLPack and never by the backend's own NumPy conversion: that one is built against the binary
interface of NumPy 1 and, under NumPy 2, reads the size of an element wrongly. Seen with Triton 2.51 and NumPy 2.4:
outputs of 0 bytes, without an error.
"""

import ctypes
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found]  # exists inside Triton only
from numpy.typing import NDArray

Score = Callable[[NDArray[np.float32]], Mapping[str, NDArray[np.float32]]]
"""From a tensor (rows, input columns) to the outputs by name, each (rows, columns) and C-contiguous."""


def rehearse(args: Mapping[str, str], score: Score) -> None:
    """Run the warm-up calls of the model's configuration once, from within `initialize`; `args` are what it got.

    A model that fails here, or whose process dies here, does not load. If it first did so in Triton's own warm-up,
    which follows, it would take the whole server down with every other model: seen with Triton 2.51, a segmentation
    fault.
    """
    for call in json.loads(args["model_config"])["model_warmup"]:
        (tensor,) = call["inputs"].values()
        row = np.fromfile(Path(args["model_repository"]) / "warmup" / tensor["input_data_file"], dtype="<f4")
        score(np.tile(row.astype(np.float32), (int(call["batch_size"]), 1)))


def answer(requests: Sequence[Any], name: str, score: Score) -> list[Any]:
    """A response for each request of a dynamic batch, from one run over all their rows; `name` is the input's.

    What goes wrong becomes an error response; see `rehearse` for what an exception can do.
    """
    try:
        tensors: list[Any] = [np.from_dlpack(pb_utils.get_input_tensor_by_name(each, name)) for each in requests]
        if len(tensors) == 1:
            return [_response(score(tensors[0]))]
        return _divided(score(np.concatenate(tensors)), tensors)
    except Exception as error:  # noqa: BLE001  # the boundary to the server, see above; the model may raise anything
        failed = pb_utils.TritonError(f"the model failed on this batch: {error!r}")
        return [pb_utils.InferenceResponse(output_tensors=[], error=failed) for _ in requests]


def _divided(outputs: Mapping[str, NDArray[np.float32]], tensors: list[Any]) -> list[Any]:
    """A response with its rows of every output for each request, in order."""
    responses = []
    start = 0
    for tensor in tensors:
        stop = start + len(tensor)
        responses.append(_response({name: output[start:stop] for name, output in outputs.items()}))
        start = stop
    return responses


def _response(outputs: Mapping[str, NDArray[np.float32]]) -> Any:
    return pb_utils.InferenceResponse([_handed_over(name, rows) for name, rows in outputs.items()])


_USED = ctypes.c_char_p(b"used_dltensor")
_set_capsule_name = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_SetName", ctypes.pythonapi)
)


def _handed_over(name: str, rows: NDArray[np.float32]) -> Any:
    """An array as Triton's tensor, without a copy.

    Triton 2.51 marks a capsule that it has taken by another name than DLPack says, which NumPy takes for damage: it
    writes a traceback into the server's log with every output of every call. So the name is put right.
    """
    capsule = rows.__dlpack__()
    tensor = pb_utils.Tensor.from_dlpack(name, capsule)
    _set_capsule_name(capsule, _USED)
    return tensor
