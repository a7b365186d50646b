"""The monitor's job `parity`: when it asks the comparing process, and what becomes of one that fails or grows."""

import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.logged_rows import a_batch
from harness.stored_logs import write_segment
from skewless import monitor_limits
from skewless.canonical_json import Digest
from skewless.errors import Unavailable
from skewless.monitor_settings import MonitorSettings
from skewless.parity.schedule import STEP_US, period_of
from skewless.parity.tally import Count, Level, Stratum, TallyKey
from skewless.registry.database import engine, upgrade
from skewless.registry.parity_history import ParityHistory
from skewless.settings import load_settings
from skewless.timestamps import parse_timestamp
from skewless_monitor.parity_job import ParityJob, log_stamp, open_job
from skewless_monitor.parity_process import ParityProcess

NOW = parse_timestamp("2026-05-01T10:00:00Z")
ANSWER: dict[str, Any] = {"more": False, "next_s": None, "compared": 3, "failed": {}, "bytes": 1_000}
STOP = threading.Event()


def a_process(folder: Path, *answers: object) -> ParityProcess:
    """A process that gives these answers, one for each line, and says in a file how often it was started and asked."""
    told = folder / "told"
    code = (
        "import sys, json\n"
        f"answers = json.loads({json.dumps(answers)!r})\n"
        f"told = open({str(told)!r}, 'a')\n"
        "told.write('start\\n'); told.flush()\n"
        "for line in sys.stdin:\n"
        "    told.write(line); told.flush()\n"
        "    answer = answers.pop(0) if len(answers) > 1 else answers[0]\n"
        "    if answer is None: sys.exit(7)\n"
        "    print(json.dumps(answer), flush=True)\n"
    )
    return ParityProcess((sys.executable, "-S", "-c", code))


def told(folder: Path) -> list[str]:
    return (folder / "told").read_text().split() if (folder / "told").exists() else []


