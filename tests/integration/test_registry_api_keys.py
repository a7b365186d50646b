"""API keys, on SQLite and PostgreSQL: the secret is told once and is nowhere in the database."""

from collections.abc import Iterator
from itertools import count

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError

from skewless.canonical_json import digest
from skewless.errors import Conflict, InvalidDefinition, NotFound
from skewless.registry import database
from skewless.registry.api_keys import KEYS_MAX, hash_of
from skewless.registry.api_scopes import ApiRate, ApiScope
from skewless.registry.repository import Registry
from skewless.registry.schema import Base
from skewless.timestamps import Micros

NOW = 1_000
ANY = [ApiScope(("*",))]
SCOPES = [ApiScope(("flight-delay", "other"), {"tailnum": ("N1", "N2")}), ApiScope(("third",))]


@pytest.fixture
def engine(registry_url: str) -> Iterator[Engine]:
    made = database.engine(registry_url)
    yield made
    made.dispose()


@pytest.fixture
def registry(engine: Engine) -> Registry:
    ticks = count(NOW)
    return Registry(engine, clock=lambda: Micros(next(ticks)))


def test_a_key_is_found_by_the_hash_of_its_secret_and_by_nothing_else(registry: Registry) -> None:
    secret = registry.add_api_key("shop", SCOPES, expires_time=Micros(5_000), actor="ann", reason="launch")
    found = registry.api_key_by_hash(hash_of(secret))
    assert found is not None
    assert (found.name, found.scopes, found.expires_time, found.revoked_time) == ("shop", tuple(SCOPES), 5_000, None)
    assert registry.api_keys() == (found,)
    for wrong in ("", secret[:-1], secret.upper(), f"{secret} ", "\udcff"):
        assert registry.api_key_by_hash(hash_of(wrong)) is None


def test_secrets_are_long_random_and_recognisable(registry: Registry) -> None:
    secrets = {registry.add_api_key(f"key-{number}", ANY) for number in range(5)}
    assert len(secrets) == 5
    assert all(secret.startswith("skw_") and len(secret) == len("skw_") + 43 for secret in secrets)


def test_the_secret_stands_nowhere_in_the_database_and_no_hash_in_what_is_told(
    registry: Registry, engine: Engine
) -> None:
    secret = registry.add_api_key("shop", ANY, actor="ann", reason="launch")
    kept = hash_of(secret)
    registry.revoke_api_key("shop", actor="ann", reason="leaked")
    with engine.connect() as connection:
        everything = [str(connection.execute(text(f"SELECT * FROM {name}")).all()) for name in Base.metadata.tables]
    assert not any(secret in each or secret.removeprefix("skw_") in each for each in everything)
    told = str([key.to_json() for key in registry.api_keys(include_revoked=True)])
    told += str([event.to_json() for event in registry.audit()])
    assert kept not in told
    assert kept[:12] in told


def test_a_revoked_key_is_not_valid_and_its_name_may_be_used_again(registry: Registry) -> None:
    first = registry.add_api_key("shop", ANY)
    registry.revoke_api_key("shop", actor="ann", reason="leaked")
    found = registry.api_key_by_hash(hash_of(first))
    assert found is not None
    assert not found.is_valid(Micros(0))
    assert registry.api_keys() == ()
    second = registry.add_api_key("shop", ANY)
    assert [key.hash for key in registry.api_keys()] == [hash_of(second)]
    assert {key.hash for key in registry.api_keys(include_revoked=True)} == {hash_of(first), hash_of(second)}


def test_a_key_expires_at_its_moment(registry: Registry) -> None:
    found = registry.api_key_by_hash(hash_of(registry.add_api_key("shop", ANY, expires_time=Micros(5_000))))
    assert found is not None
    assert found.is_valid(Micros(4_999))
    assert not found.is_valid(Micros(5_000))


