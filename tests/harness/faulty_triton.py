"""A server that speaks Triton's protocols, gRPC or HTTP, and answers as wrongly as a test asks it to."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2, service_pb2_grpc

Outputs = Mapping[str, NDArray[Any]]
Score = Callable[[NDArray[np.float32]], Outputs]
_DATATYPES = {"float32": "FP32", "float64": "FP64", "int64": "INT64"}


@dataclass
class Faults:
    """What the server does from now on. `change` is applied to the model's outputs; None leaves them as they are."""

    change: Callable[[dict[str, NDArray[Any]]], dict[str, NDArray[Any]]] | None = None
    cut_bytes: int = 0
    """So many bytes are lacking at the end of each output."""
    refuses: bool = False
    """Every call is answered with an error of the model's."""
    unavailable: bool = False
    """Every call is answered with the protocol's word for it."""
    resets: bool = False
    """Connections end in the middle of a call."""
    held: asyncio.Event = field(default_factory=asyncio.Event)
    """Calls are answered while it is set."""
    calls: int = 0
    queue_timeouts_us: list[int] = field(default_factory=list)
    """What each call over gRPC said about the server's queue; 0 for nothing."""

    def __post_init__(self) -> None:
        self.held.set()

    def answers(self, score: Score, tensor: NDArray[np.float32]) -> list[tuple[str, str, list[int], bytes]]:
        """(name, datatype, shape, bytes) of each output, with what is wrong about them."""
        outputs = dict(score(tensor))
        if self.change is not None:
            outputs = self.change(outputs)
        return [
            (
                name,
                _DATATYPES[values.dtype.name],
                list(values.shape),
                values.tobytes()[: values.nbytes - self.cut_bytes],
            )
            for name, values in outputs.items()
        ]


class _Inference(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]  # generated without types
    def __init__(self, score: Score, faults: Faults) -> None:
        self._score = score
        self._faults = faults

    async def ServerLive(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802  # the protocol's names
        return service_pb2.ServerLiveResponse(live=True)

    async def ModelReady(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802
        return service_pb2.ModelReadyResponse(ready=True)

    async def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        faults = self._faults
        faults.calls += 1
        faults.queue_timeouts_us.append(request.parameters["timeout"].int64_param)
        if faults.resets:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "Connection reset by peer")
        await faults.held.wait()
        if faults.refuses:
            await context.abort(grpc.StatusCode.INTERNAL, "the model raised an exception")
        if faults.unavailable:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "server is shutting down")
        (given,) = request.inputs
        tensor = np.frombuffer(request.raw_input_contents[0], np.float32).reshape(tuple(given.shape))
        response = service_pb2.ModelInferResponse(model_name=request.model_name, model_version="1")
        for name, datatype, shape, data in faults.answers(self._score, tensor):
            response.outputs.add(name=name, datatype=datatype, shape=shape)
            response.raw_output_contents.append(data)
        return response


@asynccontextmanager
async def faulty_grpc(score: Score) -> AsyncIterator[tuple[str, Faults]]:
    """Address and faults of a server over gRPC, in this event loop."""
    faults = Faults()
    server = grpc.aio.server()
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(_Inference(score, faults), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}", faults
    finally:
        faults.held.set()
        await server.stop(0)


class _Http:
    def __init__(self, score: Score, faults: Faults) -> None:
        self._score = score
        self._faults = faults
        self._writers: set[asyncio.StreamWriter] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until the client leaves or the faults say so."""
        self._writers.add(writer)
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                while await self._answer(reader, writer):
                    pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer the next request. False where the connection ends."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        method, path, _ = head[0].split(" ")
        headers = {name.strip().lower(): value.strip() for name, _, value in (each.partition(":") for each in head[1:])}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        if not path.endswith("/infer"):
            writer.write(_message(200, b"{}" if method == "POST" else b""))
            return True
        self._faults.calls += 1
        if self._faults.resets:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf of")
            await writer.drain()
            writer.transport.abort()
            return False
        await self._faults.held.wait()
        writer.write(self._inferred(body, int(headers["inference-header-content-length"])))
        return True

    def _inferred(self, body: bytes, header_bytes: int) -> bytes:
        if self._faults.refuses:
            return _message(500, json.dumps({"error": "the model raised an exception"}).encode())
        if self._faults.unavailable:
            return _message(503, json.dumps({"error": "server is shutting down"}).encode())
        (given,) = json.loads(body[:header_bytes])["inputs"]
        tensor = np.frombuffer(body[header_bytes:], np.float32).reshape(given["shape"])
        described, data = [], b""
        for name, datatype, shape, values in self._faults.answers(self._score, tensor):
            parameters = {"binary_data_size": len(values)}
            described.append({"name": name, "datatype": datatype, "shape": shape, "parameters": parameters})
            data += values
        header = json.dumps({"model_name": "m", "model_version": "1", "outputs": described}).encode()
        return _message(200, header + data, f"Inference-Header-Content-Length: {len(header)}\r\n")

    def close(self) -> None:
        """End every connection."""
        for writer in self._writers:
            writer.close()


def _message(status: int, body: bytes, headers: str = "") -> bytes:
    content_type = "application/octet-stream" if headers else "application/json"
    head = f"HTTP/1.1 {status} X\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    return head.encode() + body


@asynccontextmanager
async def faulty_http(score: Score) -> AsyncIterator[tuple[str, Faults]]:
    """Address and faults of a server over HTTP, in this event loop."""
    faults = Faults()
    served = _Http(score, faults)
    server = await asyncio.start_server(served.serve, "127.0.0.1", 0)
    try:
        yield "{}:{}".format(*server.sockets[0].getsockname()), faults
    finally:
        faults.held.set()
        server.close()
        served.close()
        await server.wait_closed()
