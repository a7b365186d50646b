"""`skewless plan` and `skewless apply` over a real Feast registry: what is told, refused, undone and survived."""

import copy
import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from feast import FeatureView, Field
from sqlalchemy import Engine, event, text
from sqlalchemy.pool import Pool

from harness.bundles import content
from harness.feature_repository import FEAST_WARNS, small_repository
from harness.killed_forks import forked
from harness.lineage_catalogue import catalogue
from harness.postgres import PostgresServer
from skewless.adapters.feast_repository import Connections, FeatureRepository
from skewless.adapters.folder_artifact_store import FolderArtifactStore
from skewless.bundles.bundle import write_bundle
from skewless.canonical_json import Digest
from skewless.cli import definition_apply
from skewless.cli.definition_apply import Prepared, fingerprint
from skewless.cli.main import main
from skewless.cli.workspace import Workspace
from skewless.dtypes import TABLE, Dtype, column_of
from skewless.errors import Conflict
from skewless.features.contract import FeatureContract, LogMark
from skewless.features.definition_metadata import StreamMetadata
from skewless.registry.database import engine
from skewless.registry.definitions import Definitions, DefinitionVersion, VersionState
from skewless.registry.records import AuditEvent, BundleRecord
from skewless.registry.repository import Registry
from skewless.registry.snapshots import FeatureSnapshots
from skewless.settings import Settings, as_environment
from skewless.timestamps import HOUR_US, Micros
from skewless.transforms import Transform, column

pytestmark = FEAST_WARNS
PROJECT = "applied_shop"


@dataclass
class Shop:
    """A home and a repository whose definitions a test changes; what it changed is taken back after it."""

    settings: Settings
    definitions: Any

    @property
    def environment(self) -> dict[str, str]:
        return as_environment(self.settings)

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(main, list(arguments), env=self.environment)

    def json(self, *arguments: str, code: int = 0) -> Any:
        done = self.run(*arguments, "--json")
        assert done.exit_code == code, (done.output, done.exception)
        return json.loads(done.stdout)

    def change(self, view: str, **fields: Any) -> None:
        """Declare a view with other arguments from now on."""
        known = getattr(self.definitions, view)
        said = {name: getattr(known, name) for name in ("name", "ttl", "description", "owner", "tags")}
        said |= {"schema": known.features, "source": known.batch_source}
        said["entities"] = [getattr(self.definitions, name) for name in known.entities if name != "__dummy"]
        setattr(self.definitions, view, FeatureView(**{**said, **fields}))

    def retype(self, view: str, feature: str, **fields: Any) -> None:
        """Declare a feature of a view with another type or other tags from now on."""
        listed = []
        for each in getattr(self.definitions, view).features:
            known = {"name": each.name, "dtype": each.dtype, "description": each.description, "tags": each.tags}
            listed.append(Field(**{**known, **fields}) if each.name == feature else each)
        self.change(view, schema=listed)

    @property
    def repository(self) -> FeatureRepository:
        return FeatureRepository(self.settings.repo, Connections("127.0.0.1:1", self.settings.feast_registry_url))

    @property
    def fingerprint(self) -> Digest:
        return fingerprint(self.settings, self.repository)

    def versions(self) -> tuple[VersionState, ...]:
        with closing(Definitions(engine(self.settings.registry_url))) as versions:
            return tuple(each.state for each in versions.versions())

    def current(self) -> DefinitionVersion:
        with closing(Definitions(engine(self.settings.registry_url))) as versions:
            found = versions.current(PROJECT)
        assert found is not None
        return found

    def audit(self) -> tuple[AuditEvent, ...]:
        with closing(Registry(engine(self.settings.registry_url))) as registry:
            return registry.audit(subject=f"definitions/{PROJECT}")

    def compiled_from(self) -> Digest:
        """The fingerprint of the Feast registry that the snapshot says."""
        with closing(FeatureSnapshots(engine(self.settings.registry_url))) as snapshots:
            return snapshots.newest(PROJECT).head.source


@pytest.fixture(scope="module")
def applied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """A shop whose definitions were applied once; its home is copied by tests."""
    folder = tmp_path_factory.mktemp("applied")
    with small_repository(folder, "small_applied", project=PROJECT) as small:
        shop = Shop(Settings(home=folder / "home", repo=small.folder), small.definitions())
        assert shop.run("apply", "--reason", "the first").exit_code == 0
        yield shop


