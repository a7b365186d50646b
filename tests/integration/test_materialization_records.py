"""Records of materialization on every kind of database: runs, how far they have come, how far views have got."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from sqlalchemy import Engine

from harness.materialization_rows import lease_of, run_of
from skewless.errors import Conflict
from skewless.features.materialization import Kind, Watermark
from skewless.registry.database import engine
from skewless.registry.leases import Leases
from skewless.registry.materializations import CUT_OFF, Materializations, RunState


@pytest.fixture
def database(registry_url: str) -> Iterator[Engine]:
    """An empty database."""
    made = engine(registry_url)
    yield made
    made.dispose()


def test_a_run_is_kept_as_it_goes_on_and_read_back_as_it_was_written(database: Engine) -> None:
    records, lease = Materializations(database), lease_of(database, "weather")
    begun = run_of("weather", 1, from_time=-5, to_time=7, kind=Kind.BACKFILL, set_aside_rows=4)
    records.begin(begun, lease)
    assert (records.run(begun.id), records.unfinished("weather")) == (begun, begun)
    assert begun.taking.bounds.from_time == -5
    records.advance(begun.id, lease, parts_done=1, counts={"new": 5, "replaced": 4, "older": 3, "same": 2})
    records.advance(begun.id, lease, parts_done=2, counts={"new": 1, "replaced": 0, "older": 0, "same": 0})
    records.interrupt(begun.id, lease, "the store went away")
    found = records.unfinished("weather")
    assert found is not None
    assert (found.parts_done, found.new_rows, found.entity_rows, found.error) == (2, 6, 15, "the store went away")
    records.go_on(begun, lease, owner="bob")
    assert (records.run(begun.id).owner, records.run(begun.id).error) == ("bob", "")
    records.fail(begun.id, lease, "it differs")
    failed = records.run(begun.id)
    assert (failed.state, failed.error, failed.ended_time is not None) == (RunState.FAILED, "it differs", True)
    assert records.unfinished("weather") is None
    assert failed.to_json()["as_of"] == "1970-01-01T00:00:00.000101Z"


def test_a_watermark_moves_with_the_end_of_its_run_and_only_there(database: Engine) -> None:
    records, lease = Materializations(database), lease_of(database, "weather")
    for number in (1, 2):
        run = run_of("weather", number)
        records.begin(run, lease)
        watermark = Watermark("weather", run.id, run.as_of, 95, 90, run.definition)
        records.finish(run.id, lease, verified_rows=7, watermark=watermark if number == 1 else None)
        assert (records.run(run.id).state, records.run(run.id).verified_rows) == (RunState.DONE, 7)
    kept = records.watermark("weather")
    assert kept is not None
    assert replace(kept, changed_time=0) == Watermark("weather", f"{1:036}", 101, 95, 90, run.definition)
    assert kept.changed_time > 0
    assert records.watermark("other") is None
    records.forget_watermark("weather", lease)
    assert records.watermark("weather") is None


def test_runs_are_listed_newest_first_and_one_that_was_cut_off_fails_with_the_next(database: Engine) -> None:
    records = Materializations(database)
    weather, leg = lease_of(database, "weather"), lease_of(database, "leg")
    for number, (view, lease) in enumerate((("weather", weather), ("leg", leg), ("weather", weather))):
        records.begin(run_of(view, number), lease)
    assert [run.view for run in records.runs()] == ["weather", "leg", "weather"]
    assert [(run.state, run.error) for run in records.runs("weather")] == [
        (RunState.RUNNING, ""),
        (RunState.FAILED, CUT_OFF),
    ]
    assert [run.state for run in records.runs("leg")] == [RunState.RUNNING]
    assert len(records.runs(limit=1)) == 1


def test_who_has_lost_the_lease_changes_nothing(database: Engine) -> None:
    records, lease = Materializations(database), lease_of(database, "weather")
    run = run_of("weather", 1)
    records.begin(run, lease)
    Leases(database).release(lease)
    watermark = Watermark("weather", run.id, 1, 2, 3, run.definition)
    changes: tuple[Callable[[], None], ...] = (
        lambda: records.begin(run_of("weather", 2), lease),
        lambda: records.advance(run.id, lease, parts_done=1, counts={"new": 1}),
        lambda: records.finish(run.id, lease, verified_rows=0, watermark=watermark),
        lambda: records.fail(run.id, lease, "no"),
        lambda: records.forget_watermark("weather", lease),
    )
    for change in changes:
        with pytest.raises(Conflict, match="`view:weather` is not held any more"):
            change()
    assert records.runs() == (run,)
    assert records.watermark("weather") is None


def test_the_oldest_runs_of_a_view_are_forgotten(database: Engine) -> None:
    records, lease = Materializations(database), lease_of(database, "weather")
    records.begin(run_of("leg", 100), lease_of(database, "leg"), runs_kept=3)
    for number in range(6):
        records.begin(run_of("weather", number), lease, runs_kept=3)
    assert [run.id for run in records.runs("weather")] == [f"{number:036}" for number in (5, 4, 3)]
    assert len(records.runs("leg")) == 1
