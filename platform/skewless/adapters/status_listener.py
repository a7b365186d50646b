"""A small HTTP server in which a process beside the gateways tells how it is: one request at a time, in a thread."""

import hmac
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer

from skewless.errors import InvalidSettings

PLAIN = "text/plain; charset=utf-8"

Answer = Callable[[], tuple[HTTPStatus, str, bytes]]
"""Status, content type and body of one path, made anew for each request; quick, as others wait meanwhile."""


OPEN = frozenset({"/healthz"})
"""What a probe asks, which has no token."""


@contextmanager
def listening(
    host: str, port: int, answers: Mapping[str, Answer], *, setting: str, request_s: float, token: str = ""
) -> Iterator[int]:
    """Answers GET of each path inside, on the port given, or a free one where it is 0; the block gets the port in use.

    With a token, all but `OPEN` is answered only where it is given. A caller that is silent for `request_s` is cut off.
    Raises InvalidSettings that names `setting` where the port cannot be used.
    """
    expected = f"Bearer {token}".encode()

    class Handler(BaseHTTPRequestHandler):
        timeout = request_s

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            may_ask = not token or path in OPEN or hmac.compare_digest(self._given(), expected)
            status, kind, body = (answers.get(path, unknown) if may_ask else unauthenticated)()
            self.send_response(status)
            if not may_ask:
                self.send_header("WWW-Authenticate", "Bearer")
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _given(self) -> bytes:
            return self.headers.get("Authorization", "").encode("latin-1", "replace")

        def log_message(self, *_arguments: object) -> None:
            """Nothing: scrapes are no events."""

    def unknown() -> tuple[HTTPStatus, str, bytes]:
        return HTTPStatus.NOT_FOUND, PLAIN, f"there are {', '.join(answers)}\n".encode()

    def unauthenticated() -> tuple[HTTPStatus, str, bytes]:
        return HTTPStatus.UNAUTHORIZED, PLAIN, b"this listener wants its token: Authorization: Bearer\n"

    try:
        server = HTTPServer((host, port), Handler)
    except OSError as error:
        raise InvalidSettings(
            f"{setting} {port} on {host} cannot be listened on: {error.strerror}",
            hint="give it another port, or 0 for no listener",
        ) from error
    thread = threading.Thread(target=server.serve_forever, name="listener", daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join(request_s)


def health_answer(problem: str) -> tuple[HTTPStatus, str, bytes]:
    """What `/healthz` answers: 200 where there is no problem, else 503 and the problem."""
    status = HTTPStatus.SERVICE_UNAVAILABLE if problem else HTTPStatus.OK
    return status, PLAIN, f"{problem or 'ok'}\n".encode()