def settings_of(folder: Path, **changes: str) -> MonitorSettings:
    given = {
        "DATABASE_URL": f"sqlite:///{folder}/registry.db",
        "ARTIFACTS": str(folder / "artifacts"),
        "PREDICTION_LOG": str(folder / "log"),
        "REPO": str(folder / "repository"),
        **changes,
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in given.items():
            patch.setenv(f"SKEWLESS_MONITOR_{name}", value)
        return load_settings(MonitorSettings)


@pytest.fixture
def history(tmp_path: Path) -> Iterator[ParityHistory]:
    url = f"sqlite:///{tmp_path}/registry.db"
    upgrade(url)
    made = ParityHistory(engine(url))
    yield made
    made.close()


def a_job(folder: Path, history: ParityHistory, *answers: object, **changes: str) -> ParityJob:
    return ParityJob(settings_of(folder, **changes), history, a_process(folder, *answers))


def test_nothing_is_started_before_anything_was_logged(tmp_path: Path, history: ParityHistory) -> None:
    job = a_job(tmp_path, history, ANSWER)
    assert job.run_once(STOP) is False
    assert told(tmp_path) == []
    assert list(job.collect()) == []
    assert job.lag_s is None


def test_a_log_that_stands_still_is_not_looked_at_again_before_its_time(tmp_path: Path, history: ParityHistory) -> None:
    job = a_job(tmp_path, history, ANSWER)
    write_segment(tmp_path / "log", [a_batch()])
    for _ in range(3):
        assert job.run_once(STOP) is False
    assert told(tmp_path) == ["start", "run"]
    write_segment(tmp_path / "log", [a_batch()])
    job.run_once(STOP)
    assert told(tmp_path) == ["start", "run", "run"]
    job.close()


def test_what_waits_for_its_source_is_asked_about_at_once_when_its_time_has_come(
    tmp_path: Path, history: ParityHistory
) -> None:
    job = a_job(tmp_path, history, {**ANSWER, "next_s": 1e-9}, {**ANSWER, "more": True})
    write_segment(tmp_path / "log", [a_batch()])
    job.run_once(STOP)
    assert job.run_once(STOP) is True
    assert told(tmp_path) == ["start", "run", "run"]
    job.close()


def test_a_failure_is_told_in_its_words_and_the_next_run_has_a_new_process(
    tmp_path: Path, history: ParityHistory
) -> None:
    job = a_job(tmp_path, history, {"error": "the store is away", "hint": "look", "bytes": 5})
    write_segment(tmp_path / "log", [a_batch()])
    for _ in range(2):
        with pytest.raises(Unavailable, match="the store is away"):
            job.run_once(STOP)
    assert told(tmp_path) == ["start", "run"] * 2


def test_an_endpoint_that_fails_alone_is_told_once_and_the_metrics_of_the_others_go_on(
    tmp_path: Path, history: ParityHistory, caplog: pytest.LogCaptureFixture
) -> None:
    failing = {**ANSWER, "failed": {"flight-delay": "a source is half written"}}
    job = a_job(tmp_path, history, failing, failing, ANSWER)
    with caplog.at_level("INFO"):
        for backlog in (4, 5, 0):
            _note_backlog(history, "search", backlog)
            write_segment(tmp_path / "log", [a_batch()])
            assert job.run_once(STOP) is False
            samples = {each.name: each.value for family in job.collect() for each in family.samples}
            assert samples["skewless_parity_backlog_predictions"] == backlog
    assert told(tmp_path) == ["start", "run", "run", "run"], "the process is none the worse for it"
    assert caplog.text.count("endpoint flight-delay is not compared, and tried again: a source is half written") == 1
    assert caplog.text.count("endpoint flight-delay is compared again") == 1
    job.close()


def _note_backlog(history: ParityHistory, endpoint: str, backlog: int) -> None:
    state: dict[str, Any] = {
        "newest": NOW, "now": NOW, "wall": NOW, "backlog": backlog, "waiting": 0, "oldest": NOW, "verdict_s": 1.5,
        "passed": {}, "unchecked": {}, "not_comparable": {}, "quiet_us": 1, "horizon_us": 1,
    }  # fmt: skip
    history.note_state(endpoint, state)


def test_a_process_that_dies_is_told_with_its_status(tmp_path: Path, history: ParityHistory) -> None:
    job = a_job(tmp_path, history, None)
    write_segment(tmp_path / "log", [a_batch()])
    with pytest.raises(Unavailable, match="has ended"):
        job.run_once(STOP)


def test_a_process_that_has_grown_is_replaced(tmp_path: Path, history: ParityHistory) -> None:
    process = a_process(tmp_path, {**ANSWER, "bytes": monitor_limits.PARITY_WORKER_MEMORY_BYTES}, ANSWER)
    job = ParityJob(settings_of(tmp_path), history, process)
    for _ in range(2):
        write_segment(tmp_path / "log", [a_batch()])
        job.run_once(STOP)
    assert told(tmp_path) == ["start", "run"] * 2
    assert not process.is_running


def test_a_monitor_that_ends_does_not_wait_for_an_answer(tmp_path: Path) -> None:
    process = ParityProcess((sys.executable, "-S", "-c", "import sys, signal; sys.stdin.read(); signal.pause()"))
    stop = threading.Event()
    stop.set()
    with pytest.raises(Unavailable, match="the monitor ends"):
        process.ask(stop)
    assert not process.is_running


def test_without_definitions_nothing_is_compared_and_that_is_said_once(
    tmp_path: Path, history: ParityHistory, caplog: pytest.LogCaptureFixture
) -> None:
    job = a_job(tmp_path, history, ANSWER, REPO="")
    write_segment(tmp_path / "log", [a_batch()])
    for _ in range(2):
        assert job.run_once(STOP) is False
    assert told(tmp_path) == []
    assert caplog.text.count("SKEWLESS_MONITOR_REPO") == 1


def test_metrics_are_those_of_what_is_kept(tmp_path: Path, history: ParityHistory) -> None:
    state: dict[str, Any] = {
        "newest": NOW, "now": NOW, "wall": NOW, "backlog": 4, "waiting": 0, "oldest": NOW - STEP_US, "verdict_s": 1.5,
        "passed": {"weather": NOW}, "unchecked": {}, "not_comparable": {}, "quiet_us": 1, "horizon_us": 1,
    }  # fmt: skip
    history.note_state("flight-delay", state)
    key = TallyKey(Digest("1" * 64), Stratum.ENTITY, Level.VALUES)
    history.note_then("flight-delay", {period_of(NOW): 8}, {key: Count(8, 2)}, [])
    job = a_job(tmp_path, history, ANSWER)
    write_segment(tmp_path / "log", [a_batch()])
    job.run_once(STOP)
    assert job.lag_s == monitor_limits.PARITY_STEP_S
    samples = {each.name: each.value for family in job.collect() for each in family.samples}
    assert samples["skewless_parity_equal_ratio"] == 0.75
    assert samples["skewless_parity_backlog_predictions"] == 4
    assert samples["skewless_parity_worker_resident_bytes"] == ANSWER["bytes"]
    job.close()


def test_the_log_of_a_bucket_is_looked_at_each_time(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, PREDICTION_LOG="", LOG_STORE="s3://bucket/log")
    assert log_stamp(settings) is None
    assert open_job(settings).name == "parity"
