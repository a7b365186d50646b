"""One gateway process under mixed traffic for as long as one likes: what it holds afterwards is what it held before.

Predictions of one row and of fifty, by several protocols, outcomes, looks at what is served, requests that are
wrong, connections that break. `make endurance` asks a million requests; `SKEWLESS_TEST_ENDURANCE` says how many.
"""

import json
import os
import random
import socket
import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field

import psutil
import pytest

from bench.load_exchange import exchange
from bench.load_http import body_of, request_bytes, status_of
from harness import http_calls
from harness.bundles import BuiltBundle, instance
from harness.fault_load import Expected
from harness.machines import AS_OF, Machine, running_machine
from harness.process_size import ProcessSize, size_of
from harness.protocols import OIP, TENSORFLOW, json_tensors
from harness.servers import wait_until

REQUESTS = int(os.environ.get("SKEWLESS_TEST_ENDURANCE", "10000"))
SEED = 6
AT_ONCE = 1_000
CALLERS = 24
WARM_UP = 5_000
"""Requests until caches are full, pools open and the allocator has what it will ever want."""
ENDPOINT = "flight-delay"
PREDICT = f"/v1/endpoints/{ENDPOINT}/predict"
BROKEN_SHARE = 0.02
"""Of every thousand requests so many more are begun and given up."""
WHEN_BUSY = {503, 504}
GROWTH_BYTES = 12 * 1024 * 1024
"""What two looks at an unchanging process may differ by: the log's buffers, arrays of the largest requests."""
BYTES_A_REQUEST = 16.0
"""More than this for each of a million requests would be a leak, however slow."""
RESET = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, the status it must have, and the probability of its first row where it is a prediction."""

    request: bytes
    status: int
    probability: float | None = None


@dataclass
class Traffic:
    """Makes requests, and checks their answers."""

    built: BuiltBundle
    rng: random.Random
    statuses: Counter[int] = field(default_factory=Counter)
    ids: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._expected = {party: Expected.of(self.built, party=party).with_features for party in range(1, 9)}

    def next(self) -> Asked:
        """One request of the mix."""
        kind = self.rng.choices(tuple(MIX), tuple(MIX.values()))[0]
        made: Asked = getattr(self, f"_{kind}")()
        return made

    def check(self, asked: Asked, reply: bytes) -> None:
        """Raises AssertionError where the answer is not what it must be."""
        status = status_of(reply)
        self.statuses[status] += 1
        if status in WHEN_BUSY:
            return
        assert status == asked.status, (asked.request[:400], reply[:600])
        if asked.probability is not None:
            body = json.loads(body_of(reply))
            assert _probability(body) == asked.probability, (asked.request[:400], reply[:600])
            if "prediction_ids" in body:
                self.ids = [*self.ids[-100:], *body["prediction_ids"][:1]]

    def _rest(self, rows: int = 1) -> Asked:
        party = self.rng.randrange(1, 9)
        instances = [instance(party=party)] + [self._stranger() for _ in range(rows - 1)]
        receipt = self.rng.choice(["summary", "none", "full"])
        body = {"instances": instances, "options": {"as_of": AS_OF, "receipt": receipt, "deadline_ms": 10_000}}
        return Asked(_post(PREDICT, body), 200, self._expected[party])

    def _rows(self) -> Asked:
        return self._rest(rows=50)

    def _stranger(self) -> dict[str, object]:
        """Entities that were never asked before: whatever remembers them must forget them."""
        return instance(origin=f"O{self.rng.getrandbits(40)}", tailnum=f"N{self.rng.getrandbits(40)}")

    def _oip(self) -> Asked:
        party = self.rng.randrange(1, 9)
        body = {"inputs": json_tensors([instance(party=party)]), "parameters": {"as_of": AS_OF, "deadline_ms": 10_000}}
        return Asked(_post(f"{OIP}/infer", body), 200, self._expected[party])

    def _wrong(self) -> Asked:
        wrong = instance(**{self.rng.choice(["origin", "station", "party"]): f"no-{self.rng.getrandbits(40)}" * 200})
        return Asked(_post(PREDICT, {"instances": [wrong]}), 400)

    def _malformed(self) -> Asked:
        return Asked(request_bytes(PREDICT, b'{"instances": [' + self.rng.randbytes(30), host="localhost"), 400)

    def _nowhere(self) -> Asked:
        return Asked(_post(f"/v1/endpoints/e{self.rng.getrandbits(40)}/predict", {"instances": [instance()]}), 404)

    def _no_route(self) -> Asked:
        return Asked(_post(f"/nowhere/{self.rng.getrandbits(40)}", {}), 404)

    def _too_late(self) -> Asked:
        body = {"instances": [instance()] * 200, "options": {"as_of": AS_OF, "deadline_ms": 1}}
        return Asked(_post(PREDICT, body), 504)

    def _tensorflow_wrong(self) -> Asked:
        return Asked(_post(f"{TENSORFLOW}:predict", {"instances": [{"a": self.rng.getrandbits(40)}]}), 400)

    def _outcomes(self) -> Asked:
        outcomes = [{"prediction_id": each, "label": "late"} for each in self.ids[-5:]]
        return Asked(_post("/v1/outcomes", {"outcomes": outcomes}), 200 if outcomes else 400)

    def _look(self) -> Asked:
        path = self.rng.choice(["/healthz", "/readyz", "/v1/endpoints", f"/v1/endpoints/{ENDPOINT}", OIP])
        return Asked(request_bytes(path, b"", host="localhost", method="GET"), 200)


MIX = {
    "rest": 70, "rows": 4, "oip": 8, "wrong": 5, "malformed": 2, "nowhere": 3, "no_route": 1, "too_late": 1,
    "tensorflow_wrong": 2, "outcomes": 2, "look": 2,
}  # fmt: skip


def _post(path: str, body: object) -> bytes:
    return request_bytes(path, json.dumps(body).encode(), host="localhost")


def _probability(body: dict[str, object]) -> float:
    if "predictions" in body:
        predictions: list[dict[str, float]] = body["predictions"]  # type: ignore[assignment]  # an answer's form
        return predictions[0]["probability"]
    outputs: list[dict[str, list[float]]] = body["outputs"]  # type: ignore[assignment]  # an answer's form
    return next(each["data"][0] for each in outputs if each["name"] == "probability")  # type: ignore[comparison-overlap]


def break_off(machine: Machine, rng: random.Random) -> None:
    """A connection with a request that is given up half-way, or before its answer."""
    host, _, port = machine.url.removeprefix("http://").partition(":")
    whole = _post(PREDICT, {"instances": [instance()] * 20})
    with socket.create_connection((host, int(port)), timeout=30) as connection, suppress(OSError):
        connection.sendall(whole[: rng.choice([rng.randrange(1, len(whole)), len(whole)])])
        if rng.random() < 0.5:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


def tasks(machine: Machine) -> int:
    """Tasks of the gateway's event loop."""
    return http_calls.get(f"{machine.admin_url}/debug/stacks", timeout=30).text.count("\ntask ")


