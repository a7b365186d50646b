"""The floor of a prediction: the bytes to Valkey and back, a call of Triton, and nothing besides.

One caller, blocking: hiredis packs and parses one pipeline of exactly the commands that the gateway sends, nothing is
decoded; then `tritonclient`'s synchronous client, gRPC or HTTP, sends the tensor, which was computed beforehand.
"""

import gc
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

import numpy as np
import tritonclient.grpc
import tritonclient.http
from numpy.typing import NDArray

from bench.load_block import LoadBlock, ProcessorTimes
from bench.wire_floor import WireFloor

OUTPUT = "probabilities"
INPUT = "features"
HTTP = "http://"


@dataclass(frozen=True, slots=True)
class FloorRequest:
    """What one prediction reads and sends."""

    commands: tuple[tuple[bytes, ...], ...]
    tensor: NDArray[np.float32]


class Floor:
    """Connections to one Valkey and one Triton."""

    def __init__(self, host: str, valkey_port: int, triton: str, model: str) -> None:
        """`triton` is the address of its gRPC port, `http://` before that of its HTTP port."""
        self._valkey = WireFloor(host, valkey_port)
        self._client: Any = tritonclient.http if triton.startswith(HTTP) else tritonclient.grpc
        self._triton = self._client.InferenceServerClient(triton.removeprefix(HTTP))
        self._model = model
        self._outputs = [self._client.InferRequestedOutput(OUTPUT)]

    def close(self) -> None:
        """Close both."""
        self._valkey.close()
        self._triton.close()

    def ask(self, request: FloorRequest) -> NDArray[np.float32]:
        """The model's output (rows, 2)."""
        self._valkey.read(request.commands)
        given = self._client.InferInput(INPUT, request.tensor.shape, "FP32")
        given.set_data_from_numpy(request.tensor)
        result = self._triton.infer(self._model, [given], outputs=self._outputs)
        output: NDArray[np.float32] = result.as_numpy(OUTPUT)
        return output


@dataclass(frozen=True, slots=True)
class FloorLoop:
    """One caller that asks again and again."""

    host: str
    valkey_port: int
    triton: str
    model: str
    requests: tuple[FloorRequest, ...]
    warm_up_s: float
    duration_s: float
    watched: Mapping[str, int] = field(default_factory=dict)

    def run(self) -> LoadBlock:
        """Ask for the warm-up and the duration."""
        floor = Floor(self.host, self.valkey_port, self.triton, self.model)
        gc.collect()
        gc.freeze()
        gc.disable()
        try:
            return self._run(floor)
        finally:
            gc.enable()
            gc.unfreeze()
            floor.close()

    def _run(self, floor: Floor) -> LoadBlock:
        clock, requests = time.perf_counter_ns, cycle(self.requests)
        latencies: list[int] = []
        floor.ask(next(requests))
        times = ProcessorTimes(self.watched)
        asked, before = 0, clock()
        measured_from = before + int(self.warm_up_s * 1e9)
        end = measured_from + int(self.duration_s * 1e9)
        while before < end:
            floor.ask(next(requests))
            after = clock()
            asked += 1
            if before >= measured_from:
                latencies.append(after - before)
            before = after
        return LoadBlock(
            np.array(latencies, dtype=np.int64), len(latencies), self.duration_s, {}, times.passed(), asked
        )
