"""Requests that are judged and kept together: each is answered as if it were alone, whatever the others are like."""

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from harness.ingest_services import SUITE, VIEW, IngestHome, row
from harness.naive_suites import NaiveRunner
from skewless.adapters.feature_stream import StreamRecord
from skewless.adapters.feature_stream_intake import StreamIntake
from skewless.adapters.ingest_gate import IngestGate
from skewless.adapters.ingest_intake import Intake
from skewless.adapters.ingest_outbox import Outbox
from skewless.adapters.ingest_requests import Decoded, GroupDone, IntakeRequest, TakenRows
from skewless.adapters.ingest_room import IngestRoom
from skewless.adapters.ingest_rows import Form
from skewless.adapters.ingest_views import IngestViews
from skewless.adapters.quality_files import save_suite
from skewless.adapters.quality_gate import SuiteRunner
from skewless.adapters.quarantine import REASONS, Quarantine
from skewless.errors import (
    BatchRefused,
    Conflict,
    Forbidden,
    InvalidRequest,
    NotFound,
    Overloaded,
    SkewlessError,
    Unavailable,
)
from skewless.ingest_limits import INGEST_ALONE_ROWS, INGEST_GROUP_ROWS_MAX
from skewless.ingestion.batches import Accepted, BatchKind, IncomingBatch, StoredKey
from skewless.quality.results import ExpectationResult
from skewless.quality.suite import Suite
from skewless.registry.database import engine
from skewless.registry.definitions import Definitions
from skewless.registry.ingest_batches import IngestBatches
from skewless.registry.quality_results import QualityResults
from skewless.timestamps import Micros, parse_timestamp

NOW = parse_timestamp("2024-05-01T00:01:00Z")
WAIT_S = 60.0


class HeldRunner(NaiveRunner):
    """Judges as NaiveRunner does, but only while the door is open, so that a test decides what comes together."""

    def __init__(self) -> None:
        self.door = threading.Event()
        self.door.set()
        self.inside = threading.Event()
        self.failure: Exception | None = None

    def run(self, suite: Suite, table: pa.Table, *, as_of: int, times: frozenset[str]) -> tuple[ExpectationResult, ...]:
        self.inside.set()
        assert self.door.wait(WAIT_S)
        if self.failure is not None:
            raise self.failure
        return super().run(suite, table, as_of=as_of, times=times)


class HurtResults(QualityResults):
    """Results in a database that a test can have go away."""

    is_away = False

    def add(self, *arguments: Any, **named: Any) -> None:
        if self.is_away:
            raise Unavailable("registry database", "away")
        super().add(*arguments, **named)


@dataclass
class World:
    """An intake over a real outbox, whose batches nobody delivers."""

    home: IngestHome
    views: IngestViews
    intake: Intake
    stream: StreamIntake
    runner: HeldRunner
    batches: IngestBatches
    results: HurtResults
    quarantine: Quarantine
    kept: list[IncomingBatch] = field(default_factory=list)
    groups: list[GroupDone] = field(default_factory=list)
    woken: list[tuple[BatchKind, str]] = field(default_factory=list)

    def decoded(self, *rows: Mapping[str, Any], caller: str = "ann", key: str = "", **options: Any) -> Decoded:
        body = json.dumps({"rows": list(rows)}).encode()
        return self.intake.decode(IntakeRequest(BatchKind.ROWS, VIEW, caller, key, body, Form.JSON, **options))

    def take(self, *rows: Mapping[str, Any], **options: Any) -> TakenRows:
        return self.intake.join(self.decoded(*rows, **options)).result(WAIT_S)

    def together(self, *requests: Decoded) -> list[TakenRows | SkewlessError]:
        """What becomes of requests that are one group."""
        self.runner.door.clear()
        self.runner.inside.clear()
        first = self.intake.join(self.decoded(row(999_999)))
        assert self.runner.inside.wait(WAIT_S)
        futures = [self.intake.join(each) for each in requests]
        self.runner.door.set()
        assert first.result(WAIT_S).accepted == 1
        return [_outcome(each) for each in futures]

    def held(self) -> list[dict[str, Any]]:
        """Rows in quarantine."""
        files = [each.file for each in self.results.quarantined(VIEW)]
        return [each for name in files for each in self.quarantine.read(name).to_pylist()]


