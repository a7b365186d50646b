"""`skewless features repair` over a real Valkey: every fault that a repair can mend made, named, mended, and gone.

And the dry parity run that stops a bundle while such faults are there: one file for both, since loading Feast takes
seconds of each process that does it.
"""

import asyncio
import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from harness.feature_repository import FEAST_WARNS, MODEL, START_US, STATIONS, small_repository
from harness.hurt_store import (
    AT,
    FAULTS,
    HONEST,
    LEFT_ALONE,
    Hashes,
    bytes_of,
    first_sources,
    hurt_store,
    key_of,
    store_bytes,
)
from harness.parity_world import ParityWorld, hour, parity_world, weather
from harness.servers import ValkeyServer
from skewless.adapters.online_repair import OnlineRepair, Pace, RepairChoice
from skewless.adapters.online_scan import OnlineScan
from skewless.adapters.prediction_log import FolderPredictionLog
from skewless.adapters.redis_blocking_store import BlockingRedisOnlineStore
from skewless.adapters.redis_online_store import RedisOnlineStore
from skewless.adapters.redis_replies import packed
from skewless.bundles.bundle import load_bundle
from skewless.canonical_json import Digest
from skewless.cli.main import main
from skewless.cli.parity_gate import dry_run
from skewless.cli.workspace import Workspace
from skewless.dtypes import Dtype, column_of
from skewless.features.online_store import Reply
from skewless.features.plan import ReadPlan
from skewless.features.redis_layout import feature_field, timestamp_field
from skewless.features.stored_hashes import Fields, Leftover
from skewless.parity.causes import Cause
from skewless.parity.repair_plan import ANY, PENDING_REASON, REMEDIES, chosen_reasons
from skewless.parity.repair_report import WHOLE_STORE
from skewless.registry.database import engine
from skewless.registry.repository import Registry
from skewless.serving.records import AnsweredBatch
from skewless.timestamps import DAY_US, HOUR_US, format_timestamp

pytestmark = FEAST_WARNS


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, valkey_server: ValkeyServer) -> Iterator[tuple[ParityWorld, Hashes]]:
    """A store with all faults in it, and its bytes."""
    with parity_world(tmp_path_factory.mktemp("repair"), "repair", valkey_server) as world:
        world.write_sources(**first_sources())
        world.define()
        world.materialize(10)
        world.materialize(11)
        hurt_store(world)
        yield world, bytes_of(world)


@pytest.fixture
def hurt(made: tuple[ParityWorld, Hashes]) -> ParityWorld:
    """The store with all faults in it, whatever tests before this one did to it."""
    world, hashes = made
    store_bytes(world, {key: {} for key in bytes_of(world)} | hashes)
    return world


def _repaired(
    world: ParityWorld,
    *causes: str,
    dry_run: bool = False,
    at: float = AT,
    goes_on_to: float = AT,
    open_store: Callable[[str], BlockingRedisOnlineStore] = BlockingRedisOnlineStore,
) -> dict[str, Any]:
    """A repair of everything, as the command does it; the time when it reads the store is that of `goes_on_to`."""
    stored = world.repository.stored()
    with closing(open_store(world.url)) as store:
        scan = OnlineScan(store, world.url, stored.project)
        choice = RepairChoice(hour(at), chosen_reasons(causes), dry_run)
        repair = OnlineRepair(store, stored, choice, clock=lambda: hour(goes_on_to), pace=Pace(0))
        repair.whole_views(stored.views, scan)
        repair.leftovers(scan, stored.known_hashes(()))
    return repair.findings.report({})


def _named(report: dict[str, Any]) -> dict[str, set[tuple[str, str]]]:
    """By reason, the (view, station) of each example; there are few enough of each that all are shown."""
    found: dict[str, set[tuple[str, str]]] = {}
    for each in report["reasons"]:
        assert len(each["examples"]) == each["found"], each
        names = {str(example["entity"].get("station", "")) for example in each["examples"]}
        found.setdefault(each["reason"], set()).update((each["view"], name) for name in names)
    return found


def _served(world: ParityWorld, *but: str) -> dict[str, set[str]]:
    stations = [{"station": name, "line": 1} for name in (*FAULTS, *HONEST, "keyed") if name not in but]
    return world.causes(world.serve(stations, AT))


