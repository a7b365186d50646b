"""HTTP/1.1 answers as bytes: taken apart strictly, because what a server sends is what is tested."""

import re
from dataclasses import dataclass
from typing import Any

import msgspec

_STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-5]\d\d) [A-Za-z -]+")
_HEADER = re.compile(rb"([a-z0-9-]+): ([\x20-\x7e]*)")


@dataclass(frozen=True, slots=True)
class WireAnswer:
    """One answer of a connection."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes

    def json(self) -> Any:
        """The body as JSON."""
        return msgspec.json.decode(self.body)


class MalformedAnswer(Exception):
    """What a server sent is no HTTP."""


def answers_of(data: bytes, *, has_bodies: bool = True) -> tuple[list[WireAnswer], bytes]:
    """The whole answers that a connection carried, interim ones left out, and what is left of one that was cut.

    `has_bodies` is False where HEAD was asked. Raises MalformedAnswer.
    """
    answers: list[WireAnswer] = []
    while data:
        head, found, rest = data.partition(b"\r\n\r\n")
        if not found:
            return answers, data
        answer, data_left = _answer(head, rest, has_body=has_bodies)
        if answer is None:
            return answers, data
        data = data_left
        if answer.status >= 200:
            answers.append(answer)
    return answers, b""


def _answer(head: bytes, rest: bytes, *, has_body: bool) -> tuple[WireAnswer | None, bytes]:
    line, *fields = head.split(b"\r\n")
    status_line = _STATUS_LINE.fullmatch(line)
    if status_line is None:
        raise MalformedAnswer(f"the status line {line[:200]!r}")
    status = int(status_line.group(1))
    headers: dict[bytes, bytes] = {}
    for field in fields:
        matched = _HEADER.fullmatch(field)
        if matched is None or matched.group(1) in headers:
            raise MalformedAnswer(f"the header {field[:200]!r} of {line!r}")
        headers[matched.group(1)] = matched.group(2)
    if status < 200 or status in (204, 304) or not has_body:
        return WireAnswer(status, headers, b""), rest
    if b"content-length" not in headers:
        raise MalformedAnswer(f"{line!r} has no length: {headers}")
    length = int(headers[b"content-length"])
    if len(rest) < length:
        return None, rest
    return WireAnswer(status, headers, rest[:length]), rest[length:]
