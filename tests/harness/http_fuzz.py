"""Requests that no client should send: written byte by byte, by kind, each made anew from a seeded generator.

An attempt is what is sent on one connection of its own and how the sender then leaves it. Nothing here knows what is
right to answer, but for two things: HIDDEN is a path that must never be asked, because only a server that reads the
bytes differently than a proxy before it would find a request there; and `good` counts the requests at the beginning
that are right, each of which must have its answer.
"""

import random
import string
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum, auto

from skewless.limits import REQUEST_HEAD_BYTES_MAX, REQUEST_HEADERS_MAX, REQUEST_LINE_BYTES_MAX

HIDDEN = b"/v1/endpoints/hidden-from-proxies"
CRLF = b"\r\n"


class Leaving(Enum):
    """How a sender leaves its connection once it has sent everything."""

    WAITS = auto()
    """Waits for an answer, or for the server to close."""
    HALF = auto()
    """Says that nothing more comes, and listens on."""
    CLOSES = auto()
    RESETS = auto()


@dataclass(frozen=True, slots=True)
class Attempt:
    """What one connection carries. `pieces` are sent one after the other, each in a packet of its own."""

    kind: str
    pieces: tuple[bytes, ...]
    leaving: Leaving = Leaving.WAITS
    good: int = 0
    hides: bool = False
    has_bodies: bool = True


@dataclass(frozen=True, slots=True)
class Target:
    """What a right request asks."""

    path: bytes
    body: bytes

    def request(self, *headers: bytes, line: bytes = b"", body: bytes | None = None) -> bytes:
        """A request with these headers in place of its length."""
        lines = (line or b"POST " + self.path + b" HTTP/1.1", b"Host: localhost", b"Content-Type: application/json")
        return CRLF.join((*lines, *headers, b"", b"")) + (self.body if body is None else body)

    def good(self) -> bytes:
        """The right request."""
        return self.request(b"Content-Length: %d" % len(self.body))

    def chunked(self, *headers: bytes, body: bytes) -> bytes:
        """A request whose body comes in chunks."""
        return self.request(b"Transfer-Encoding: chunked", *headers, body=body)


Make = Callable[[random.Random, Target], Attempt]


def attempts(seed: int, count: int, target: Target) -> list[Attempt]:
    """So many attempts, of every kind in turn."""
    rng = random.Random(seed)
    makers = list(KINDS.items())
    made = []
    for number in range(count):
        kind, make = makers[number % len(makers)]
        made.append(replace(make(rng, target), kind=kind))
    return made


def _of(*pieces: bytes, **more: object) -> Attempt:
    return Attempt("", pieces, **more)  # type: ignore[arg-type]  # its own fields


def _random_bytes(rng: random.Random, _: Target) -> Attempt:
    return _of(rng.randbytes(rng.randrange(1, 2_000)))


_LINES = (
    b"GET", b"GET /", b"GET / HTTP/9.9", b"GET / HTTP/1.1 x", b"get / HTTP/1.1", b"GET  /  HTTP/1.1",
    b"GET\t/\tHTTP/1.1", b"GET http://elsewhere/v1/endpoints HTTP/1.1", b"CONNECT elsewhere:80 HTTP/1.1",
    b"OPTIONS * HTTP/1.1", b"TRACE / HTTP/1.1", b"PRI * HTTP/2.0", b"GET /\x00 HTTP/1.1", b"GET /%00 HTTP/1.1",
    b"GET /%ff%fe HTTP/1.1", b"GET /\xc3\x28 HTTP/1.1", b"GET /\xf0\x9f\x92 HTTP/1.1", b"GET //// HTTP/1.1",
    b"GET /v1/endpoints/../../etc/passwd HTTP/1.1", b"GET /v1/endpoints/%2e%2e HTTP/1.1", b"GET ? HTTP/1.1",
    b"GET /# HTTP/1.1", b"GET /v1/endpoints/%0d%0aX:%20y HTTP/1.1", b"POST /v1/endpoints/a%2fb/predict HTTP/1.1",
    b"GET /v2/models/\xe2\x80\xae HTTP/1.1", b"GET / HTTP/1.0", b"GET / HTTP/0.9", b"GET / HTTP/1.10",
    b"GET / FTP/1.1", b" GET / HTTP/1.1", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"PROPFIND / HTTP/1.1",
    b"BREW /pot HTTP/1.1", b"GET /v1/endpoints?%zz=\xff HTTP/1.1", b"DELETE /v1/endpoints/x HTTP/1.1",
    b"PUT /v2/models/x/load HTTP/1.1", b"GET /docs/../metrics HTTP/1.1", b"M-SEARCH * HTTP/1.1",
)  # fmt: skip