class Recording:
    """An outbox that notes what it is given, and fails when a test wants it to."""

    def __init__(self, outbox: Outbox, kept: list[IncomingBatch]) -> None:
        self._outbox = outbox
        self._kept = kept
        self.beaten_by: Outbox | None = None

    def accept(self, batch: IncomingBatch) -> Accepted:
        if self.beaten_by is not None:
            other, self.beaten_by = self.beaten_by, None
            other.accept(batch)
        accepted = self._outbox.accept(batch)
        self._kept.append(batch)
        return accepted

    def known_keys(
        self, kind: BatchKind, name: str, pairs: Sequence[tuple[str, str]]
    ) -> Mapping[tuple[str, str], StoredKey]:
        return self._outbox.known_keys(kind, name, pairs)


def _outcome(future: "Future[TakenRows]") -> TakenRows | SkewlessError:
    try:
        return future.result(WAIT_S)
    except SkewlessError as error:
        return error


@contextmanager
def world(folder: Path, *, suite: Suite | None = SUITE, **tags: str) -> Iterator[World]:
    home = IngestHome.made(folder, "redis://127.0.0.1:1", suite=suite, **tags)
    database = engine(home.url)
    views = IngestViews(Definitions(database), home.repo)
    views.refresh()
    runner: Any = HeldRunner()
    results, quarantine = HurtResults(database), Quarantine(folder / "quarantine")
    batches = IngestBatches(database)
    kept: list[IncomingBatch] = []
    groups: list[GroupDone] = []
    woken: list[tuple[BatchKind, str]] = []
    keeper = Recording(Outbox(batches), kept)
    judging: SuiteRunner = runner
    gate = IngestGate(judging, results, quarantine)
    intake = Intake(
        views,
        gate,
        keeper,
        now=lambda: Micros(NOW),
        wake=lambda kind, name: woken.append((kind, name)),
        on_group=groups.append,
    )
    stream = StreamIntake(intake, gate, keeper, now=lambda: Micros(NOW))
    made = World(home, views, intake, stream, runner, batches, results, quarantine, kept, groups, woken)
    made.keeper = keeper  # type: ignore[attr-defined]  # for the test of races alone
    try:
        yield made
    finally:
        runner.door.set()
        intake.close()
        database.dispose()


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        yield made


def test_each_of_a_group_is_answered_for_its_own_rows(shop: World) -> None:
    good = shop.decoded(row(1), row(2))
    mixed = shop.decoded(row(3), row(4, clicks_1h=-1), row(5, clicks_1h=5000), caller="bob")
    bad = shop.decoded(row(6, spend=5e6, tag="secret"), row(7), caller="eve")
    all_aside = shop.decoded(row(8, clicks_1h=-2), caller="dan")
    first, second, third, fourth = shop.together(good, mixed, bad, all_aside)
    assert isinstance(first, TakenRows)
    assert (first.accepted, first.quarantined) == (2, 0)
    assert isinstance(second, TakenRows)
    assert (second.accepted, second.quarantined) == (1, 2)
    assert [number for number, _ in second.reasons] == [1, 2]
    assert first.batch_id == second.batch_id, "kept together"
    assert isinstance(third, BatchRefused)
    assert "row 0: `spend`" in third.message
    assert isinstance(fourth, TakenRows)
    assert (fourth.accepted, fourth.quarantined, fourth.reasons[0][0]) == (0, 1, 0)
    assert shop.kept[-1].rows.column("uid").to_pylist() == [1, 2, 3]
    assert sorted(each["uid"] for each in shop.held()) == [4, 5, 8]
    assert all(each[REASONS] for each in shop.held())
    assert sum(shop.groups[-1].rows.values()) == 8
    assert (shop.groups[-1].rows["accepted"], shop.groups[-1].rows["refused"]) == (3, 2)


