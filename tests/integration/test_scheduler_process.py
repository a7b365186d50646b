"""The scheduler as a process: what it loads and tells, and what becomes of its runs when it is stopped or killed."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner

from harness.http_calls import get
from harness.scheduled_run import let_go, plan, runs
from harness.scheduled_views import define
from harness.servers import running, wait_until
from skewless.cli.schedule_commands import schedule
from skewless.features.schedule import Outcome, ScheduleState
from skewless.registry.database import engine
from skewless.registry.schedules import Schedules
from skewless.registry.transactions import system_clock
from skewless.settings import Settings
from skewless.stack.ports import LOOPBACK, free_ports
from skewless.stack.process import RunningProcess
from skewless.stack.scheduler import run_environment, scheduler_spec
from skewless.timestamps import DAY_US, Micros

HEAVY = (
    "deltalake", "duckdb", "fastapi", "feast", "great_expectations", "onnxruntime", "pandas", "pyarrow", "redis",
)  # fmt: skip
"""What a scheduler never has: its runs load what they need."""
MEGABYTES_MAX = 120
TESTS = Path(__file__).parents[1]


class Place:
    """A home with a registry whose schedules are always due, and the processes of schedulers."""

    def __init__(self, registry: Path, folder: Path) -> None:
        self.folder = folder
        self.settings = Settings(home=folder / "home")
        home = self.settings.folders
        home.root.mkdir()
        home.database.write_bytes(registry.read_bytes())
        self.connections = engine(self.settings.registry_url)
        self.schedules = Schedules(self.connections)

    def define(self, *views: str) -> None:
        """Views that were due some months in a row, and nobody ran; none comes to be due while a test lasts."""
        schedules = dict.fromkeys(views, "0 0 1 * *")
        define(self.connections, schedules)
        Schedules(self.connections, clock=lambda: Micros(system_clock() - 150 * DAY_US)).follow(schedules)

    def state(self, view: str) -> ScheduleState:
        return self.schedules.states()[view]

    @contextmanager
    def scheduling(self, **settings: str) -> Iterator[tuple[RunningProcess, str]]:
        (port,) = free_ports(1)
        spec = scheduler_spec(
            port=port,
            environment={
                **run_environment(self.settings, online_store="127.0.0.1:1"),
                "PYTHONPATH": str(TESTS),
                **{f"SKEWLESS_SCHEDULER_{name}": value for name, value in settings.items()},
            },
            logs=self.settings.folders.logs,
        )
        command = (sys.executable, str(TESTS / "harness" / "scheduling_process.py"), str(self.folder))
        with running(replace(spec, command=command)) as process:
            yield process, f"http://{LOOPBACK}:{port}"


@pytest.fixture
def place(sqlite_registry: Path, tmp_path: Path) -> Iterator[Place]:
    found = Place(sqlite_registry, tmp_path)
    yield found
    found.connections.dispose()


def metrics(url: str) -> dict[str, float]:
    lines = get(f"{url}/metrics", timeout=30).text.splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}


def children(process: RunningProcess) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def test_it_runs_what_is_due_tells_how_that_went_and_stays_small(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.define("weather", "leg")
    plan(place.folder, "leg", "4")
    with place.scheduling() as (process, url):
        wait_until(lambda: metrics(url).get('skewless_scheduler_failing{view="leg"}') == 1.0, "one has failed")
        wait_until(
            lambda: 'skewless_scheduler_last_success_timestamp_seconds{view="weather"}' in metrics(url), "one ran"
        )
        told = metrics(url)
        assert told['skewless_scheduler_runs_total{outcome="failed",view="leg"}'] >= 1
        assert told['skewless_scheduler_next_due_timestamp_seconds{view="weather"}'] > 0
        assert told['skewless_scheduler_late_seconds{view="leg"}'] > 3_000
        assert told["skewless_scheduler_views"] == 2
        assert get(f"{url}/healthz", timeout=30).text == "ok\n"
        memory = psutil.Process(process.pid).memory_info().rss / (1 << 20)
        assert memory < MEGABYTES_MAX, f"{memory:.0f} MB"
        loaded = {each.path for each in psutil.Process(process.pid).memory_maps()}
        assert not [name for name in HEAVY if any(f"/{name}/" in each for each in loaded)]
        monkeypatch.setenv("SKEWLESS_HOME", str(place.settings.home))
        shown = CliRunner().invoke(schedule, catch_exceptions=False).stdout
        (line,) = [each for each in shown.splitlines() if each.startswith("leg ")]
        assert "failed" in line
        assert "leg: error: leg does not work" in shown
        assert "No scheduler is at work" not in shown
    log = (place.settings.folders.logs / "scheduler.log").read_text()
    assert '"message": "materializing weather, due at ' in log
    assert "which makes up for" in log
    assert place.schedules.schedulers() == (), "it has said goodbye"


def test_runs_end_with_a_scheduler_that_is_killed_and_the_next_one_begins_them_again(place: Place) -> None:
    place.define("weather")
    plan(place.folder, "weather", "hold", "hold", "hold")
    with place.scheduling() as (process, _):
        wait_until(lambda: runs(place.folder, "weather") == 1, "it began")
        (run,) = children(process)
        os.kill(process.pid, signal.SIGKILL)
        wait_until(lambda: not run.is_running() or run.status() == psutil.STATUS_ZOMBIE, "its run ends with it")
    assert place.state("weather").outcome is Outcome.RUNNING, "nobody could note it"
    with place.connections.begin() as connection:  # as if SCHEDULE_HOLD_S had gone by
        connection.exec_driver_sql("UPDATE schedulers SET seen_time = 0")
    let_go(place.folder, "weather")
    with place.scheduling():
        wait_until(lambda: place.state("weather").outcome is Outcome.DONE, "the next one ran it")
    assert runs(place.folder, "weather") >= 2


def test_a_scheduler_that_is_stopped_ends_its_runs_and_notes_it(place: Place) -> None:
    place.define("weather")
    plan(place.folder, "weather", "hold")
    with place.scheduling() as (process, _):
        wait_until(lambda: runs(place.folder, "weather") == 1, "it began")
        process.signal_group(signal.SIGTERM)
        wait_until(lambda: process.exit_status() == 0, "it ends in good order")
    assert place.state("weather").outcome is Outcome.INTERRUPTED
    assert place.state("weather").told == "its scheduler was stopped"


def test_the_command_says_what_is_scheduled_and_that_nobody_runs_it(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKEWLESS_HOME", str(place.settings.home))
    empty = CliRunner().invoke(schedule, catch_exceptions=False).stdout
    assert "No view is scheduled" in empty
    define(place.connections, {"weather": "0 5 * * *", "leg": "0 0 30 2 *", "plain": ""})
    shown = CliRunner().invoke(schedule, catch_exceptions=False).stdout
    lines = {each.split()[0]: " ".join(each.split()) for each in shown.splitlines() if each}
    assert "weather 0 5 * * * " in lines["weather"]
    assert "05:00 never ran - -" in lines["weather"]
    assert "wrong" in lines["leg"]
    assert "leg: schedule `0 0 30 2 *` is no cron expression: Bad day-of-month" in shown
    assert "No scheduler is at work" in shown
    assert "plain" not in shown
