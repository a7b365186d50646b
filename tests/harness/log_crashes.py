"""Everything that writes, ships and follows the prediction log, and what breaks one part after another at random.

Two gateways write one spool folder: the first flushes before each answer, the second every 200 ms. Faults overlap: a
part is broken while another one still is. What is broken comes back after a moment; nothing is broken for good.
"""

import heapq
import itertools
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness import log_crash_consumer
from harness.log_crash_model import CrashModel, Outage
from harness.machines import Machine, running_machine
from skewless.adapters.shipping import SHIPPING, STORE_JOURNAL, read_journal
from skewless.limits import MIB
from skewless.settings import GATEWAY_PREFIX
from skewless.stack.gateway import gateway_spec
from skewless.stack.ports import LOOPBACK, free_ports
from skewless.stack.process import ProcessSpec
from skewless.stack.shipper import shipper_spec

FLUSHED, BUFFERED = "gateway", "gateway2"
"""The gateway that flushes before each answer, and the one that does not."""
GATEWAYS = (FLUSHED, BUFFERED)
FLUSH_MS = 200
SHIPPER, CONSUMER, VALKEY = "shipper", "consumer", "valkey"
STORE = "store"
"""What is no process, but can be away."""
WEIGHTS = {FLUSHED: 3, BUFFERED: 3, SHIPPER: 10, CONSUMER: 5, VALKEY: 2, STORE: 3}
"""A gateway takes seconds to start: broken as often as a shipper, it would hardly ever answer."""
GAP_S = (0.1, 0.9)
"""Between two faults."""
AWAY_S = (0.02, 1.2)
"""How long what is broken stays so."""
STARTING_SHARE = 0.1
"""Of what is still starting, that which is broken all the same."""
AIMED_SHARE, COMMIT_WAIT_S, COMMIT_S = 0.5, 1.0, 0.1
"""Of kills of the shipper, those within a round, how long one is waited for, and how long one takes about."""
STOP_SHARE, KILL_STOPPED_SHARE, POLITE_SHARE = 0.25, 0.3, 0.15
"""Of the faults of processes: only stopped for a while; of these, killed in the end; ended by SIGTERM."""


class SwitchedStore:
    """A folder behind a symbolic link, which leads to a file while the store is away: even for root."""

    def __init__(self, folder: Path) -> None:
        self._kept, self._nothing, self.path = folder / "kept", folder / "nothing", folder / "store"
        self._kept.mkdir(parents=True)
        self._nothing.write_bytes(b"")
        self.switched = 0
        """How often it went or came: odd while it is there."""
        self.come_back()

    def go_away(self) -> None:
        """From now on nothing below the folder can be reached or made."""
        self._lead_to(self._nothing)

    def come_back(self) -> None:
        """The folder is there again, with everything in it."""
        self._lead_to(self._kept)

    def _lead_to(self, target: Path) -> None:
        link = self.path.with_name("next")
        link.symlink_to(target)
        # Counted before it goes and after it has come, so that an odd number is never told of one that is away.
        self.switched += target is self._nothing
        link.replace(self.path)
        self.switched += target is self._kept


@dataclass(frozen=True, slots=True)
class LogMachine:
    """A machine with everything that has to do with the log; `addresses` are the gateways' (host, port)."""

    machine: Machine
    store: SwitchedStore
    addresses: dict[str, tuple[str, int]]
    database_url: str
    """Of the consumer's ledger and of what it saw, which is the registry's too."""


@contextmanager
def running_log_machine(folder: Path) -> Iterator[LogMachine]:
    """Valkey, two gateways with the model in their own processes, a shipper and a consumer; not yet ready."""
    store = SwitchedStore(folder / "log-store")
    common = {"TRITON": "in-process", "LOG_SEGMENT_AGE_S": "0.3"}
    with running_machine(folder, tritons=0, LOG_FLUSH_MS="0", **common) as machine:
        port, admin_port = free_ports(2)
        machine.specs[BUFFERED] = _second_gateway(machine, port, admin_port)
        machine.specs[SHIPPER] = _shipper(machine, store)
        database_url = f"sqlite:///{folder}/registry.db"
        log_crash_consumer.make_table(database_url)
        machine.specs[CONSUMER] = _consumer(machine, database_url)
        for name in (BUFFERED, SHIPPER, CONSUMER):
            machine.start(name)
        first = int(machine.url.rpartition(":")[2])
        yield LogMachine(machine, store, {FLUSHED: (LOOPBACK, first), BUFFERED: (LOOPBACK, port)}, database_url)


def _second_gateway(machine: Machine, port: int, admin_port: int) -> ProcessSpec:
    """As the first, on the same folder of the log, but with a flush time."""
    first = machine.specs[FLUSHED]
    settings = {name.removeprefix(GATEWAY_PREFIX): value for name, value in first.environment.items()}
    own = {"LOG_FLUSH_MS": str(FLUSH_MS), "STATE": str(machine.folder / BUFFERED)}
    ports = {"PORT": str(port), "ADMIN_PORT": str(admin_port)}
    spec = gateway_spec(
        port=port, admin_port=admin_port, environment={**settings, **own, **ports}, logs=machine.folder / BUFFERED
    )
    return replace(spec, name=BUFFERED)


def _shipper(machine: Machine, store: SwitchedStore) -> ProcessSpec:
    settings = {
        "PREDICTION_LOG": str(machine.log),
        "LOG_STORE": str(store.path),
        "STREAM": _stream_url(machine),
        "LOOK_S": "0.1",
        "ROUND_S": "0.1",
        "UPKEEP_S": "1",
        "FILE_BYTES": str(MIB),
    }
    return shipper_spec(port=free_ports(1)[0], environment=settings, logs=machine.folder / "logs")


