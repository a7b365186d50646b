"""The shipper as a process: what it ships and tells, what it does for commands, and how it ends."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from harness import http_calls
from harness.s3 import running_s3, use_credentials
from harness.servers import running, wait_until
from harness.stored_logs import an_outcome, answers, stored_ids, stored_rows, write_segment
from skewless.adapters.log_store import LogStore, open_log_store
from skewless.adapters.log_tables import OUTCOMES
from skewless.adapters.shipper_requests import Requests
from skewless.adapters.shipping import SHIPPING, shipper_of
from skewless.adapters.spool import SPOOL, SpoolFile, sealed_segments
from skewless.cli.log_commands import log
from skewless.errors import InvalidRequest, SkewlessError
from skewless.registry import database
from skewless.registry.repository import Registry
from skewless.serving.log_blocks import blocks, encode
from skewless.settings import Home, Settings, load_settings
from skewless.stack.ports import LOOPBACK, free_ports
from skewless.stack.shipper import shipper_spec

SOON = {"LOOK_S": "0.05", "ROUND_S": "0", "UPKEEP_S": "3600"}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("SKEWLESS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LOGNAME", "ann")
    return Home(tmp_path / "home")


@contextmanager
def shipping(home: Home, **settings: str) -> Iterator[str]:
    """A shipper of a home; the URL of its listener."""
    (port,) = free_ports(1)
    environment = {"PREDICTION_LOG": str(home.predictions), **SOON, **settings}
    with running(shipper_spec(port=port, environment=environment, logs=home.logs)):
        yield f"http://{LOOPBACK}:{port}"


def store_of(home: Home) -> LogStore:
    return open_log_store(str(home.predictions / "store"))


def metrics(url: str) -> dict[str, float]:
    lines = http_calls.get(f"{url}/metrics", timeout=30).text.splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}


def said(*arguments: str, confirm: str | None = None) -> str:
    """Standard output of a `skewless log` command that succeeds; what it raises comes out as it is."""
    done = CliRunner().invoke(log, list(arguments), input=confirm, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def told(*arguments: str) -> Any:
    return json.loads(said(*arguments, "--json"))


def all_shipped(home: Home) -> Callable[[], bool]:
    return lambda: not sealed_segments(home.predictions / SPOOL)


def test_segments_are_shipped_counted_and_the_last_ones_at_the_end(home: Home) -> None:
    one, two = answers(3), answers(2)
    write_segment(home.predictions, [one])
    with shipping(home) as url:
        wait_until(all_shipped(home), "the first segment is shipped")
        wait_until(lambda: metrics(url).get('skewless_shipper_rows_total{kind="predictions"}') == 3.0, "it is counted")
        page = metrics(url)
        assert page["skewless_shipper_waiting_segments"] == 0
        assert page['skewless_shipper_sink_up{sink="store"}'] == 1
        assert page["skewless_shipper_rounds_total"] == 1
        assert http_calls.get(f"{url}/healthz", timeout=30).text == "ok\n"
        assert http_calls.get(f"{url}/other", timeout=30).status_code == 404
    with shipping(home, ROUND_S="3600") as url:
        write_segment(home.predictions, [two])
        wait_until(lambda: metrics(url).get("skewless_shipper_waiting_segments") == 1.0, "it waits for others")
    assert stored_ids(store_of(home)) == sorted([*one.prediction_ids, *two.prediction_ids])


def test_a_second_shipper_of_a_folder_refuses_to_start(home: Home) -> None:
    with shipping(home) as url:
        wait_until(lambda: "skewless_shipper_looks_total" in metrics(url), "it looks")
        command = [sys.executable, "-m", "skewless_shipper"]
        settings = {"SKEWLESS_SHIPPER_PREDICTION_LOG": str(home.predictions), "SKEWLESS_SHIPPER_PORT": "0"}
        done = subprocess.run(command, env=settings, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 5
    assert "is shipped by process" in done.stderr


def test_a_store_that_was_away_gets_everything_once_it_is_back(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_credentials(monkeypatch)
    (port,) = free_ports(1)
    made = [answers(2) for _ in range(6)]
    with running_s3(tmp_path / "s3", port=port) as server:
        address = server.url("log")
    with shipping(home, LOG_STORE=address) as url:
        for batch in made:
            write_segment(home.predictions, [batch])
        wait_until(lambda: metrics(url).get('skewless_shipper_sink_up{sink="store"}') == 0.0, "it is missed")
        assert len(sealed_segments(home.predictions / SPOOL)) == 6
        with running_s3(tmp_path / "s3", port=port):
            wait_until(all_shipped(home), "all is shipped")
            store = open_log_store(address, scratch=tmp_path / "scratch")
            assert stored_ids(store) == sorted(each for batch in made for each in batch.prediction_ids)
            assert metrics(url)['skewless_shipper_sink_failures_total{sink="store"}'] >= 1


def test_commands_work_the_same_with_a_shipper_and_without(home: Home) -> None:
    made = [answers(1) for _ in range(4)]
    for number, batch in enumerate(made):
        write_segment(home.predictions, [batch])
        if number < 2:
            assert told("ship")["segments"] == 0
    with shipping(home, ROUND_S="3600"):
        assert told("ship") == {"complete": True, "segments": 0, "bytes": 0, "oldest_s": 0.0}
        status = told("status")
        assert status["shipper"] > 0
        assert [(each["rows"], each["files"]) for each in status["store"]["tables"]] == [(4, 3)]
        (done,) = told("compact")
        assert (done["files"], done["rows"]) == (3, 4)
    assert told("compact") == []
    assert "none runs" in said("status")
    assert stored_ids(store_of(home)) == sorted(each for batch in made for each in batch.prediction_ids)
    (dropped,) = told("retain", "--days", "1", "--yes")
    assert dropped["rows"] == 4
    assert stored_rows(store_of(home)) == []


@pytest.mark.parametrize("served", [True, False])
def test_a_deletion_waits_for_what_is_not_shipped_yet_and_leaves_a_trail(home: Home, served: bool) -> None:
    database.upgrade(load_settings(Settings).registry_url)
    shipped, spooled = answers(4), answers(2)
    write_segment(home.predictions, [shipped, (an_outcome(shipped.prediction_ids[0], received_time=shipped.as_of),)])
    said("ship")
    spool = SpoolFile.create(home.predictions / SPOOL)
    spool.append(encode(*blocks([spooled])))

    def delete() -> Any:
        arguments = ("delete", "flight-delay", "--key", "origin=JFK", "--yes", "--reason", "asked for", "--wait", "60")
        if not served:
            return told(*arguments)
        with shipping(home):
            return told(*arguments)

    with ThreadPoolExecutor(1) as beside:
        deleting = beside.submit(delete)
        # The deletion looks for segments at once; the writer seals its own a little later.
        wait_until(lambda: bool(Requests(home.predictions).pending()), "it is asked for")
        wait_until(lambda: shipper_of(home.predictions) is not None, "somebody holds the folder")
        lock = home.predictions / SHIPPING / "lock"
        held_since_ns = lock.stat().st_mtime_ns
        spool.seal()
        receipt = deleting.result(120)
    assert lock.stat().st_mtime_ns == held_since_ns, "who waits holds the folder, and does not begin again and again"
    assert (receipt["predictions"], receipt["outcomes"], receipt["pending"]) == (3, 1, False)
    assert stored_ids(store_of(home)) == sorted([*shipped.prediction_ids[1::2], *spooled.prediction_ids[1::2]])
    assert stored_rows(store_of(home), OUTCOMES) == []
    registry = Registry(database.engine(load_settings(Settings).registry_url))
    (event,) = registry.audit(subject="log/flight-delay")
    registry.close()
    assert (event.actor, event.reason, event.detail["keys"], event.detail["predictions"]) == (
        "ann", "asked for", ["origin"], 3,
    )  # fmt: skip
    assert "JFK" not in json.dumps(event.detail)


def test_a_deletion_counts_and_asks_first(home: Home) -> None:
    write_segment(home.predictions, [answers(4)])
    counted = told("delete", "flight-delay", "--key", "origin=JFK", "--dry-run")
    assert (counted["predictions"], counted["dry_run"]) == (2, True)
    refused = CliRunner().invoke(log, ["delete", "flight-delay", "--key", "origin=JFK"], input="n\n")
    assert refused.exit_code == 1
    assert "Delete 2 predictions and 0 outcomes" in refused.output
    assert len(stored_rows(store_of(home))) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("delete", "none", "--key", "origin=JFK", "--yes"), "`none` does not exist"),
        (("delete", "flight-delay", "--key", "colour=red", "--yes"), "no join key `colour`"),
        (("delete", "flight-delay", "--key", "origin", "--yes"), "names no value"),
    ],
)
def test_a_deletion_of_what_is_not_there_is_refused(home: Home, arguments: tuple[str, ...], message: str) -> None:
    write_segment(home.predictions, [answers(1)])
    said("ship")
    with pytest.raises(InvalidRequest, match=message):
        CliRunner().invoke(log, list(arguments), catch_exceptions=False)


def test_a_command_without_a_log_says_so(home: Home) -> None:
    with pytest.raises(SkewlessError, match="prediction log"):
        CliRunner().invoke(log, ["ship"], catch_exceptions=False)
