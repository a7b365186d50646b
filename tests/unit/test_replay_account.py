"""The account of a prediction: what it says of values, policies, rungs and times."""

import json
from dataclasses import replace

import pytest

from harness.bundles import content, contract
from harness.replays import NOW, answered, flights, frame_of, missing, recorded
from skewless.adapters.onnx_scorer import onnx_scorer
from skewless.bundles.bundle import Bundle, load_bundle, write_bundle
from skewless.dtypes import Dtype
from skewless.features.contract import Action, FeatureField, Policy
from skewless.replays.account import (
    RUNG_MEANINGS,
    Account,
    RecordedFacts,
    RecordedValue,
    account_of,
    answered_time,
    filled_by,
    rung_meaning,
)
from skewless.replays.recheck import Bound, Rechecker
from skewless.serving.rungs import RUNG_NAMES, Rung
from skewless.timestamps import HOUR_US

BOUND = Bound(0.0, "embedded-cpu")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("account") / "bundle"
    training = {"training": {"start": "2013-01-01T00:00:00Z", "end": "2013-05-01T00:00:00Z"}, "rows": 1_234}
    return load_bundle(folder, write_bundle(replace(content(), provenance=training), folder))


def _facts(bundle: Bundle, prediction_id: str, **changes: object) -> RecordedFacts:
    facts = RecordedFacts(
        prediction_id=prediction_id,
        as_of=NOW,
        endpoint="flight-delay",
        bundle=bundle.digest,
        role="live",
        experiment=None,
        arm=None,
        live_prediction_id=None,
        rung="normal",
        caller="key:shop",
        request_id="r",
        row=0,
        label="late",
        probability=0.5,
        tensor_digest="0" * 64,
        tensor_kept=True,
        stage_ms={},
    )
    return replace(facts, **changes)  # type: ignore[arg-type]  # fields of the facts


def _account(bundle: Bundle, *values: RecordedValue) -> Account:
    frame = missing(frame_of(contract(), flights(1), 1), "weather", ["weather__temp"], [0])
    batch = answered(bundle, flights(1), frame=frame)
    rows = recorded(batch)
    found = Rechecker(bundle, onnx_scorer(bundle.read_model(), bundle.signature), BOUND).recheck(rows, told_max=1)
    return account_of(_facts(bundle, batch.prediction_ids[0]), values, None, bundle, rows, found, BOUND)


def test_every_rung_has_a_meaning() -> None:
    assert RUNG_MEANINGS.keys() == set(Rung)
    for name in RUNG_NAMES:
        assert "another version" not in rung_meaning(name)
    assert rung_meaning("levitation") == "a rung of another version"


@pytest.mark.parametrize(
    ("event_time", "told"),
    [(None, "on_missing=default 90"), (NOW - 2 * HOUR_US, "on_stale=null"), (NOW - HOUR_US, "on_missing=default 90")],
)
def test_the_policy_that_filled_a_value_follows_from_its_event_time(event_time: int | None, told: str) -> None:
    feature = FeatureField("wind_dir", Dtype.INT64, on_missing=Policy(Action.DEFAULT, 90))
    assert filled_by(feature, event_time, NOW, HOUR_US) == told


def test_a_value_tells_its_age_what_filled_it_and_what_it_feeds(bundle: Bundle) -> None:
    told = _account(
        bundle,
        RecordedValue("feature", "weather__wind_dir", 90, "default", None),
        RecordedValue("feature", "weather__temp", None, "missing", None),
        RecordedValue("feature", "noise__level", 0.5, "ok", NOW - HOUR_US),
        RecordedValue("request field", "scheduled_departure", "2013-05-01T12:30:00Z"),
    )
    wind, temp, level, departure = told.values
    assert (wind.filled_by, wind.feeds, wind.age_s) == ("on_missing=default 90", ("wind_dir",), None)
    assert (temp.filled_by, temp.feeds) == ("", ("temp", "temp_is_null"))
    assert (level.age_s, level.event_time) == (3_600.0, "2013-05-01T11:30:00Z")
    assert (departure.status, departure.feeds) == ("", ())
    assert told.model_trained == "1,234 rows of 2013-01-01T00:00:00Z to 2013-05-01T00:00:00Z"
    assert json.loads(json.dumps(told.to_json(), allow_nan=False)) == told.to_json()


def test_an_id_that_is_no_uuid_of_time_says_no_time() -> None:
    assert answered_time("013e6012-1d40-7000-8000-000000000003") == "2013-05-01T12:30:00Z"
    for odd in ("", "some-id", "zzzzzzzz-zzzz", "ffffffff-ffff-7000"):
        assert answered_time(odd) is None
