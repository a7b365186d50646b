"""Callers that go on asking while something is broken, and what became of every request.

Every answer is compared with what was computed alone for the rung that it names, so that under any fault an answer is
right or it is none.
"""

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import numpy as np

from bench.load_http import Connection, body_of, request_bytes, status_of
from harness.bundles import BuiltBundle, contract, instance
from harness.gateways import ENDPOINT
from harness.machines import AS_OF, Machine
from harness.servers import wait_until
from skewless.dtypes import column_of

CALLERS = 4
DEADLINE_MS = 2_000
SLOWEST_S = 20.0
"""The longest that a caller may wait: its deadline, and a machine that others use too. Who is forgotten waits on."""
PAUSE_S = 0.015
"""Between an answer and the caller's next question: of several callers some request is nearly always on its way, and
the machine is left some time for what is tested."""
TOLD_S = 30.0
"""How long a load may take to show what a test waits for."""
_STORED = {"weather__temp": 21.5, "weather__wind_dir": 270, "aircraft__seats": 180, "noise__level": 0.5}
"""Features of JFK, N1 and station 7 in `flights_at`."""
_ABSENT = {"weather__temp": None, "weather__wind_dir": 90, "aircraft__seats": None, "noise__level": None}
"""What the contract's policies make of features that are not there."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One request: when it was sent and answered (s, monotonic), and its status; 0 where the connection broke."""

    sent_s: float
    answered_s: float
    status: int
    rung: str
    wrong: str
    """What is wrong about an answer; empty where nothing is."""

    @property
    def took_s(self) -> float:
        """How long the caller waited."""
        return self.answered_s - self.sent_s


@dataclass
class Expected:
    """Predictions of one instance by what was known of its features."""

    with_features: float
    without_features: float

    @classmethod
    def of(cls, built: BuiltBundle, **changes: object) -> "Expected":
        """Computed alone: the transform of one row and the model on one row."""
        return cls(_probability(built, changes, _STORED), _probability(built, changes, _ABSENT))

    def of_rung(self, rung: str) -> float:
        """The probability that an answer of a rung must have."""
        return self.without_features if "defaults" in rung else self.with_features


def _probability(built: BuiltBundle, changes: Mapping[str, object], features: Mapping[str, object]) -> float:
    values = {**instance(**changes), **features}
    transform = built.bundle.transform.prepare()
    dtypes = {key.name: key.dtype for key in contract().join_keys}
    dtypes |= {each.name: each.dtype for each in contract().request_fields}
    dtypes |= {name: dtype for name, dtype in built.bundle.transform.inputs if name in features}
    wanted = {name: column_of(dtypes[name], [values[name]]) for name, _ in built.bundle.transform.inputs}
    probability = built.model.run(transform.apply(wanted, 1))[0, 1]
    return float(np.float32(probability))


@dataclass
class FaultLoad:
    """Callers on kept connections, each with instances of its own; `seen` grows while they ask."""

    machine: Machine
    built: BuiltBundle
    callers: int = CALLERS
    seen: list[Seen] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def running(self) -> Iterator["FaultLoad"]:
        """Ask until the block is left; it is entered once answers come."""
        threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(self.callers)]
        for thread in threads:
            thread.start()
        try:
            wait_until(lambda: self._count(200) >= 20 * self.callers, "the load is answered", timeout_s=TOLD_S)
            yield self
        finally:
            self._over.set()
            for thread in threads:
                thread.join(30)

    def _ask(self, number: int) -> None:
        party = number + 1
        expected = Expected.of(self.built, party=party)
        body = {"instances": [instance(party=party)], "options": {"as_of": AS_OF, "deadline_ms": DEADLINE_MS}}
        host, _, port = self.machine.url.removeprefix("http://").partition(":")
        request = request_bytes(f"/v1/endpoints/{ENDPOINT}/predict", json.dumps(body).encode(), host=f"{host}:{port}")
        connection: Connection | None = None
        while not self._over.wait(PAUSE_S):
            sent_s = time.monotonic()
            try:
                connection = connection or Connection(host, int(port))
                reply = connection.ask(request)
            except OSError:
                if connection is not None:
                    connection.close()
                connection = None
                self._note(sent_s, 0)
                self._over.wait(0.05)  # nobody listens: do not spin
                continue
            self._note(sent_s, status_of(reply), reply, expected)
            if b"connection: close" in reply.lower():
                connection.close()
                connection = None
        with suppress(OSError):
            if connection is not None:
                connection.close()

    def _note(self, sent_s: float, status: int, reply: bytes = b"", expected: Expected | None = None) -> None:
        rung, wrong = "", ""
        if status == 200 and expected is not None:
            body = json.loads(body_of(reply))
            rung = body["receipt"]["rung"]
            found, right = body["predictions"][0]["probability"], expected.of_rung(rung)
            wrong = "" if found == right else f"{found} on the rung `{rung}` where {right} is right"
        elif status:
            rung = json.loads(body_of(reply) or b"{}").get("code", "")
        self.seen.append(Seen(sent_s, time.monotonic(), status, rung, wrong))

    def _count(self, status: int) -> int:
        return sum(each.status == status for each in list(self.seen))

    def since(self, moment_s: float) -> list[Seen]:
        """Requests that were sent at or after a moment of the monotonic clock."""
        return [each for each in list(self.seen) if each.sent_s >= moment_s]

    def until_rung(self, *rungs: str, since_s: float, streak: int = 20, within_s: float = TOLD_S) -> float:
        """Wait for so many answers in a row on one of these rungs; how long after `since_s` the first of them came."""

        def row() -> list[Seen]:
            seen = sorted(self.since(since_s), key=lambda each: each.answered_s)
            return seen[-streak:] if len(seen) >= streak else []

        def has_come() -> bool:
            last = row()
            return bool(last) and all(each.status == 200 and each.rung in rungs for each in last)

        try:
            wait_until(has_come, f"{streak} answers in a row on {rungs}", timeout_s=within_s)
        except AssertionError as error:
            last = Counter((each.status, each.rung) for each in row())
            raise AssertionError(f"{error}; the last were {last}, all were {self.told(since_s)}") from error
        ordered = sorted(self.since(since_s), key=lambda each: each.answered_s)
        return _first_of_streak(ordered, rungs, streak).answered_s - since_s

    def told(self, since_s: float) -> Counter[tuple[int, str]]:
        """How often each status and rung, or code, came."""
        return Counter((each.status, each.rung) for each in self.since(since_s))

    def errors(self, *, since_s: float = 0.0) -> Counter[str]:
        """Status and code of what was no answer."""
        return Counter(f"{each.status} {each.rung}" for each in self.since(since_s) if each.status != 200)

    def check(self) -> None:
        """Every answer was right, every refusal one that is documented, and nobody was left waiting."""
        assert not self.wrong(), self.wrong()[:5]
        documented = {"503 unavailable", "503 overloaded", "504 deadline_exceeded"}
        assert set(self.errors()) <= documented, self.errors()
        slowest = max(each.took_s for each in self.seen)
        assert slowest < SLOWEST_S, f"a caller waited {slowest:.1f} s"

    def wrong(self) -> list[str]:
        """Answers that are not right."""
        return [each.wrong for each in list(self.seen) if each.wrong]


def _first_of_streak(seen: Sequence[Seen], rungs: Sequence[str], streak: int) -> Seen:
    """The first answer of the first run of `streak` answers on these rungs."""
    run: list[Seen] = []
    for each in seen:
        run = [*run, each] if each.status == 200 and each.rung in rungs else []
        if len(run) == streak:
            return run[0]
    raise AssertionError("there is no such run")