def test_each_fault_is_named_by_a_dry_run_mended_by_a_repair_and_gone_from_parity(hurt: ParityWorld) -> None:
    before = bytes_of(hurt)
    expected: dict[str, set[tuple[str, str]]] = {}
    for station, reason in FAULTS.items():
        expected.setdefault(reason, set()).add(("weather", station))
    expected[Cause.ENTITY_KEY_TYPE] = {("leg", "keyed"), (WHOLE_STORE, "keyed")}
    expected[Leftover.FIELD] = {(WHOLE_STORE, "north")}
    expected[Leftover.ENTITY] = {(WHOLE_STORE, "")}
    dry = _repaired(hurt, dry_run=True)
    assert _named(dry) == expected
    assert (dry["changed"], bytes_of(hurt)) == (0, before)
    assert set(REMEDIES) - set(expected) == {Cause.UNKNOWN}, "every reason is made to happen"

    done = _repaired(hurt)
    assert _named(done) == expected
    assert done["changed"] == done["differing"] - len(LEFT_ALONE)
    assert _served(hurt, *LEFT_ALONE) == {}
    assert {*_served(hurt)} == {Cause.MATERIALIZATION_LAG, Cause.RESTATED_ROW}, "what passes by itself was left alone"

    _repaired(hurt, ANY)
    assert _served(hurt) == {}
    clean = bytes_of(hurt)
    again = _repaired(hurt, ANY)
    assert (again["differing"], again["changed"], bytes_of(hurt)) == (0, 0, clean)
    north = clean[key_of(hurt, "weather", "north")]
    assert north[b"a note"] == b"somebody's own"
    assert feature_field("weather", "gone") not in north
    assert key_of(hurt, "weather", "north") + b"other" in clean, "another project's"


def test_a_dry_run_tells_both_values_and_what_would_be_done(hurt: ParityWorld) -> None:
    dry = _repaired(hurt, dry_run=True)
    (told,) = (each for each in dry["reasons"] if each["reason"] == Cause.EQUAL_TIMESTAMP_CORRECTION)
    assert (told["found"], told["left"], told["lasting"]) == (1, 1, True)
    (example,) = told["examples"]
    assert example["entity"] == {"station": "corrected"}
    assert (example["action"], example["online_event_time"]) == ("write", format_timestamp(hour(9.5)))
    assert example["columns"][0] == {"column": "weather__temp", "online": "1.5", "offline": "9.0"}


def test_a_row_that_its_source_has_not_got_yet_is_left_alone(hurt: ParityWorld) -> None:
    hurt.push("weather", [weather("fresh", 22)])
    report = _repaired(hurt, ANY, at=23)
    (told,) = (each for each in report["reasons"] if each["reason"] == PENDING_REASON)
    assert {each["entity"]["station"] for each in told["examples"]} == {"fresh", "skewed"}
    assert told["left"] == told["found"] == 2
    assert bytes_of(hurt)[key_of(hurt, "weather", "fresh")]


def _is_change(commands: Sequence[bytes]) -> bool:
    return any(b"EVAL" in command[:20] for command in commands)


class _Overtaken(BlockingRedisOnlineStore):
    """A store into which somebody writes fresher rows between what a repair reads and what it writes."""

    overtake: Callable[[], None] = staticmethod(lambda: None)

    def read(self, keys: Sequence[bytes], commands: Sequence[bytes], *, timeout_s: float) -> list[Reply]:
        if _is_change(commands) and timestamp_field("weather") in commands[0]:
            self.overtake()
        return super().read(keys, commands, timeout_s=timeout_s)


def test_a_fresher_row_that_arrives_meanwhile_is_never_overwritten(hurt: ParityWorld) -> None:
    fresh = [weather("corrected", 11.9, temp=33.0), weather("lost", 11.9, temp=34.0), weather("skewed", 14, temp=35.0)]

    def open_store(url: str) -> BlockingRedisOnlineStore:
        store = _Overtaken(url)
        store.overtake = lambda: hurt.push("weather", fresh)
        return store

    report = _repaired(hurt, open_store=open_store)
    overtaken = {each["reason"]: each["changed_meanwhile"] for each in report["reasons"] if each["changed_meanwhile"]}
    assert overtaken == {
        Cause.EQUAL_TIMESTAMP_CORRECTION: 1,
        Cause.MISSING_ONLINE: 1,
        Cause.FUTURE_LEAK: 1,
    }
    served = hurt.serve([{"station": row["station"], "line": 1} for row in fresh], 15)
    assert served.frame.columns["weather__temp"].values.tolist() == [33.0, 34.0, 35.0]


