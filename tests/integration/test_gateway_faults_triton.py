"""A real gateway under load while its Triton is killed, hangs, is slow or answers wrongly.

Callers go on asking all the time; each answer is compared with one that was computed alone for the rung it names. The
bundle has the ladder that a bundle has which says nothing: the gateway may run the model itself.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.bundles import BuiltBundle, build_bundle
from harness.fault_load import FaultLoad
from harness.faults import killed, stopped, supervised
from harness.faulty_triton import Faults, faulty_http
from harness.machines import Machine, running_machine
from harness.servers import wait_until

AWAY_WITHIN_S = 20.0
"""Until every answer is the gateway's own; about 2 s on an idle machine."""
BACK_WITHIN_S = 60.0
"""Until Triton answers again; loading its model is most of it."""


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with running_machine(tmp_path_factory.mktemp("triton_faults")) as running:
        yield running


Fault = Callable[[Machine, str], Any]


@pytest.fixture(scope="module")
def load_of(machine: Machine) -> Callable[[], FaultLoad]:
    built = machine.serve(0)
    return lambda: FaultLoad(machine, built)


@pytest.mark.parametrize("fault", [killed, stopped])
def test_under_load_the_gateway_takes_over_from_triton_and_gives_back(
    machine: Machine, load_of: Callable[[], FaultLoad], fault: Fault
) -> None:
    with load_of().running() as load:
        load.until_rung("normal", since_s=0.0, within_s=BACK_WITHIN_S)
        begun_s = time.monotonic()
        with fault(machine, "triton"):
            taken_over_s = load.until_rung("in_process", since_s=begun_s, within_s=AWAY_WITHIN_S)
            lost = load.errors(since_s=begun_s)
            settled_s = time.monotonic()
            load.until_rung("in_process", since_s=settled_s)
            assert not load.errors(since_s=settled_s), "once it has taken over nobody notices"
        ended_s = time.monotonic()
        with supervised(machine, "triton"):
            load.until_rung("normal", since_s=ended_s, within_s=BACK_WITHIN_S)
        assert not load.errors(since_s=ended_s), "nor when it gives back"
    load.check()
    assert lost.total() <= 2 * load.callers, f"{lost} in the {taken_over_s:.1f} s until it took over"


@dataclass
class FaultyTriton:
    """A server that speaks Triton's HTTP and does as a test says, in a thread with a loop of its own."""

    address: str
    faults: Faults
    loop: asyncio.AbstractEventLoop
    patience: threading.Event
    """Waited for, `slow_s` long, by every call."""
    slow_s: float = 0.0

    @contextmanager
    def held(self) -> Iterator[None]:
        """Calls that come are not answered."""
        self.loop.call_soon_threadsafe(self.faults.held.clear)
        try:
            yield
        finally:
            self.loop.call_soon_threadsafe(self.faults.held.set)


@contextmanager
def running_faulty(score: Callable[[NDArray[np.float32]], Any]) -> Iterator[FaultyTriton]:
    """Such a server, stopped on leaving."""
    started: list[FaultyTriton] = []
    stop: asyncio.Event = asyncio.Event()

    def slow_score(tensor: NDArray[np.float32]) -> Any:
        started[0].patience.wait(started[0].slow_s)
        return score(tensor)

    async def serve() -> None:
        async with faulty_http(slow_score) as (address, faults):
            started.append(FaultyTriton(address, faults, asyncio.get_running_loop(), threading.Event()))
            await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    wait_until(lambda: bool(started), "the server listens")
    try:
        yield started[0]
    finally:
        started[0].loop.call_soon_threadsafe(stop.set)
        thread.join(10)


