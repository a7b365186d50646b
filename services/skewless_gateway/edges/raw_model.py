"""The model behind an endpoint, asked with its own tensor: for load generators, and to look at a model by itself.

Such a call has no entity, no features and no receipt, so it is no prediction of the endpoint: it is not logged, and no
outcome can refer to it. Whoever may ask raw models is held to the same credentials, rates, admission and deadlines.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from skewless.dtypes import Dtype
from skewless.errors import InvalidRequest, LimitExceeded
from skewless.limits import MODEL_TIMEOUT_S, ROWS_MAX
from skewless.serving.answer_tensors import AnswerTensor
from skewless.serving.deadline import Deadline
from skewless.serving.field_tensors import GivenTensor
from skewless.serving.field_types import READERS, Mismatch, shown
from skewless.serving.instances import unknown_name
from skewless.serving.ports import ModelSignature
from skewless.serving.request import PredictOptions
from skewless.serving.request_timeout import effective_deadline_ms
from skewless.serving.scoring import MODEL_BACKEND
from skewless_gateway.edges.oip import OipModel
from skewless_gateway.gateway import Gateway
from skewless_gateway.predictions import RequestHead

_read_number = READERS[Dtype.FLOAT32]


class RawModels:
    """Asks models by their own names for tensors."""

    def __init__(self, gateway: Gateway) -> None:
        self._backend = gateway.backend
        self._admission = gateway.admission
        self._guard = gateway.guard
        self._clock = gateway.clock

    async def answer(
        self, model: OipModel, tensors: Sequence[GivenTensor], options: PredictOptions, head: RequestHead
    ) -> tuple[AnswerTensor, ...]:
        """The outputs of the model's signature for its one input.

        Raises InvalidRequest, Forbidden where the caller may only ask about some entities, Overloaded,
        DeadlineExceeded, Unavailable.
        """
        endpoint, served = model.endpoint.route.endpoint, model.endpoint.served
        head.caller.may_ask_raw(endpoint)
        tensor = read_tensor(tensors, served.signature)
        rows = len(tensor)
        self._guard.charge(head.caller, rows)
        deadline_ms = effective_deadline_ms(head.deadline_ms, options.deadline_ms)
        deadline = Deadline(self._clock, started_ns=head.started_ns, deadline_ms=deadline_ms)
        # In the background: it takes no prediction's place, and what it takes teaches nothing about predictions.
        async with self._admission.admitted(endpoint, deadline, rows=rows, background=True):
            allowed_s = deadline.allowance_s(MODEL_BACKEND, at_most_s=min(MODEL_TIMEOUT_S, served.call_timeout_s))
            outputs = await self._backend.infer(served.model, served.signature, tensor, timeout_s=allowed_s)
        return tuple(
            AnswerTensor(name, "FP32", outputs[name].shape, outputs[name]) for name, _ in served.signature.outputs
        )


def read_tensor(tensors: Sequence[GivenTensor], signature: ModelSignature) -> NDArray[np.float32]:
    """The one input, (rows, columns) float32, C-contiguous. Raises InvalidRequest, LimitExceeded."""
    for given in tensors:
        if given.name != signature.input_name:
            raise unknown_name(given.name, (signature.input_name,), path="$.inputs", what="input")
    if len(tensors) != 1:
        raise _wrong("$.inputs", f"there are {len(tensors)} inputs", f"`{signature.input_name}`, once")
    tensor = tensors[0]
    if tensor.datatype != "FP32":
        raise _wrong(f"{tensor.path}.datatype", f"the datatype is {shown(tensor.datatype)}", "`FP32`")
    shape = list(tensor.shape[:3])  # what is longer is refused, and need not be shown
    columns = signature.input_columns
    if len(shape) != 2 or type(shape[0]) is not int or shape[0] < 1 or shape[1] != columns:
        raise _wrong(f"{tensor.path}.shape", f"the shape is {shown(shape)}", f"[rows, {columns}]")
    if shape[0] > ROWS_MAX:
        raise LimitExceeded(
            f"the input has {shape[0]} rows", path=f"{tensor.path}.shape", allowed=f"1 to {ROWS_MAX} rows"
        )
    elements = _of_raw(tensor) if tensor.raw is not None else _of_list(tensor, columns)
    if len(elements) != math.prod(shape):
        raise _wrong(
            f"{tensor.path}.data", f"there are {len(elements)} elements", f"{math.prod(shape)}, as the shape says"
        )
    return elements.reshape(shape)


def _of_raw(tensor: GivenTensor) -> NDArray[np.float32]:
    assert tensor.raw is not None, "the caller has looked"
    size = memoryview(tensor.raw).nbytes
    if size % 4:
        raise _wrong(f"{tensor.path}.data", f"there are {size} bytes", "4 bytes per element")
    return np.frombuffer(tensor.raw, dtype="<f4").astype(np.float32, copy=True)


def _of_list(tensor: GivenTensor, columns: int) -> NDArray[np.float32]:
    """Numbers, flat or a list per row."""
    data = tensor.data if tensor.data is not None else ()
    flat: list[object] = []
    for index, each in enumerate(data):
        if type(each) is not list:
            flat.append(each)
        elif len(each) == columns:
            flat.extend(each)
        else:
            raise _wrong(f"{tensor.path}.data[{index}]", f"the row has {len(each)} elements", f"{columns} elements")
    numbers: list[object] = []
    for index, value in enumerate(flat):
        try:
            numbers.append(_read_number(value))
        except Mismatch as mismatch:
            message = f"the element {mismatch.reason}: {shown(value)}"
            raise _wrong(f"{tensor.path}.data[{index}]", message, mismatch.allowed) from mismatch
    return np.asarray(numbers, dtype=np.float32)


def _wrong(path: str, message: str, allowed: str) -> InvalidRequest:
    return InvalidRequest(message, path=path, allowed=allowed, code="invalid_tensor")
