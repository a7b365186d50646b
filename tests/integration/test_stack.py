"""The whole embedded stack as a user has it: started, hurt in every way, stopped."""

import http.client
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from harness.servers import wait_until
from skewless.errors import Conflict, StackFailed
from skewless.settings import Home, Settings, StackSettings, as_environment
from skewless.stack import control
from skewless.stack.ports import is_free
from skewless.stack.state import StackState
from skewless.stack.supervision import Health, Phase

STACK = StackSettings(gateway_port=0, allow_as_of=True, probe_interval_s=0.2, probe_failures_max=2)
UP = [sys.executable, "-m", "skewless.cli.main", "up"]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A home shared by the tests of this file."""
    return Settings(home=tmp_path_factory.mktemp("home"))


@pytest.fixture
def stack(settings: Settings) -> StackState:
    """The stack with every process healthy; started again where a test has brought it down."""
    home = settings.folders
    state = control.read_state(home) or control.start_detached(settings, STACK, lambda _: None)
    wait_until(lambda: running(home).phase is Phase.UP, "the stack is up")
    return control.read_state(home) or state


@pytest.fixture(scope="module", autouse=True)
def nothing_stays(settings: Settings) -> Iterator[None]:
    """Whatever a test leaves is stopped in the end."""
    yield
    control.stop(settings.folders)


def running(home: Home) -> StackState:
    """The state of the running stack; fails the test when none runs."""
    state = control.read_state(home)
    assert state is not None
    return state


def pids(state: StackState) -> dict[str, int]:
    """Process ids by name."""
    return {each.name: each.pid for each in state.processes}


def ports(state: StackState) -> list[int]:
    """Every port of the stack."""
    addresses = (state.gateway_url, state.valkey_url, state.triton_grpc, state.triton_http, state.triton_metrics)
    return [int(address.rpartition(":")[2]) for address in addresses]


def wait_until_nothing_is_left(state: StackState) -> None:
    """Return when no process of the stack lives and each of its ports is free."""
    for name, pid in {**pids(state), "supervisor": state.pid}.items():
        wait_until(lambda pid=pid: not psutil.pid_exists(pid) or is_zombie(pid), f"{name} is gone")  # type: ignore[misc]
    wait_until(lambda: all(is_free(port) for port in ports(state)), "every port is free")


def is_zombie(pid: int) -> bool:
    """Whether only the entry in the process table is left, which its parent has not collected yet."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def recovered(home: Home, before: StackState, name: str) -> bool:
    """Whether another process of that name is healthy now."""
    now = {each.name: each for each in running(home).processes}[name]
    return now.health is Health.HEALTHY and now.pid != pids(before)[name]


def environment(settings: Settings) -> dict[str, str]:
    """What a command is run with to mean this home and these bounds."""
    return {**os.environ, **as_environment(settings), **as_environment(STACK)}


def test_a_started_stack_answers_at_its_addresses(stack: StackState) -> None:
    assert list(pids(stack)) == ["valkey", "triton", "shipper", "gateway", "monitor"]
    assert stack.allow_as_of
    connection = http.client.HTTPConnection(stack.gateway_url.removeprefix("http://"), timeout=5)
    try:
        connection.request("GET", "/healthz")
        assert connection.getresponse().status == http.HTTPStatus.OK
    finally:
        connection.close()


def test_a_second_up_says_where_the_first_is_and_leaves_it_alone(settings: Settings, stack: StackState) -> None:
    second = subprocess.run(UP, env=environment(settings), capture_output=True, text=True, timeout=60, check=False)
    assert second.returncode == 5
    assert stack.gateway_url in second.stderr
    assert str(stack.pid) in second.stderr
    assert "Traceback" not in second.stderr
    with pytest.raises(Conflict, match=stack.gateway_url):
        control.start_detached(settings, STACK, lambda _: None)
    assert running(settings.folders) == stack


