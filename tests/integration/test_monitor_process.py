"""The monitor as a process: what it loads and tells, how it goes on while its jobs fail, and how it ends."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from harness.http_calls import get
from harness.servers import running, wait_until
from skewless.monitor_settings import MONITOR_JOBS
from skewless.stack.monitor import monitor_spec, told_jobs
from skewless.stack.ports import LOOPBACK, free_ports
from skewless.stack.process import RunningProcess

HEAVY = (
    "confluent_kafka", "deltalake", "duckdb", "evidently", "fastapi", "feast", "great_expectations", "numpy",
    "onnxruntime", "pandas", "pyarrow", "scipy", "sklearn", "sqlalchemy", "tritonclient",
)  # fmt: skip
"""What no monitor has before one of its jobs asks for it."""


@contextmanager
def monitoring(folder: Path, **settings: str) -> Iterator[tuple[RunningProcess, str]]:
    """A monitor of a registry that does not exist, so that jobs fail; the process and its URL."""
    (port,) = free_ports(1)
    environment = {
        "DATABASE_URL": f"sqlite:///{folder / 'missing.db'}",
        "ARTIFACTS": str(folder / "artifacts"),
        "LOG_STORE": str(folder / "store"),
        "HOME": str(folder),
        **settings,
    }
    with running(monitor_spec(port=port, environment=environment, logs=folder / "logs")) as process:
        yield process, f"http://{LOOPBACK}:{port}"


def answer_of(program: str) -> str:
    """What a program prints in a fresh interpreter."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_nothing_heavy_is_loaded_before_a_job_asks_for_it() -> None:
    loaded = set(answer_of("import sys, skewless_monitor.main; print('\\n'.join(sys.modules))").split())
    assert not loaded & set(HEAVY)
    assert "prometheus_client" in loaded


def test_what_feast_does_to_prometheus_client_does_not_reach_the_monitor(tmp_path: Path) -> None:
    """Feast sets these variables when it is imported; whatever comes after it keeps its values in files."""
    program = (
        "import os, skewless_monitor.main\n"
        f"os.environ['PROMETHEUS_MULTIPROC_DIR'] = os.environ['prometheus_multiproc_dir'] = {str(tmp_path)!r}\n"
        "import prometheus_client\n"
        "prometheus_client.Counter('one', 'One.').inc()\n"
        "print(prometheus_client.values.ValueClass.__name__)"
    )
    assert answer_of(program) == "MutexValue\n"
    assert list(tmp_path.iterdir()) == []


def test_a_monitor_whose_jobs_all_fail_answers_and_says_so(tmp_path: Path) -> None:
    jobs = [name for name in MONITOR_JOBS if name != "parity"]  # which has nothing to do without a repository
    with monitoring(tmp_path, JOBS=",".join(jobs)) as (process, url):
        assert psutil.Process(process.pid).nice() == 10
        wait_until(lambda: all(each.failures_in_a_row for each in told_jobs(url)), "every job has failed")
        assert get(f"{url}/healthz", timeout=30).text == "ok\n", "a new process would do no better"
        page = get(f"{url}/metrics", timeout=30).text
        for job in jobs:
            assert f'skewless_monitor_job_failing{{monitor_job="{job}"}} 1.0' in page
        os.kill(process.pid, signal.SIGTERM)
        wait_until(lambda: process.exit_status() is not None, "it has ended")
        assert process.exit_status() == 0
    lines = [json.loads(line) for line in (tmp_path / "logs" / "monitor.log").read_text().splitlines()]
    assert {"time", "level", "logger", "message"} <= lines[0].keys()
    assert lines[-1]["message"] == "ended"


HANGING = """
import sys, threading, types
import skewless.limits

class Hangs:
    name, interval_s, lag_s = "quality", 1.0, None

    def run_once(self, stop):
        print("it hangs", flush=True)
        threading.Event().wait()

    def collect(self):
        return iter(())

    def close(self):
        pass

module = types.ModuleType("skewless_monitor.quality_job")
module.open_job = lambda settings: Hangs()
sys.modules[module.__name__] = module
skewless.limits.MONITOR_STOP_S = 0.2
from skewless_monitor.main import run
run()
"""
"""A monitor whose job never ends, and which waits less long for it than in service."""


def test_a_monitor_whose_job_hangs_ends_all_the_same_and_its_exit_code_says_so() -> None:
    given = {"DATABASE_URL": "sqlite://", "ARTIFACTS": "a", "LOG_STORE": "s", "PORT": "0", "JOBS": "quality"}
    environment = {f"SKEWLESS_MONITOR_{name}": value for name, value in given.items()}
    command = [sys.executable, "-c", HANGING]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as hangs:
        assert hangs.stdout is not None
        assert hangs.stdout.readline() == "it hangs\n"
        hangs.send_signal(signal.SIGTERM)
        _, log = hangs.communicate(timeout=120)
    assert hangs.returncode == 1
    assert "job quality is cut off" in log


def test_only_the_jobs_that_are_named_run(tmp_path: Path) -> None:
    with monitoring(tmp_path, JOBS="quality, metrics") as (_, url):
        assert [each.job for each in told_jobs(url)] == ["metrics", "quality"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"JOBS": "drfit"}, "it has drift, freshness, metrics, parity, quality"),
        ({"LOG_STORE": ""}, "SKEWLESS_MONITOR_LOG_STORE or SKEWLESS_MONITOR_PREDICTION_LOG must be given"),
        ({"DATABSE_URL": "sqlite://"}, "did you mean SKEWLESS_MONITOR_DATABASE_URL"),
    ],
)
def test_a_wrong_setting_refuses_to_start_by_its_name(settings: dict[str, str], said: str) -> None:
    given = {"DATABASE_URL": "sqlite://", "ARTIFACTS": "a", "LOG_STORE": "s", "PORT": "0", **settings}
    environment = {f"SKEWLESS_MONITOR_{name}": value for name, value in given.items()}
    command = [sys.executable, "-m", "skewless_monitor"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert said in json.loads(line)["message"]
