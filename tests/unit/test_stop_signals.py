"""How a process beside the gateways is told to end."""

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from skewless.adapters.stop_signals import stop_by_signal

ENDING = (signal.SIGTERM, signal.SIGINT)


@pytest.fixture
def _handlers_of_before() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in ENDING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", ENDING)
@pytest.mark.usefixtures("_handlers_of_before")
def test_a_signal_ends_a_shipper_also_where_it_interrupts_what_stopping_needs(number: int) -> None:
    held, stopped = threading.Lock(), threading.Event()

    def stop() -> None:
        if held.acquire(timeout=30.0):
            held.release()
            stopped.set()

    stop_by_signal(stop)
    with held:
        os.kill(os.getpid(), number)
    assert stopped.wait(60.0)