@pytest.fixture
def shop(applied: Shop, tmp_path: Path) -> Iterator[Shop]:
    declared = dict(vars(applied.definitions))
    shutil.copytree(applied.settings.home, tmp_path / "home")
    yield Shop(applied.settings.model_copy(update={"home": tmp_path / "home"}), applied.definitions)
    for name in vars(applied.definitions).keys() - declared.keys():
        delattr(applied.definitions, name)
    vars(applied.definitions).update(declared)


@pytest.fixture
def serving(shop: Shop, tmp_path: Path) -> Digest:
    """A registered bundle whose transform looks at `weather__temp`, live on the endpoint `trains`."""
    return serve(shop, tmp_path, shop.repository.contract("delays"))


def serve(shop: Shop, tmp_path: Path, contract: FeatureContract) -> Digest:
    """Register a bundle of this contract whose transform looks at `weather__temp`, live on the endpoint `trains`."""
    columns = {name: column_of(dtype, [TABLE[dtype].zero] * 2) for name, dtype in contract.columns}
    fitted = Transform({"temp": column("weather__temp", Dtype.FLOAT32).impute(0.0)}).fit(columns, 2)
    made = content(name="delay", given=contract, fitted=fitted, columns=columns)
    bundle = write_bundle(made, tmp_path / "bundle")
    artifact = FolderArtifactStore(shop.settings.folders.artifacts).put(tmp_path / "bundle", bundle)
    with closing(Registry(engine(shop.settings.registry_url))) as registry:
        registry.register_bundle(BundleRecord(bundle, "delay", Micros(1), artifact, contract.digest, fitted.digest, {}))
        registry.create_endpoint("trains", description="", bundle=bundle, actor="ann", reason="first")
    return bundle


def test_what_was_applied_is_nothing_to_do_and_has_a_version_with_who_and_why(shop: Shop) -> None:
    assert shop.json("plan")["changes"] == []
    head = shop.current().head
    assert (head.reason, shop.versions(), head.digest) == (
        "the first",
        (VersionState.APPLIED,),
        shop.current().definitions.digest,
    )
    (noted,) = shop.audit()
    assert (noted.action, noted.reason, noted.detail["to"]) == ("apply", "the first", head.digest)
    assert {each["kind"] for each in noted.detail["changes"]} == {"entity", "feature view", "feature service"}
    assert shop.run("apply").exit_code == 0
    assert (shop.versions(), len(shop.audit())) == ((VersionState.APPLIED,), 1)


def test_a_plan_says_what_would_change_and_changes_nothing(shop: Shop, serving: Digest) -> None:
    before = shop.fingerprint
    shop.change("weather", ttl=timedelta(hours=9), description="the weather")
    planned = shop.json("plan", code=7)
    (change,) = planned["changes"]
    told = [(each["what"], each["before"], each["after"]) for each in change["fields"]]
    assert told == [("ttl", "21600 s", "32400 s"), ("description", None, "the weather")]
    assert [each["bundle"] for each in planned["moves"]] == [serving]
    assert (shop.fingerprint, len(shop.versions())) == (before, 1)


def test_what_would_break_a_live_bundle_is_refused_and_nothing_is_registered(shop: Shop, serving: Digest) -> None:
    before = shop.fingerprint
    shop.retype("weather", "temp", dtype=shop.definitions.Float64)
    assert shop.run("plan").exit_code == 4
    refused = shop.run("apply", "--yes")
    assert refused.exit_code == 4
    assert "feature view `weather` would break `delay` (live of trains)" in refused.stderr
    assert "make a new version instead" in refused.stderr
    assert (shop.fingerprint, shop.versions()) == (before, (VersionState.APPLIED,))
    assert shop.run("apply", "--yes", "--allow-breaking", "--reason", "nobody asks it").exit_code == 0
    temp = shop.current().definitions.views["weather"].feature("temp")
    assert temp is not None
    assert temp.feast_type == "Float64"


def test_what_the_live_bundle_does_not_look_at_may_go(shop: Shop, serving: Digest) -> None:
    shop.change("leg", ttl=timedelta(hours=1))
    shop.change("weather", schema=[each for each in shop.definitions.weather.features if each.name != "photo"])
    assert shop.run("apply").exit_code == 0
    assert shop.current().definitions.views["weather"].feature("photo") is None


