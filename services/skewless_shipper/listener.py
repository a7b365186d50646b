"""The shipper's own small HTTP server: `/metrics` and `/healthz`, one request at a time, in a thread."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer

from skewless.errors import InvalidSettings
from skewless.limits import SHIPPER_REQUEST_S
from skewless_shipper.metrics import CONTENT_TYPE

_PLAIN = "text/plain; charset=utf-8"


@contextmanager
def listening(host: str, port: int, *, page: Callable[[], bytes], health: Callable[[], str]) -> Iterator[int]:
    """Answers inside, on the port given, or a free one where it is 0; the port in use is what the block gets.

    `health` says what is wrong, nothing where all is well. Raises InvalidSettings where the port cannot be used.
    """
    answers: dict[str, Callable[[], tuple[HTTPStatus, str, bytes]]] = {
        "/metrics": lambda: (HTTPStatus.OK, CONTENT_TYPE, page()),
        "/healthz": lambda: _told(health()),
    }

    class Handler(BaseHTTPRequestHandler):
        timeout = SHIPPER_REQUEST_S

        def do_GET(self) -> None:
            unknown = HTTPStatus.NOT_FOUND, _PLAIN, b"there are /metrics and /healthz\n"
            status, kind, body = answers.get(self.path.partition("?")[0], lambda: unknown)()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            """Nothing: scrapes are no events."""

    try:
        server = HTTPServer((host, port), Handler)
    except OSError as error:
        raise InvalidSettings(
            f"SKEWLESS_SHIPPER_PORT {port} on {host} cannot be listened on: {error.strerror}",
            hint="give it another port, or 0 for no listener",
        ) from error
    thread = threading.Thread(target=server.serve_forever, name="listener", daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join(SHIPPER_REQUEST_S)


def _told(problem: str) -> tuple[HTTPStatus, str, bytes]:
    status = HTTPStatus.SERVICE_UNAVAILABLE if problem else HTTPStatus.OK
    return status, _PLAIN, f"{problem or 'ok'}\n".encode()
