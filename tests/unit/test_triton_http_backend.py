"""What is asked of a model server over HTTP, word for word, and what its answers may look like."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from harness.polling import until
from skewless.adapters.triton_errors import ServerRefused
from skewless.adapters.triton_http_backend import TritonHttpBackend
from skewless.errors import Unavailable
from skewless.serving.model_outputs import WrongOutputs
from skewless.serving.ports import ModelSignature

SIGNATURE = ModelSignature('in "100 %d" put', 2, (("out", 1), ("other", 2)))
TENSOR = np.array([[1.5, -2.0], [3.0, 4.25]], dtype=np.float32)
OUTPUTS = {"out": np.array([[0.5], [0.25]], "<f4"), "other": np.array([[1, 2], [3, 4]], "<f4")}


@dataclass
class Asked:
    """One request as the server saw it."""

    line: str
    headers: dict[str, str]
    header: Any
    tensor: bytes


@dataclass
class Server:
    """Answers every inference with the same bytes."""

    head: bytes
    body: bytes
    asked: list[Asked] = field(default_factory=list)
    open: int = 0
    """Connections."""

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            while True:
                line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
                headers = dict(each.lower().split(": ", 1) for each in lines)
                body = await reader.readexactly(int(headers["content-length"]))
                cut = int(headers["inference-header-content-length"])
                self.asked.append(Asked(line, headers, json.loads(body[:cut]), body[cut:]))
                writer.write(b"%sContent-Length: %d\r\n\r\n%s" % (self.head, len(self.body), self.body))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()
        finally:
            self.open -= 1


@asynccontextmanager
async def answering(server: Server, **options: Any) -> AsyncIterator[TritonHttpBackend]:
    listening = await asyncio.start_server(server.handle, "127.0.0.1", 0)
    backend = TritonHttpBackend(f"127.0.0.1:{listening.sockets[0].getsockname()[1]}", **options)
    try:
        yield backend
    finally:
        await backend.close()
        await until(lambda: not server.open)
        listening.close()
        await listening.wait_closed()


def binary(outputs: dict[str, Any], *, sizes: dict[str, int] | None = None, datatype: str = "FP32") -> Server:
    """A server that answers as Triton does."""
    listed = [
        {
            "name": name,
            "datatype": datatype,
            "shape": list(each.shape),
            "parameters": {"binary_data_size": (sizes or {}).get(name, each.nbytes)},
        }
        for name, each in outputs.items()
    ]
    header = json.dumps({"model_name": "m", "model_version": "1", "outputs": listed}).encode()
    head = b"HTTP/1.1 200 OK\r\nInference-Header-Content-Length: %d\r\n" % len(header)
    return Server(head, header + b"".join(each.tobytes() for each in outputs.values()))


async def test_a_request_says_names_shapes_and_bytes_whatever_is_in_the_names() -> None:
    server = binary(OUTPUTS)
    async with answering(server, queue_timeouts=lambda model: model == "slow %s/ä") as backend:
        for model in ("plain", "slow %s/ä"):
            outputs = await backend.infer(model, SIGNATURE, TENSOR, timeout_s=2.5)
            assert {name: each.tolist() for name, each in outputs.items()} == {
                name: each.tolist() for name, each in OUTPUTS.items()
            }
    plain, slow = server.asked
    assert plain.line == "POST /v2/models/plain/infer HTTP/1.1"
    assert slow.line == "POST /v2/models/slow%20%25s%2F%C3%A4/infer HTTP/1.1"
    assert plain.headers["host"].startswith("127.0.0.1:")
    assert plain.header == {
        "inputs": [
            {
                "name": SIGNATURE.input_name,
                "datatype": "FP32",
                "shape": [2, 2],
                "parameters": {"binary_data_size": 16},
            }
        ],
        "outputs": [{"name": name, "parameters": {"binary_data": True}} for name in OUTPUTS],
    }
    assert slow.header == {"parameters": {"timeout": 2_500_000}, **plain.header}
    assert plain.tensor == TENSOR.tobytes()


async def test_a_server_without_binary_tensors_is_understood() -> None:
    listed = [
        {"name": name, "datatype": "FP32", "shape": list(each.shape), "data": each.ravel().tolist()}
        for name, each in OUTPUTS.items()
    ]
    server = Server(b"HTTP/1.1 200 OK\r\n", json.dumps({"outputs": listed}).encode())
    async with answering(server) as backend:
        outputs = await backend.infer("m", SIGNATURE, TENSOR, timeout_s=30)
    assert {name: each.tolist() for name, each in outputs.items()} == {
        name: each.tolist() for name, each in OUTPUTS.items()
    }


@pytest.mark.parametrize(
    "server",
    [
        binary({"out": OUTPUTS["out"]}),
        binary({**OUTPUTS, "out": OUTPUTS["other"]}),
        binary(OUTPUTS, datatype="FP64"),
        binary(OUTPUTS, sizes={"other": 12}),
        binary(OUTPUTS, sizes={"other": 13}),
        binary(OUTPUTS, sizes={"out": 4}),
        Server(b"HTTP/1.1 200 OK\r\n", b"<html>"),
        Server(b"HTTP/1.1 200 OK\r\n", b""),
        Server(b"HTTP/1.1 200 OK\r\nInference-Header-Content-Length: x\r\n", b"{}"),
        Server(b"HTTP/1.1 200 OK\r\nInference-Header-Content-Length: 999\r\n", b'{"outputs": []}'),
        Server(b"HTTP/1.1 200 OK\r\n", b'{"outputs": [{"name": "out", "datatype": "FP32", "shape": [2, 1]}]}'),
    ],
)
async def test_an_answer_that_is_not_what_the_signature_says_is_never_used(server: Server) -> None:
    async with answering(server) as backend:
        with pytest.raises(WrongOutputs):
            await backend.infer("m", SIGNATURE, TENSOR, timeout_s=30)


@pytest.mark.parametrize(
    ("status", "body", "error", "said"),
    [
        (b"500 Oops", b'{"error": "bad input"}', ServerRefused, "bad input"),
        (b"400 Bad", b'{"error": "Request for unknown model: \'m\' is not found"}', Unavailable, "not loaded"),
        (b"503 Busy", b"<html>later</html>", Unavailable, "later"),
        (b"502 Bad Gateway", b"", Unavailable, "no reason given"),
    ],
)
async def test_a_refusal_is_told_in_the_servers_words(
    status: bytes, body: bytes, error: type[Exception], said: str
) -> None:
    async with answering(Server(b"HTTP/1.1 %s\r\n" % status, body)) as backend:
        with pytest.raises(error, match=said):
            await backend.infer("m", SIGNATURE, TENSOR, timeout_s=30)
