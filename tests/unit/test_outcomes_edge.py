"""POST /v1/outcomes: by id and by entity, as JSON and as NDJSON, whole or line by line, within a caller's scopes."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from harness.bundles import instance
from harness.gateways import ENDPOINT, NOW, GatewayOverFakes
from harness.logged_rows import new_id
from harness.servers import wait_until
from skewless.dtypes import Dtype
from skewless.errors import InvalidRequest, Unavailable
from skewless.features.contract import FeatureContract, JoinKey, LogMark, ViewRead
from skewless.limits import OUTCOME_CHUNK, OUTCOME_LINE_BYTES_MAX, OUTCOME_REFUSALS_TOLD_MAX
from skewless.registry.api_scopes import ApiScope
from skewless.serving.log_privacy import LogPrivacy
from skewless.serving.outcome_entity import EntityForm
from skewless.timestamps import MINUTE_US, format_timestamp
from skewless_http import streamed_body
from skewless_http.security.callers import Caller

AT = format_timestamp(NOW)
JFK: dict[str, object] = {"origin": "JFK", "station": 1, "tailnum": None}
LGA = {**JFK, "origin": "LGA"}
BY_ENTITY: dict[str, Any] = {
    "endpoint": ENDPOINT,
    "entity": JFK,
    "at": AT,
    "label": "late",
}


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[GatewayOverFakes]:
    with GatewayOverFakes.build(tmp_path).running() as running:
        yield running


def tell(gateway: GatewayOverFakes, body: object) -> httpx.Response:
    return gateway.client.post("/v1/outcomes", json=body)


def stream(gateway: GatewayOverFakes, *lines: object) -> httpx.Response:
    encoded = [each if isinstance(each, bytes) else json.dumps(each).encode() for each in lines]
    return gateway.client.post(
        "/v1/outcomes", content=iter([b"\n".join(encoded)]), headers={"Content-Type": "application/x-ndjson"}
    )


def test_one_outcome_needs_no_list(gateway: GatewayOverFakes) -> None:
    (prediction,) = gateway.predict(instance()).json()["prediction_ids"]
    assert tell(gateway, {"prediction_id": prediction, "label": 3}).json() == {"accepted": 1}
    (kept,) = gateway.log.outcomes
    assert (kept.prediction_id, kept.label, kept.caller) == (prediction, "3", "anonymous")
    assert (kept.endpoint, kept.entity, kept.at) == (None, None, None)


def test_an_outcome_by_entity_is_kept_with_its_keys_in_one_form(gateway: GatewayOverFakes) -> None:
    assert tell(gateway, {**BY_ENTITY, "outcome_time": AT}).json() == {"accepted": 1}
    (kept,) = gateway.log.outcomes
    assert (kept.prediction_id, kept.endpoint, kept.entity) == (
        None,
        ENDPOINT,
        '{"origin":"JFK","station":1,"tailnum":null}',
    )
    assert (kept.at, kept.outcome_time, kept.received_time) == (NOW, NOW, NOW)


def test_ids_of_outcomes_grow_in_the_order_in_which_they_were_told(gateway: GatewayOverFakes) -> None:
    prediction = new_id()
    tell(gateway, {"outcomes": [{"prediction_id": prediction, "label": each} for each in range(300)]})
    kept = gateway.log.outcomes
    assert [each.label for each in sorted(kept, key=lambda each: each.outcome_id)] == [str(each) for each in range(300)]


@pytest.mark.parametrize(
    ("change", "status", "path"),
    [
        ({"entity": {}}, 400, "$.entity.origin"),
        ({"entity": {**JFK, "origin": 7}}, 400, "$.entity.origin"),
        ({"entity": {**JFK, "origin": None}}, 400, "$.entity.origin"),
        ({"entity": {**JFK, "orgin": "JFK"}}, 400, "$.entity.orgin"),
        ({"entity": "JFK"}, 400, "$.entity"),
        ({"at": None}, 400, "$.at"),
        ({"at": "yesterday"}, 400, "$.at"),
        ({"at": format_timestamp(NOW + 2 * MINUTE_US)}, 400, "$.at"),
        ({"endpoint": 7}, 400, "$.endpoint"),
        ({"endpoint": "nope"}, 404, None),
        ({"label": None}, 400, "$.label"),
        ({"prediction_id": "0196a1c4-7d1a-7c1e-8f10-2b7f0e6a9d01"}, 400, "$.endpoint"),
        ({"who": 1}, 400, "$.who"),
    ],
)
def test_a_wrong_outcome_by_entity_is_refused_by_its_place(
    gateway: GatewayOverFakes, change: dict[str, object], status: int, path: str | None
) -> None:
    response = tell(gateway, {**BY_ENTITY, **change})
    assert response.status_code == status, response.text
    assert response.json().get("path") == path
    assert not gateway.log.outcomes


@pytest.mark.parametrize("missing", ["entity", "at", "label"])
def test_nothing_of_an_outcome_by_entity_may_be_left_out(gateway: GatewayOverFakes, missing: str) -> None:
    response = tell(gateway, {name: value for name, value in BY_ENTITY.items() if name != missing})
    assert (response.status_code, response.json()["path"]) == (400, f"$.{missing}")


def test_of_many_lines_each_is_kept_or_refused_by_itself(gateway: GatewayOverFakes) -> None:
    good = {"prediction_id": new_id(), "label": "late"}
    response = stream(
        gateway, good, b"", b"{", {**good, "label": None}, BY_ENTITY, b'"' + b"x" * OUTCOME_LINE_BYTES_MAX, good
    )
    assert response.status_code == 200, response.text
    told = response.json()
    assert (told["accepted"], told["refused"]) == (3, 3)
    assert [(each["line"], each["code"]) for each in told["errors"]] == [
        (3, "malformed_json"), (4, "mistyped_field"), (6, "limit_exceeded"),
    ]  # fmt: skip
    assert len(gateway.log.outcomes) == 3


def test_thousands_of_lines_are_taken_and_refusals_counted_beyond_those_that_are_told(
    gateway: GatewayOverFakes,
) -> None:
    lines = [{"prediction_id": new_id(), "label": "late"} if each % 2 else {"label": "late"} for each in range(4_000)]
    told = stream(gateway, *lines).json()
    assert (told["accepted"], told["refused"]) == (2_000, 2_000)
    assert [each["line"] for each in told["errors"]] == list(range(1, 2 * OUTCOME_REFUSALS_TOLD_MAX, 2))
    assert [each.prediction_id for each in gateway.log.outcomes] == [each["prediction_id"] for each in lines[1::2]]


def test_a_body_without_an_outcome_and_one_that_is_compressed_are_refused(gateway: GatewayOverFakes) -> None:
    assert stream(gateway, b"", b" ").status_code == 400
    response = gateway.client.post(
        "/v1/outcomes",
        content=b"{}",
        headers={"Content-Type": "application/x-ndjson", "Content-Encoding": "gzip"},
    )
    assert response.status_code == 415


def test_a_log_that_cannot_take_them_is_told_with_what_is_kept(gateway: GatewayOverFakes) -> None:
    gateway.log.failure = Unavailable("prediction log", "no space left on device", hint="free some")
    response = stream(gateway, {"prediction_id": new_id(), "label": "late"})
    assert response.status_code == 503
    assert response.json()["hint"] == "free some; 0 outcomes before line 1 are kept"


def test_a_body_that_ends_early_is_told_with_what_is_kept(
    gateway: GatewayOverFakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = json.dumps({"prediction_id": new_id(), "label": "late"}).encode() + b"\n"
    whole = line * OUTCOME_CHUNK
    monkeypatch.setattr(streamed_body, "BATCH_BODY_BYTES_MAX", len(whole) + len(line))

    def sent() -> Iterator[bytes]:
        yield whole
        # What arrives together with the byte that is one too many is refused together with it.
        wait_until(lambda: len(gateway.log.outcomes) == OUTCOME_CHUNK, "the first chunk is kept")
        yield from (line, line)

    response = gateway.client.post("/v1/outcomes", content=sent(), headers={"Content-Type": "application/x-ndjson"})
    assert (response.status_code, response.json()["code"]) == (413, "limit_exceeded")
    kept = f"{OUTCOME_CHUNK} outcomes before line {OUTCOME_CHUNK + 1} are kept"
    assert response.json()["hint"].endswith(f"; {kept}")
    assert len(gateway.log.outcomes) == OUTCOME_CHUNK


def test_scopes_hold_for_outcomes_by_entity(tmp_path: Path) -> None:
    fakes = GatewayOverFakes.build(tmp_path)
    fakes.anonymous = Caller("key:ops", (ApiScope((ENDPOINT,), {"origin": ("JF",)}),))
    with fakes.running() as gateway:
        assert tell(gateway, BY_ENTITY).json() == {"accepted": 1}
        foreign = tell(gateway, {"outcomes": [BY_ENTITY, {**BY_ENTITY, "entity": LGA}]})
        assert (foreign.status_code, foreign.json()["path"]) == (403, "$.outcomes[1].entity")
        assert tell(gateway, {**BY_ENTITY, "endpoint": "another"}).status_code == 403
        told = stream(gateway, BY_ENTITY, {**BY_ENTITY, "entity": LGA}).json()
        assert (told["accepted"], told["errors"][0]["code"]) == (1, "forbidden")
        assert [each.caller for each in gateway.log.outcomes] == ["key:ops"] * 2


def a_contract(**keys: JoinKey) -> FeatureContract:
    return FeatureContract("p", (ViewRead("v", tuple(keys.values()), 0, ()),), (), "0" * 64)  # type: ignore[arg-type]  # any digest


def test_a_key_that_must_not_be_kept_is_hashed_as_in_predictions() -> None:
    contract = a_contract(
        card=JoinKey("card", Dtype.INT64, log=LogMark.HASH), shop=JoinKey("shop", Dtype.STRING, nullable=True)
    )
    form, privacy = EntityForm.of(contract), LogPrivacy(b"k" * 16)
    values = form.read({"shop": None, "card": 42}, "$.entity")
    assert json.loads(form.kept(values, privacy)) == {"card": privacy.hashed(Dtype.INT64, 42), "shop": None}


def test_an_endpoint_whose_key_is_not_kept_at_all_takes_outcomes_by_id_only() -> None:
    form = EntityForm.of(a_contract(card=JoinKey("card", Dtype.INT64, log=LogMark.OMIT)))
    with pytest.raises(InvalidRequest, match="does not keep the join key `card`"):
        form.read({"card": 42}, "$.entity")
