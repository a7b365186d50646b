"""Brings what the outbox holds to both stores: a thread for each lane that has work, under that lane's lease.

    accepted (wake) ─┐
    outbox looked through ─┴─▶ lane's thread ─▶ lease ─▶ steps for some seconds ─▶ lease given back ─▶ ⋯ ─▶ idle: ends

One more thread looks for lanes with work, renews leases, and forgets what is over; another puts the small files of
offline tables together. Several processes may deliver: a lane is worked on by the one that has its lease.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from skewless.adapters.ingest_lane import DeliveredBatch, DeliveryFailure, LaneListeners
from skewless.adapters.ingest_lane_thread import DeliveryTimes, LaneParts, LaneThread
from skewless.adapters.offline_tables import OfflineTable
from skewless.errors import Conflict, SkewlessError
from skewless.ingest_limits import LANE_POLL_S, LANES_AT_ONCE
from skewless.ingestion.batches import BatchKind, LaneHandler
from skewless.registry.ingest_batches import IngestBatches
from skewless.registry.leases import Leases

LaneName = tuple[BatchKind, str]
_FORGET_S = 60.0
_VACUUM_S = 3_600.0


@dataclass(frozen=True, slots=True)
class DeliveryState:
    """Lanes that have a thread in this process, those that hold their lease, and what is wrong with the rest."""

    lanes: tuple[LaneName, ...]
    holding: tuple[LaneName, ...]
    problem: str


class IngestDelivery:
    """Delivers batches from `start` until `stop`."""

    def __init__(
        self,
        batches: IngestBatches,
        leases: Leases,
        handlers: Callable[[BatchKind, str], LaneHandler],
        *,
        standing: Callable[[], Sequence[LaneName]] = tuple,
        tables: Callable[[], Sequence[Path]] = tuple,
        on_delivered: Callable[[DeliveredBatch], None] = lambda _: None,
        on_failure: Callable[[DeliveryFailure], None] = lambda _: None,
        times: DeliveryTimes | None = None,
    ) -> None:
        """`handlers` makes the handler of a lane, in the lane's thread; one with `close` is closed in the end.

        `standing` names lanes that run without batches too; `tables` the Delta tables to be kept in few files. Both
        are asked now and then. `on_delivered` and `on_failure` are told in lanes' threads.
        """
        self._batches = batches
        self._standing = standing
        self._tables = tables
        self._stop = threading.Event()
        listeners = LaneListeners(on_delivered, on_failure)
        self._parts = LaneParts(batches, leases, handlers, listeners, times or DeliveryTimes(), self._stop)
        self._look = threading.Event()
        self._lock = threading.Lock()
        self._woken: set[LaneName] = set()
        self._lanes: dict[LaneName, LaneThread] = {}
        self._lanes_problem = ""
        self._tables_problem = ""
        self._threads = [
            threading.Thread(target=self._supervise, name="ingest-lanes"),
            threading.Thread(target=self._keep_up, name="ingest-tables"),
        ]

    def start(self) -> None:
        """Begin to deliver."""
        for each in self._threads:
            each.start()

    def stop(self, timeout_s: float) -> bool:
        """End after the batches that are on their way, and say whether that was within the time.

        What is left waits in the outbox.
        """
        deadline = time.monotonic() + timeout_s
        self._stop.set()
        self._look.set()
        with self._lock:
            lanes = list(self._lanes.values())
        for lane in lanes:
            lane.wake()
        for thread in filter(threading.Thread.is_alive, self._threads):
            thread.join(max(0.0, deadline - time.monotonic()))
        for lane in filter(lambda each: each.is_alive, lanes):
            lane.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads) and not any(lane.is_alive for lane in lanes)

    def wake(self, kind: BatchKind, name: str) -> None:
        """Say that a lane has something new; delivery begins at once."""
        with self._lock:
            lane = self._lanes.get((kind, name))
            if lane is None:
                self._woken.add((kind, name))
        if lane is None:
            self._look.set()
        else:
            lane.wake()

    def state(self) -> DeliveryState:
        """What runs now."""
        with self._lock:
            lanes = dict(self._lanes)
        holding = tuple(sorted(name for name, lane in lanes.items() if lane.is_holding))
        problem = "; ".join(filter(None, (self._lanes_problem, self._tables_problem)))
        return DeliveryState(tuple(sorted(lanes)), holding, problem)

    def _supervise(self) -> None:
        forget_at = 0.0
        while not self._stop.is_set():
            self._look.wait(LANE_POLL_S)
            self._look.clear()
            try:
                self._start_lanes()
                self._renew()
                if time.monotonic() >= forget_at:
                    forget_at = time.monotonic() + _FORGET_S
                    self._batches.forget()
                self._lanes_problem = ""
            except SkewlessError as error:  # the database is away; what runs goes on or finds out by itself
                self._lanes_problem = error.message
                self._stop.wait(LANE_POLL_S)
            except Exception as error:  # noqa: BLE001  # the thread's boundary: without it no lane would start again
                self._lanes_problem = f"{type(error).__name__}: {error}"
                self._stop.wait(LANE_POLL_S)

    def _start_lanes(self) -> None:
        with self._lock:
            ended = [name for name, lane in self._lanes.items() if not lane.is_alive]
            for name in ended:
                del self._lanes[name]
            woken, self._woken = self._woken, set()
        wanted = dict.fromkeys([*woken, *self._standing(), *self._batches.working()])
        with self._lock:
            for kind, lane_name in wanted:
                if (kind, lane_name) in self._lanes or len(self._lanes) >= LANES_AT_ONCE or self._stop.is_set():
                    continue
                lane = LaneThread(kind, lane_name, self._parts)
                self._lanes[kind, lane_name] = lane
                lane.start()

    def _renew(self) -> None:
        """Renew what would end soon. A lane that has lost its lease finds out with its next mark."""
        with self._lock:
            lanes = list(self._lanes.values())
        for lane in lanes:
            lane.renew()

    def _keep_up(self) -> None:
        vacuum_at = time.monotonic() + _VACUUM_S
        while not self._stop.wait(self._parts.times.compact_s):
            vacuums = time.monotonic() >= vacuum_at
            if vacuums:
                vacuum_at = time.monotonic() + _VACUUM_S
            try:
                problems = [_kept_up(folder, vacuums=vacuums) for folder in self._tables()]
            except Exception as error:  # noqa: BLE001  # the thread's boundary: files would pile up without it
                problems = [f"they cannot be told: {type(error).__name__}: {error}"]
            wrong = [each for each in problems if each]
            others = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
            self._tables_problem = f"tables are not put together: {wrong[0]}{others}" if wrong else ""


def _kept_up(folder: Path, *, vacuums: bool) -> str:
    """Put a table's small files together; why that failed, empty where it did not. Others need not wait for it."""
    table = OfflineTable(folder)
    try:
        table.compact()
        if vacuums:
            table.vacuum(leftovers=True)
    except Conflict:
        return ""  # another process was faster; a later round does it
    except SkewlessError as error:
        return error.message
    except Exception as error:  # noqa: BLE001  # a table's boundary, as above
        return f"`{folder}`: {type(error).__name__}: {error}"
    return ""