def _consumer(machine: Machine, database_url: str) -> ProcessSpec:
    async def healthy() -> None:
        """Nobody asks."""

    root = Path(__file__).parents[1]
    return ProcessSpec(
        name=CONSUMER,
        command=(sys.executable, "-P", "-m", log_crash_consumer.__name__, _stream_url(machine), database_url),
        log_file=machine.folder / "logs" / f"{CONSUMER}.log",
        probe=healthy,
        environment={"PYTHONPATH": os.pathsep.join((str(root), str(root.parent)))},
    )


def _stream_url(machine: Machine) -> str:
    return f"redis://{LOOPBACK}:{machine.valkey_port}"


@dataclass
class Chaos:
    """Breaks parts of a machine, drawn by a seed."""

    machine: Machine
    model: CrashModel
    store: SwitchedStore
    random: random.Random
    done: Counter[str] = field(default_factory=Counter)
    """How often what was done to what."""
    _repairs: list[tuple[float, int, str, Callable[[], None]]] = field(default_factory=list)
    _broken: set[str] = field(default_factory=set)
    _started_s: dict[str, float] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _pause: threading.Event = field(default_factory=threading.Event)

    def run(self, seconds: float, *, enough: Callable[[], bool] = lambda: False) -> None:
        """Break things for so long, or until it is enough, then repair what is still broken."""
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s and not enough():
            self._repair_until(time.monotonic() + self.random.uniform(*GAP_S))
            whole = [each for each in WEIGHTS if each not in self._broken]
            if whole:
                (drawn,) = self.random.choices(whole, [WEIGHTS[each] for each in whole])
                if self._is_worth_breaking(drawn):
                    self._break(drawn)
        self._repair_until(float("inf"))

    def _is_worth_breaking(self, part: str) -> bool:
        """Mostly what has done something since it was started, or nothing would ever be answered and shipped."""
        started_s = self._started_s.get(part, 0.0)
        if self.random.random() < STARTING_SHARE:
            return True
        if part in GATEWAYS:
            return self.model.has_answered(part, since_s=started_s)
        return part != SHIPPER or self._rounds_s() > started_s

    def _break(self, part: str) -> None:
        if part == STORE:
            self._note(STORE, "away")
            self.store.go_away()
            self._later(STORE, self.store.come_back)
        elif (drawn := self.random.random()) < STOP_SHARE:
            self._stop(part)
        elif drawn > 1 - POLITE_SHARE:
            self._note(part, "ended")
            self.machine.processes[part].signal_group(signal.SIGTERM)
            self._later(part, lambda: self._start_once_ended(part))
        else:
            self._kill(part)
            self._later(part, lambda: self._start(part))

    def _start_once_ended(self, part: str) -> None:
        if self.machine.processes[part].exit_status() is None:
            self._later(part, lambda: self._start_once_ended(part))
        else:
            self._start(part)

    def _start(self, part: str) -> None:
        self.machine.start(part)
        self._started_s[part] = time.monotonic()

    def _kill(self, part: str) -> None:
        if part == SHIPPER and self.random.random() < AIMED_SHARE:
            self._await_commit()
        self._note(part, "killed")
        moment_s = time.monotonic()
        self.machine.stop(part, kill=True)
        if part in GATEWAYS:
            self.model.broke(Outage(part, moment_s, moment_s, killed=True))

    def _await_commit(self) -> None:
        """Return within a round of the shipper, after it was begun and before it is over; or where none comes soon."""
        give_up_s = time.monotonic() + COMMIT_WAIT_S
        while time.monotonic() < give_up_s and not self._is_committing():
            self._pause.wait(0.001)
        self._pause.wait(self.random.uniform(0.0, COMMIT_S))

    def _is_committing(self) -> bool:
        return bool(read_journal(self.machine.log / SHIPPING / STORE_JOURNAL).committing)

    def _rounds_s(self) -> float:
        """When the shipper last wrote its journal (monotonic); 0 where it never did."""
        try:
            written = (self.machine.log / SHIPPING / STORE_JOURNAL).stat().st_mtime
        except FileNotFoundError:
            return 0.0
        return time.monotonic() - (time.time() - written)

    def _stop(self, part: str) -> None:
        self._note(part, "stopped")
        since_s = time.monotonic()
        self.machine.processes[part].signal_group(signal.SIGSTOP)
        kill_it = self.random.random() < KILL_STOPPED_SHARE

        def go_on() -> None:
            if part in GATEWAYS:
                self.model.broke(Outage(part, since_s, time.monotonic(), killed=False))
            if kill_it:
                self._kill(part)
                self._start(part)
            else:
                self.machine.processes[part].signal_group(signal.SIGCONT)

        self._later(part, go_on)

    def _later(self, part: str, repair: Callable[[], None]) -> None:
        self._broken.add(part)
        due_s = time.monotonic() + self.random.uniform(*AWAY_S)
        heapq.heappush(self._repairs, (due_s, next(self._numbers), part, repair))

    def _repair_until(self, moment_s: float) -> None:
        """Wait until a moment, and repair what comes due; for ever only until everything is whole."""
        while self._repairs and self._repairs[0][0] <= moment_s:
            due_s, _, part, repair = heapq.heappop(self._repairs)
            self._pause.wait(max(0.0, due_s - time.monotonic()))
            self._broken.discard(part)
            repair()
        if moment_s < float("inf"):
            self._pause.wait(max(0.0, moment_s - time.monotonic()))

    def _note(self, part: str, what: str) -> None:
        self.done[f"{part} {what}"] += 1
