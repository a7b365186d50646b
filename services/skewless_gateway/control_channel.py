"""What the parent asks its workers: frames over a socket pair that each worker inherits.

    frame = u32 length, MessagePack of [number, what, text] (a question) or [number, ok, body] (its answer)

The end of the channel is news of its own: to a worker it says that its parent is gone.
"""

import asyncio
import logging
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

import msgspec

from skewless.errors import SkewlessError, Unavailable
from skewless.limits import CONTROL_ASKS_MAX, CONTROL_FRAME_BYTES_MAX

_LENGTH = struct.Struct("<I")
_LOGGER = logging.getLogger(__name__)

Handler = Callable[[str], Awaitable[bytes]]
"""Answers one kind of question; its argument is what was asked along."""


class Question(msgspec.Struct, array_like=True, frozen=True):
    """What a parent asks; `text` goes along."""

    number: int
    what: str
    text: str


class Answer(msgspec.Struct, array_like=True, frozen=True):
    """What a worker says to the question of that number; where not `ok`, the body says why."""

    number: int
    ok: bool
    body: bytes


class Asking:
    """The parent's end. `name` is whom it asks, for errors."""

    def __init__(self, connection: socket.socket, name: str) -> None:
        self._connection = connection
        self._name = name
        self._number = 0
        self._waiting: dict[int, asyncio.Future[bytes]] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._reading = asyncio.create_task(self._read())

    @property
    def is_over(self) -> bool:
        """Whether the worker hung up: it is on its way out."""
        return self._reading.done()

    async def ask(self, what: str, text: str = "", *, timeout_s: float) -> bytes:
        """The worker's answer. Raises Unavailable where none comes in time, or the worker could give none."""
        if len(self._waiting) >= CONTROL_ASKS_MAX:
            raise Unavailable(self._name, f"{CONTROL_ASKS_MAX} questions wait for its answer already")
        if self._writer is None or self._reading.done():
            raise Unavailable(self._name, "it is not there, or only just starting")
        self._number += 1
        number = self._number
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            self._writer.write(_frame(msgspec.msgpack.encode(Question(number, what, text))))
            async with asyncio.timeout(timeout_s):
                body = await answer
        except TimeoutError as error:
            raise Unavailable(self._name, f"it did not say its {what} within {timeout_s:g} s") from error
        finally:
            del self._waiting[number]
        return body

    async def close(self) -> None:
        """Hang up; the worker takes that for the end of its parent."""
        self._reading.cancel()
        with suppress(asyncio.CancelledError):
            await self._reading
        self._connection.close()

    async def _read(self) -> None:
        reader, self._writer = await asyncio.open_connection(sock=self._connection)
        try:
            while (frame := await _next_frame(reader)) is not None:
                answer = msgspec.msgpack.decode(frame, type=Answer)
                waiting = self._waiting.get(answer.number)
                if waiting is None or waiting.done():
                    continue  # it came too late, and was reported so
                if answer.ok:
                    waiting.set_result(answer.body)
                else:
                    waiting.set_exception(Unavailable(self._name, answer.body.decode()))
        finally:
            for each in self._waiting.values():
                if not each.done():
                    each.set_exception(Unavailable(self._name, "it ended"))
            self._writer.close()


async def answer_questions(connection: socket.socket, handlers: Mapping[str, Handler]) -> None:
    """The worker's end: answer until the parent is gone. Each question is answered beside the others."""
    reader, writer = await asyncio.open_connection(sock=connection)
    answering: set[asyncio.Task[None]] = set()
    try:
        while (frame := await _next_frame(reader)) is not None:
            question = msgspec.msgpack.decode(frame, type=Question)
            task = asyncio.create_task(_answer(question, handlers, writer))
            answering.add(task)
            task.add_done_callback(answering.discard)
    finally:
        for task in answering:
            task.cancel()
        writer.close()


async def _answer(question: Question, handlers: Mapping[str, Handler], writer: asyncio.StreamWriter) -> None:
    try:
        answer = Answer(question.number, True, await handlers[question.what](question.text))
    except SkewlessError as error:
        answer = Answer(question.number, False, error.message.encode())
    except Exception as error:  # a task's boundary: the parent is told, and asks again
        _LOGGER.exception("the parent's question for %s could not be answered", question.what)
        answer = Answer(question.number, False, str(error).encode())
    writer.write(_frame(msgspec.msgpack.encode(answer)))


def _frame(payload: bytes) -> bytes:
    assert len(payload) <= CONTROL_FRAME_BYTES_MAX, f"a message of {len(payload)} bytes"
    return _LENGTH.pack(len(payload)) + payload


async def _next_frame(reader: asyncio.StreamReader) -> bytes | None:
    """The next payload; None at the end of the channel."""
    try:
        (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
        assert length <= CONTROL_FRAME_BYTES_MAX, f"a message of {length} bytes"
        return await reader.readexactly(length)
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
