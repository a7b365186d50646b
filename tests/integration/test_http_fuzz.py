"""A real gateway process against requests that no client should send, over raw sockets, by a seeded fuzzer.

Whatever comes, each connection gets HTTP or a close, no 5xx but for overload and deadlines, and the next right request
its right answer; nothing is logged as a fault of ours, and the process holds no more afterwards than before.
`SKEWLESS_TEST_FUZZ` says how many attempts, `SKEWLESS_TEST_FUZZ_SEED` which.
"""

import asyncio
import os
import socket
import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from harness.bundles import instance
from harness.gateways import ENDPOINT
from harness.http_fuzz import HIDDEN, KINDS, Attempt, Leaving, Target, attempts
from harness.http_wire import MalformedAnswer, WireAnswer, answers_of
from harness.machines import AS_OF, Machine, running_machine
from harness.process_size import size_of
from harness.servers import wait_until

COUNT = int(os.environ.get("SKEWLESS_TEST_FUZZ", "960"))
SEED = int(os.environ.get("SKEWLESS_TEST_FUZZ_SEED", "6"))
AT_ONCE = 24
BLOCK = 4 * len(KINDS)
SILENCE_S = 0.7
"""After which a connection without an answer counts as one that waits for more, as the head of a request may."""
ANSWER_S = 60.0
STATUSES = {200, 400, 401, 403, 404, 405, 408, 413, 414, 415, 431}
WHEN_BUSY = {503, 504}
GROWTH_BYTES = 24 * 1024 * 1024
"""Caches fill and the allocator keeps some; a leak of 100 KiB an attempt would be four times as much."""
RESET = struct.pack("ii", 1, 0)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A gateway that runs its model itself, so that what is asked by mistake costs little."""
    with running_machine(tmp_path_factory.mktemp("fuzz"), tritons=0, TRITON="in-process") as running:
        running.serve(0)
        yield running


@pytest.fixture(scope="module")
def target() -> Target:
    body = {"instances": [instance()], "options": {"as_of": AS_OF, "deadline_ms": 10_000}}
    return Target(f"/v1/endpoints/{ENDPOINT}/predict".encode(), msgspec.json.encode(body))


async def heard(address: tuple[str, int], attempt: Attempt) -> tuple[bytes, bool]:
    """What the server said to an attempt, and whether it closed the connection."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        with suppress(ConnectionError):
            for piece in attempt.pieces:
                writer.write(piece)
                await writer.drain()
            if attempt.leaving is Leaving.HALF:
                writer.write_eof()
        if attempt.leaving in (Leaving.CLOSES, Leaving.RESETS):
            return b"", True
        return await _everything(reader, attempt)
    finally:
        if attempt.leaving is Leaving.RESETS:
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def _everything(reader: asyncio.StreamReader, attempt: Attempt) -> tuple[bytes, bool]:
    said = b""
    while True:
        owed = len(answers_of(said, has_bodies=attempt.has_bodies)[0]) < attempt.good
        try:
            async with asyncio.timeout(ANSWER_S if owed else SILENCE_S):
                piece = await reader.read(1 << 16)
        except TimeoutError:
            return said, False
        except ConnectionError:
            return said, True
        if not piece:
            return said, True
        said += piece


def check(attempt: Attempt, said: bytes, expected: object) -> list[int]:
    """Statuses of the answers. Raises AssertionError, MalformedAnswer."""
    answers, cut = answers_of(said, has_bodies=attempt.has_bodies)
    assert not cut, f"an answer was cut: {cut[:300]!r}"
    statuses = [answer.status for answer in answers]
    assert set(statuses) <= STATUSES | WHEN_BUSY, statuses
    if attempt.hides:
        assert not any(HIDDEN in answer.body for answer in answers), "the hidden request was asked"
    right = [answer for answer in answers[: attempt.good] if answer.status not in WHEN_BUSY]
    if attempt.good and attempt.kind != "expects":
        assert len(answers) >= attempt.good, f"{attempt.good} right requests, {statuses}"
    for answer in right:
        assert _predictions(answer) == expected
    return statuses


def _predictions(answer: WireAnswer) -> object:
    assert answer.status == 200, answer
    return answer.json()["predictions"]


async def _block(machine: Machine, made: list[Attempt], expected: object) -> Counter[str]:
    host, _, port = machine.url.removeprefix("http://").partition(":")
    room = asyncio.Semaphore(AT_ONCE)
    seen: Counter[str] = Counter()
    wrong: list[str] = []

    async def one(attempt: Attempt) -> None:
        async with room:
            said, _ = await heard((host, int(port)), attempt)
        try:
            statuses = check(attempt, said, expected)
        except (AssertionError, MalformedAnswer) as error:
            wrong.append(f"{attempt.kind}: {error}\n  sent {attempt.pieces!r:.1500}\n  heard {said!r:.1000}")
            return
        seen.update(f"{attempt.kind} {status or 'closed'}" for status in statuses or [0])

    await asyncio.gather(*(one(attempt) for attempt in made))
    assert not wrong, f"seed {SEED}, {len(wrong)} wrong:\n" + "\n".join(wrong[:10])
    return seen


async def test_whatever_is_sent_gets_http_or_a_close_and_hurts_nobody(machine: Machine, target: Target) -> None:
    pid = machine.processes["gateway"].pid
    expected = machine.predict().json()["predictions"]
    made = attempts(SEED, COUNT, target)
    await _block(machine, made[:BLOCK], expected)
    before = size_of(pid)
    seen: Counter[str] = Counter()
    for start in range(BLOCK, COUNT, BLOCK):
        seen += await _block(machine, made[start : start + BLOCK], expected)
        response = await asyncio.to_thread(machine.predict)
        assert response.status_code == 200, (SEED, start, response.text)
        assert response.json()["predictions"] == expected
    assert machine.processes["gateway"].exit_status() is None, "the process lives"
    await asyncio.to_thread(_is_small_again, pid, before.pss_bytes, before.descriptors)
    _no_fault_of_ours(machine.specs["gateway"].log_file)
    assert len({each.split()[0] for each in seen}) == len(KINDS), f"every kind was tried: {seen}"


def _is_small_again(pid: int, pss_bytes: int, descriptors: int) -> None:
    def is_small() -> bool:
        now = size_of(pid)
        return now.descriptors <= descriptors + 5 and now.pss_bytes <= pss_bytes + GROWTH_BYTES

    wait_until(is_small, f"no descriptor and no memory is kept: {size_of(pid)}, before {pss_bytes} {descriptors}")


def _no_fault_of_ours(log: Path) -> None:
    wrong = [
        line
        for line in log.read_text(errors="replace").splitlines()
        if "Traceback" in line or '"level": "error"' in line
    ]
    assert not wrong, f"seed {SEED}: {wrong[:5]}"