def test_a_key_says_how_often_it_may_ask_or_leaves_it_to_the_gateway(registry: Registry) -> None:
    registry.add_api_key("batch", ANY, rate=ApiRate(0.5, 20), actor="ann")
    registry.add_api_key("shop", ANY)
    assert [key.rate for key in registry.api_keys()] == [ApiRate(0.5, 20), None]
    assert registry.audit(subject="api-key/batch")[0].detail["rate"] == {"per_s": 0.5, "burst": 20}
    assert [key.to_json()["rate"] for key in registry.api_keys()] == [{"per_s": 0.5, "burst": 20}, None]


def test_a_follower_sees_by_the_version_that_keys_changed(registry: Registry) -> None:
    versions = [registry.api_keys_version()]
    for change in (
        lambda: registry.add_api_key("shop", ANY),
        lambda: registry.add_api_key("other", ANY),
        lambda: registry.revoke_api_key("shop"),
        lambda: registry.add_api_key("shop", ANY),
    ):
        change()
        versions.append(registry.api_keys_version())
    assert len(set(versions)) == len(versions)
    registry.api_keys()
    assert registry.api_keys_version() == versions[-1], "reading changes nothing"


def test_more_keys_than_a_gateway_should_hold_are_refused(registry: Registry, engine: Engine) -> None:
    writing = engine.execution_options(**{database.WRITES: True})
    rows = [{"hash": digest(str(number)), "name": f"key-{number}"} for number in range(KEYS_MAX)]
    with writing.begin() as connection:
        connection.execute(
            text("INSERT INTO api_keys (hash, name, scopes, created_time) VALUES (:hash, :name, '[]', 1)"), rows
        )
    with pytest.raises(Conflict, match="10000 API keys are in force"):
        registry.add_api_key("shop", ANY)
    registry.revoke_api_key("key-7")
    registry.add_api_key("shop", ANY)


def test_every_change_of_keys_is_audited(registry: Registry) -> None:
    registry.add_api_key("shop", SCOPES, expires_time=Micros(5_000), actor="ann", reason="launch")
    registry.revoke_api_key("shop", actor="ben", reason="leaked")
    added, revoked = registry.audit(subject="api-key/shop")
    assert (added.action, added.actor, added.reason) == ("add", "ann", "launch")
    assert added.detail["scopes"] == [scope.to_json() for scope in SCOPES]
    assert added.detail["expires_time"] == "1970-01-01T00:00:00.005000Z"
    assert (revoked.action, revoked.actor, revoked.detail) == ("revoke", "ben", {"id": added.detail["id"]})


def test_one_key_of_a_name_is_in_force_at_a_time(registry: Registry, engine: Engine) -> None:
    registry.add_api_key("shop", ANY)
    with pytest.raises(Conflict, match="an API key `shop` is in force"):
        registry.add_api_key("shop", ANY)
    # Whatever two writers read before: the database says so too.
    writing, unique = engine.execution_options(**{database.WRITES: True}), r"uq_api_keys_name|api_keys\.name"
    with pytest.raises(IntegrityError, match=unique), writing.begin() as connection:
        connection.execute(
            text(
                f"INSERT INTO api_keys (hash, name, scopes, created_time) "
                f"SELECT '{digest('x')}', name, scopes, created_time FROM api_keys"
            )
        )


def test_a_key_needs_a_name_a_scope_and_a_future(registry: Registry) -> None:
    with pytest.raises(InvalidDefinition, match="cannot name an API key"):
        registry.add_api_key("The Shop", ANY)
    with pytest.raises(InvalidDefinition, match="has 0 scopes"):
        registry.add_api_key("shop", [])
    with pytest.raises(InvalidDefinition, match="would expire in the past"):
        registry.add_api_key("shop", ANY, expires_time=Micros(1))
    assert registry.api_keys() == ()
    assert registry.audit() == ()


def test_revoking_a_key_that_is_not_in_force_is_not_found(registry: Registry) -> None:
    registry.add_api_key("other", ANY)
    with pytest.raises(NotFound, match=r"API key `shop` does not exist\. Known: `other`"):
        registry.revoke_api_key("shop")
