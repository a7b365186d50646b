"""`skewless materialize` as a user runs it over a Feast repository: what Feast and its SDK see of it included."""

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from redis import Redis

from harness.feature_repository import FEAST_WARNS, SERVICE, STATIONS, SmallRepository, small_repository
from harness.servers import ValkeyServer
from skewless.adapters.feast_repository import FeatureRepository
from skewless.adapters.online_scan import OnlineScan
from skewless.adapters.redis_blocking_store import BlockingRedisOnlineStore
from skewless.cli.main import main
from skewless.cli.workspace import Workspace
from skewless.features.redis_layout import project_of
from skewless.features.row_order import ROW_TIME_PREFIX
from skewless.registry.database import engine
from skewless.registry.leases import Leases
from skewless.settings import Home
from skewless.timestamps import HOUR_US, format_timestamp, from_micros, parse_timestamp

pytestmark = FEAST_WARNS
PROJECT = "materialized"
_FEASTS_NULLS = (bytes.fromhex("4080808080808080808001"), bytes.fromhex("0a00"))
EARLY, LATE = parse_timestamp("2024-01-05"), parse_timestamp("2024-01-06")


@dataclass(frozen=True, slots=True)
class Shop:
    """A home, the repository it serves, and its store."""

    home: Home
    small: SmallRepository
    valkey: ValkeyServer

    @property
    def repository(self) -> FeatureRepository:
        """Feast's side."""
        return Workspace().features()

    def hashes(self) -> dict[bytes, dict[bytes, bytes]]:
        """All that the project has in the store, without our own field."""
        client: Any = Redis.from_url(self.valkey.url)
        with closing(client):
            keys = [key for key in client.scan_iter(count=1_000) if project_of(key) == PROJECT]
            return {key: _without_ours(client.hgetall(key)) for key in keys}


def _without_ours(fields: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """Fields of Feast's making; null times and empty bytes, which Feast writes in its own way, as nulls."""
    kept = {name: value for name, value in fields.items() if not name.startswith(ROW_TIME_PREFIX)}
    return {name: b"" if value in _FEASTS_NULLS else value for name, value in kept.items()}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, valkey_server: ValkeyServer) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("materialized")
    repository = small_repository(folder, "small_materialized", project=PROJECT)
    with repository as small, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SKEWLESS_HOME", str(folder / "home"))
        patch.setenv("SKEWLESS_REPO", str(small.folder))
        patch.setenv("SKEWLESS_ONLINE_STORE", f"{valkey_server.host}:{valkey_server.port}")
        _json("apply")
        yield Shop(Home(folder / "home"), small, valkey_server)


