"""A worker with a tiny application in place of the gateway: the same server, control channel and way to end.

GET /            its process id, at once
GET /slow        the same, after 0.3 s
GET /hang        never: it blocks the event loop
"""

import asyncio
import faulthandler
import os
import signal
import socket
import sys
import time

import msgspec
import uvloop

from skewless_gateway.control_channel import answer_questions
from skewless_gateway.worker_process import WorkerStart
from skewless_gateway.worker_state import WorkerState
from skewless_http.http_message import Receive, Scope, Send, send_reply
from skewless_http.http_server import HttpServer
from skewless_http.lifecycle import Lifecycle
from skewless_http.listening import ConnectionBoard

SLOW_S = 0.3
DRAIN_S = 5.0
FAILS = "TINY_WORKER_FAILS"
"""Set to an exit status, with which every worker then ends at its start."""
PAGE = b'# HELP tiny_total Tiny.\n# TYPE tiny_total counter\ntiny_total{kind="a b"} 1.0\n'


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        for kind in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{kind}.complete"})
        return
    if scope["path"] == "/hang":
        time.sleep(600)  # noqa: ASYNC251  # that is the point
    if scope["path"] == "/slow":
        await asyncio.sleep(SLOW_S)
    await send_reply(send, 200, [], str(os.getpid()).encode())


async def serve(start: WorkerStart) -> int:
    lifecycle = Lifecycle()
    lifecycle.follow_signals(on_hangup=lambda: None)
    turns = ConnectionBoard(start.board, start.workers).turns_of(start.worker)
    server = HttpServer(answer, socket.socket(fileno=start.listener), connections_max=100, turns=turns)
    await server.open()
    if start.listen_now:
        server.listen()
    control = asyncio.create_task(tell(socket.socket(fileno=start.control), server, lifecycle))
    await lifecycle.stop.wait()
    await server.drain(DRAIN_S, at_once=lifecycle.at_once)
    await server.close()
    control.cancel()
    return 1 if lifecycle.at_once.is_set() else 0


async def tell(control: socket.socket, server: HttpServer, lifecycle: Lifecycle) -> None:
    async def state(_text: str) -> bytes:
        said = WorkerState(
            os.getpid(), 0.0, server.is_listening, lifecycle.is_draining, server.connections, server.requests
        )
        return msgspec.json.encode(said)

    async def readiness(_text: str) -> bytes:
        return msgspec.json.encode((True, {"parts": {}}))

    async def page(_text: str) -> bytes:
        return PAGE

    async def listen(_text: str) -> bytes:
        server.listen()
        return b""

    await answer_questions(control, {"state": state, "readiness": readiness, "metrics": page, "listen": listen})
    lifecycle.lose_parent()


def main() -> None:
    if status := os.environ.get(FAILS):
        sys.exit(int(status))
    faulthandler.enable()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    sys.exit(uvloop.run(serve(msgspec.json.decode(sys.argv[1], type=WorkerStart))))


if __name__ == "__main__":
    main()
