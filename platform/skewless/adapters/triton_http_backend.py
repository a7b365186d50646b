"""The model backend in a Triton server, over HTTP with binary tensors: the shortest way there and back.

    request   POST /v2/models/{model}/infer, a JSON header with names and shapes, the tensor's bytes
    answer    a JSON header, each output's bytes

Written here and not by Triton's client because the client takes five times as long as the message itself: of one call,
processor time and latency are in ADR 26.
"""

import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

import msgspec
import numpy as np
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from skewless.adapters.triton_errors import LOAD_TIMEOUT_S, PART, ServerRefused, cannot_load, translated
from skewless.adapters.triton_http_connection import HttpAnswer, HttpConnections
from skewless.errors import DeadlineExceeded, Unavailable
from skewless.limits import CONNECT_TIMEOUT_S, RETRY_AFTER_S
from skewless.serving.model_outputs import WrongOutputs, checked_outputs
from skewless.serving.ports import ModelBackend, ModelSignature
from skewless.serving.request_trace import OUTGOING

_OK = 200
_HEADER_LENGTH = b"inference-header-content-length"


class _Parameters(msgspec.Struct):
    binary_data_size: int | None = None


class _Output(msgspec.Struct):
    """One output. Where its bytes do not follow the header, the values are in it."""

    name: str
    datatype: str
    shape: list[int]
    parameters: _Parameters = msgspec.field(default_factory=_Parameters)
    data: list[float] | None = None


class _Answer(msgspec.Struct):
    outputs: list[_Output]


class _Refusal(msgspec.Struct):
    error: str


_ANSWER = msgspec.json.Decoder(_Answer)
_REFUSAL = msgspec.json.Decoder(_Refusal)


@dataclass(frozen=True, slots=True)
class _Call:
    """How one model is asked, with places for what differs from call to call."""

    signature: ModelSignature
    head: bytes
    """Up to the blank line. Places: length of the JSON, length of all."""
    header: bytes
    """The JSON. Places: parameters of the call; rows, columns and bytes of the tensor."""

    def request(
        self, tensor: NDArray[np.float32], queue_timeout_us: int | None, more: tuple[tuple[bytes, bytes], ...] = ()
    ) -> bytes:
        """All of a request; the server's queue is told how long it may wait there, or nothing. `more` headers go with
        it."""
        parameters = b"" if queue_timeout_us is None else b'"parameters":{"timeout":%d},' % queue_timeout_us
        header = self.header % (parameters, *tensor.shape, tensor.nbytes)
        head = self.head % (len(header), len(header) + tensor.nbytes)
        if more:
            head = head[:-2] + b"".join([b"%b: %b\r\n" % each for each in more]) + b"\r\n"
        return head + header + tensor.tobytes()


