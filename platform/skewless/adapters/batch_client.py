"""Sends a batch body to a gateway and reads its answer meanwhile, over one connection of HTTP/1.1.

The usual clients send all of a body before they read, and a gateway that has answers nobody takes stops reading: each
would wait for the other. Here two tasks share the connection. The protocol itself is h11's.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from functools import partial
from urllib.parse import quote, urlencode, urlsplit

import h11

from skewless.adapters.gateway_client import refusal
from skewless.errors import InvalidRequest, SkewlessError, Unavailable
from skewless.limits import BATCH_PATIENCE_S, BATCH_STALL_S, CONNECT_TIMEOUT_S

ARROW = "application/vnd.apache.arrow.stream"
NDJSON = "application/x-ndjson"
SILENCE_S_MAX = BATCH_STALL_S + BATCH_PATIENCE_S
"""A gateway that says nothing for longer has given up by its own bounds, or is gone."""
_READ_BYTES = 1 << 16
_REFUSAL_BYTES_MAX = 1 << 16


class BatchClient:
    """Asks one gateway. A connection is made for every batch."""

    def __init__(self, base_url: str, *, api_key: str = "") -> None:
        """`base_url` is http:// or https:// with host and port. Raises InvalidRequest for another."""
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidRequest(
                f"`{base_url}` is no address of a gateway", path="url", allowed="such as http://127.0.0.1:8100"
            )
        self._host = parts.hostname
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        # Not `Connection: close`: a server that closes before it has read all of a body that it refuses resets the
        # connection, and its refusal may be lost with that.
        self._headers = [("Host", parts.netloc.rpartition("@")[2])]
        if api_key:
            self._headers.append(("Authorization", f"Bearer {api_key}"))

    async def predict(
        self,
        endpoint: str,
        pieces: AsyncIterator[bytes],
        *,
        media_type: str,
        accept: str = "",
        options: Mapping[str, str] | None = None,
    ) -> AsyncIterator[bytes]:
        """The answer's body as it arrives, in `accept` or else in the body's own `media_type`.

        Raises Unavailable where the gateway is away, hangs or is cut off, InvalidRequest for what it refuses before it
        answers, and whatever `pieces` raises. What ends an answer later is in the summary at its end.
        """
        reader, writer = await self._opened()
        connection = h11.Connection(h11.CLIENT)
        sending = asyncio.create_task(
            _send(connection, writer, self._request(endpoint, media_type, accept, options or {}), pieces)
        )
        sending.add_done_callback(partial(_hang_up_if_failed, writer))
        try:
            async for piece in _answer(connection, reader):
                yield piece
        except Unavailable:
            if _has_failed(sending):
                await sending  # which raises why there is no more of the body
            raise
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            writer.close()

    async def _opened(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                return await asyncio.open_connection(self._host, self._port, ssl=self._tls)
        except (OSError, TimeoutError) as error:
            raise _away(f"{type(error).__name__} {error}".strip()) from error

    def _request(self, endpoint: str, media_type: str, accept: str, options: Mapping[str, str]) -> h11.Request:
        target = f"/v1/endpoints/{quote(endpoint, safe='')}/predict:batch"
        query = f"?{urlencode(options)}" if options else ""
        headers = [
            *self._headers,
            ("Content-Type", media_type),
            ("Accept", accept or media_type),
            ("Transfer-Encoding", "chunked"),
        ]
        return h11.Request(method="POST", target=target + query, headers=headers)


async def _send(
    connection: h11.Connection, writer: asyncio.StreamWriter, request: h11.Request, pieces: AsyncIterator[bytes]
) -> None:
    """The request, as fast as the gateway takes it."""
    writer.write(connection.send(request) or b"")
    async for piece in pieces:
        writer.write(connection.send(h11.Data(data=piece)) or b"")
        await writer.drain()
        await asyncio.sleep(0)  # neither this nor a piece may have waited, and the answer must have its turn
    writer.write(connection.send(h11.EndOfMessage()) or b"")
    await writer.drain()


def _has_failed(sending: "asyncio.Task[None]") -> bool:
    """Whether the body could not be made. One that could not be sent may have its answer all the same."""
    return sending.done() and not sending.cancelled() and not isinstance(sending.exception(), OSError | None)


def _hang_up_if_failed(writer: asyncio.StreamWriter, sending: "asyncio.Task[None]") -> None:
    if _has_failed(sending):
        writer.transport.abort()


async def _answer(connection: h11.Connection, reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    response: h11.Response | None = None
    refused = b""
    while True:
        event = await _next_event(connection, reader)
        if isinstance(event, h11.Response):
            response = event
        elif isinstance(event, h11.Data):
            assert response is not None, "h11 gives a response before its body"
            if response.status_code == 200:
                yield bytes(event.data)
            elif len(refused) < _REFUSAL_BYTES_MAX:
                refused += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            assert response is not None, "h11 gives a response before its end"
            if response.status_code != 200:
                raise _refusal(response, refused)
            return


async def _next_event(connection: h11.Connection, reader: asyncio.StreamReader) -> object:
    try:
        while (event := connection.next_event()) is h11.NEED_DATA:
            async with asyncio.timeout(SILENCE_S_MAX):
                connection.receive_data(await reader.read(_READ_BYTES))
    except TimeoutError as error:
        raise _away(f"it has said nothing for {SILENCE_S_MAX:g} s") from error
    except (OSError, h11.RemoteProtocolError) as error:
        raise _away(f"the answer was cut off: {error}") from error
    if isinstance(event, h11.ConnectionClosed):
        raise _away("it closed the connection without an answer")
    return event


def _away(reason: str) -> Unavailable:
    return Unavailable("gateway", reason, hint="check that it runs; rows that were answered are logged as predictions")


def _refusal(response: h11.Response, body: bytes) -> SkewlessError:
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in response.headers}
    return refusal(response.status_code, headers.get("retry-after", ""), body)
