"""Who may bring rows: scopes of keys, tokens and certificates, beside those for predictions and apart from them."""

import json
from pathlib import Path
from typing import Any

import pytest

from skewless.dtypes import Dtype, column_of
from skewless.errors import Forbidden, InvalidDefinition, Unauthenticated
from skewless.registry.api_scopes import ApiScope
from skewless_http.security.callers import Caller, anonymous
from skewless_http.security.claims import ENDPOINTS_MAX, ClaimRules
from skewless_http.security.client_scopes import ClientScopes
from skewless_http.security.peers import PeerCertificate

WRITER = ApiScope((), {"user": ("7", "8")}, features=("clicks",), created_time=True)


def caller(*scopes: ApiScope) -> Caller:
    return Caller("key:test", scopes)


def test_a_scope_for_endpoints_brings_nothing_and_one_for_features_asks_nothing() -> None:
    asker, writer = caller(ApiScope(("*",))), caller(WRITER)
    for name in ("clicks", "*"):
        with pytest.raises(Forbidden):
            asker.may_bring_features(name)
        with pytest.raises(Forbidden):
            asker.may_bring_events(name)
    for ask in (writer.may_ask, writer.may_ask_raw):
        with pytest.raises(Forbidden):
            ask("clicks")
    with pytest.raises(Forbidden):
        writer.may_tell_outcomes()
    with pytest.raises(Forbidden):
        writer.may_bring_events("clicks")
    with pytest.raises(Forbidden):
        writer.may_bring_features("other")


def test_what_may_be_brought_is_the_union_of_the_scopes_that_cover_it() -> None:
    keys = {"user": column_of(Dtype.INT64, [71, 9, 8])}
    narrow = caller(WRITER).may_bring_features("clicks")
    assert narrow.is_limited
    assert narrow.created_time
    with pytest.raises(Forbidden) as refused:
        narrow.check(keys, 3, False)
    assert refused.value.path == "$.rows[1]"
    wide = caller(WRITER, ApiScope((), {"user": ("9",)}, features=("*",))).may_bring_features("clicks")
    wide.check(keys, 3, False)
    anyone = caller(WRITER, ApiScope((), features=("clicks",))).may_bring_features("clicks")
    anyone.check(keys, 3, False)
    assert not caller(ApiScope((), features=("clicks",))).may_bring_features("clicks").created_time
    assert anonymous().may_bring_events("anything").created_time


def test_created_times_are_for_the_entities_of_the_scopes_that_allow_them() -> None:
    nine = ApiScope((), {"user": ("9",)}, features=("clicks",))
    for other in (nine, ApiScope((), features=("clicks",))):
        brought = caller(WRITER, other).may_bring_features("clicks")
        assert brought.is_limited
        keys = {"user": column_of(Dtype.INT64, [7, 9])}
        brought.check(keys, 2, False)
        with pytest.raises(Forbidden, match="with created times") as refused:
            brought.check(keys, 2, True)
        assert refused.value.path == "$.rows[1]"
        brought.check({"user": column_of(Dtype.INT64, [7, 8])}, 2, True)
    everything = caller(nine, ApiScope((), features=("*",), created_time=True)).may_bring_features("clicks")
    assert not everything.is_limited


@pytest.mark.parametrize(
    "scope", [WRITER, ApiScope(("one",)), ApiScope((), events=("*",)), ApiScope(("*",), {}, ("*",), ("a.b@v2",), True)]
)
def test_scopes_come_back_from_plain_data(scope: ApiScope) -> None:
    assert ApiScope.from_json(json.loads(json.dumps(scope.to_json()))) == scope


@pytest.mark.parametrize(
    "data",
    [
        {"endpoints": [], "entities": {}},
        {"endpoints": [], "entities": {}, "features": [""]},
        {"endpoints": [], "entities": {}, "features": ["a b"]},
        {"endpoints": [], "entities": {}, "features": ["clicks", "*"]},
        {"endpoints": [], "entities": {}, "features": [1]},
        {"endpoints": [], "entities": {}, "events": [["x"]]},
        {"endpoints": ["one"], "entities": {}, "created_time": True},
    ],
)
def test_scopes_that_allow_nothing_or_mean_something_else_are_refused(data: dict[str, Any]) -> None:
    with pytest.raises(InvalidDefinition):
        ApiScope.from_json(data)


def test_tokens_name_views_and_streams_in_their_scopes() -> None:
    rules = ClaimRules("skewless.endpoints", "scope")
    told = rules.caller(
        {
            "sub": "x",
            "scope": "features:clicks features.created-time events:* openid",
            "skewless.entities": {"u": ["7"]},
        }
    )
    assert told.scopes == (ApiScope((), {"u": ("7",)}, ("clicks",), ("*",), True),)
    assert rules.caller({"sub": "x", "scope": "features.created-time"}).scopes == ()
    both = rules.caller({"sub": "x", "scope": "predict:one features:*"})
    assert both.scopes == (ApiScope(("one",), {}, ("*",)),)
    with pytest.raises(Unauthenticated):
        rules.caller({"sub": "x", "scope": " ".join(f"features:v{number}" for number in range(ENDPOINTS_MAX + 1))})


def test_words_of_other_services_in_a_token_neither_allow_anything_nor_make_it_useless() -> None:
    rules = ClaimRules("skewless.endpoints", "scope")
    others = ["events:read:all", "features:", "features:a/b", *(f"events:log:{n}" for n in range(ENDPOINTS_MAX))]
    told = rules.caller({"sub": "x", "scope": ["predict:one", *others]})
    assert told.scopes == (ApiScope(("one",)),)
    assert rules.caller({"sub": "x", "scope": others}).scopes == ()
    with pytest.raises(Unauthenticated):
        rules.caller({"sub": "x", "scope": "predict:read:all"})


def test_certificates_bring_what_their_entry_says(tmp_path: Path) -> None:
    file = tmp_path / "clients.json"
    file.write_text(json.dumps({"shop": {"scopes": [{"features": ["clicks"]}]}}))
    known = ClientScopes.read(file).known(PeerCertificate(("shop",)))
    assert known is not None
    known.may_bring_features("clicks")
    with pytest.raises(Forbidden):
        known.may_ask("clicks")