def _line(rng: random.Random, target: Target) -> Attempt:
    return _of(target.request(b"Content-Length: 0", line=rng.choice(_LINES), body=b""))


def _absurd_method(rng: random.Random, target: Target) -> Attempt:
    method = "".join(rng.choices(string.ascii_letters + "-_!#$%&'*+.^`|~", k=rng.randrange(1, 200))).encode()
    return _of(target.request(line=method + b" " + target.path + b" HTTP/1.1", body=b""))


def _long_line(rng: random.Random, target: Target) -> Attempt:
    length = rng.choice([REQUEST_LINE_BYTES_MAX - 100, REQUEST_LINE_BYTES_MAX + 100, 2 * REQUEST_HEAD_BYTES_MAX])
    return _of(target.request(line=b"GET /" + b"a" * length + b" HTTP/1.1", body=b""))


_HEADERS = (
    b"no colon", b"Space : before", b": no name", b"A: b\r\n folded: on", b"A: \x00", b"A\x00: b", b"A: \xff\xfe",
    b"\xc3\xa9: name", b"Host: another", b"Host:", b"A: b\rC: d", b"A: b\nC: d", b"Content-Type: text/plain",
    b"Content-Encoding: gzip", b"X-Request-Timeout-Ms: -1", b"X-Request-Timeout-Ms: 99999999999999999999",
    b"X-Request-Timeout-Ms: \xd9\xa3", b"X-Request-Id: \xff", b"X-Request-Id: a\x0bb", b"Authorization: Bearer \xff",
    b"Authorization: Basic", b"X-API-Key: \x7f", b"X-Forwarded-For: 1.2.3.4, \"", b"traceparent: 00-zz-zz-zz",
    b"Accept: \xff", b"Connection: close, keep-alive, upgrade", b"Connection: \xff", b"Range: bytes=0-",
    b"Inference-Header-Content-Length: 99999999999999999999", b"Cookie: " + b"a=b; " * 500, b"TE: trailers",
)  # fmt: skip


def _header(rng: random.Random, target: Target) -> Attempt:
    return _of(target.request(rng.choice(_HEADERS), b"Content-Length: %d" % len(target.body)))


def _many_headers(rng: random.Random, target: Target) -> Attempt:
    count = rng.choice([REQUEST_HEADERS_MAX - 10, REQUEST_HEADERS_MAX + 1, 5_000])
    return _of(target.request(*(b"A%d: b" % each for each in range(count)), b"Content-Length: %d" % len(target.body)))