def test_rows_that_came_since_the_repair_began_are_left_alone_whatever_the_source_lacks(hurt: ParityWorld) -> None:
    """A long repair reads the last of its rows long after its moment; the clock of `skewed` is ahead even then."""
    fresh = [weather("corrected", 12.4, temp=33.0), weather("lost", 12.3), weather("newcomer", 12.5)]
    hurt.push("weather", fresh)
    # The source learns of a row of 9.8 while the repair goes on, and a run writes it.
    known = [row for row in hurt.rows["weather"] if row["station"] != "leaked"]
    before = hurt.rows["weather"]
    hurt.write_sources(weather=[*known, weather("leaked", 9.5), weather("leaked", 9.8, 12.2, temp=9.0)])
    try:
        came = [*fresh, weather("leaked", 9.8)]
        rows = {row["station"]: bytes_of(hurt)[key_of(hurt, "weather", row["station"])] for row in came}
        for causes in ((), (ANY,)):
            report = _repaired(hurt, *causes, goes_on_to=12.6)
            (told,) = (each for each in report["reasons"] if each["reason"] == PENDING_REASON)
            assert {each["entity"]["station"] for each in told["examples"]} == set(rows)
            assert told["left"] == told["found"] == len(rows)
            after = bytes_of(hurt)
            assert {station: after[key_of(hurt, "weather", station)] for station in rows} == rows
            leaks = [each for each in report["reasons"] if each["reason"] == Cause.FUTURE_LEAK]
            assert [each["written"] for each in leaks] == ([] if causes else [1]), "the second finds none"
    finally:
        hurt.write_sources(weather=before)


class _Killed(BaseException):
    """Stands for the end of the process: nothing catches it, and nothing of what it would have done happens."""


class _Mortal(BlockingRedisOnlineStore):
    """A store whose user dies once so many changes have reached it, in the middle of an exchange or between two."""

    lives = 0

    def read(self, keys: Sequence[bytes], commands: Sequence[bytes], *, timeout_s: float) -> list[Reply]:
        if not _is_change(commands):
            return super().read(keys, commands, timeout_s=timeout_s)
        if len(commands) >= self.lives:
            super().read(keys[: self.lives], commands[: self.lives], timeout_s=timeout_s)
            raise _Killed
        self.lives -= len(commands)
        return super().read(keys, commands, timeout_s=timeout_s)


def test_a_repair_that_is_killed_anywhere_leaves_whole_rows_and_is_finished_by_the_next(hurt: ParityWorld) -> None:
    old = bytes_of(hurt)
    changed = _repaired(hurt, ANY)["changed"]
    new = bytes_of(hurt)
    seed = 9
    for deaths in range(2):
        for key in new.keys() - old.keys():
            store_bytes(hurt, {key: {}})
        store_bytes(hurt, old)
        rng = random.Random(seed + deaths)
        lives = sorted(rng.sample(range(1, changed), 2))
        for life in (lives[0], lives[1] - lives[0]):
            store = _Mortal(hurt.url)
            store.lives = life
            with pytest.raises(_Killed):
                _repaired(hurt, ANY, open_store=partial(_given, store))
            _check_whole(hurt, old, new)
        assert _repaired(hurt, ANY)["changed"] == changed - lives[1], f"seed {seed + deaths}"
        assert bytes_of(hurt) == new


def _given(store: BlockingRedisOnlineStore, _url: str) -> BlockingRedisOnlineStore:
    return store


def _check_whole(world: ParityWorld, old: Hashes, new: Hashes) -> None:
    """Every row of every view is the old one or the new one."""
    now = bytes_of(world)
    for view in world.contract().views:
        fields = Fields.of(view).names
        for key in old.keys() | new.keys():
            row, *both = ([each.get(key, {}).get(name) for name in fields] for each in (now, old, new))
            assert row in both, (view.name, key)


def test_gateways_that_keep_hashes_near_are_told_of_a_repair(hurt: ParityWorld) -> None:
    asyncio.run(_hear_of_a_repair(hurt))


