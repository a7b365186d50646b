"""A real gateway under load beside callers that are slow, hang up half-way, or never read what they asked for."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress

import msgspec
import psutil
import pytest

from bench.load_http import request_bytes
from harness.bundles import BuiltBundle, instance
from harness.fault_load import FaultLoad
from harness.http_wire import answers_of
from harness.machines import AS_OF, Machine, running_machine
from harness.servers import wait_until
from skewless.limits import DEADLINE_MS_MAX, REQUEST_HEAD_S

ENDPOINT = "flight-delay"
PATH = f"/v1/endpoints/{ENDPOINT}/predict"
EACH = 40
SLACK_S = 15.0
"""Beyond a bound that is looked at every second, on a machine that others use too."""
RECEIPT_ROWS = 300


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Machine, BuiltBundle]]:
    with running_machine(tmp_path_factory.mktemp("callers"), tritons=0, TRITON="in-process") as running:
        yield running, running.serve(0)


def address(machine: Machine) -> tuple[str, int]:
    """Host and port."""
    host, _, port = machine.url.removeprefix("http://").partition(":")
    return host, int(port)


def whole(rows: int = 1, receipt: str = "summary") -> bytes:
    """A right request."""
    options = {"as_of": AS_OF, "receipt": receipt, "deadline_ms": DEADLINE_MS_MAX}
    body = json.dumps({"instances": [instance()] * rows, "options": options}).encode()
    return request_bytes(PATH, body, host="localhost")


async def dribbles(machine: Machine, *, head: bool) -> tuple[int, float]:
    """A caller that sends a byte now and then, of its head or of its body; its answer's status and when it came (s)."""
    reader, writer = await asyncio.open_connection(*address(machine))
    begun_s = time.monotonic()
    request = whole()
    start, rest = request.split(b"\r\n\r\n") if not head else (b"POST /", request[6:])
    writer.write(start if head else start + b"\r\n\r\n")
    hearing = asyncio.ensure_future(_heard(reader))
    for place in range(len(rest)):
        done, _ = await asyncio.wait([hearing], timeout=0.2)
        if done:
            break
        writer.write(rest[place : place + 1])
    said = await asyncio.wait_for(hearing, 60)
    writer.close()
    answers, _ = answers_of(said)
    return (answers[0].status if answers else 0), time.monotonic() - begun_s


async def _heard(reader: asyncio.StreamReader) -> bytes:
    """All that comes until the end, which is a reset where the caller's next byte crosses the answer."""
    said = b""
    with suppress(ConnectionResetError):
        while piece := await reader.read(65_536):
            said += piece
    return said


async def half_closes(machine: Machine) -> bytes:
    """A caller that sends a whole request and says that nothing more comes; what it hears until the end."""
    reader, writer = await asyncio.open_connection(*address(machine))
    writer.write(whole())
    writer.write_eof()
    said = await asyncio.wait_for(reader.read(), 60)
    writer.close()
    return said


async def all_at_once(machine: Machine) -> tuple[list[tuple[int, float]], list[tuple[int, float]], list[bytes]]:
    """Every kind of slow caller together."""
    heads = [dribbles(machine, head=True) for _ in range(EACH)]
    bodies = [dribbles(machine, head=False) for _ in range(EACH)]
    halves = [half_closes(machine) for _ in range(EACH)]
    told = await asyncio.gather(asyncio.gather(*heads), asyncio.gather(*bodies), asyncio.gather(*halves))
    return told[0], told[1], told[2]


def test_slow_and_half_closed_callers_are_let_go_in_time_and_cost_the_others_nothing(
    served: tuple[Machine, BuiltBundle],
) -> None:
    machine, built = served
    process = psutil.Process(machine.processes["gateway"].pid)
    with FaultLoad(machine, built).running() as load:
        before = process.num_fds()
        heads, bodies, halves = asyncio.run(all_at_once(machine))
        wait_until(lambda: process.num_fds() <= before + 2, "no descriptor is kept")
    assert Counter(status for status, _ in heads) == {408: EACH}
    assert Counter(status for status, _ in bodies) == {408: EACH}
    assert max(took_s for _, took_s in heads) < REQUEST_HEAD_S + SLACK_S
    assert max(took_s for _, took_s in bodies) < DEADLINE_MS_MAX / 1_000 + SLACK_S
    assert all(answer.status in (200, 503, 504) for said in halves for answer in answers_of(said)[0])
    assert not load.wrong(), load.wrong()[:5]
    assert not load.errors(), load.errors()


def test_a_caller_that_reads_nothing_holds_little_and_keeps_nobody_waiting(
    served: tuple[Machine, BuiltBundle],
) -> None:
    machine, built = served
    process = psutil.Process(machine.processes["gateway"].pid)

    async def ask_and_read_nothing() -> None:
        writers = []
        for _ in range(EACH):
            _, writer = await asyncio.open_connection(*address(machine), limit=1024)
            writer.transport.pause_reading()  # type: ignore[attr-defined]  # a transport that reads
            writer.write(whole(RECEIPT_ROWS, "full") * 3)
            writers.append(writer)
        settled_s = time.monotonic()
        await asyncio.to_thread(wait_until, lambda: len(load.since(settled_s)) > 400, "the others are answered")
        for writer in writers:
            writer.transport.abort()

    with FaultLoad(machine, built).running() as load:
        before = process.num_fds()
        asyncio.run(ask_and_read_nothing())
        wait_until(lambda: process.num_fds() <= before + 2, "no descriptor is kept")
    assert not load.wrong(), load.wrong()[:5]
    assert set(load.errors()) <= {"503 overloaded", "504 deadline_exceeded"}, load.errors()
    assert load.errors().total() < len(load.seen) / 10
    assert msgspec.json.decode(machine.predict().content)["predictions"], "the next is answered"
