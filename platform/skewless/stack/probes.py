"""Questions that a healthy process answers. Each returns when it did and raises Unavailable when not."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from skewless.errors import Unavailable
from skewless.stack.ports import LOOPBACK

PROBE_TIMEOUT_S = 2.0
"""A server on loopback answers a health check in well under a millisecond; 2 s allows for a very busy machine."""
ANSWER_BYTES_MAX = 4096


def http_probe(name: str, port: int, path: str) -> Callable[[], Awaitable[None]]:
    """A probe that wants `GET path` to answer 200."""
    question = f"GET {path} HTTP/1.1\r\nHost: {LOOPBACK}:{port}\r\nConnection: close\r\n\r\n".encode()

    async def probe() -> None:
        answer = await _ask(name, port, question)
        status = answer.split(b" ", 2)[1:2]
        if status != [b"200"]:
            seen = status[0].decode(errors="replace") if status else "no HTTP answer"
            raise Unavailable(name, f"GET {path} on port {port} answered {seen}, not 200")

    return probe


def valkey_probe(name: str, port: int) -> Callable[[], Awaitable[None]]:
    """A probe that wants `PING` answered by `PONG`; a server still loading its file answers otherwise."""

    async def probe() -> None:
        answer = await _ask(name, port, b"PING\r\n")
        if not answer.startswith(b"+PONG"):
            seen = answer.splitlines()[0].decode(errors="replace") if answer else "nothing"
            raise Unavailable(name, f"PING on port {port} answered `{seen}`, not PONG")

    return probe


async def _ask(name: str, port: int, question: bytes) -> bytes:
    """The first line (and what came with it) that a server answers to a question, at most 4 KiB."""
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(LOOPBACK, port, limit=ANSWER_BYTES_MAX)
            try:
                writer.write(question)
                await writer.drain()
                return await reader.readline()
            finally:
                writer.close()
                with suppress(OSError):
                    await writer.wait_closed()
    except TimeoutError as error:
        raise Unavailable(name, f"no answer on port {port} within {PROBE_TIMEOUT_S:g} s") from error
    except (OSError, ValueError) as error:
        raise Unavailable(name, f"port {port}: {error}") from error