def test_something_is_removed_only_when_that_is_asked_for_and_agreed_to(shop: Shop) -> None:
    del shop.definitions.everything, shop.definitions.network
    planned = shop.json("plan")
    assert planned["kept"] == [["feature view", "network"], ["feature service", "everything"]]
    assert shop.run("apply").exit_code == 0
    assert "network" in shop.current().definitions.views
    asked = shop.run("apply", "--prune")
    assert asked.exit_code == 2
    assert "removes network, everything, and nobody can be asked here" in asked.stderr
    assert shop.run("apply", "--prune", "--yes").exit_code == 0
    assert sorted(shop.repository.compiled().contracts) == ["delays"]
    assert sorted(shop.current().definitions.views) == ["leg", "weather"]
    assert shop.json("plan", "--prune")["changes"] == []


def test_a_view_that_a_live_bundle_reads_is_not_removed(shop: Shop, serving: Digest) -> None:
    del shop.definitions.everything, shop.definitions.delays, shop.definitions.weather
    refused = shop.run("apply", "--prune", "--yes")
    assert refused.exit_code == 4
    assert "weather" in shop.repository.registration.definitions().views


def test_a_saved_plan_is_applied_once_and_only_where_nothing_changed_since(shop: Shop, tmp_path: Path) -> None:
    shop.change("weather", ttl=timedelta(hours=9))
    assert shop.run("plan", "--out", str(tmp_path / "plan.json")).exit_code == 7
    shop.change("leg", ttl=timedelta(hours=1))
    other = shop.run("apply", "--plan", str(tmp_path / "plan.json"))
    assert other.exit_code == 5
    assert "is not what applying would do now" in other.stderr
    shop.change("leg", ttl=timedelta(0))
    assert shop.run("apply", "--plan", str(tmp_path / "plan.json")).exit_code == 0
    assert shop.run("apply", "--plan", str(tmp_path / "plan.json")).exit_code == 5
    (tmp_path / "plan.json").write_text("{}")
    assert shop.run("apply", "--plan", str(tmp_path / "plan.json")).exit_code == 2


def test_definitions_with_errors_are_listed_all_at_once_and_refused(shop: Shop) -> None:
    before = shop.fingerprint
    shop.change("weather", tags={"freshness": "soon"})
    shop.change("leg", tags={"schedule": "0 25 * * *"})
    assert shop.run("plan").exit_code == 2
    refused = shop.run("apply")
    assert refused.exit_code == 2
    assert "freshness='soon'" in refused.stderr
    assert "schedule `0 25 * * *` is no cron expression" in refused.stderr
    assert shop.fingerprint == before


def test_who_registered_something_meanwhile_wins(shop: Shop) -> None:
    shop.change("weather", ttl=timedelta(hours=9))
    workspace = Workspace(shop.settings)
    prepared = definition_apply.prepare(workspace)
    shop.change("leg", ttl=timedelta(hours=1))
    shop.repository.apply(shop.definitions)
    before = shop.fingerprint
    with pytest.raises(Conflict, match="somebody else registered definitions"):
        definition_apply.apply_prepared(workspace, prepared, reason="")
    assert shop.fingerprint == before
    assert shop.versions() == (VersionState.ABANDONED, VersionState.APPLIED)


def with_stream(prepared: Prepared, name: str) -> Prepared:
    """The same, which also declares a stream."""
    stream = StreamMetadata(name, "weather", {"name": name, "view": "weather"})
    wanted = prepared.proposal.wanted
    wanted = replace(wanted, streams={**wanted.streams, name: stream})
    return replace(prepared, proposal=replace(prepared.proposal, wanted=wanted))


def test_of_two_that_add_only_streams_at_once_the_second_is_refused_and_the_first_stays(shop: Shop) -> None:
    workspace = Workspace(shop.settings)
    prepared = definition_apply.prepare(workspace)
    definition_apply.apply_prepared(workspace, with_stream(prepared, "visits"), reason="")
    with pytest.raises(Conflict, match="put other streams in force"):
        definition_apply.apply_prepared(workspace, with_stream(prepared, "delays"), reason="")
    assert list(shop.current().definitions.streams) == ["visits"]
    again = definition_apply.prepare(workspace)
    definition_apply.apply_prepared(workspace, with_stream(again, "delays"), reason="")
    assert list(shop.current().definitions.streams) == ["delays", "visits"]


def begun(shop: Shop, prepared: Prepared) -> int:
    """The version of an apply that went no further than to write it down."""
    with closing(Definitions(engine(shop.settings.registry_url))) as versions:
        wanted = prepared.proposal.wanted
        return versions.begin(wanted, plan={"changes": []}, before=prepared.plan.source, actor="ann", reason="first")


