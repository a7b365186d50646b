"""The scheduler as a process of a stack: only where it is wanted, and with the settings of commands."""

from pathlib import Path

import pytest
import yaml

from skewless.settings import ModelServer, Settings, StackSettings, variable_name
from skewless.stack import monitor, scheduler, valkey
from skewless.stack.plan import plan_stack
from skewless.stack.process import ProcessSpec
from skewless.stack.state import StackAddresses
from skewless_scheduler.settings import SchedulerSettings

WITHOUT = StackSettings(
    model_server=ModelServer.IN_PROCESS, gateway_port=0, gateway_admin_port=0, shipper_port=0, monitor_port=0
)
WITH = WITHOUT.model_copy(update={"scheduler": True, "scheduler_port": 0})


def planned(settings: Settings, stack: StackSettings) -> tuple[StackAddresses, dict[str, ProcessSpec]]:
    addresses, specs = plan_stack(settings, stack)
    return addresses, {spec.name: spec for spec in specs}


def test_a_stack_schedules_nothing_unless_it_is_asked_to(tmp_path: Path) -> None:
    addresses, specs = planned(Settings(home=tmp_path), WITHOUT)
    assert scheduler.NAME not in specs
    assert addresses.scheduler_url == ""
    assert StackSettings().scheduler is False, "scheduled runs of now would show a replay its future"


def test_runs_get_what_commands_of_the_home_get_and_the_stacks_own_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKEWLESS_SCHEDULER_RUNS_MAX", "5")
    monkeypatch.setenv("SKEWLESS_SCHEDULER_PORT", "1")
    settings = Settings(home=tmp_path / "home", repo=Path("definitions"), database_url="postgresql://db/registry")
    addresses, specs = planned(settings, WITH)
    given = specs[scheduler.NAME].environment
    assert given["SKEWLESS_HOME"] == str(tmp_path / "home")
    assert Path(given["SKEWLESS_REPO"]) == Path("definitions").absolute(), "whatever folder a run is started in"
    assert given["SKEWLESS_DATABASE_URL"] == "postgresql://db/registry"
    assert f"redis://{given['SKEWLESS_ONLINE_STORE']}" == addresses.valkey_url
    assert given["SKEWLESS_SCHEDULER_RUNS_MAX"] == "5", "the caller's own variables are handed on"
    assert addresses.scheduler_url == f"http://127.0.0.1:{given['SKEWLESS_SCHEDULER_PORT']}"
    assert given["SKEWLESS_SCHEDULER_PORT"] != "1", "except those that the stack decides"


def test_nothing_waits_for_it_and_it_waits_for_the_store_alone(tmp_path: Path) -> None:
    _, specs = planned(Settings(home=tmp_path), WITH)
    assert specs[scheduler.NAME].depends_on == (valkey.NAME,)
    assert not [name for name, spec in specs.items() if scheduler.NAME in spec.depends_on]
    assert list(specs)[-1] == monitor.NAME


def test_the_composed_scheduler_gets_settings_that_it_has() -> None:
    compose = yaml.safe_load((Path(__file__).parents[2] / "docker-compose.yml").read_text())
    given = set(compose["services"]["scheduler"]["environment"])
    known = {variable_name(each, name) for each in (Settings, SchedulerSettings) for name in each.model_fields}
    assert given <= known