class TritonHttpBackend:
    """Implements `ModelBackend`. Belongs to one event loop; connects when it is first asked, and again by itself."""

    def __init__(
        self,
        address: str,
        *,
        secure: bool = False,
        queue_timeouts: Callable[[str], bool] = lambda _model: False,
        open_loader: Callable[[], ModelBackend] | None = None,
    ) -> None:
        """`address` is `host:port`; `secure` speaks TLS, with the certificates that the system trusts.

        `queue_timeouts` says of which models each call tells the server's queue how long it may wait there.
        `open_loader` opens another way to the same server, by which models are loaded and unloaded: over HTTP Triton
        answers no call of any model meanwhile (1.5 s for a small one; 2.51).
        """
        self._queue_timeouts = queue_timeouts
        self._open_loader = open_loader
        self._loader: ModelBackend | None = None
        parts = urlsplit(f"//{address}")
        assert parts.hostname, "settings name a host and a port"
        tls = ssl.create_default_context() if secure else None
        self._connections = HttpConnections(parts.hostname, parts.port or (443 if secure else 80), tls=tls)
        self._host = address.encode("ascii")
        self._calls: dict[str, _Call] = {}

    async def infer(
        self, model: str, signature: ModelSignature, tensor: NDArray[np.float32], *, timeout_s: float
    ) -> dict[str, NDArray[np.float32]]:
        """See `ModelBackend.infer`."""
        call = self._calls.get(model)
        if call is None or call.signature is not signature:
            call = self._calls[model] = self._call(model, signature)
        queue_timeout_us = int(timeout_s * 1_000_000) if self._queue_timeouts(model) else None
        with _meant(model, timeout_s):
            request = call.request(tensor, queue_timeout_us, OUTGOING.get())
            answer = await self._connections.ask(request, timeout_s=timeout_s)
            if answer.status != _OK:
                raise _refusal(answer)
            given_back = _outputs(model, answer)
        return checked_outputs(model, signature, len(tensor), given_back)

    async def ping(self) -> None:
        """See `ModelBackend.ping`."""
        if not await self._is_ok("/v2/health/live", ""):
            raise Unavailable(PART, "the server is not live", retry_after_s=RETRY_AFTER_S)

    async def load(self, model: str) -> None:
        """See `ModelBackend.load`. Does nothing to a model that is ready: a bundle's files never change."""
        if await self.is_ready(model):
            return
        if (loader := self._opened_loader()) is not None:
            await loader.load(model)
            return
        try:
            await self._order(model, "load")
        except ServerRefused as error:
            raise cannot_load(model, error) from error

    async def unload(self, model: str) -> None:
        """Forget a model; nothing happens where it is not loaded."""
        self._calls.pop(model, None)
        if (loader := self._opened_loader()) is not None:
            await loader.unload(model)
        else:
            await self._order(model, "unload")

    async def is_ready(self, model: str) -> bool:
        """See `ModelBackend.is_ready`."""
        try:
            return await self._is_ok(f"/v2/models/{quote(model, safe='')}/ready", model)
        except (Unavailable, ServerRefused):
            return False

    async def close(self) -> None:
        """Close every connection."""
        await self._connections.close()
        if self._loader is not None:
            await self._loader.close()

    def _opened_loader(self) -> ModelBackend | None:
        """The other way to the server, opened when it is first needed; None where there is none."""
        if self._loader is None and self._open_loader is not None:
            self._loader = self._open_loader()
        return self._loader

    async def _is_ok(self, path: str, model: str) -> bool:
        with _meant(model, CONNECT_TIMEOUT_S):
            answer = await self._connections.ask(self._head(b"GET", path) + b"\r\n", timeout_s=CONNECT_TIMEOUT_S)
        return answer.status == _OK

    async def _order(self, model: str, what: str) -> None:
        path = f"/v2/repository/models/{quote(model, safe='')}/{what}"
        request = self._head(b"POST", path) + b"Content-Length: 2\r\n\r\n{}"
        with _meant(model, LOAD_TIMEOUT_S):
            answer = await self._connections.ask(request, timeout_s=LOAD_TIMEOUT_S)
            if answer.status != _OK:
                raise _refusal(answer)

    def _head(self, method: bytes, path: str) -> bytes:
        return b"%s %s HTTP/1.1\r\nHost: %s\r\n" % (method, path.encode("ascii"), self._host)

    def _call(self, model: str, signature: ModelSignature) -> _Call:
        # Percent signs of names must stand twice, because the rest is filled in.
        head = self._head(b"POST", f"/v2/models/{quote(model, safe='')}/infer").replace(b"%", b"%%")
        name = msgspec.json.encode(signature.input_name).replace(b"%", b"%%")
        wanted = [{"name": output, "parameters": {"binary_data": True}} for output, _ in signature.outputs]
        given = b'{"name":%s,"datatype":"FP32","shape":[%%d,%%d],"parameters":{"binary_data_size":%%d}}' % name
        return _Call(
            signature,
            head + b"Inference-Header-Content-Length: %d\r\nContent-Length: %d\r\n\r\n",
            b'{%%s"inputs":[%s],"outputs":%s}' % (given, msgspec.json.encode(wanted).replace(b"%", b"%%")),
        )


@contextmanager
def _meant(model: str, timeout_s: float) -> Iterator[None]:
    """Inside, what a connection raises becomes Unavailable, DeadlineExceeded or ServerRefused."""
    with translated(model, timeout_s):
        try:
            yield
        except TimeoutError as error:
            raise DeadlineExceeded(
                PART, f"no answer within {timeout_s * 1_000:.0f} ms", retry_after_s=RETRY_AFTER_S
            ) from error


def _refusal(answer: HttpAnswer) -> InferenceServerException:
    """What a server said in place of an answer."""
    try:
        said = _REFUSAL.decode(answer.body).error
    except msgspec.MsgspecError:  # a proxy's words
        said = answer.body[:200].decode("utf-8", "replace") or "no reason given"
    return InferenceServerException(said, status=str(answer.status))


def _outputs(model: str, answer: HttpAnswer) -> dict[str, NDArray[np.float32] | None]:
    """The outputs by name. Raises WrongOutputs where the answer does not hold what it says it holds."""
    try:
        length = answer.headers.get(_HEADER_LENGTH)
        end = len(answer.body) if length is None else int(length)
        body = memoryview(answer.body)
        found: dict[str, NDArray[np.float32] | None] = {}
        for output in _ANSWER.decode(body[:end]).outputs:
            size = output.parameters.binary_data_size
            if output.datatype != "FP32":
                found[output.name] = None
                continue
            if size is None:
                values = np.array(output.data, dtype=np.float32)
            else:
                values = np.frombuffer(body[end : end + size], dtype="<f4")
                end += size
            found[output.name] = values.reshape(output.shape)
    except (ValueError, TypeError, msgspec.MsgspecError) as error:
        raise WrongOutputs(f"the server's answer for model `{model}` cannot be read: {error}") from error
    return found