def test_who_began_earlier_is_not_overtaken(shop: Shop) -> None:
    workspace = Workspace(shop.settings)
    prepared = definition_apply.prepare(workspace)
    number = begun(shop, prepared)
    with pytest.raises(Conflict, match=rf"version {number}, begun by ann, is being applied"):
        definition_apply.apply_prepared(workspace, prepared, reason="")
    assert shop.versions() == (VersionState.ABANDONED, VersionState.APPLYING, VersionState.APPLIED)
    assert shop.run("apply").exit_code == 0
    assert VersionState.APPLYING not in shop.versions()
    with workspace.kept(Definitions) as versions, pytest.raises(Conflict, match="took this one for cut off"):
        definition_apply.refuse_outdated(workspace, versions, prepared, number)


def test_a_compile_after_a_cut_off_apply_puts_the_streams_of_that_apply_in_force(shop: Shop) -> None:
    shop.change("weather", description="another")
    prepared = with_stream(definition_apply.prepare(Workspace(shop.settings)), "visits")
    number = begun(shop, prepared)
    prepared.repository.registration.register(prepared.proposal)
    assert shop.run("features", "compile").exit_code == 0
    assert shop.current().number == number
    assert shop.current().head.digest == prepared.proposal.wanted.digest
    assert list(shop.current().definitions.streams) == ["visits"]


def test_what_would_break_a_bundle_that_went_live_since_the_plan_is_refused(shop: Shop, tmp_path: Path) -> None:
    workspace = Workspace(shop.settings)
    contract, before = shop.repository.contract("delays"), shop.fingerprint
    shop.change("weather", schema=[each for each in shop.definitions.weather.features if each.name != "temp"])
    prepared = definition_apply.prepare(workspace)
    definition_apply.refuse_unless_allowed(prepared.plan, allow_breaking=False)
    serve(shop, tmp_path, contract)
    with pytest.raises(Conflict, match="`weather` would now break `delay`"):
        definition_apply.apply_prepared(workspace, prepared, reason="")
    assert (shop.fingerprint, shop.versions()) == (before, (VersionState.ABANDONED, VersionState.APPLIED))


def test_a_bundle_that_went_live_since_the_plan_and_is_not_broken_holds_up_nothing(shop: Shop, tmp_path: Path) -> None:
    workspace = Workspace(shop.settings)
    contract = shop.repository.contract("delays")
    shop.change("weather", ttl=timedelta(hours=9))
    prepared = definition_apply.prepare(workspace)
    serve(shop, tmp_path, contract)
    definition_apply.apply_prepared(workspace, prepared, reason="")
    assert shop.current().definitions.views["weather"].ttl_us == 9 * HOUR_US


def test_a_plain_feast_apply_is_a_version_once_it_is_compiled(shop: Shop) -> None:
    shop.change("weather", tags={"freshness": "2h"}, ttl=timedelta(hours=9))
    shop.repository.apply(shop.definitions)
    assert shop.run("features", "compile").exit_code == 0
    assert shop.current().definitions.views["weather"].freshness_us == 2 * 3600 * 1_000_000
    assert [each["reason"] for each in shop.json("features", "history")] == ["features compile", "the first"]
    (_, noted) = shop.audit()
    assert [(each["kind"], each["name"]) for each in noted.detail["changes"]] == [("feature view", "weather")]


def test_what_is_personal_is_hashed_in_the_log_unless_its_own_mark_says_otherwise(shop: Shop) -> None:
    shop.retype("weather", "temp", tags={"personal": "true"})
    shop.retype("weather", "wind", tags={"personal": "true", "skewless.log": "omit"})
    assert "SKEWLESS_GATEWAY_LOG_HASH_KEY" in shop.run("plan").stdout
    assert shop.run("apply").exit_code == 0
    (weather, _) = shop.repository.contract("delays").views
    marks = {each.name: each.log for each in weather.features}
    assert marks == {"temp": LogMark.HASH, "wind": LogMark.OMIT, "sky": LogMark.KEEP, "rain": LogMark.KEEP}


