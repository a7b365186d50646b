"""`skewless api-key …` over a real registry."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from skewless.cli.api_key_commands import api_key
from skewless.errors import Conflict, InvalidDefinition, InvalidRequest, NotFound
from skewless.registry import database
from skewless.registry.api_keys import hash_of
from skewless.registry.api_scopes import ApiRate, ApiScope
from skewless.registry.repository import Registry
from skewless.registry.transactions import system_clock
from skewless.settings import Settings, load_settings
from skewless.timestamps import DAY_US, SECOND_US

REASON = ("--reason", "launch")


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    monkeypatch.setenv("SKEWLESS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LOGNAME", "ann")
    url = load_settings(Settings).registry_url
    database.upgrade(url)
    made = Registry(database.engine(url))
    yield made
    made.close()


def _say(*arguments: str) -> str:
    """Standard output of a command that succeeds; what it raises comes out as it is."""
    done = CliRunner().invoke(api_key, list(arguments), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def _json(*arguments: str) -> Any:
    return json.loads(_say(*arguments, "--json"))


def test_the_secret_alone_goes_to_standard_output_and_opens_what_was_said(registry: Registry) -> None:
    secret = _say(
        "create", "shop", "--endpoint", "one", "--endpoint", "two",
        "--entity", "tailnum=N1,N2", "--entity", "origin=JFK", "--rate", "50", "--expires", "90d", *REASON,
    )  # fmt: skip
    found = registry.api_key_by_hash(hash_of(secret.strip()))
    assert found is not None
    assert found.scopes == (ApiScope(("one", "two"), {"tailnum": ("N1", "N2"), "origin": ("JFK",)}),)
    assert found.rate == ApiRate(50.0, 50)
    assert found.expires_time is not None
    assert abs(found.expires_time - system_clock() - 90 * DAY_US) < 600 * SECOND_US
    event = registry.audit(subject="api-key/shop")[0]
    assert (event.actor, event.reason) == ("ann", "launch")


def test_json_tells_the_secret_once_and_lists_never_do(registry: Registry) -> None:
    made = _json(
        "create", "shop", "--endpoint", "*", "--rate", "0.5", "--burst", "7", "--expires", "2999-01-01", *REASON
    )
    assert registry.api_key_by_hash(hash_of(made["secret"])) is not None
    assert made["rate"] == {"per_s": 0.5, "burst": 7}
    assert made["expires_time"] == "2999-01-01T00:00:00Z"
    secret = made.pop("secret")
    assert _json("list") == [made]
    shown = _json("show", "shop")
    assert [event["action"] for event in shown["history"]] == ["add"]
    for told in (_say("list"), _say("show", "shop"), str(shown)):
        assert "shop" in told
        assert secret not in told
        assert hash_of(secret) not in told


def test_a_file_may_say_several_scopes(registry: Registry, tmp_path: Path) -> None:
    file = tmp_path / "scopes.json"
    file.write_text('[{"endpoints": ["one"]}, {"endpoints": ["two"], "entities": {"tailnum": ["N"]}}]')
    made = _json("create", "shop", "--scopes", str(file), *REASON)
    assert made["scopes"] == [
        {"endpoints": ["one"], "entities": {}},
        {"endpoints": ["two"], "entities": {"tailnum": ["N"]}},
    ]
    for wrong in ("", "7", '{"a": 1}', "[7]", '[{"endpoints": []}]'):
        file.write_text(wrong)
        with pytest.raises(InvalidDefinition):
            _say("create", "other", "--scopes", str(file), *REASON)


def test_a_revoked_key_is_listed_only_where_asked_for(registry: Registry) -> None:
    _say("create", "shop", "--endpoint", "one", *REASON)
    _say("revoke", "shop", "--reason", "leaked")
    assert _json("list") == []
    assert [key["name"] for key in _json("list", "--revoked")] == ["shop"]
    assert "revoked" in _say("show", "shop")
    with pytest.raises(NotFound, match="API key `shop` does not exist"):
        _say("revoke", "shop", "--reason", "again")


@pytest.mark.parametrize(
    "wrong",
    [
        (), ("--entity", "tailnum=N1"), ("--endpoint", "one", "--entity", "tailnum"),
        ("--endpoint", "one", "--entity", "=N1"), ("--endpoint", "one", "--burst", "5"),
        ("--endpoint", "one", "--expires", "soon"), ("--endpoint", "one", "--expires", "5 days"),
    ],
)  # fmt: skip
def test_options_that_mean_nothing_are_refused_and_make_no_key(registry: Registry, wrong: tuple[str, ...]) -> None:
    with pytest.raises(InvalidRequest):
        _say("create", "shop", *wrong, *REASON)
    assert registry.api_keys() == ()


def test_a_name_that_is_taken_is_a_conflict_and_an_unknown_one_not_found(registry: Registry) -> None:
    _say("create", "shop", "--endpoint", "one", *REASON)
    with pytest.raises(Conflict):
        _say("create", "shop", "--endpoint", "one", *REASON)
    with pytest.raises(NotFound, match="Known: `shop`"):
        _say("show", "other")
    with pytest.raises(InvalidRequest, match="the reason is empty"):
        _say("create", "other", "--endpoint", "one", "--reason", " ")