async def _hear_of_a_repair(world: ParityWorld) -> None:
    told: set[bytes] = set()
    store = RedisOnlineStore(world.url, tracked=True)
    try:
        store.subscribe(lambda keys: told.update(keys or ()))
        key = key_of(world, "weather", "corrected")
        await store.read_tracked((key,), (packed("HGETALL", key),), timeout_s=5)
        await asyncio.to_thread(_repaired, world)
        deadline = time.monotonic() + 30
        while key not in told:
            assert time.monotonic() < deadline, "the change was not told"
            await asyncio.sleep(0.01)
    finally:
        await store.close()


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def command(hurt: ParityWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ParityWorld:
    """The store, and a home in which the command runs over it."""
    monkeypatch.setenv("SKEWLESS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SKEWLESS_REPO", str(hurt.folder / "repository"))
    monkeypatch.setenv("SKEWLESS_FEAST_REGISTRY", f"sqlite:///{hurt.folder}/feast.db")
    monkeypatch.setenv("SKEWLESS_ONLINE_STORE", hurt.url.removeprefix("redis://"))
    return hurt


def _run(*arguments: str, code: int = 0) -> Any:
    done = CliRunner().invoke(main, ["features", "repair", "--as-of", format_timestamp(hour(AT)), *arguments])
    assert done.exit_code == code, (done.output, done.exception)
    return done


def _found(*arguments: str) -> dict[str, dict[str, Any]]:
    report = json.loads(_run(*arguments, "--json", "--rate", "0").stdout)
    return {f"{each['view']} {each['reason']}": each for each in report["reasons"]}


def test_the_command_repairs_tells_and_leaves_a_report_and_an_audit_trail(command: ParityWorld, tmp_path: Path) -> None:
    dry = _run("--all", "--dry-run").stdout
    assert "weather  equal_timestamp_correction  1 found: 1 left alone" in dry
    assert "station 'corrected': weather__temp online 1.5, offline 9.0" in dry
    done = _found("--all", "--reason", "after the incident")
    assert done["weather equal_timestamp_correction"]["written"] == 1
    assert done["(hashes) orphan_field"]["removed"] == 1
    assert done["weather materialization_lag"]["left"] == 1
    leaks = done["weather future_leak"]
    assert leaks["left"] == leaks["found"] == 2, "newer than a moment that was named may be right today"
    assert {*_served(command, *LEFT_ALONE)} == {Cause.FUTURE_LEAK}
    assert _found("--all", "--cause", "future_leak")["weather future_leak"]["written"] == 2
    assert _served(command, *LEFT_ALONE) == {}
    kept = sorted((tmp_path / "home" / "repairs" / "repair").iterdir())
    assert [json.loads(each.read_text())["dry_run"] for each in kept] == [True, False, False]
    with closing(Registry(engine(f"sqlite:///{tmp_path}/home/registry.db"))) as registry:
        events = registry.audit(subject="features/repair")
    assert [each.action for each in events] == ["begin_repair", "repair"] * 2, "of the dry run there is nothing to keep"
    assert events[1].reason == "after the incident"
    assert events[1].detail["finished"]
    assert events[1].detail["changed"] == sum(each["written"] + each["removed"] for each in done.values()) > 0


def test_the_command_repairs_what_a_check_found_and_chosen_entities(command: ParityWorld, tmp_path: Path) -> None:
    entities = tmp_path / "entities.ndjson"
    entities.write_text('{"station": "corrected"}\n\n{"station": "late", "line": 1}\n{"station": "corrected"}\n')
    assert set(_found("--view", "weather", "--entities", str(entities), "--dry-run")) == {
        "weather equal_timestamp_correction",
        "weather late_row",
    }
    pq.write_table(pa.table({"station": ["keyed"], "line": [1], "more": [1.5]}), tmp_path / "entities.parquet")
    assert set(_found("--entities", str(tmp_path / "entities.parquet"), "--dry-run")) == {"leg entity_key_type"}
    _, report = command.check(command.serve([{"station": "corrected", "line": 1}], AT))
    (tmp_path / "check.json").write_text(json.dumps(report))
    done = _found("--from-check", str(tmp_path / "check.json"))
    assert done["weather equal_timestamp_correction"]["written"] == 1
    assert {name for name, each in done.items() if each["written"] + each["removed"]} == {
        "weather equal_timestamp_correction"
    }, "other causes of the view are named and left alone"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "nothing says what is looked at"),
        (("--all", "--view", "weather"), "more than one thing"),
        (("--view", "weathers"), "stored feature view `weathers` does not exist. Known: `leg`, `network`, `weather`"),
        (("--all", "--cause", "model"), "`model` is nothing that can be repaired"),
        (("--entities", "{folder}/wrong.ndjson"), "line 2 is no entity: 7 is no text"),
        (("--from-check", "{folder}/wrong.ndjson"), "is no report of a parity check"),
    ],
)
def test_what_cannot_be_repaired_is_refused_in_words(
    command: ParityWorld, tmp_path: Path, arguments: tuple[str, ...], told: str
) -> None:
    (tmp_path / "wrong.ndjson").write_text('{"station": "a"}\n{"station": 7}\n')
    assert told in _run(*(each.format(folder=tmp_path) for each in arguments), code=2).stderr