def test_definitions_are_listed_shown_searched_and_followed_to_the_endpoint(shop: Shop, serving: Digest) -> None:
    shop.change("weather", owner="met office", description="how the air is", tags={"freshness": "2h"})
    shop.retype("weather", "temp", tags={"unit": "°C", "range": "-60..60"}, description="of the air")
    assert shop.run("apply").exit_code == 0
    assert "met office" in shop.run("features", "list").stdout
    (line,) = [each for each in shop.run("features", "list", "--features").stdout.splitlines() if ":temp" in each]
    assert line.split() == ["weather:temp", "Float32", "°C", "-60..60", "-", "of", "the", "air"]
    assert shop.json("features", "show", "weather:temp")["tags"] == {"range": "-60..60", "unit": "°C"}
    assert "fresh within  2h" in shop.run("features", "show", "weather").stdout
    found = shop.json("features", "search", "air", "office")
    assert [each["name"] for each in found][:2] == ["weather", "weather:temp"]
    assert shop.run("features", "search", "zebra").exit_code == 1
    told = shop.run("features", "lineage", "weather:temp").stdout
    for each in ("source weather_source", f"bundle {serving[:12]} delay", "endpoint trains  [live]"):
        assert each in told
    assert "[read, not used]" in shop.run("features", "lineage", "weather:wind").stdout
    tree = shop.json("features", "lineage", "trains")
    assert {
        "kind": "source",
        "name": "leg_source",
        "about": str(shop.settings.repo.parent / "data" / "leg.parquet"),
    } in tree["nodes"]


def test_a_view_that_is_kept_by_version_keeps_its_version_until_its_schema_changes(shop: Shop) -> None:
    config = shop.settings.repo / "feature_store.yaml"
    plain = config.read_text()
    config.write_text(
        plain.replace("cache_mode: sync", "cache_mode: sync, enable_online_feature_view_versioning: true")
    )
    try:
        assert shop.json("plan")["changes"] == []
        changes: tuple[tuple[Callable[[], None], str], ...] = (
            (lambda: shop.retype("weather", "temp", dtype=shop.definitions.Float64), "weather_v1"),
            (lambda: shop.change("weather", ttl=timedelta(hours=2)), "weather_v1"),
            (lambda: shop.retype("weather", "temp", dtype=shop.definitions.Float32), "weather_v2"),
        )
        for change, stored_name in changes:
            before = shop.current().definitions.views["weather"]
            change()
            told = [
                each["after"]
                for each in shop.json("plan", code=7)["changes"][0]["fields"]
                if each["what"] == "stored as"
            ]
            assert told == ([stored_name] if stored_name != before.stored_name else [])
            assert shop.run("apply").exit_code == 0
            assert shop.current().definitions.views["weather"].stored_name == stored_name
            assert shop.json("plan")["changes"] == []
    finally:
        config.write_text(plain)


def test_services_are_listed_where_a_snapshot_is_older_than_the_first_version(shop: Shop) -> None:
    with engine(shop.settings.registry_url).begin() as connection:
        connection.execute(text("DELETE FROM definition_versions"))
    listed = shop.run("features", "list")
    assert (listed.exit_code, "everything" in listed.stdout) == (0, True)
    assert "version of the definitions of project `applied_shop` does not exist" in listed.stderr
    assert shop.run("features", "show", "delays").exit_code == 0
    assert shop.run("features", "lineage", "weather").exit_code == 2
    assert shop.run("features", "search", "weather").exit_code == 1


