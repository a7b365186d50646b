"""What stands in stack.json, and when it is believed."""

import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from skewless.errors import Conflict, StackFailed
from skewless.settings import Home
from skewless.stack.lock import only_supervisor
from skewless.stack.ports import LOOPBACK, choose_ports, free_ports, is_free, prefer_port
from skewless.stack.process import created_time_s
from skewless.stack.state import ProcessState, StackAddresses, StackState, read_last_state, read_state, write_state
from skewless.stack.supervision import Health, Phase
from skewless.timestamps import Micros

ADDRESSES = StackAddresses("http://h:1", "redis://h:2", "h:3", "h:4", "h:5")
PROCESS = ProcessState("valkey", 7, 1.5, Health.HEALTHY, 2, "signal 9", "valkey.log")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """An empty home."""
    return Home(tmp_path)


@pytest.fixture
def state(home: Home) -> StackState:
    """The state of a stack whose supervisor is the test itself."""
    created_s = created_time_s(os.getpid())
    return StackState(str(home.root), os.getpid(), created_s, Micros(0), Phase.UP, ADDRESSES, True, (PROCESS,))


@pytest.fixture
def taken_port() -> Iterator[int]:
    """A loopback port that somebody listens on."""
    with socket.create_server((LOOPBACK, 0)) as listener:
        yield listener.getsockname()[1]


def test_a_written_state_reads_back_equal(home: Home, state: StackState) -> None:
    write_state(home, state)
    assert read_state(home) == state
    assert [each.name for each in home.root.iterdir()] == ["stack.json"]


def test_a_state_of_a_dead_supervisor_is_not_believed(home: Home, state: StackState) -> None:
    stale = replace(state, created_s=state.created_s - 60)
    write_state(home, stale)
    assert read_state(home) is None
    assert read_last_state(home) == stale


@pytest.mark.parametrize("content", ["", "{", "{}", '{"home": 1}'])
def test_a_broken_state_is_as_good_as_none(home: Home, content: str) -> None:
    home.stack_file.write_text(content)
    assert read_state(home) is None


def test_a_second_supervisor_is_told_where_the_first_is(home: Home, state: StackState) -> None:
    with only_supervisor(home):
        write_state(home, state)
        with (
            pytest.raises(Conflict, match=f"up since 1970-01-01T00:00:00Z.*{os.getpid()}.*http://h:1"),
            only_supervisor(home),
        ):
            raise AssertionError("two supervisors hold one lock")
    with only_supervisor(home):
        assert home.lock_file.exists()


def test_chosen_ports_are_free_and_all_different() -> None:
    chosen = choose_ports({f"PORT_{index}": 0 for index in range(20)})
    assert len(set(chosen)) == 20
    assert all(is_free(port) for port in chosen)


def test_a_configured_port_that_is_taken_is_refused_and_a_preferred_one_is_replaced(taken_port: int) -> None:
    with pytest.raises(StackFailed, match=f"port {taken_port} .*SKEWLESS_STACK_VALKEY_PORT"):
        choose_ports({"SKEWLESS_STACK_VALKEY_PORT": taken_port})
    assert prefer_port(taken_port) != taken_port
    (free,) = free_ports(1)
    assert prefer_port(free) == free
