"""One HTTP request and its answer, as every edge sees them: raw bytes over ASGI, without a framework in between."""

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from skewless.errors import InvalidRequest, LimitExceeded
from skewless.limits import BODY_BYTES_MAX, DEADLINE_MS_MAX, SEND_STALL_S
from skewless.serving.request_trace import RequestTrace

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
RawHeaders = tuple[tuple[bytes, bytes], ...]

JSON = b"application/json"
REQUEST_ID_HEADER = b"x-request-id"
BODY_TOO_SLOW = "body_too_slow"
_REQUEST_ID = re.compile(b"[A-Za-z0-9._-]{1,100}")
_NO_PARAMETERS: Mapping[str, str] = {}


class ClientGone(Exception):
    """The caller hung up while its body was being read; nobody is there to answer."""


class Parts(Protocol):
    """A body that is made while it is sent."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    async def aclose(self) -> None:
        """Stop the work; called once, however the answer ends, also where no part was ever asked for."""
        ...


@dataclass(slots=True)
class Reply:
    """An answer to send. A body in parts is sent as it comes, without an announced length."""

    status: int
    content_type: bytes
    body: bytes | Parts
    headers: RawHeaders = ()


def json_reply(body: object, *, status: int = 200, headers: RawHeaders = ()) -> Reply:
    """An answer in JSON."""
    return Reply(status, JSON, msgspec.json.encode(body), headers)


class _Patience:
    """Ends the wait of a task, and remembers that it did."""

    __slots__ = ("_task", "has_ended")

    def __init__(self, task: "asyncio.Task[Any]") -> None:
        self._task = task
        self.has_ended = False

    def end(self) -> None:
        self.has_ended = True
        self._task.cancel()


class HttpRequest:
    """A request whose body has not been read. `parameters` holds the path's, such as `endpoint`."""

    __slots__ = ("_headers", "_receive", "endpoint", "method", "parameters", "path", "refused_with", "scope", "trace")

    def __init__(self, scope: Scope, receive: Receive, parameters: Mapping[str, str] = _NO_PARAMETERS) -> None:
        self.scope = scope
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.parameters = parameters
        self.endpoint = parameters.get("endpoint", "")
        """Empty where the path names none."""
        self.refused_with = ""
        """The stable code of the error it was answered with, for the log; empty where there was none."""
        self.trace: RequestTrace | None = None
        self._receive = receive
        # Of a header that is sent twice the first counts, as in most frameworks.
        self._headers: dict[bytes, bytes] = dict(reversed(scope["headers"]))

    @property
    def query(self) -> bytes:
        """What follows the question mark, as it was sent."""
        query: bytes = self.scope.get("query_string", b"")
        return query

    def header(self, name: bytes) -> bytes | None:
        """The value of a header, by its name in lower case; None where it was not sent."""
        return self._headers.get(name)

    async def body(self, bytes_max: int = BODY_BYTES_MAX, *, timeout_s: float = DEADLINE_MS_MAX / 1_000) -> bytes:
        """The whole body.

        Raises LimitExceeded without reading past the limit, InvalidRequest where it does not arrive within `timeout_s`,
        ClientGone where the caller hung up.
        """
        announced = self._headers.get(b"content-length", b"")
        if announced.isdigit() and int(announced) > bytes_max:
            raise _too_large(f"announces {int(announced)} bytes", bytes_max)
        # `asyncio.timeout` would be a third of what reading a small body costs.
        reader = asyncio.current_task()
        assert reader is not None, "requests are answered in tasks"
        patience = _Patience(reader)
        timer = reader.get_loop().call_later(timeout_s, patience.end)
        try:
            message = await self._receive()
            if message.get("more_body") or message["type"] == "http.disconnect":
                return await self._rest(message, bytes_max)
        except asyncio.CancelledError:
            if not patience.has_ended or reader.uncancel():
                raise
            raise InvalidRequest(
                f"the body did not arrive within {timeout_s * 1_000:.0f} ms", path="$", allowed="", code=BODY_TOO_SLOW
            ) from None
        finally:
            timer.cancel()
        body: bytes = message.get("body", b"")
        if len(body) > bytes_max:
            raise _too_large(f"has more than {bytes_max} bytes", bytes_max)
        return body

    async def stream(self) -> AsyncIterator[bytes]:
        """The body as it arrives, never empty chunks. Bounds of size and time are whose it is. Raises ClientGone."""
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            if chunk := message.get("body", b""):
                yield chunk
            if not message.get("more_body"):
                return

    async def disconnected(self) -> None:
        """Return when the caller has hung up; to be asked once the body was read to its end."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _rest(self, message: Message, bytes_max: int) -> bytes:
        """A body that comes in several messages, of which the first is given."""
        chunks: list[bytes] = []
        size = 0
        while True:
            if message["type"] == "http.disconnect":
                raise ClientGone
            chunk: bytes = message.get("body", b"")
            size += len(chunk)
            if size > bytes_max:
                raise _too_large(f"has more than {bytes_max} bytes", bytes_max)
            chunks.append(chunk)
            if not message.get("more_body"):
                return b"".join(chunks)
            message = await self._receive()


def request_id_of(given: bytes | None) -> str:
    """A caller's X-Request-Id where it is 1 to 100 of A-Z a-z 0-9 . _ -, else a new one."""
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given.decode("ascii")
    return secrets.token_hex(16)


async def send_reply(send: Send, status: int, headers: RawHeaders | list[tuple[bytes, bytes]], body: bytes) -> None:
    """Send a whole answer; `headers` without its length."""
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [*headers, (b"content-length", b"%d" % len(body))],
        }
    )
    await send({"type": "http.response.body", "body": body})


async def send_parts(send: Send, status: int, headers: RawHeaders | list[tuple[bytes, bytes]], parts: Parts) -> None:
    """Send an answer part by part; each waits until the caller has taken what was sent before.

    Whatever ends it early also ends `parts`. Raises ClientGone where the caller takes nothing for SEND_STALL_S.
    """
    try:
        await send({"type": "http.response.start", "status": status, "headers": list(headers)})
        async for part in parts:
            async with asyncio.timeout(SEND_STALL_S):
                await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
    except TimeoutError as error:
        raise ClientGone from error
    finally:
        await parts.aclose()


def _too_large(what: str, bytes_max: int) -> LimitExceeded:
    return LimitExceeded(
        f"the body {what}", path="$", allowed=f"at most {bytes_max} bytes", hint="send fewer instances at once"
    )