def test_a_catalogue_is_told_of_what_happened_since_and_holds_up_no_command(
    shop: Shop, serving: Digest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKEWLESS_OPENLINEAGE_URL", "http://127.0.0.1:1/api/v1/lineage")
    shop.change("weather", description="how the air is")
    done = shop.run("apply")
    assert done.exit_code == 0
    assert "lineage was not sent, and will be by a later command" in done.stderr
    with catalogue(taken_max=3) as (url, got):
        monkeypatch.setenv("SKEWLESS_OPENLINEAGE_URL", url)
        assert shop.run("apply").exit_code == 0
        assert len(got) == 3
    with catalogue() as (url, got):
        monkeypatch.setenv("SKEWLESS_OPENLINEAGE_URL", url)
        assert "events were taken" in shop.run("features", "lineage", "--send").stderr
        told = [each["event"] for each in got]
        jobs = [each["job"]["name"] for each in told if "job" in each]
        # Every view when it was first applied, the bundle, its endpoint, and the view that changed since.
        assert jobs == [
            *(f"materialize/{view}" for view in ("leg", "network", "weather")),
            "train/delay",
            "endpoint/trains",
            "materialize/weather",
        ]
        assert told[-2]["dataset"]["facets"]["documentation"]["description"] == "how the air is"
        got.clear()
        assert shop.run("apply").exit_code == 0
        assert "0 events were taken" in shop.run("features", "lineage", "--send").stderr
        assert got == []


# --- killed in the middle --------------------------------------------------------------------------------------------


def _statements(act: Callable[[], None], *, kill_at: int) -> Callable[[], None]:
    """`act`, killed before its n-th SQL statement or commit; of a negative number, never, and their count is told."""

    def counted() -> None:
        seen = 0

        def step(*_: object) -> None:
            nonlocal seen
            if seen == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            seen += 1

        event.listen(Engine, "before_cursor_execute", step)
        event.listen(Engine, "commit", step)
        act()
        if kill_at < 0:
            Path(os.environ["STEPS"]).write_text(str(seen))

    return counted


def _changed_and_applied(shop: Shop) -> None:
    done = shop.run("apply", "--reason", "the second")
    assert done.exit_code == 0, done.output


def killed_at(shop: Shop, home: Path, step: int) -> tuple[bool, Shop]:
    """A copy of the shop in which an apply was killed at a step; whether it was."""
    shutil.rmtree(home, ignore_errors=True)
    shutil.copytree(shop.settings.home, home)
    copied = replace(shop, settings=shop.settings.model_copy(update={"home": home}))
    return not forked(_statements(lambda: _changed_and_applied(copied), kill_at=step)), copied


def check_after_kill(copied: Shop, old: Digest, new: Digest) -> bool:
    """Whether what is registered is new; it is the one or the other, and a next apply makes all of it new."""
    registered = copied.repository.registration.definitions().digest
    assert registered in (old, new)
    assert copied.current().head.digest in (old, new)
    assert copied.run("apply", "--reason", "again").exit_code == 0
    assert VersionState.APPLYING not in copied.versions()
    assert copied.current().head.digest == new == copied.current().definitions.digest
    assert copied.compiled_from() == copied.fingerprint
    assert [each.detail["to"] for each in copied.audit()] == [old, new]
    assert copied.json("plan")["changes"] == []
    return registered == new


def test_an_apply_that_is_killed_left_the_old_or_the_new_and_the_next_one_finishes_it(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.change("weather", ttl=timedelta(hours=9))
    shop.change("leg", tags={"freshness": "2h"})
    shop.definitions.fog = copy.copy(shop.definitions.network)
    shop.definitions.fog.name = "fog"
    old = shop.current().head.digest
    steps, new = total_steps(shop, tmp_path, monkeypatch)
    registered = []
    # Before anything, in the middle of Feast's registry, at its end, and between it and what follows from it.
    for share in (0.05, 0.45, 0.8, 0.97):
        was_killed, copied = killed_at(shop, tmp_path / "killed", int(steps * share))
        assert was_killed
        registered.append(check_after_kill(copied, old, new))
    assert registered == sorted(registered)
    assert (registered[0], registered[-1]) == (False, True)


def total_steps(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[int, Digest]:
    """How many steps an apply has that nobody kills, and what it makes of the definitions."""
    monkeypatch.setenv("STEPS", str(tmp_path / "steps"))
    was_killed, copied = killed_at(shop, tmp_path / "whole", -1)
    assert not was_killed
    return int((tmp_path / "steps").read_text()), copied.current().head.digest


@pytest.fixture
def connections_closed() -> Iterator[None]:
    """Closes what Feast leaves open: its registry keeps its connections until the process ends, as commands do."""
    opened: list[Any] = []

    def note(connection: Any, _: object) -> None:
        opened.append(connection)

    event.listen(Pool, "connect", note)
    yield
    event.remove(Pool, "connect", note)
    for connection in opened:
        connection.close()


@pytest.mark.usefixtures("connections_closed")
def test_an_apply_is_whole_on_postgresql_too(shop: Shop, postgres_server: PostgresServer) -> None:
    urls = {
        "database_url": postgres_server.new_database(),
        "feast_registry": postgres_server.new_database(migrated=False),
    }
    stored = replace(shop, settings=shop.settings.model_copy(update=urls))
    _changed_and_applied(stored)
    for hours, step in ((7, 200), (8, 330)):
        old = stored.repository.registration.definitions().digest
        stored.change("weather", ttl=timedelta(hours=hours))
        stored.change("leg", ttl=timedelta(hours=hours))
        assert not forked(_statements(lambda: _changed_and_applied(stored), kill_at=step)), step
        registered = stored.repository.registration.definitions()
        assert registered.digest == old or {view.ttl_us for view in registered.views.values()} == {0, hours * HOUR_US}
        assert stored.run("apply").exit_code == 0
        assert stored.current().head.digest == stored.repository.registration.definitions().digest != old
        assert stored.compiled_from() == stored.fingerprint
        assert VersionState.APPLYING not in stored.versions()
