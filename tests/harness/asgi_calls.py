"""The gateway's real application asked without a socket, in the test's own event loop."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from harness.gateways import ENDPOINT, GatewayOverFakes
from harness.polling import SOON_S
from skewless_gateway.app import create_app
from skewless_http.http_message import Application, Message, Scope

_EVERY_S = 0.01


@dataclass(frozen=True, slots=True)
class AsgiAnswer:
    """What an application sent."""

    status: int
    headers: Mapping[bytes, bytes]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def scope_of(
    method: str, path: str, *, headers: Sequence[tuple[bytes, bytes]] = (), scheme: str = "http", query: bytes = b""
) -> Scope:
    """What a server says about a request."""
    return {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "scheme": scheme,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query,
        "root_path": "",
        "headers": list(headers),
        "client": ("127.0.0.1", 50_000),
        "server": ("127.0.0.1", 8_100),
        "state": {},
    }


async def ask(
    application: Application,
    method: str,
    path: str,
    body: bytes | Sequence[Message] = b"",
    *,
    headers: Sequence[tuple[bytes, bytes]] = ((b"content-type", b"application/json"),),
    scheme: str = "http",
) -> AsgiAnswer | None:
    """One request with a body, or with the messages that a server gives for it; None where nothing was sent."""
    given = [{"type": "http.request", "body": body}] if isinstance(body, bytes) else list(body)
    sent: list[Message] = []

    async def receive() -> Message:
        if given:
            return given.pop(0)
        await asyncio.Event().wait()
        raise AssertionError("nothing ever comes")

    async def send(message: Message) -> None:
        sent.append(message)

    await application(scope_of(method, path, headers=headers, scheme=scheme), receive, send)
    if not sent:
        return None
    return AsgiAnswer(
        sent[0]["status"], dict(sent[0]["headers"]), b"".join(message.get("body", b"") for message in sent[1:])
    )


async def predict(application: Application, *instances: Mapping[str, object], endpoint: str = ENDPOINT) -> AsgiAnswer:
    """A prediction request, and its answer."""
    body = json.dumps({"instances": instances}).encode()
    answer = await ask(application, "POST", f"/v1/endpoints/{endpoint}/predict", body)
    assert answer is not None, "a prediction request is answered"
    return answer


@asynccontextmanager
async def application_of(gateway: GatewayOverFakes) -> AsyncIterator[Application]:
    """The application, started and ready to answer."""
    application = create_app(gateway.opened)
    started, stop = asyncio.Event(), asyncio.Event()
    failures: list[str] = []

    async def receive() -> Message:
        if started.is_set():
            await stop.wait()
            return {"type": "lifespan.shutdown"}
        return {"type": "lifespan.startup"}

    async def send(message: Message) -> None:
        if message["type"].endswith("failed"):
            failures.append(message["message"])
        started.set()

    running = asyncio.create_task(_run(application, receive, send))
    await started.wait()
    assert not failures, failures
    try:
        async with asyncio.timeout(SOON_S):
            while not await _is_ready(application):  # noqa: ASYNC110  # bundles are loaded beside, and nobody tells
                await asyncio.sleep(_EVERY_S)
        yield application
    finally:
        stop.set()
        await running


async def _run(application: Application, receive: Any, send: Any) -> None:
    await application({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive, send)


async def _is_ready(application: Application) -> bool:
    answer = await ask(application, "GET", "/readyz")
    return answer is not None and answer.status == 200
