"""A load generator in one thread over epoll: callers in a closed loop, or arrivals at a rate in an open one.

Closed: each of `callers` sends its next request as soon as it has its answer. Open: requests are due at random moments
(exponential gaps), whatever the server does; one that finds no free connection waits in the generator. A latency
counts from when a request was due, so a server that stalls is charged for everybody who waited (no coordinated
omission).

Written on epoll and not on an event loop because a generator that costs as much as the server would be measured with
it; and because epoll's own timeout has milliseconds, so moments are waited for with `select`, which has microseconds.
"""

import gc
import select
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import cycle

import numpy as np

from bench.load_block import LoadBlock, ProcessorTimes
from bench.load_http import Connection, status_of

OK = 200
DRAIN_S = 15.0
"""How long answers are waited for when a block is over."""
EVENTS_MAX = 1_024
WAIT_S_MAX = 0.1


@dataclass(frozen=True, slots=True)
class Aim:
    """Where requests go. `requests` are sent one after another, round and round. `watched` has process ids by name."""

    host: str
    port: int
    requests: tuple[bytes, ...]
    watched: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ClosedLoop:
    """See the module."""

    aim: Aim
    callers: int
    warm_up_s: float
    duration_s: float

    def run(self) -> LoadBlock:
        """Send for the warm-up and the duration, then wait for the answers that are due.

        A block lasts longer where it would have no answer at all, by DRAIN_S at most.
        """
        with _Line(self.aim, self.callers, self.warm_up_s, self.duration_s) as line:
            for connection in line.connections:
                line.send(connection, time.perf_counter_ns())
            while not line.is_over() or line.busy:
                if time.perf_counter_ns() > line.end_ns + int(DRAIN_S * 1e9):
                    break
                for descriptor, _ in line.epoll.poll(WAIT_S_MAX, EVENTS_MAX):
                    connection = line.by_descriptor[descriptor]
                    if line.receive(connection) and not line.is_over():
                        line.send(connection, time.perf_counter_ns())
            return line.block()


@dataclass(frozen=True, slots=True)
class OpenLoop:
    """See the module. `connections` bounds how many requests are at the server at once."""

    aim: Aim
    per_s: float
    connections: int
    warm_up_s: float
    duration_s: float
    seed: int = 7

    def run(self) -> LoadBlock:
        """Send what is due in the warm-up and the duration, then wait for the answers."""
        with _Line(self.aim, self.connections, self.warm_up_s, self.duration_s) as line:
            due = deque(self._due_ns(line.start_ns))
            free, waiting = deque(line.connections), deque[int]()
            while (due or line.busy or waiting) and time.perf_counter_ns() < line.end_ns + int(DRAIN_S * 1e9):
                self._send_due(line, due, free, waiting)
                wait_s = min(WAIT_S_MAX, (due[0] - time.perf_counter_ns()) / 1e9) if due else WAIT_S_MAX
                if wait_s > 0:
                    select.select([line.epoll], [], [], wait_s)
                for descriptor, _ in line.epoll.poll(0, EVENTS_MAX):
                    connection = line.by_descriptor[descriptor]
                    if line.receive(connection):
                        if waiting:
                            line.send(connection, waiting.popleft())
                        else:
                            free.append(connection)
            line.errors["unsent"] += len(due) + len(waiting)
            return line.block()

    def _due_ns(self, start_ns: int) -> list[int]:
        rng = np.random.default_rng(self.seed)
        seconds = self.warm_up_s + self.duration_s
        # Enough gaps to fill the time in all but one of many million runs.
        count = int(self.per_s * seconds + 8 * (self.per_s * seconds) ** 0.5 + 16)
        moments = np.cumsum(rng.exponential(1 / self.per_s, count))
        found: list[int] = (start_ns + moments[moments < seconds] * 1e9).astype(np.int64).tolist()
        return found

    def _send_due(self, line: "_Line", due: "deque[int]", free: "deque[Connection]", waiting: "deque[int]") -> None:
        while due and due[0] <= (now := time.perf_counter_ns()):
            moment = due.popleft()
            if free:
                line.late.append(now - moment)
                line.send(free.popleft(), moment)
            else:
                waiting.append(moment)