@pytest.fixture
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    folder = tmp_path_factory.mktemp("endurance")
    with running_machine(folder, tritons=0, TRITON="in-process", LOG_FLUSH_MS="200") as running:
        yield running


def settled(machine: Machine) -> tuple[ProcessSize, int]:
    """What the gateway holds once nobody asks: its size and its tasks."""
    pid = machine.processes["gateway"].pid
    wait_until(lambda: "\nskewless_connections 0.0" in machine.metrics(), "every connection is gone")
    # A part of the log that is full is sealed by a process of its own, which has descriptors too.
    wait_until(lambda: not psutil.Process(pid).children(), "nothing is being sealed")
    return size_of(pid), tasks(machine)


@pytest.fixture
def reporter(pytestconfig: pytest.Config) -> pytest.TerminalReporter:
    """What writes to the terminal whatever becomes of the test."""
    found = pytestconfig.pluginmanager.getplugin("terminalreporter")
    assert isinstance(found, pytest.TerminalReporter)
    return found


def test_after_all_that_it_holds_what_it_held_before(
    machine: Machine, reporter: pytest.TerminalReporter, capfd: pytest.CaptureFixture[str]
) -> None:
    traffic = Traffic(machine.serve(0), random.Random(SEED))
    host, _, port = machine.url.removeprefix("http://").partition(":")
    made, before = 0, None
    while made < REQUESTS:
        if before is None and made >= min(WARM_UP, REQUESTS // 2):
            before, counted = settled(machine), made
        batch = [traffic.next() for _ in range(min(AT_ONCE, REQUESTS - made))]
        replies = exchange(host, int(port), [each.request for each in batch], connections=CALLERS)
        for asked, reply in zip(batch, replies, strict=True):
            traffic.check(asked, reply)
        for _ in range(round(len(batch) * BROKEN_SHARE)):
            break_off(machine, traffic.rng)
        made += len(batch)
    assert before is not None
    after, tasks_after = settled(machine)
    told = (
        f"{made} requests, {dict(traffic.statuses)}: {before[0]} and {before[1]} tasks, then {after} and {tasks_after}"
    )
    with capfd.disabled():
        reporter.write_line(f"\n{told}")  # what `make endurance` is run for
    assert after.descriptors <= before[0].descriptors + 3, told
    assert after.threads <= before[0].threads + 2, told
    assert tasks_after <= before[1] + 2, told
    assert after.pss_bytes <= before[0].pss_bytes + GROWTH_BYTES + BYTES_A_REQUEST * (made - counted), told
    assert traffic.statuses[200] > 0.7 * made, told
    assert sum(traffic.statuses[each] for each in WHEN_BUSY) < 0.05 * made, told