def _too_few_rows(outputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {name: values[:-1] for name, values in outputs.items()}


def _too_many_columns(outputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {name: np.hstack([values, values]) for name, values in outputs.items()}


def _other_dtype(outputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {name: values.astype(np.float64) for name, values in outputs.items()}


def _other_name(outputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {f"{name}_of_another": values for name, values in outputs.items()}


def _not_numbers(outputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {name: np.full_like(values, np.nan) for name, values in outputs.items()}


@contextmanager
def changed(
    triton: FaultyTriton, change: Callable[[dict[str, NDArray[Any]]], dict[str, NDArray[Any]]]
) -> Iterator[None]:
    """Every answer is changed."""
    triton.faults.change = change
    try:
        yield
    finally:
        triton.faults.change = None


@contextmanager
def switched_on(triton: FaultyTriton, name: str, value: object) -> Iterator[None]:
    """A fault of the server for as long as the block lasts."""
    before = getattr(triton.faults, name)
    setattr(triton.faults, name, value)
    try:
        yield
    finally:
        setattr(triton.faults, name, before)


@contextmanager
def slowed(triton: FaultyTriton, seconds: float) -> Iterator[None]:
    """Every call takes so much longer."""
    triton.slow_s = seconds
    try:
        yield
    finally:
        triton.slow_s = 0.0


FAULTS: dict[str, Callable[[FaultyTriton], Any]] = {
    "too few rows": lambda triton: changed(triton, _too_few_rows),
    "too many columns": lambda triton: changed(triton, _too_many_columns),
    "another dtype": lambda triton: changed(triton, _other_dtype),
    "another name": lambda triton: changed(triton, _other_name),
    "not numbers": lambda triton: changed(triton, _not_numbers),
    "too few bytes": lambda triton: switched_on(triton, "cut_bytes", 3),
    "errors": lambda triton: switched_on(triton, "refuses", value=True),
    "says it is unavailable": lambda triton: switched_on(triton, "unavailable", value=True),
    "cuts connections": lambda triton: switched_on(triton, "resets", value=True),
    "never answers": FaultyTriton.held,
}


@dataclass
class FaultyMachine:
    """A gateway whose model server is one that a test can have answer wrongly, and the bundle that it serves."""

    machine: Machine
    triton: FaultyTriton
    built: BuiltBundle


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyMachine]:
    folder = tmp_path_factory.mktemp("faulty")
    (folder / "models_of_its_own").mkdir()
    score = build_bundle(folder / "models_of_its_own").outputs
    with (
        running_faulty(score) as triton,
        running_machine(folder, tritons=0, TRITON=f"http://{triton.address}") as machine,
    ):
        yield FaultyMachine(machine, triton, machine.serve(0))


@pytest.mark.parametrize("name", FAULTS)
def test_under_load_nothing_of_a_wrong_answer_of_triton_is_used(faulty: FaultyMachine, name: str) -> None:
    with FaultLoad(faulty.machine, faulty.built).running() as load:
        load.until_rung("normal", since_s=0.0, within_s=BACK_WITHIN_S)
        begun_s = time.monotonic()
        with FAULTS[name](faulty.triton):
            load.until_rung("in_process", since_s=begun_s, within_s=AWAY_WITHIN_S)
        ended_s = time.monotonic()
        load.until_rung("normal", since_s=ended_s, within_s=BACK_WITHIN_S)
        assert not load.errors(since_s=ended_s)
    load.check()
    assert load.errors().total() <= 2 * load.callers, load.errors()


def test_a_triton_that_is_slow_but_in_time_answers_everything_itself(faulty: FaultyMachine) -> None:
    with FaultLoad(faulty.machine, faulty.built).running() as load:
        load.until_rung("normal", since_s=0.0, within_s=BACK_WITHIN_S)
        begun_s = time.monotonic()
        with slowed(faulty.triton, 0.2):
            wait_until(lambda: len(load.since(begun_s)) >= 10 * load.callers, "slow answers come", timeout_s=60)
            slow = load.since(begun_s + 0.5)
        assert {(each.status, each.rung) for each in slow} <= {(200, "normal")}, load.errors()
        assert min(each.took_s for each in slow) > 0.1, "each waited for Triton"
    load.check()