def test_a_refusal_names_no_value_of_another_callers_row(shop: World) -> None:
    mine = shop.decoded(row(1, spend=2e6))
    other = shop.decoded(row(2, spend=7_654_321.0), caller="bob")
    first, second = shop.together(mine, other)
    assert isinstance(first, BatchRefused)
    assert isinstance(second, BatchRefused)
    assert "7654321" not in first.message
    assert "7.65" not in first.message
    assert "row 0" in first.message


def test_rows_that_repeat_another_requests_are_judged_apart_and_both_go_on(shop: World) -> None:
    first, second = shop.together(shop.decoded(row(1, tag="x")), shop.decoded(row(1, tag="y"), caller="bob"))
    assert isinstance(first, TakenRows)
    assert isinstance(second, TakenRows)
    assert (first.accepted, second.accepted) == (1, 1)
    assert first.batch_id != second.batch_id
    within = shop.take(row(5), row(5), row(6))
    assert (within.accepted, within.quarantined) == (1, 2), "within one request nobody can tell which is right"


COLLIDING = ([row(1)], [row(1, clicks_1h=2), row(2, clicks_1h=20)], [row(2, clicks_1h=30)], [row(3)])
"""Rows of four that come one after another: the second repeats one of the first, and the third one of the second."""


def record(number: int, rows: Sequence[Mapping[str, Any]]) -> StreamRecord:
    body = "\n".join(json.dumps(each) for each in rows).encode()
    return StreamRecord(BatchKind.ROWS, VIEW, f"stream/{number}", body, "ndjson", number)


def kept_keys(world: World) -> list[list[str]]:
    return [[each.key for each in batch.requests] for batch in world.kept]


def test_a_request_that_repeats_one_which_waits_is_not_kept_before_it(shop: World) -> None:
    requests = [shop.decoded(*rows, key=str(number)) for number, rows in enumerate(COLLIDING)]
    assert all(isinstance(each, TakenRows) for each in shop.together(*requests))
    assert kept_keys(shop) == [[""], ["0", "3"], ["1"], ["2"]]


def test_no_record_of_a_stream_is_kept_before_one_that_came_before_it(shop: World) -> None:
    refusals = shop.stream([record(number, rows) for number, rows in enumerate(COLLIDING)])
    assert refusals == [None] * 4
    assert kept_keys(shop) == [["stream/0"], ["stream/1"], ["stream/2", "stream/3"]]


def test_a_record_of_many_rows_is_judged_as_a_batch_whatever_comes_with_it(shop: World) -> None:
    many = [row(number, clicks_1h=5000) for number in range(INGEST_ALONE_ROWS)]
    refusals = shop.stream([record(0, [row(5001)]), record(1, many), record(2, [row(5002)])])
    assert refusals is not None
    assert [type(each) for each in refusals] == [type(None), BatchRefused, type(None)]
    assert kept_keys(shop) == [["stream/0"], ["stream/2"]]


def test_records_of_a_stream_are_kept_in_groups_of_bounded_size(tmp_path: Path) -> None:
    rows = INGEST_ALONE_ROWS - 1
    count = INGEST_GROUP_ROWS_MAX // rows + 1
    with world(tmp_path, suite=None) as shop:
        refusals = shop.stream([record(number, [row(7)] * rows) for number in range(count)])
        assert refusals == [None] * count
        assert [len(keys) for keys in kept_keys(shop)] == [count - 1, 1]


def test_records_of_a_view_whose_suite_breaks_are_left_in_the_stream(shop: World) -> None:
    records = [record(0, [row(1, clicks_1h="many")]), record(1, [row(2)])]
    suite = shop.home.repo / "quality" / f"{VIEW}.yaml"
    suite.unlink()
    save_suite(suite, replace(SUITE, reviewed=None), note="a draft")
    shop.views.refresh()
    assert shop.stream(records) is None
    suite.unlink()
    shop.views.refresh()
    refusals = shop.stream(records)
    assert refusals is not None
    assert [type(each) for each in refusals] == [InvalidRequest, type(None)]