def _large_header(rng: random.Random, target: Target) -> Attempt:
    size = rng.choice([REQUEST_HEAD_BYTES_MAX // 2, REQUEST_HEAD_BYTES_MAX + 1, 4 * REQUEST_HEAD_BYTES_MAX])
    place = rng.choice([b"A" * size + b": b", b"A: " + b"b" * size])
    return _of(target.request(place, b"Content-Length: %d" % len(target.body)))


def _duplicate_header(rng: random.Random, target: Target) -> Attempt:
    name = rng.choice([b"Host", b"Content-Type", b"Authorization", b"X-Request-Id", b"Connection", b"X-API-Key"])
    return _of(target.request(*[name + b": a"] * rng.randrange(2, 20), b"Content-Length: %d" % len(target.body)))


_LENGTHS = (
    b"-1", b"+5", b"0x10", b"1e3", b"", b" ", b"5, 5", b"5,6", b"99999999999999999999", b"18446744073709551616",
    b"9223372036854775807", b"5 5", b"\xd9\xa5", b"1.0", b"0005", b"4294967297", b"five",
)  # fmt: skip


def _length(rng: random.Random, target: Target) -> Attempt:
    return _of(target.request(b"Content-Length: " + rng.choice(_LENGTHS)), leaving=Leaving.HALF)


def _two_lengths(rng: random.Random, target: Target) -> Attempt:
    size = len(target.body)
    other = rng.choice([0, 1, size - 1, size, size + 1])
    return _of(
        target.request(b"Content-Length: %d" % other, b"Content-Length: %d" % size, body=_smuggled(target)),
        leaving=Leaving.HALF,
        hides=other != size,
    )


def _length_too_long(rng: random.Random, target: Target) -> Attempt:
    leaving = rng.choice([Leaving.HALF, Leaving.CLOSES, Leaving.RESETS])
    return _of(target.request(b"Content-Length: %d" % (len(target.body) + rng.randrange(1, 10_000))), leaving=leaving)


def _length_too_short(rng: random.Random, target: Target) -> Attempt:
    return _of(target.request(b"Content-Length: %d" % rng.randrange(0, len(target.body))))


def _smuggled(target: Target) -> bytes:
    """A body that holds another request, where a reader of another mind finds one."""
    return target.body + b"GET " + HIDDEN + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"


_ENCODINGS = (
    b"Transfer-Encoding: chunked, identity", b"Transfer-Encoding: identity", b"Transfer-Encoding: xchunked",
    b"Transfer-Encoding : chunked", b"Transfer-Encoding:\x0bchunked", b"Transfer-Encoding: chunked\x00",
    b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: chunked, chunked", b"Transfer-Encoding:\r\n chunked",
    b"Transfer-Encoding: Chunked", b"X: y\nTransfer-Encoding: chunked", b"Transfer_Encoding: chunked",
    b"Transfer-Encoding: \"chunked\"", b"Transfer-Encoding: chunked;q=1", b"Transfer-Encoding:",
    b"Transfer-Encoding: c",
)  # fmt: skip


def _length_and_chunks(rng: random.Random, target: Target) -> Attempt:
    """The pairs by which requests are smuggled past a proxy: each reader counts the body by another header.

    By its length the body is the right one and all of the rest; by its chunks it ends before the hidden request.
    """
    body = b"0\r\n\r\nGET " + HIDDEN + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"
    pair = [rng.choice((*_ENCODINGS, b"Transfer-Encoding: chunked")), b"Content-Length: %d" % len(body)]
    rng.shuffle(pair)
    return _of(target.request(*pair, body=body), leaving=Leaving.HALF, hides=True)


def _two_encodings(rng: random.Random, target: Target) -> Attempt:
    first, second = rng.sample(_ENCODINGS, 2)
    return _of(target.request(first, second, body=_chunks(rng, target.body)), leaving=Leaving.HALF)


def _chunks(rng: random.Random, body: bytes, *, ending: bytes = b"0\r\n\r\n") -> bytes:
    written, place = [], 0
    while place < len(body):
        size = rng.randrange(1, 40)
        piece = body[place : place + size]
        style = rng.choice([b"%x", b"%X", b"%08x", b"%x;a=b", b'%x;a="\xc3\xa9"'])
        written.append(style % len(piece) + CRLF + piece + CRLF)
        place += size
    return b"".join(written) + ending


def _odd_chunks(rng: random.Random, target: Target) -> Attempt:
    return _of(target.chunked(body=_chunks(rng, target.body)))


def _chunks_byte_by_byte(rng: random.Random, target: Target) -> Attempt:
    whole = target.chunked(body=_chunks(rng, target.body))
    cuts = sorted(rng.sample(range(1, len(whole)), 20))
    return _of(*(whole[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(whole)], strict=True)))


_BAD_CHUNKS = (
    b"zz\r\nabc\r\n", b"-5\r\nabcde\r\n", b"FFFFFFFFFFFFFFFF\r\nabc\r\n", b"FFFFFFFFFFFFFFFFFF\r\n", b"5\nabcde\n",
    b"5\r\nabcdefgh\r\n", b"5\r\nabc", b"\r\n", b"5 \r\nabcde\r\n", b"0x5\r\nabcde\r\n", b"5\r\nabcde0\r\n\r\n",
    b"5;" + b"a" * 70_000 + b"\r\nabcde\r\n", b"7fffffff\r\n", b"\x00\r\n", b"5\rabcde\r",
)  # fmt: skip


def _bad_chunk(rng: random.Random, target: Target) -> Attempt:
    return _of(target.chunked(body=rng.choice(_BAD_CHUNKS)), leaving=Leaving.HALF)


def _trailers(rng: random.Random, target: Target) -> Attempt:
    trailer = rng.choice([b"A: b\r\n", b"Content-Length: 5\r\n", b"no colon\r\n", b"A: \x00\r\n", b"A: b\r\n" * 3_000])
    return _of(target.chunked(body=_chunks(rng, target.body, ending=b"0\r\n" + trailer + CRLF)), leaving=Leaving.HALF)


def _pipelined(rng: random.Random, target: Target) -> Attempt:
    count = rng.randrange(2, 9)
    return _of(target.good() * count, good=count)


def _pipelined_then_garbage(rng: random.Random, target: Target) -> Attempt:
    count = rng.randrange(1, 4)
    return _of(target.good() * count, rng.choice([rng.randbytes(50), b"\r\n\r\n\r\n", b"GET\r\n\r\n"]), good=0)


def _byte_by_byte(_: random.Random, target: Target) -> Attempt:
    whole = target.good()
    return _of(*(whole[place : place + 7] for place in range(0, len(whole), 7)), good=1)


def _cut_short(rng: random.Random, target: Target) -> Attempt:
    whole = target.good()
    leaving = rng.choice([Leaving.HALF, Leaving.CLOSES, Leaving.RESETS])
    return _of(whole[: rng.randrange(0, len(whole))], leaving=leaving)


def _gone_at_once(rng: random.Random, target: Target) -> Attempt:
    return _of(target.good() * rng.randrange(1, 4), leaving=rng.choice([Leaving.CLOSES, Leaving.RESETS]))


def _expects(rng: random.Random, target: Target) -> Attempt:
    expected = rng.choice([b"100-continue", b"100-Continue", b"200-ok", b"100-continue, 100-continue", b""])
    whole = target.request(b"Expect: " + expected, b"Content-Length: %d" % len(target.body))
    head, _, body = whole.partition(b"\r\n\r\n")
    return _of(head + b"\r\n\r\n", body, good=1)


def _upgrades(rng: random.Random, target: Target) -> Attempt:
    offer = rng.choice([b"websocket", b"h2c", b"TLS/1.0", b"h2c, websocket", b"\xff", b""])
    more = (b"Connection: Upgrade, HTTP2-Settings", b"HTTP2-Settings: AAMAAABkAAQAAP__", b"Upgrade: " + offer)
    sockets = (b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", b"Sec-WebSocket-Version: 13")
    return _of(target.request(*more, *sockets, b"Content-Length: %d" % len(target.body)))


def _old_http(rng: random.Random, target: Target) -> Attempt:
    line = b"POST " + target.path + rng.choice([b" HTTP/1.0", b" HTTP/1.0\r\nConnection: keep-alive"])
    return _of(target.request(b"Content-Length: %d" % len(target.body), line=line), good=1)


def _head_requests(rng: random.Random, target: Target) -> Attempt:
    path = rng.choice([b"/", b"/v1/endpoints", b"/healthz", b"/docs", target.path, b"/v2", b"/nowhere"])
    return _of(target.request(line=b"HEAD " + path + b" HTTP/1.1", body=b""), has_bodies=False)


def _wrong_body(rng: random.Random, target: Target) -> Attempt:
    """The right body with some bytes changed, cut out or put in, NUL and halves of UTF-8 among them."""
    body = bytearray(target.body)
    for _ in range(rng.randrange(1, 6)):
        place = rng.randrange(0, len(body))
        change = rng.choice(
            [b"\x00", b"\xff", b"\xe2\x82", b"[", b"]", b"{", b'"', b"\\u", b"1e999", b",", b"NaN", b""]
        )
        body[place : place + rng.randrange(0, 4)] = change
    return _of(target.request(b"Content-Length: %d" % len(body), body=bytes(body)))


def _deep_body(rng: random.Random, target: Target) -> Attempt:
    depth = rng.choice([100, 900, 1_000, 5_000, 200_000])
    opening, closing = rng.choice([(b"[", b"]"), (b'{"instances":', b"}")])
    body = rng.choice([opening * depth, opening * depth + b"1" + closing * depth])
    return _of(target.request(b"Content-Length: %d" % len(body), body=body))


def _large_body(rng: random.Random, target: Target) -> Attempt:
    size = rng.choice([1_000_000, 5_000_000, 1 << 40])
    return _of(target.request(b"Content-Length: %d" % size, body=b"[" * 100_000), leaving=Leaving.HALF)


def _bare_line_ends(rng: random.Random, target: Target) -> Attempt:
    return _of(target.good().replace(CRLF, rng.choice([b"\n", b"\r", b"\n\r", b"\r\r\n"])), leaving=Leaving.HALF)


def _empty_lines_first(rng: random.Random, target: Target) -> Attempt:
    return _of(CRLF * rng.randrange(1, 4) + target.good(), good=1)


KINDS: dict[str, Make] = {
    make.__name__.strip("_"): make
    for make in (
        _random_bytes, _line, _absurd_method, _long_line, _header, _many_headers, _large_header, _duplicate_header,
        _length, _two_lengths, _length_too_long, _length_too_short, _length_and_chunks, _two_encodings, _odd_chunks,
        _chunks_byte_by_byte, _bad_chunk, _trailers, _pipelined, _pipelined_then_garbage, _byte_by_byte, _cut_short,
        _gone_at_once, _expects, _upgrades, _old_http, _head_requests, _wrong_body, _deep_body, _large_body,
        _bare_line_ends, _empty_lines_first,
    )
}  # fmt: skip