def test_a_repair_keeps_to_its_rate() -> None:
    now, waited = 0.0, []

    def wait(seconds: float) -> None:
        nonlocal now
        waited.append(seconds)
        now += seconds

    pace = Pace(100.0, clock=lambda: now, wait=wait)
    for _ in range(3):
        pace.spend(50)
    now += 10.0
    pace.spend(50)
    pace.spend(50)
    assert waited == [0.5, 0.5, 0.5]
    Pace(0, clock=lambda: now, wait=wait).spend(10**9)
    assert len(waited) == 3


# --- the gate --------------------------------------------------------------------------------------------------------

RUN_AT = START_US + 9 * DAY_US
"""As of when the shop's store is written; all of its data is of long ago, so that is the moment a dry run asks at."""


@dataclass(frozen=True, slots=True)
class Shop:
    """A home with a trained bundle; nothing is online at first."""

    home: Path
    bundle: str
    url: str
    data: Path


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, valkey_server: ValkeyServer) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("shop")
    with small_repository(folder, "gate_shop", project="gateshop") as small, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SKEWLESS_HOME", str(folder / "home"))
        patch.setenv("SKEWLESS_REPO", str(small.folder))
        patch.delenv("SKEWLESS_ONLINE_STORE", raising=False)
        _invoke("apply")
        digest = json.loads(_invoke("train", MODEL, "--json").stdout)["bundle"]
        yield Shop(folder / "home", digest, valkey_server.url, small.data)