class _Line:
    """The connections of one block, and what came back over them."""

    def __init__(self, aim: Aim, connections: int, warm_up_s: float, duration_s: float) -> None:
        self._aim = aim
        self._requests: Iterator[bytes] = cycle(aim.requests)
        self._latencies: list[int] = []
        self._answers = self._cpu_answers = 0
        self.busy = 0
        self.late: list[int] = []
        self.errors: Counter[str] = Counter()
        self.epoll = select.epoll()
        self.connections = [Connection(aim.host, aim.port) for _ in range(connections)]
        self.by_descriptor: dict[int, Connection] = {}
        for connection in self.connections:
            self._watch(connection)
        self._warm_up_ns, self._duration_ns = int(warm_up_s * 1e9), int(duration_s * 1e9)

    def __enter__(self) -> "_Line":
        gc.collect()
        gc.freeze()
        gc.disable()
        # The clock starts when all that takes time is done.
        self._times = ProcessorTimes(self._aim.watched)
        self.start_ns = time.perf_counter_ns()
        self._measured_from = self.start_ns + self._warm_up_ns
        self.end_ns = self._measured_from + self._duration_ns
        self._latest_ns = self.end_ns + int(DRAIN_S * 1e9)
        return self

    def __exit__(self, *_: object) -> None:
        gc.enable()
        gc.unfreeze()
        for connection in self.connections:
            connection.close()
        self.epoll.close()

    def is_over(self) -> bool:
        """Whether the block's time is up; one without an answer is made longer."""
        now = time.perf_counter_ns()
        while self.end_ns <= now < self._latest_ns and not (self._answers and self._latencies):
            self.end_ns += self._duration_ns
        return now >= self.end_ns

    def send(self, connection: Connection, due_ns: int) -> None:
        """Send the next request, which was due at a moment; once more where the server has closed the connection."""
        request = next(self._requests)
        try:
            connection.send(request)
        except OSError as error:
            self._lost(connection, error)
            connection.send(request)
        connection.sent_ns = due_ns
        self.busy += 1

    def receive(self, connection: Connection) -> bool:
        """Read what there is; whether the connection is free again, by an answer or a failure."""
        try:
            reply = connection.receive()
        except OSError as error:
            self.busy -= 1
            self._lost(connection, error)
            return True
        if reply is None:
            return False
        now = time.perf_counter_ns()
        self.busy -= 1
        self._cpu_answers += 1
        if (status := status_of(reply)) != OK:
            if connection.sent_ns >= self._measured_from:
                self.errors[str(status)] += 1
            return True
        if self._measured_from <= now and not self.is_over():
            self._answers += 1
        if self._measured_from <= connection.sent_ns < self.end_ns:
            self._latencies.append(now - connection.sent_ns)
        return True

    def block(self) -> LoadBlock:
        """What was seen; requests without an answer are errors."""
        if self.busy:
            self.errors["unanswered"] += self.busy
        return LoadBlock(
            np.array(self._latencies, dtype=np.int64),
            self._answers,
            (self.end_ns - self._measured_from) / 1e9,
            {name: count for name, count in self.errors.items() if count},
            self._times.passed(),
            self._cpu_answers,
            np.array(self.late, dtype=np.int64),
        )

    def _lost(self, connection: Connection, error: OSError) -> None:
        """Count a lost connection and take a new one. Raises OSError where the server takes none."""
        self.errors[type(error).__name__] += 1
        self.by_descriptor.pop(connection.fileno(), None)
        connection.reopen()
        self._watch(connection)

    def _watch(self, connection: Connection) -> None:
        self.by_descriptor[connection.fileno()] = connection
        self.epoll.register(connection.fileno(), select.EPOLLIN)
