"""A stack where no Triton can run: the gateway runs the models, and everything says so."""

import platform
from pathlib import Path

import pytest

from skewless.settings import ModelServer, Settings, StackSettings
from skewless.stack import gateway, monitor, shipper, triton, valkey
from skewless.stack.doctor import Condition, examine
from skewless.stack.plan import plan_stack
from skewless.stack.state import StackState
from skewless.stack.supervision import Phase
from skewless.timestamps import Micros

HERE = StackSettings(gateway_port=0, gateway_admin_port=0, model_server=ModelServer.IN_PROCESS, monitor=False)


def test_the_gateway_is_told_to_run_models_and_waits_for_no_triton(tmp_path: Path) -> None:
    addresses, specs = plan_stack(Settings(home=tmp_path), HERE)
    assert [spec.name for spec in specs] == [valkey.NAME, shipper.NAME, gateway.NAME]
    (_, _, served) = specs
    assert served.environment["SKEWLESS_GATEWAY_TRITON"] == "in-process"
    assert served.depends_on == (valkey.NAME,)
    assert (addresses.triton_grpc, addresses.triton_http, addresses.triton_metrics) == ("", "", "")
    state = StackState(str(tmp_path), 1, 0.0, Micros(0), Phase.UP, addresses, allow_as_of=False)
    assert "models in the gateway itself" in state.summary
    assert "Triton" not in state.summary


def test_with_triton_the_gateway_waits_for_it(tmp_path: Path) -> None:
    stack = HERE.model_copy(update={"model_server": ModelServer.TRITON})
    addresses, specs = plan_stack(Settings(home=tmp_path), stack)
    assert [spec.name for spec in specs] == [valkey.NAME, triton.NAME, shipper.NAME, gateway.NAME]
    assert addresses.triton_http in specs[-1].environment["SKEWLESS_GATEWAY_TRITON"]
    assert triton.NAME in specs[-1].depends_on


def test_the_shipper_is_given_the_gateways_folder_and_a_stream_where_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKEWLESS_GATEWAY_LOG_HASH_KEY", "k" * 32)
    settings = Settings(home=tmp_path, log_store="s3://logs/prod")
    _, (_, plain, served) = plan_stack(settings, HERE)
    assert plain.environment["SKEWLESS_SHIPPER_PREDICTION_LOG"] == served.environment["SKEWLESS_GATEWAY_PREDICTION_LOG"]
    assert plain.environment["SKEWLESS_SHIPPER_LOG_STORE"] == "s3://logs/prod"
    assert plain.environment["SKEWLESS_SHIPPER_LOG_HASH_KEY"] == "k" * 32, "so that it can delete what is hashed"
    assert "SKEWLESS_SHIPPER_STREAM" not in plain.environment
    assert plain.depends_on == ()
    addresses, (_, streaming, _) = plan_stack(settings, HERE.model_copy(update={"stream": True}))
    assert streaming.environment["SKEWLESS_SHIPPER_STREAM"] == addresses.valkey_url
    assert streaming.depends_on == (valkey.NAME,)


def test_a_monitor_is_given_all_that_its_jobs_ask_and_nothing_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKEWLESS_MONITOR_JOBS", "drift")
    monkeypatch.setenv("SKEWLESS_MONITOR_HOME", "elsewhere")
    settings = Settings(home=tmp_path / "home", repo=Path("definitions"), database_url="postgresql://db/registry")
    addresses, specs = plan_stack(settings, HERE.model_copy(update={"monitor": True, "monitor_port": 0}))
    (watching,) = [spec for spec in specs if spec.name == monitor.NAME]
    assert watching is specs[-1], "it is the first to be stopped"
    assert not [spec.name for spec in specs if monitor.NAME in spec.depends_on]
    assert watching.depends_on == ()
    given = {name.removeprefix("SKEWLESS_MONITOR_"): value for name, value in watching.environment.items()}
    assert given["JOBS"] == "drift", "the caller's own variables are handed on"
    assert given["HOME"] == str(tmp_path / "home"), "except those that the stack decides"
    assert (given["DATABASE_URL"], given["ONLINE_STORE"]) == ("postgresql://db/registry", addresses.valkey_url)
    assert given["LOG_STORE"] == str(tmp_path / "home" / "predictions" / "store")
    assert Path(given["REPO"]) == Path("definitions").absolute(), "whatever folder it is started in"
    assert addresses.monitor_url == f"http://127.0.0.1:{given['PORT']}"
    assert "STREAM" not in given
    both = HERE.model_copy(update={"monitor": True, "stream": True})
    addresses, specs = plan_stack(settings, both)
    assert specs[-1].environment["SKEWLESS_MONITOR_STREAM"] == addresses.valkey_url
    assert specs[-1].depends_on == (valkey.NAME,)


@pytest.mark.parametrize("wanted", [True, False])
def test_the_state_tells_where_the_monitor_is_or_that_none_runs(tmp_path: Path, wanted: bool) -> None:
    addresses, specs = plan_stack(Settings(home=tmp_path), HERE.model_copy(update={"monitor": wanted}))
    state = StackState(str(tmp_path), 1, 0.0, Micros(0), Phase.UP, addresses, allow_as_of=False)
    assert (monitor.NAME in [spec.name for spec in specs]) is wanted
    assert bool(state.monitor_url) is wanted
    assert state.summary.endswith(f"monitor {state.monitor_url}" if wanted else "no monitor")


@pytest.mark.parametrize(("system", "runs"), [("Linux", True), ("Darwin", False), ("Windows", False)])
def test_left_to_itself_a_stack_runs_triton_where_its_wheel_exists(
    system: str, runs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "system", lambda: system)
    assert StackSettings().runs_triton is runs
    assert StackSettings(model_server=ModelServer.TRITON).runs_triton
    assert not HERE.runs_triton


def test_doctor_looks_for_nothing_that_triton_needs_and_says_that_models_run_elsewhere(tmp_path: Path) -> None:
    findings = {each.check: each for each in examine(Settings(home=tmp_path), runs_triton=False)}
    assert not {"libpython", "glibc", "shared memory"} & findings.keys()
    said = findings["Triton server"]
    assert said.condition is Condition.WARNING
    assert "models run in the gateway itself" in said.seen
    assert "SKEWLESS_STACK_MODEL_SERVER=triton" in said.remedy
