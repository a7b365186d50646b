"""`skewless ingest`: what waits and what is stuck is shown with why, and failed batches are retried or dropped."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from click.testing import CliRunner, Result

from harness.ingest_services import apply, clicks
from harness.ingest_world import EVENT_TIME, START_US, VIEW, IngestWorld
from skewless.adapters.offline_tables import OfflineTable
from skewless.cli.ingest_commands import ingest
from skewless.errors import Conflict, InvalidDefinition, NotFound
from skewless.ingestion.batches import BatchKind, BatchState


@pytest.fixture
def world(tmp_path: Path, registry_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[IngestWorld]:
    monkeypatch.setenv("SKEWLESS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SKEWLESS_DATABASE_URL", registry_url)
    with closing(IngestWorld(tmp_path, registry_url, "redis://nowhere")) as made:
        yield made


def run(*arguments: str) -> Result:
    return CliRunner().invoke(ingest, arguments, catch_exceptions=False)


def asked(*arguments: str) -> Any:
    found = run(*arguments, "--json")
    assert found.exit_code == 0, found.output
    return json.loads(found.stdout)


def accepted(world: IngestWorld) -> str:
    row = {"user": "a", "shop": 1, EVENT_TIME: START_US, "price": 1.0, "count": 1, "label": "x"}
    return world.accept([row]).id


def failed(world: IngestWorld) -> str:
    batch_id, lease = accepted(world), world.take_lease()
    state = world.batches.note_problem(lease, batch_id, "column `x` does not fit", counts=True, tries_max=1)
    assert state is BatchState.FAILED
    world.leases.release(lease)
    return batch_id


def test_what_waits_and_what_failed_is_shown_with_why(world: IngestWorld) -> None:
    assert asked("status") == []
    waits, stuck = accepted(world), failed(world)
    (lane,) = asked("status")
    assert (lane["name"], lane["waiting_batches"], lane["failed_batches"]) == (VIEW, 1, 1)
    assert lane["oldest_s"] > 0
    assert [each["id"] for each in asked("batches")] == [stuck, waits]
    (batch,) = asked("batches", "--state", "failed", "--name", VIEW)
    assert (batch["state"], batch["error"], batch["rows"]) == ("failed", "column `x` does not fit", 1)
    shown = run("batches", "--state", "failed").stdout
    assert stuck in shown
    assert "column `x` does not fit" in shown
    assert "FAILED" in run("status").stdout


def test_a_failed_batch_is_retried_or_dropped_and_no_other(world: IngestWorld) -> None:
    first, second, waits = failed(world), failed(world), accepted(world)
    assert asked("retry", first, "--reason", "mended")["state"] == "accepted"
    assert asked("drop", second, "--reason", "not wanted")["state"] == "dropped"
    with pytest.raises(Conflict, match="only one that has failed"):
        run("drop", waits, "--reason", "why")
    waiting = world.batches.waiting(BatchKind.ROWS, VIEW, BatchState.ACCEPTED, batches_max=9, bytes_max=10**9)
    assert [each.id for each in waiting] == [waits, first]


def test_every_failed_batch_of_a_view_is_retried_at_once(world: IngestWorld) -> None:
    batches = [failed(world), failed(world)]
    assert asked("retry", "--name", "another", "--reason", "mended") == []
    retried = asked("retry", "--name", VIEW, "--reason", "mended")
    assert [(each["id"], each["state"]) for each in retried] == [(each, "accepted") for each in batches]
    third = failed(world)
    assert "1 batches wait to be delivered again" in run("retry", "--all", "--reason", "mended").output
    assert asked("batches", "--limit", "1")[0]["state"] == "accepted"
    for wrong in ((), (third, "--all"), ("--name", VIEW, "--all")):
        assert CliRunner().invoke(ingest, ["retry", *wrong, "--reason", "why"]).exit_code == 2


def test_small_files_of_a_view_are_put_together_and_views_without_a_delta_table_refused(
    world: IngestWorld, tmp_path: Path
) -> None:
    apply(world.url, clicks(tmp_path))
    table = OfflineTable(tmp_path / "offline" / "clicks")
    for number in range(3):
        table.append(pa.table({"uid": [number]}), writer="w", number=number + 1)
    assert run("compact", "clicks", "--vacuum").exit_code == 0
    (file,) = table.files()
    assert sorted(table.read(file).column("uid").to_pylist()) == [0, 1, 2]
    with pytest.raises(InvalidDefinition, match="is no Delta table"):
        run("compact", "old")
    with pytest.raises(NotFound):
        run("compact", "nothing")
