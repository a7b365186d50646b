"""NDJSON as it arrives: its lines with their numbers, so that one wrong line costs no other."""

from collections.abc import Iterator

from skewless.limits import OUTCOME_LINE_BYTES_MAX


class LineCutter:
    """Cuts pieces of a body into lines, numbered from 1; lines without anything on them are left out.

    A line longer than `line_bytes_max` comes as None once it has ended; its bytes are not kept.

    >>> cutter = LineCutter(line_bytes_max=4)
    >>> [*cutter.feed(b"ab\\n\\ncd"), *cutter.feed(b"efg\\n7"), *cutter.finish()]
    [(1, b'ab'), (3, None), (4, b'7')]
    """

    def __init__(self, *, line_bytes_max: int = OUTCOME_LINE_BYTES_MAX) -> None:
        self._line_bytes_max = line_bytes_max
        self._open: list[bytes] = []
        """Pieces of the line whose end has not come."""
        self._open_bytes = 0
        self._number = 1

    def feed(self, piece: bytes) -> Iterator[tuple[int, bytes | None]]:
        """Lines that `piece` completes."""
        head, *rest = piece.split(b"\n")
        self._extend(head)
        for start in rest:
            yield from self._end_line()
            self._extend(start)

    def finish(self) -> Iterator[tuple[int, bytes | None]]:
        """The last line, where the body does not end in a line feed."""
        yield from self._end_line()

    def _extend(self, part: bytes) -> None:
        self._open_bytes += len(part)
        if self._open_bytes > self._line_bytes_max:
            self._open.clear()
        elif part:
            self._open.append(part)

    def _end_line(self) -> Iterator[tuple[int, bytes | None]]:
        line, is_too_long = b"".join(self._open), self._open_bytes > self._line_bytes_max
        number = self._number
        self._open.clear()
        self._open_bytes = 0
        self._number += 1
        if is_too_long:
            yield number, None
        elif line.strip():
            yield number, line
