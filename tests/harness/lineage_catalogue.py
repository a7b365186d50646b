"""A catalogue of lineage that notes what it was sent."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


@contextmanager
def catalogue(*, taken_max: int = 100) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A receiver of lineage that takes so many events; its URL and what it was sent."""
    got: list[dict[str, Any]] = []

    class Catalogue(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            taken = len(got) < taken_max
            if taken:
                got.append(
                    {"path": self.path, "authorization": self.headers["Authorization"], "event": json.loads(body)}
                )
            self.send_response(201 if taken else 503)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Not to the test's output."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Catalogue) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://me:secret@127.0.0.1:{server.server_port}/api/v1/lineage", got
        finally:
            server.shutdown()
