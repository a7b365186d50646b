"""The shipper in the benchmark of the prediction log: it runs in its turns, and tells what a prediction costs it."""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.load_block import LoadBlock, ProcessorTimes
from bench.load_loops import ClosedLoop
from bench.report import Case
from skewless.adapters.log_store import open_log_store
from skewless.adapters.log_tables import PREDICTIONS
from skewless.adapters.shipper_requests import Requests, Work
from skewless.adapters.spool import SPOOL, open_segments, sealed_segments
from skewless.errors import StackFailed
from skewless.settings import log_store_of
from skewless.stack.ports import free_ports
from skewless.stack.process import ProcessSpec
from skewless.stack.shipper import shipper_spec

SHIPPER = "shipper"
ROUND_S = 2.0
"""Between rounds into the store: as in service, rounds of some seconds' traffic, and some of them in each turn."""
WAIT_S = 180.0
_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Beside:
    """A block of load during which a stopped process runs; it is pickled, and run in the generator's process."""

    block: ClosedLoop
    pid: int

    def run(self) -> LoadBlock:
        """Run the block. The process is stopped again afterwards."""
        os.kill(self.pid, signal.SIGCONT)
        try:
            return self.block.run()
        finally:
            os.kill(self.pid, signal.SIGSTOP)


@dataclass(frozen=True, slots=True)
class Shipper:
    """A shipper of a log's folder, which is stopped but when it is its turn."""

    folder: Path
    pid: int

    def ship(self) -> float:
        """Let it ship all there is; returns the seconds of processor time that took. Gateways must be idle."""
        _wait(lambda: not open_segments(self.folder / SPOOL), "idle gateways seal what they have written")
        return self._running(lambda: not sealed_segments(self.folder / SPOOL), "everything is shipped")

    def compact(self) -> float:
        """Let it compact; returns the seconds of processor time that took."""
        requests = Requests(self.folder)
        request = requests.ask(Work.COMPACT)
        return self._running(lambda: requests.answer(request) is not None, "the store is compacted")

    def _running(self, is_done: Callable[[], bool], what: str) -> float:
        os.kill(self.pid, signal.SIGCONT)
        try:
            times = ProcessorTimes({SHIPPER: self.pid})
            _wait(is_done, what)
            return times.passed()[SHIPPER]
        finally:
            os.kill(self.pid, signal.SIGSTOP)

    def stored(self) -> tuple[int, int]:
        """Predictions in the store, and the bytes of their files."""
        tables = open_log_store(str(log_store_of(self.folder))).tables(PREDICTIONS)
        files = [each for table in tables for each in table.entries]
        return sum(each.rows for each in files), sum(each.size_bytes for each in files)


@contextlib.contextmanager
def stopped_shipper(folder: Path, logs: Path, start: Callable[[ProcessSpec], int]) -> Iterator[Shipper]:
    """A shipper that has everything loaded, has shipped what was there, and is stopped; `start` starts a process."""
    settings = {"PREDICTION_LOG": str(folder), "ROUND_S": str(ROUND_S)}
    shipper = Shipper(folder, start(shipper_spec(port=free_ports(1)[0], environment=settings, logs=logs)))
    try:
        shipper.ship()
        yield shipper
    finally:
        # A stopped process would be asked in vain to end.
        os.kill(shipper.pid, signal.SIGCONT)


def shipped_case(shipper: Shipper) -> Case:
    """What one prediction takes of the disk, and of the shipper's time, from all that a gateway has logged by now."""
    before, bytes_before = shipper.stored()
    _wait(lambda: not open_segments(shipper.folder / SPOOL), "idle gateways seal what they have written")
    spooled = sum(path.stat().st_size for path in sealed_segments(shipper.folder / SPOOL))
    ship_s = shipper.ship()
    after, bytes_after = shipper.stored()
    compact_s = shipper.compact()
    rows, bytes_compacted = shipper.stored()
    predictions = after - before
    facts = {
        "predictions": float(predictions),
        "spool, bytes": spooled / predictions,
        "store, bytes": (bytes_after - bytes_before) / predictions,
        "compacted, bytes": bytes_compacted / rows,
        "shipping, µs": ship_s / predictions * 1e6,
        "compacting, µs": compact_s / rows * 1e6,
    }
    return Case("per prediction", {"features": 40}, {}, facts=facts)


def _wait(condition: Callable[[], bool], what: str) -> None:
    """Return once the condition holds. Raises StackFailed where it does not in time."""
    deadline = time.monotonic() + WAIT_S
    while not condition():
        if time.monotonic() > deadline:
            raise StackFailed(f"not within {WAIT_S:g} s: {what}", hint="look at the logs of gateway and shipper")
        time.sleep(_POLL_S)