@pytest.fixture
def online(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """The shop with its store written as of RUN_AT."""
    monkeypatch.setenv("SKEWLESS_ONLINE_STORE", shop.url.removeprefix("redis://"))
    _invoke("materialize", "--reset", "--as-of", format_timestamp(RUN_AT))
    return shop


def _invoke(*arguments: str, code: int = 0) -> Any:
    done = CliRunner().invoke(main, list(arguments))
    assert done.exit_code == code, (done.output, done.exception)
    return done


def _correct_every_temperature(shop: Shop) -> None:
    """A correction under the event time of each row that is online, which Feast's writer drops."""
    path = shop.data / "weather.parquet"
    table = pq.read_table(path)
    known = table.column("known").cast(pa.int64()).to_numpy()
    kept = table.filter(pa.array(known < RUN_AT - HOUR_US))
    later = pa.array(kept.column("known").cast(pa.int64()).to_numpy() + 1).cast(pa.timestamp("us", tz="UTC"))
    corrected = kept.set_column(kept.schema.get_field_index("known"), "known", later)
    values = pa.array([77.5] * kept.num_rows, pa.float32())
    corrected = corrected.set_column(kept.schema.get_field_index("temp"), "temp", values)
    pq.write_table(pa.concat_tables([kept, corrected]), path)


def _parity_of(shop: Shop, subject: str) -> Any:
    with closing(Registry(engine(f"sqlite:///{shop.home}/registry.db"))) as registry:
        return registry.audit(subject=subject)[-1].detail["parity"]


def test_a_bundle_is_not_checked_where_there_is_nothing_to_ask_and_that_is_told(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = _invoke("endpoint", "create", "offline", "--bundle", shop.bundle).stderr
    assert "not checked: there is no online store to ask" in told
    assert _parity_of(shop, "endpoint/offline")[shop.bundle]["result"] == "not_checked"
    monkeypatch.setenv("SKEWLESS_ONLINE_STORE", shop.url.removeprefix("redis://"))
    told = _invoke("endpoint", "create", "empty", "--bundle", shop.bundle).stderr
    assert "not checked: the online store has no row of 500 questions from the examples of delay" in told
    monkeypatch.setenv("SKEWLESS_ONLINE_STORE", "127.0.0.1:1")
    told = _invoke("bundle", "register", str(shop.home / "artifacts" / shop.bundle)).stderr
    assert "not checked: online store is unavailable" in told


def test_a_bundle_that_is_given_what_it_was_trained_on_answers(
    online: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = _invoke("endpoint", "create", "honest", "--bundle", online.bundle).stderr
    assert "passed: 500 questions of" in told
    assert f"as of {format_timestamp(RUN_AT)}" in told
    verdict = _parity_of(online, "endpoint/honest")[online.bundle]
    assert (verdict["result"], verdict["rows"], verdict["faults"]) == ("passed", 500, [])
    assert verdict["entities"] > 1
    # In another home nobody knows the bundle yet, so that registering it there leaves an event.
    monkeypatch.setenv("SKEWLESS_FEAST_REGISTRY", f"sqlite:///{online.home}/feast_registry.db")
    monkeypatch.setenv("SKEWLESS_HOME", str(tmp_path / "home"))
    _invoke("bundle", "register", str(online.home / "artifacts" / online.bundle))
    verdict = _parity_of(replace(online, home=tmp_path / "home"), f"bundle/{online.bundle}")
    assert verdict["result"] == "passed", verdict


def test_faults_refuse_a_bundle_at_every_way_in_until_they_are_mended(online: Shop) -> None:
    before = (online.data / "weather.parquet").read_bytes()
    try:
        _correct_every_temperature(online)
        ways = (
            ("endpoint", "create", "hurt", "--bundle", online.bundle),
            ("bundle", "register", str(online.home / "artifacts" / online.bundle)),
        )
        for way in ways:
            refused = _invoke(*way, code=4).stderr
            assert "would be given other features online than offline" in refused
            assert "weather: equal_timestamp_correction in" in refused
            assert "offline 77.5" in refused
            assert "skewless features repair --view weather --dry-run" in refused
        _invoke(*ways[0][:2], "anyway", *ways[0][3:], "--skip-parity", "agreed with the desk")
        verdict = _parity_of(online, "endpoint/anyway")[online.bundle]
        assert (verdict["result"], verdict["words"]) == ("skipped", "agreed with the desk")
        _invoke("features", "repair", "--view", "weather", "--as-of", format_timestamp(RUN_AT))
        for way in ways:
            assert "passed" in _invoke(*way).stderr
    finally:
        (online.data / "weather.parquet").write_bytes(before)


def test_a_source_that_cannot_be_read_lets_no_bundle_through(online: Shop) -> None:
    before = (online.data / "weather.parquet").read_bytes()
    (online.data / "weather.parquet").write_bytes(before[: len(before) // 2])
    try:
        told = _invoke("endpoint", "create", "halved", "--bundle", online.bundle, code=3).stderr
    finally:
        (online.data / "weather.parquet").write_bytes(before)
    assert "offline store is unavailable: a source cannot be read" in told
    assert "weather.parquet" in told


def test_the_newest_predictions_are_asked_again_where_there_are_any(online: Shop) -> None:
    asked = [{"station": station, "line": 1} for station in STATIONS]
    asyncio.run(_log_predictions(online, asked, RUN_AT + HOUR_US))
    bundle = load_bundle(online.home / "artifacts" / online.bundle, Digest(online.bundle))
    verdict = dry_run(Workspace(), bundle, "asked")
    assert verdict.words.startswith(f"{len(asked)} questions of {len(asked)} entities from the newest predictions")
    assert verdict.as_of == RUN_AT + HOUR_US, "the clock of the predictions, since the sources are of long ago"
    assert "from the examples" in dry_run(Workspace(), bundle, "never asked").words


async def _log_predictions(shop: Shop, asked: list[dict[str, Any]], as_of: int) -> None:
    bundle = load_bundle(shop.home / "artifacts" / shop.bundle, Digest(shop.bundle))
    given = {
        "station": column_of(Dtype.STRING, [each["station"] for each in asked]),
        "line": column_of(Dtype.INT64, [each["line"] for each in asked]),
        "cars": column_of(Dtype.INT32, [3] * len(asked)),
    }
    prepared = ReadPlan.compile(bundle.contract).prepare(given, len(asked))
    frame = prepared.decode(prepared.nothing_stored(), as_of).frame
    rows = len(asked)
    batch = AnsweredBatch(
        endpoint="asked",
        bundle=bundle.digest,
        role="live",
        rung="normal",
        request_id="request",
        as_of=as_of,
        prediction_ids=[f"p{number}" for number in range(rows)],
        key_names=("station", "line"),
        given=given,
        frame=frame,
        tensor=bundle.transform.prepare().apply({**given, **frame.columns}, rows),
        outputs={"output": np.zeros((rows, 2), dtype=np.float32)},
        labels=["late"] * rows,
        probabilities=np.zeros(rows, dtype=np.float32),
        stage_ms={},
    )
    log = FolderPredictionLog(shop.home / "predictions", flush_ms=1)
    log.append(batch)
    await log.commit()
    await log.close()