def _run(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def _json(*arguments: str) -> Any:
    done = _run(*arguments, "--json")
    assert done.exit_code == 0, (done.output, done.exception)
    return json.loads(done.stdout)


def _materialized(as_of: int, *arguments: str) -> dict[str, dict[str, Any]]:
    """Runs by view."""
    done = _json("materialize", "--as-of", format_timestamp(as_of), *arguments)
    return {run["view"]: run for run in done["runs"]}


def test_both_engines_store_the_same_bytes_and_feast_keeps_both_runs(shop: Shop) -> None:
    by_feast = _materialized(EARLY, "--reset", "--engine", "feast")
    assert {run["engine"] for run in by_feast.values()} == {"feast"}
    stored = shop.hashes()
    ours = _materialized(EARLY, "--reset")
    assert shop.hashes() == stored
    assert sum(run["new_rows"] for run in ours.values()) == len(stored)
    assert all(run["verified_rows"] > 0 for run in (*by_feast.values(), *ours.values()))
    repository = shop.repository
    assert all((0, EARLY) in runs for runs in repository.materialized(SERVICE).values())
    served = repository.online_features(SERVICE, [{"station": each, "line": 1} for each in STATIONS])
    assert any(each is not None for each in served["weather__temp"])


def test_the_next_run_takes_what_is_new_and_a_dry_run_said_so_before(shop: Shop) -> None:
    _materialized(EARLY, "--reset")
    dry = _json("materialize", "--as-of", format_timestamp(LATE), "--dry-run")
    before = shop.hashes()
    assert dry["dry_run"]
    runs = _materialized(LATE)
    for each in dry["views"]:
        run = runs[each["view"]]
        assert (each["kind"], run["kind"]) == ("incremental", "incremental")
        told = [each[name] for name in ("source_rows", "new", "replaced", "older", "same")]
        assert told == [run["source_rows"], *(run[f"{name}_rows"] for name in ("new", "replaced", "older", "same"))]
    assert shop.hashes() != before
    whole = shop.hashes()
    _materialized(LATE, "--reset")
    assert shop.hashes() == whole, "what runs one after another wrote is what one run writes"
    said = _run("materialize", "--as-of", format_timestamp(LATE), "--dry-run")
    assert "would be new" in said.stdout
    assert "nothing was changed" in said.stderr


def test_one_view_is_materialized_alone_and_says_who_asked(shop: Shop) -> None:
    _materialized(EARLY, "--reset")
    runs = _materialized(EARLY + HOUR_US, "weather", "--scheduled", "--no-verify")
    assert (set(runs), runs["weather"]["started_by"], runs["weather"]["verified_rows"]) == ({"weather"}, "scheduled", 0)
    refused = _run("materialize", "wether")
    assert (refused.exit_code, "stored feature view `wether` does not exist" in refused.stderr) == (2, True)


def test_entities_that_differ_are_named_to_whoever_looks_on_and_not_to_a_schedule(shop: Shop) -> None:
    _materialized(EARLY, "--reset")
    client: Any = Redis.from_url(shop.valkey.url)
    with closing(client):
        for key, fields in shop.hashes().items():
            client.hset(key, mapping={name: b"" for name in fields if len(name) == 4})
    for arguments, is_named in (((), True), (("--scheduled",), False)):
        told = _run("materialize", "weather", "--full", "--as-of", format_timestamp(EARLY), *arguments)
        assert (told.exit_code, "entities of feature view `weather` are not online" in told.stderr) == (4, True)
        assert ("event time online" in told.stderr) == is_named


def test_a_view_that_somebody_works_on_is_refused_at_once_with_the_code_of_a_conflict(shop: Shop) -> None:
    leases = Leases(engine(f"sqlite:///{shop.home.database}"))
    held = leases.take("view:leg", "ann@there pid 7", lease_s=600)
    told = _run("materialize", "--as-of", format_timestamp(EARLY))
    assert told.exit_code == 5
    assert "`view:leg` is held by ann@there pid 7" in told.stderr
    leases.release(held)
    leases.close()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--reset", "weather"), "--reset empties the store of all views"),
        (("--reset", "--from", "2024-01-01"), "--reset empties the store of all views"),
        (("--full", "--from", "2024-01-01"), "--full takes all rows"),
        (("--from", "2024-01-02", "--to", "2024-01-02"), "--from is not before --to"),
        (("--from", "2024-01-02", "--engine", "feast"), "a back-fill goes through the local engine"),
    ],
)
def test_what_contradicts_itself_is_refused(shop: Shop, arguments: tuple[str, ...], told: str) -> None:
    refused = _run("materialize", *arguments)
    assert refused.exit_code == 2
    assert told in refused.stderr


def test_a_backfill_brings_rows_that_came_into_the_source_long_after_they_were_known(shop: Shop) -> None:
    _materialized(LATE, "--reset")
    path = shop.small.data / "weather.parquet"
    kept = pq.read_table(path)
    happened = EARLY - 3 * HOUR_US
    row: dict[str, Any] = dict.fromkeys(kept.column_names)
    row |= {"station": "found later", "happened": from_micros(happened), "known": from_micros(happened)}
    try:
        pq.write_table(pa.concat_tables([kept, pa.Table.from_pylist([row], schema=kept.schema)]), path)
        assert _materialized(LATE, "weather")["weather"]["new_rows"] == 0
        day = timedelta(days=1)
        span = [format_timestamp(happened), str(from_micros(happened).date() + day)]
        runs = _materialized(LATE, "weather", "--from", span[0], "--to", span[1])
        assert (runs["weather"]["kind"], runs["weather"]["new_rows"]) == ("backfill", 1)
    finally:
        pq.write_table(kept, path)


def test_repair_minds_our_field_as_little_as_feast_does_and_removes_it_with_its_view(shop: Shop) -> None:
    _materialized(EARLY, "--reset")
    project = shop.repository.stored()
    with closing(BlockingRedisOnlineStore(shop.valkey.url)) as store:
        scan = OnlineScan(store, shop.valkey.url, project.project)
        known = project.known_hashes(())
        found = [(told, fields) for part in scan.parts() for (_, told), fields in
                 zip(part, scan.fields([key for key, _ in part]), strict=True)]  # fmt: skip
    assert any(name.startswith(ROW_TIME_PREFIX) for _, fields in found for name in fields)
    assert [known.orphans(told, fields) for told, fields in found] == [[]] * len(found)
    told, fields = found[0]
    assert known.orphans(told, [*fields, b"_rt:gone", b"_ts:gone"]) == [b"_rt:gone", b"_ts:gone"]
    report = _json("features", "repair", "--all", "--dry-run", "--as-of", format_timestamp(EARLY))
    assert report["differing"] == 0
