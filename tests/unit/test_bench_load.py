"""The load generator: what it counts, from when on, and what it calls an error. Against a server in a thread."""

import asyncio
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import numpy as np
import pytest

from bench.load_block import GENERATOR, LoadBlock, ProcessorTimes
from bench.load_http import Connection, body_of, request_bytes, status_of
from bench.load_loops import Aim, ClosedLoop, OpenLoop
from bench.load_timing import SERVED, load_generator, timing_of_load

OK_REPLY = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
REQUEST = request_bytes("/", b"{}", host="local")


class _Server(asyncio.Protocol):
    """Answers every request with what `reply_to` says about its number: bytes and a delay in seconds; None hangs up."""

    def __init__(self, reply_to: Callable[[int], tuple[bytes, float] | None], numbers: Iterator[int]) -> None:
        self._reply_to, self._numbers = reply_to, numbers

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        for _ in range(data.count(b"\r\n\r\n")):
            answer = self._reply_to(next(self._numbers))
            if answer is None:
                self._transport.close()
                return
            asyncio.get_running_loop().call_later(answer[1], self._transport.write, answer[0])


@contextmanager
def _serving(reply_to: Callable[[int], tuple[bytes, float] | None]) -> Iterator[Aim]:
    """A server on a free port in a thread; requests are numbered as they arrive, over all connections."""
    listener = socket.create_server(("127.0.0.1", 0))
    loop = asyncio.new_event_loop()
    numbers = iter(range(1_000_000))

    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(lambda: _Server(reply_to, numbers), sock=listener)
        async with server:
            await server.serve_forever()

    def run() -> None:
        with suppress(asyncio.CancelledError):
            loop.run_until_complete(task)

    task = loop.create_task(serve())
    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield Aim("127.0.0.1", listener.getsockname()[1], (REQUEST,))
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join()
        loop.close()


def test_a_closed_loop_keeps_each_caller_waiting_for_its_answer() -> None:
    with _serving(lambda _: (OK_REPLY, 0.02)) as aim:
        block = ClosedLoop(aim, callers=4, warm_up_s=0.05, duration_s=0.3).run()
    assert block.failed == 0
    assert block.latencies_ns.min() >= 19e6, "no answer can be there before the server's delay"
    assert 1 <= block.answers <= 4 * 0.3 / 0.019 + 4, "four callers cannot have more than four answers in one delay"
    assert block.per_s == block.answers / 0.3


def test_a_closed_loop_goes_on_until_there_is_an_answer_to_tell_of() -> None:
    with _serving(lambda _: (OK_REPLY, 0.3)) as aim:
        block = ClosedLoop(aim, callers=1, warm_up_s=0.05, duration_s=0.1).run()
    assert block.failed == 0
    assert block.answers >= 1
    assert block.latencies_ns.min() >= 290e6
    assert block.seconds > 0.2, "the block was made longer than it was to be"
    assert block.seconds == pytest.approx(0.1 * round(block.seconds / 0.1))


def test_an_open_loop_charges_a_stall_to_every_request_that_was_due_meanwhile() -> None:
    stalled_s = 0.3
    with _serving(lambda number: (OK_REPLY, stalled_s if number == 40 else 0.0)) as aim:
        # One connection: whatever is due while the one request stalls has to wait behind it.
        block = OpenLoop(aim, per_s=200, connections=1, warm_up_s=0.0, duration_s=1.0).run()
    waited = block.latencies_ns / 1e9
    assert block.failed == 0
    assert len(waited) > 100
    assert (waited > stalled_s / 2).sum() >= 0.5 * 200 * stalled_s / 2, "coordinated omission: only one was charged"


def test_an_open_loop_asks_at_the_rate_it_was_told_and_for_a_seed_at_the_same_moments() -> None:
    with _serving(lambda _: (OK_REPLY, 0.0)) as aim:
        blocks = [OpenLoop(aim, 300, 8, warm_up_s=0.0, duration_s=0.5, seed=seed).run() for seed in (1, 1, 2)]
    counts = [len(block.latencies_ns) for block in blocks]
    assert counts[0] == counts[1]
    assert all(abs(count - 150) < 5 * 150**0.5 for count in counts), counts
    assert len(blocks[0].late_ns) > 0