def test_what_a_suite_says_of_batches_holds_for_large_requests_alone(shop: World) -> None:
    assert shop.take(row(1)).accepted == 1, "ten rows at least are wanted of a batch"
    many = [row(number, clicks_1h=5000) for number in range(INGEST_ALONE_ROWS)]
    with pytest.raises(BatchRefused, match="too large a share"):
        shop.take(*many)
    few = [row(number, clicks_1h=5000 if number < 5 else 1) for number in range(INGEST_ALONE_ROWS)]
    assert shop.take(*few).quarantined == 5


def test_a_repeated_request_gets_the_first_answer_and_its_rows_are_kept_once(shop: World) -> None:
    body = (row(1), row(2, clicks_1h=-1))
    first = shop.take(*body, key="k")
    again = shop.take(*body, key="k")
    assert again.repeated
    assert (again.batch_id, again.accepted, again.reasons) == (first.batch_id, first.accepted, first.reasons)
    assert [batch.rows.num_rows for batch in shop.kept] == [1]
    assert len(shop.held()) == 1
    with pytest.raises(Conflict, match="used for other rows"):
        shop.take(row(1), key="k")
    assert not shop.take(row(1), key="k", caller="bob").repeated, "keys are each caller's own"
    both = shop.together(shop.decoded(row(7), key="n"), shop.decoded(row(7), key="n"))
    assert [each.repeated for each in both if isinstance(each, TakenRows)] == [False, True]


def test_a_request_whose_rows_are_all_set_aside_is_known_again_by_its_key(shop: World) -> None:
    first = shop.take(row(1, clicks_1h=-1), key="odd")
    assert first.accepted == 0
    assert first.batch_id is not None
    assert shop.take(row(1, clicks_1h=-1), key="odd").repeated
    assert shop.take(row(2, clicks_1h=-1)).batch_id is None, "nothing is kept for nobody"


def test_a_key_that_another_process_uses_meanwhile_is_found_when_rows_are_kept(shop: World) -> None:
    keeper: Recording = shop.keeper  # type: ignore[attr-defined]  # see `world`
    keeper.beaten_by = Outbox(shop.batches)
    taken = shop.take(row(1), key="raced")
    assert taken.repeated
    assert shop.kept == [], "the other one keeps it"


def test_rows_set_aside_again_are_held_once(shop: World) -> None:
    for _ in range(3):
        assert shop.take(row(1, clicks_1h=-1), row(2)).quarantined == 1
    assert len(shop.held()) == 1
    shop.take(row(1, clicks_1h=-1), row(3, clicks_1h=-1))
    assert len(shop.held()) == 2


def test_rows_that_could_not_be_recorded_as_set_aside_are_set_aside_the_next_time(shop: World) -> None:
    shop.results.is_away = True
    with pytest.raises(Unavailable):
        shop.take(row(1, clicks_1h=-1))
    shop.results.is_away = False
    assert shop.held() == []
    assert shop.take(row(1, clicks_1h=-1)).quarantined == 1
    assert len(shop.held()) == 1


def test_the_past_and_the_future_are_treated_as_the_view_declares(tmp_path: Path) -> None:
    with world(tmp_path, late="1d:quarantine", future="1h:quarantine") as shop:
        taken = shop.take(row(1), row(2, event_time="2024-01-01T00:00:00Z"), row(3, event_time="2024-06-01T00:00:00Z"))
        assert (taken.accepted, taken.late, taken.quarantined) == (1, 1, 2)
        assert "1d:quarantine" in taken.reasons[0][1][0]
        assert {each["uid"] for each in shop.held()} == {2, 3}