@pytest.mark.parametrize("name", ["valkey", "triton", "shipper", "gateway", "monitor"])
def test_a_killed_process_comes_back_at_the_same_address(settings: Settings, stack: StackState, name: str) -> None:
    home = settings.folders
    os.kill(pids(stack)[name], signal.SIGKILL)
    wait_until(lambda: recovered(home, stack, name), f"{name} is healthy again")
    after = running(home)
    assert after.addresses == stack.addresses
    restarts = {each.name: each.restarts for each in after.processes}
    assert restarts[name] == {each.name: each.restarts for each in stack.processes}[name] + 1
    others = set(pids(stack)) - {name}
    assert {each: pids(after)[each] for each in others} == {each: pids(stack)[each] for each in others}


def test_a_hung_process_is_killed_and_started_again(settings: Settings, stack: StackState) -> None:
    os.kill(pids(stack)["valkey"], signal.SIGSTOP)
    wait_until(lambda: recovered(settings.folders, stack, "valkey"), "Valkey is healthy again")
    valkey = running(settings.folders).processes[0]
    assert "missed 2 health checks in a row" in valkey.last_failure


def test_nothing_is_left_of_a_stack_whose_supervisor_was_killed(settings: Settings, stack: StackState) -> None:
    home = settings.folders
    os.kill(stack.pid, signal.SIGKILL)
    wait_until_nothing_is_left(stack)
    assert home.stack_file.exists()
    assert control.read_state(home) is None


def test_a_process_that_outlives_its_supervisor_is_ended_by_down(settings: Settings, stack: StackState) -> None:
    home = settings.folders
    # A stopped process does not act on the polite signal that the kernel sends when the supervisor dies.
    os.kill(pids(stack)["gateway"], signal.SIGSTOP)
    os.kill(stack.pid, signal.SIGKILL)
    wait_until(lambda: control.read_state(home) is None, "the supervisor is gone")
    assert psutil.pid_exists(pids(stack)["gateway"])
    assert not control.stop(home)
    wait_until_nothing_is_left(stack)
    assert not home.stack_file.exists()


def test_down_leaves_neither_process_nor_port_nor_state(settings: Settings, stack: StackState) -> None:
    assert control.stop(settings.folders)
    wait_until_nothing_is_left(stack)
    assert not settings.folders.stack_file.exists()
    assert not control.stop(settings.folders)


def test_a_process_that_cannot_start_is_named_with_its_log(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    home = settings.folders
    control.stop(home)
    monkeypatch.setenv("SKEWLESS_GATEWAY_NONSENSE", "1")
    told: list[str] = []
    with pytest.raises(StackFailed) as failed:
        control.start_detached(settings, STACK, told.append)
    assert "gateway is given up after failing 2 times in a row" in failed.value.message
    assert "SKEWLESS_GATEWAY_NONSENSE" in failed.value.message
    assert "valkey is healthy" in told
    assert control.read_state(home) is None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_stack_in_the_foreground_stops_on_a_signal(settings: Settings, number: signal.Signals) -> None:
    home = settings.folders
    control.stop(home)
    with (home.root / "foreground.log").open("wb") as log:
        foreground = subprocess.Popen(UP, env=environment(settings), stdout=log, stderr=log)
    try:
        wait_until(lambda: is_up(home, foreground.pid), "the stack is up")
        state = running(home)
        foreground.send_signal(number)
        assert foreground.wait(60) == 0
        wait_until_nothing_is_left(state)
    finally:
        foreground.kill()
        foreground.wait()


def is_up(home: Home, supervisor: int) -> bool:
    """Whether that supervisor's stack is up."""
    state = control.read_state(home)
    return state is not None and state.pid == supervisor and state.phase is Phase.UP


def test_a_home_may_be_anywhere(tmp_path: Path) -> None:
    assert control.read_state(Home(tmp_path / "never made")) is None
    assert not control.stop(Home(tmp_path / "never made"))
    assert not (tmp_path / "never made").exists()