def test_refusals_and_lost_connections_are_errors_and_no_answers() -> None:
    refusal = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"

    def reply_to(number: int) -> tuple[bytes, float] | None:
        return None if number % 10 == 5 else (refusal if number % 10 == 7 else OK_REPLY, 0.001)

    with _serving(reply_to) as aim:
        block = ClosedLoop(aim, callers=2, warm_up_s=0.0, duration_s=0.3).run()
    assert block.errors.keys() == {"503", "ConnectionResetError"}
    assert block.failed == sum(block.errors.values()) > 2
    assert len(block.latencies_ns) > 2 * block.failed, "the callers went on after each error"


def test_requests_without_an_answer_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.load_loops.DRAIN_S", 0.1)
    with _serving(lambda number: (OK_REPLY, 0.0 if number < 3 else 60.0)) as aim:
        closed = ClosedLoop(aim, callers=1, warm_up_s=0.0, duration_s=0.1).run()
        opened = OpenLoop(aim, per_s=100, connections=1, warm_up_s=0.0, duration_s=0.2).run()
    assert closed.errors == {"unanswered": 1}
    assert opened.errors["unanswered"] == 1
    assert opened.errors["unsent"] > 1, "what waited for a free connection was due as well"


def test_a_reply_is_whole_only_with_its_last_byte() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    connection = Connection(*listener.getsockname())
    server, _ = listener.accept()
    whole = b"HTTP/1.1 201 Created\r\nX-Odd: content-length\r\nContent-LENGTH:  5\r\n\r\nhello"
    try:
        for cut in (4, 30, len(whole) - 1):
            server.sendall(whole[:cut])
            assert connection.receive() is None
            server.sendall(whole[cut:])
            reply = connection.receive()
            assert reply == whole
            assert (status_of(reply), body_of(reply)) == (201, b"hello")
        server.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        with pytest.raises(ValueError, match="status 200 does not say how long"):
            connection.receive()
        server.close()
        with pytest.raises(ConnectionResetError, match="closed the connection"):
            connection.receive()
    finally:
        for each in (server, listener, connection):
            each.close()


def test_processor_time_counts_all_answers_of_the_time_that_it_was_taken_over() -> None:
    with _serving(lambda _: (OK_REPLY, 0.0)) as aim, load_generator() as generator:
        watched = Aim(aim.host, aim.port, aim.requests, {SERVED: os.getpid()})
        block = generator.run(ClosedLoop(watched, callers=1, warm_up_s=0.1, duration_s=0.1))
    assert block.cpu_answers > block.answers > 0, "the warm-up's answers cost time too"
    assert block.cpu_s.keys() == {SERVED, GENERATOR}
    assert 0 < block.cpu_us(GENERATOR) < 100_000


def test_processor_time_of_children_counts_while_they_live_and_after_they_ended() -> None:
    count = "import sys; sum(range(4_000_000)); sys.stdout.write('done'); sys.stdout.flush(); sys.stdin.read()"
    times = ProcessorTimes({SERVED: os.getpid()})
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-S", "-c", count], stdin=pipe, stdout=pipe) as child:
        assert child.stdout is not None
        assert child.stdout.read(4) == b"done"
        before = times.passed()
    after = times.passed()
    own = before[GENERATOR]
    assert before[SERVED] - own > 0.02, "the child counted to four million"
    assert after[SERVED] >= before[SERVED] - 0.02, "ended processes are told in hundredths of a second"


def test_the_timing_of_load_takes_medians_over_blocks_and_tails_over_all_answers() -> None:
    blocks = [
        LoadBlock(
            np.arange(1, 101) * 1_000 * scale,
            100,
            0.5,
            {"503": 1},
            {SERVED: 0.001 * scale, GENERATOR: 0.5},
            100,
        )
        for scale in (1, 2, 9)
    ]
    timing = timing_of_load(blocks)
    assert timing.p50s_us == (50.5, 101.0, 454.5)
    assert (timing.p50_us, timing.p50_low_us, timing.p50_high_us) == (101.0, 50.5, 454.5)
    assert (timing.calls, timing.cpu_us) == (300, 20.0)
    assert timing.load is not None
    assert timing.load.per_s == (200.0, 200.0, 200.0)
    assert timing.load.p99s_us == (99.01, 198.02, 891.09)
    assert timing.load.p999_us > 890
    assert timing.load.failed == 3
    assert timing.load.cpu_us == {SERVED: 20.0, GENERATOR: 5_000.0}


def test_a_block_without_any_answer_has_no_timing() -> None:
    empty = LoadBlock(np.zeros(0, dtype=np.int64), 0, 1.0, {"unanswered": 2})
    with pytest.raises(ValueError, match="'unanswered': 2"):
        timing_of_load([empty])