def test_late_rows_are_dropped_where_that_is_declared_also_without_a_suite(tmp_path: Path) -> None:
    with world(tmp_path, suite=None, late="1d:drop") as shop:
        taken = shop.take(row(1), row(2, event_time="2024-01-01T00:00:00Z"))
        assert (taken.accepted, taken.late, taken.dropped, taken.quarantined) == (1, 1, 1, 0)
        with pytest.raises(InvalidRequest) as ahead:
            shop.take(row(1), row(2, event_time="2024-05-01T00:07:00Z"))
        assert (ahead.value.code, ahead.value.path) == ("event_time_ahead", "$.rows[1].event_time")
        assert shop.take(row(2, event_time="2024-05-01T00:05:59Z")).accepted == 1


def test_created_times_are_the_servers_unless_the_caller_may_give_them(shop: World) -> None:
    shop.take(row(1))
    assert shop.kept[-1].rows.column("created_time").cast(pa.int64()).to_pylist() == [NOW]
    given = {"created_time": "2024-04-30T12:00:00Z"}
    with pytest.raises(Forbidden, match="when rows became known"):
        shop.take(row(1, **given))
    shop.take(row(1, **given), row(2), may_give_created_time=True)
    told = shop.kept[-1].rows.column("created_time").cast(pa.int64()).to_pylist()
    assert told == [parse_timestamp(given["created_time"]), NOW]
    with pytest.raises(InvalidRequest) as ahead:
        shop.take(row(1, created_time="2024-05-01T00:03:00Z"), may_give_created_time=True)
    assert ahead.value.code == "created_time_ahead"


def test_a_judge_that_is_away_refuses_the_group_and_the_next_one_is_taken(shop: World) -> None:
    shop.runner.failure = Unavailable("judge", "away")
    with pytest.raises(Unavailable):
        shop.take(row(1))
    shop.runner.failure = ValueError("a fault of ours")
    with pytest.raises(ValueError, match="ours"):
        shop.take(row(1))
    shop.runner.failure = None
    assert shop.take(row(1)).accepted == 1
    assert shop.woken == [(BatchKind.ROWS, VIEW)]


def test_callers_take_turns_however_many_requests_one_has_waiting(shop: World) -> None:
    flood = [shop.decoded(*(row(100 * number + each) for each in range(900))) for number in range(14)]
    quiet = shop.decoded(row(1_000_001), caller="bob")
    results = shop.together(*flood, quiet)
    first = results[0]
    assert isinstance(first, TakenRows)
    assert isinstance(results[-1], TakenRows)
    assert results[-1].batch_id == first.batch_id, "in the first group, which has no room for all of the flood"
    assert len({each.batch_id for each in results if isinstance(each, TakenRows)}) > 1


def test_room_is_shared_so_that_no_caller_takes_all_of_it() -> None:
    room = IngestRoom(bytes_max=100, requests_max=10)
    with room.taken("ann", 50):
        with pytest.raises(Overloaded, match="one caller"), room.taken("ann", 1):
            pass
        with room.taken("bob", 50), pytest.raises(Overloaded), room.taken("eve", 1):
            pass
    assert (room.bytes, room.requests) == (0, 0)
    with room.taken("ann", 50):
        assert room.requests == 1


def test_room_is_kept_until_the_work_that_goes_on_behind_a_request_is_done() -> None:
    room = IngestRoom(bytes_max=100, requests_max=10)
    works: list[Future[None]] = [Future(), Future()]
    with room.taken("ann", 50) as place:
        for work in works:
            place.stay_until(work)
    for work in works:
        assert (room.bytes, room.requests) == (50, 1), "who has gone leaves rows behind"
        work.set_result(None)
    assert (room.bytes, room.requests) == (0, 0)
    with room.taken("ann", 50) as place:
        place.stay_until(works[0])
        assert room.bytes == 50, "work that was done before changes nothing"
    assert room.bytes == 0


def test_names_that_take_no_rows_say_why(shop: World) -> None:
    with pytest.raises(NotFound):
        shop.intake.target(BatchKind.ROWS, "nothing")
    with pytest.raises(InvalidRequest, match="Delta table only") as refused:
        shop.intake.target(BatchKind.ROWS, "old")
    assert refused.value.code == "takes_no_rows"
    with pytest.raises(NotFound):
        shop.intake.target(BatchKind.EVENTS, VIEW)
