"""A real S3-compatible server, `rclone serve s3` out of its wheel: a folder on a free port of loopback."""

import asyncio
import http.client
import os
import re
import signal
import sysconfig
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from harness.servers import running
from harness.stopped import stop_still
from skewless.errors import Unavailable
from skewless.stack.ports import LOOPBACK, free_ports
from skewless.stack.process import ProcessSpec, RunningProcess

ACCESS_KEY = "AKTESTKEY"
SECRET_KEY = "a-secret-that-no-message-shows"
REGION = "eu-central-1"
BUCKET = "models"


@dataclass(slots=True)
class S3Server:
    """A running server with one bucket, which lies in the folder `bucket`; change it through the server only."""

    port: int
    bucket: Path
    process: RunningProcess = field(repr=False)

    @property
    def endpoint(self) -> str:
        """The server's URL."""
        return f"http://{LOOPBACK}:{self.port}"

    def url(self, prefix: str = "", *, port: int | None = None, bucket: str = BUCKET) -> str:
        """What a setting calls a prefix in the bucket; `port` is that of a proxy."""
        return f"s3://{bucket}/{prefix}?endpoint=http://{LOOPBACK}:{port or self.port}&region={REGION}"

    @contextmanager
    def paused(self) -> Iterator[None]:
        """The server takes connections and says nothing."""
        stop_still(self.process.pid)
        try:
            yield
        finally:
            os.kill(self.process.pid, signal.SIGCONT)


@contextmanager
def running_s3(folder: Path, *, port: int | None = None) -> Iterator[S3Server]:
    """A server of the buckets in `folder`, stopped on leaving; `port` None chooses a free one."""
    port = port or free_ports(1)[0]
    bucket = folder / "buckets" / BUCKET
    bucket.mkdir(parents=True, exist_ok=True)
    with running(_spec(folder, port)) as process:
        yield S3Server(port, bucket, process)


def use_credentials(
    monkeypatch: pytest.MonkeyPatch, *, access_key: str = ACCESS_KEY, secret_key: str = SECRET_KEY
) -> None:
    """Put credentials into the environment, and nothing else of AWS."""
    for name in tuple(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret_key)


def _spec(folder: Path, port: int) -> ProcessSpec:
    rclone = Path(sysconfig.get_path("scripts")) / "rclone"
    return ProcessSpec(
        name="s3",
        command=(
            str(rclone),
            "serve",
            "s3",
            f"--addr={LOOPBACK}:{port}",
            str(folder / "buckets"),
        ),
        log_file=folder / "s3.log",
        probe=lambda: _probe(port),
        environment={
            "RCLONE_AUTH_KEY": f'"{ACCESS_KEY},{SECRET_KEY}"',
            "RCLONE_CONFIG": str(folder / "no-rclone.conf"),
        },
    )


async def _probe(port: int) -> None:
    try:
        async with asyncio.timeout(2):
            reader, writer = await asyncio.open_connection(LOOPBACK, port)
            writer.write(b"GET / HTTP/1.0\r\n\r\n")
            answer = await reader.read(5)
            writer.close()
            await writer.wait_closed()
    except OSError as error:
        raise Unavailable("s3", str(error)) from error
    if answer != b"HTTP/":
        raise Unavailable("s3", "it does not speak HTTP")


class Gate:
    """An HTTP server in front of an S3 server that counts requests and may answer some itself.

    `answer` is asked for each request (method, path) for the status to answer with, None to pass it on; what it
    raises or however long it takes is up to the test.
    """

    def __init__(self, target_port: int) -> None:
        self.port = 0
        self.requests: list[tuple[str, str]] = []
        self.answer: Callable[[str, str], int | None] = lambda _method, _path: None
        self.etags = True
        self._target_port = target_port

    def count(self, method: str) -> int:
        """Requests of a method so far."""
        return sum(each == method for each, _ in self.requests)

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        """Answer a request, or pass it on to the server and its answer back."""
        body = request.rfile.read(int(request.headers.get("Content-Length", 0)))
        self.requests.append((request.command, request.path))
        status = self.answer(request.command, request.path)
        headers: list[tuple[str, str]] = []
        answer = b"<Error><Code>Made</Code></Error>"
        if status is None:
            status, headers, answer = self._pass_on(request, body)
        request.send_response_only(status)
        for name, value in headers:
            request.send_header(name, value)
        if request.command != "HEAD":
            request.send_header("Content-Length", str(len(answer)))
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(answer)

    def _pass_on(self, request: BaseHTTPRequestHandler, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(LOOPBACK, self._target_port, timeout=30)
        try:
            connection.request(request.command, request.path, body, dict(request.headers))
            response = connection.getresponse()
            answer = response.read()
            kept = [each for each in response.getheaders() if each[0].lower() not in _OWN_HEADERS or not answer]
            if not self.etags:
                # As of a bucket whose objects are encrypted with a managed key: an etag that is no MD5.
                answer = re.sub(rb"<ETag>[^<]*</ETag>", b"<ETag>of-another-kind</ETag>", answer)
            return response.status, kept, answer
        finally:
            connection.close()


_OWN_HEADERS = ("content-length", "transfer-encoding", "connection")


@contextmanager
def gated(server: S3Server) -> Iterator[Gate]:
    """A gate in front of a server, in threads of its own."""
    gate = Gate(server.port)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            gate.handle(self)

        do_PUT = do_DELETE = do_HEAD = do_GET  # noqa: N815  # the names that the standard library calls

        def log_message(self, *_args: object) -> None:
            """Nothing: what was asked is in `Gate.requests`."""

    listener = ThreadingHTTPServer((LOOPBACK, 0), Handler)
    gate.port = listener.server_address[1]
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield gate
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join(10)
