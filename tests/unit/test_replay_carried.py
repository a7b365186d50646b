"""Recorded features under another bundle's contract: what it would have been given, and what nobody recorded."""

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.bundles import WEATHER_TTL_US, content, contract
from harness.replays import NOW, answered, flights, frame_of, missing, recorded
from skewless.adapters.onnx_scorer import onnx_scorer
from skewless.bundles.bundle import Bundle, load_bundle, write_bundle
from skewless.dtypes import Column, Dtype, column_of
from skewless.errors import InvalidRequest
from skewless.features.contract import (
    Action,
    FeatureContract,
    FeatureField,
    JoinKey,
    Mode,
    OnDemandView,
    Policy,
    RequestField,
    ViewRead,
)
from skewless.features.frame import STATUS_CODE, FeatureFrame
from skewless.features.function_source import digest_of
from skewless.features.visibility import Status
from skewless.replays.carried import carry, other_statuses, plan_carry
from skewless.replays.other_bundle import NOT_RECORDED, REFUSED, OtherBundle
from skewless.timestamps import HOUR_US
from skewless.transforms import Transform, column

ROWS = 30
OK, NULL, MISSING, STALE, DEFAULT, OVERRIDE, INVALID = (
    STATUS_CODE[each]
    for each in (
        Status.OK,
        Status.NULL,
        Status.MISSING,
        Status.STALE,
        Status.DEFAULT,
        Status.OVERRIDE,
        Status.INVALID,
    )
)
AN_HOUR_AGO, A_DAY_AGO, NEVER = NOW - HOUR_US, NOW - 24 * HOUR_US, -1


def _no_modules(_: str) -> None:
    raise AssertionError("no on-demand function is loaded")


def _bundle(folder: Path, given: FeatureContract) -> Bundle:
    made = content(given=given)
    return load_bundle(folder / "bundle", write_bundle(made, folder / "bundle"))


def _other(folder: Path, given: FeatureContract | None = None, **options: object) -> OtherBundle:
    bundle = _bundle(folder, given or contract())
    run = onnx_scorer(bundle.read_model(), bundle.signature)
    return OtherBundle(bundle, run, load=_no_modules, **options)  # type: ignore[arg-type]  # the offline store of a test


def _with_view(given: FeatureContract, name: str, **changes: object) -> FeatureContract:
    views = tuple(
        replace(view, **changes) if view.name == name else view  # type: ignore[arg-type]  # fields of a view
        for view in given.views
    )
    return replace(given, views=views)


def _with_policies(given: FeatureContract, feature: str, **policies: Policy) -> FeatureContract:
    views = tuple(
        replace(
            view,
            features=tuple(
                replace(each, **policies) if each.name == feature else each  # type: ignore[arg-type]  # policies
                for each in view.features
            ),
        )
        for view in given.views
    )
    return replace(given, views=views)


@pytest.mark.parametrize(
    ("recorded_status", "event_time", "other_ttl", "status", "is_unknown"),
    [
        (OK, AN_HOUR_AGO, 4 * HOUR_US, OK, False),
        (OK, AN_HOUR_AGO, HOUR_US // 2, STALE, False),
        (NULL, AN_HOUR_AGO, HOUR_US // 2, STALE, False),
        (NULL, AN_HOUR_AGO, 0, NULL, False),
        (MISSING, NEVER, 0, MISSING, False),
        (INVALID, AN_HOUR_AGO, 0, INVALID, False),
        (OVERRIDE, A_DAY_AGO, HOUR_US, OVERRIDE, False),
        (STALE, A_DAY_AGO, HOUR_US, STALE, False),
        (STALE, A_DAY_AGO, 48 * HOUR_US, STALE, True),
        (STALE, A_DAY_AGO, 0, STALE, True),
        (DEFAULT, NEVER, 0, MISSING, False),
        (DEFAULT, A_DAY_AGO, HOUR_US, STALE, False),
        (DEFAULT, A_DAY_AGO, 48 * HOUR_US, STALE, True),
        (DEFAULT, AN_HOUR_AGO, 4 * HOUR_US, MISSING, False),
    ],
)
def test_the_status_under_another_ttl_follows_from_what_was_recorded(
    recorded_status: int, event_time: int, other_ttl: int, status: int, is_unknown: bool
) -> None:
    codes, unknown = other_statuses(
        np.array([recorded_status], dtype=np.uint8),
        np.array([event_time]),
        np.array([NOW]),
        recorded_ttl_us=WEATHER_TTL_US,
        ttl_us=other_ttl,
    )
    assert (codes.tolist(), unknown.tolist()) == ([status], [is_unknown])


def test_the_same_bundle_gives_the_very_scores_that_were_served(tmp_path: Path) -> None:
    other = _other(tmp_path)
    columns = flights(ROWS)
    frame = missing(frame_of(contract(), columns, ROWS), "weather", ["weather__temp", "weather__wind_dir"], [0, 3])
    frame = _as_served(frame)
    batch = answered(other.bundle, columns, frame=frame)
    plan = other.plan(batch.bundle, other.bundle.contract, {})
    found = other.score(plan, recorded(batch))
    assert found.scores.tobytes() == batch.probabilities.tobytes()
    assert found.left_out == [""] * ROWS
    assert [("on_time", "late")[each] for each in found.positive.tolist()] == list(batch.labels)


def _as_served(frame: FeatureFrame) -> FeatureFrame:
    """Missing wind directions filled by the policy of the contract, as the reader fills them."""
    codes = frame.statuses["weather__wind_dir"].copy()
    old = frame.columns["weather__wind_dir"]
    gone = codes == MISSING
    codes[gone] = DEFAULT
    values, valid = np.where(gone, 90, old.values), old.valid | gone
    return replace(
        frame,
        columns={**frame.columns, "weather__wind_dir": Column(old.dtype, values, valid)},
        statuses={**frame.statuses, "weather__wind_dir": codes},
    )


def test_other_policies_stand_in_for_what_was_missing(tmp_path: Path) -> None:
    frame = _as_served(missing(frame_of(contract(), flights(3), 3), "weather", ["weather__wind_dir"], [1]))
    rows = recorded(answered(_bundle(tmp_path, contract()), flights(3), frame=frame))
    assert rows.columns["weather__wind_dir"].values[1] == 90
    for policy, value in ((Policy(Action.DEFAULT, 7), 7), (Policy(), None)):
        given = _with_policies(contract(), "wind_dir", on_missing=policy)
        plan = plan_carry(contract(), given, [name for name, _ in given.columns], {})
        carried = carry(plan, rows)
        column = carried.columns["weather__wind_dir"]
        assert (column.values[1] if column.valid[1] else None) == value
        assert carried.statuses["weather__wind_dir"][1] == (MISSING if value is None else DEFAULT)
        assert not carried.refused.any()
    refusing = _with_policies(contract(), "wind_dir", on_missing=Policy(Action.REJECT))
    refused = carry(plan_carry(contract(), refusing, ["weather__wind_dir"], {}), rows).refused
    assert refused.tolist() == [False, True, False]


def test_a_shorter_ttl_makes_values_stale_and_a_longer_one_leaves_rows_out(tmp_path: Path) -> None:
    columns = flights(ROWS)
    frame = frame_of(contract(), columns, ROWS)
    times = frame.event_times["weather"].copy()
    times[:5] = A_DAY_AGO
    stale = missing(frame, "weather", ["weather__temp", "weather__wind_dir"], range(5))
    codes = {name: np.where(codes == MISSING, STALE, codes).astype(np.uint8) for name, codes in stale.statuses.items()}
    frame = replace(stale, statuses=codes, event_times={**frame.event_times, "weather": times})
    batch = answered(_bundle(tmp_path / "recorded", contract()), columns, frame=frame)
    longer = _other(tmp_path / "longer", _with_view(contract(), "weather", ttl_us=48 * HOUR_US))
    found = longer.score(longer.plan(batch.bundle, contract(), {}), recorded(batch))
    assert found.left_out == [NOT_RECORDED] * 5 + [""] * (ROWS - 5)
    assert np.isnan(found.scores[:5]).all()
    assert not np.isnan(found.scores[5:]).any()
    offline = _Offline()
    filling = _other(tmp_path / "filling", _with_view(contract(), "weather", ttl_us=48 * HOUR_US), offline=offline)
    filled = filling.score(filling.plan(batch.bundle, contract(), {}), recorded(batch))
    assert filled.left_out == [""] * ROWS
    assert filled.scores[5:].tobytes() == found.scores[5:].tobytes()
    assert [view.name for view in offline.asked[0][0].views] == ["weather"]
    read = {
        name: column_of(each.dtype, [1.5 if each.dtype is Dtype.FLOAT32 else 1] * 5) for name, each in _firsts(columns)
    }
    served = answered(filling.bundle, {**_part(columns, 5), **read})
    assert filled.scores[:5].tobytes() == served.probabilities.tobytes()
    shorter = _with_view(contract(), "weather", ttl_us=HOUR_US // 2)
    carried = carry(plan_carry(contract(), shorter, ["weather__temp"], {}), recorded(batch))
    assert not carried.columns["weather__temp"].valid.any()
    assert (carried.statuses["weather__temp"] == STALE).all()


def test_rows_that_the_other_bundle_would_have_refused_are_left_out_and_say_so(tmp_path: Path) -> None:
    other = _other(tmp_path, contract(reject_missing_weather=True))
    columns = flights(4)
    frame = missing(frame_of(contract(), columns, 4), "weather", ["weather__temp"], [2])
    batch = answered(_bundle(tmp_path / "recorded", contract()), columns, frame=frame)
    found = other.score(other.plan(batch.bundle, contract(), {}), recorded(batch))
    assert found.left_out == ["", "", REFUSED, ""]


def _firsts(columns: Mapping[str, Column]) -> list[tuple[str, Column]]:
    """The columns of the weather."""
    return [(name, each) for name, each in columns.items() if name.startswith("weather__")]


def _part(columns: Mapping[str, Column], rows: int) -> dict[str, Column]:
    return {name: Column(each.dtype, each.values[:rows], each.valid[:rows]) for name, each in columns.items()}


class _Offline:
    """An offline store that knows one feature, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[FeatureContract, list[str]]] = []

    def features_at(self, given: FeatureContract, keys: Mapping[str, Column], as_of: NDArray[np.int64]) -> FeatureFrame:
        self.asked.append((given, sorted(keys)))
        rows = len(as_of)
        columns = {
            name: column_of(dtype, [1.5 if dtype is Dtype.FLOAT32 else 1] * rows)
            for name, dtype in given.columns
            if name in given.view_of_column
        }
        return FeatureFrame(
            rows,
            columns,
            {name: np.zeros(rows, dtype=np.uint8) for name in columns},
            {view.name: np.full(rows, AN_HOUR_AGO) for view in given.views},
        )


def _without_noise() -> tuple[FeatureContract, dict[str, Column]]:
    """The contract of a bundle that reads no noise but knows the station, and four rows of its columns."""
    noise = contract().views[2]
    given = replace(
        contract(),
        views=(*contract().views[:2], replace(noise, view="crowd", features=(FeatureField("size", Dtype.INT64),))),
    )
    columns = {name: each for name, each in flights(4).items() if name != "noise__level"}
    return given, {**columns, "crowd__size": column_of(Dtype.INT64, [1, 2, 3, 4])}


def test_a_feature_that_nobody_recorded_is_refused_by_name_or_filled_from_the_offline_store(tmp_path: Path) -> None:
    recording, columns = _without_noise()
    fitted = Transform({"temp": column("weather__temp", Dtype.FLOAT32).impute(0.0)}).fit(columns, 4)
    made = content(given=recording, fitted=fitted, columns=columns)
    bundle = load_bundle(tmp_path / "recording", write_bundle(made, tmp_path / "recording"))
    rows = recorded(answered(bundle, columns))
    bare = _other(tmp_path / "bare")
    with pytest.raises(InvalidRequest, match=r"`noise__level` .the bundle that answered did not read it") as refusal:
        bare.plan(bundle.digest, recording, {})
    assert "--fill offline" in refusal.value.hint
    offline = _Offline()
    other = _other(tmp_path / "filled", offline=offline)
    found = other.score(other.plan(bundle.digest, recording, {}), rows)
    assert found.left_out == [""] * 4
    ((asked, keys),) = offline.asked
    assert [view.name for view in asked.views] == ["noise"]
    assert keys == ["station"]
    whole = {**{name: each for name, each in columns.items() if name in flights(1)}}
    served = answered(other.bundle, {**whole, "noise__level": column_of(Dtype.FLOAT32, [1.5] * 4)})
    assert found.scores.tobytes() == served.probabilities.tobytes()


def test_what_a_caller_would_have_given_is_told_by_nobody(tmp_path: Path) -> None:
    asks_more = replace(
        contract(), request_fields=(*contract().request_fields[:-1], RequestField("party", Dtype.INT64))
    )
    plan = plan_carry(contract(), asks_more, ["party"], {})
    assert plan.lacking_given == {"party": "the bundle that answered has it as int32, this one as int64"}
    other = _other(tmp_path, offline=_Offline())
    fewer = replace(contract(), request_fields=contract().request_fields[:-1])
    with pytest.raises(InvalidRequest, match="asks callers for `party`"):
        other.plan(other.bundle.digest, fewer, {})


def test_a_column_that_must_not_be_kept_is_lacking_and_cannot_be_a_key_to_the_offline_store(tmp_path: Path) -> None:
    hashed = {"station": "it is hashed in the log", "noise__level": "it is left out of the log"}
    other = _other(tmp_path)
    with pytest.raises(InvalidRequest, match=r"`noise__level` .it is left out of the log"):
        other.plan(other.bundle.digest, contract(), hashed)
    filling = _other(tmp_path / "filling", offline=_Offline())
    with pytest.raises(InvalidRequest, match=r"by `station` .it is hashed in the log") as refusal:
        filling.plan(filling.bundle.digest, contract(), hashed)
    assert refusal.value.path == "--fill"


def test_a_view_is_shared_whatever_it_is_called_and_not_by_other_keys() -> None:
    renamed = _with_view(contract(), "weather", alias="here")
    plan = plan_carry(contract(), renamed, ["here__temp"], {})
    assert [(each.column, each.recorded_column) for each in plan.features] == [("here__temp", "weather__temp")]
    elsewhere = _with_view(
        contract(), "weather", join_keys=(JoinKey("destination", Dtype.STRING, stored_name="origin"),)
    )
    assert plan_carry(contract(), elsewhere, ["weather__temp"], {}).lacking == {
        "weather__temp": "the bundle that answered did not read it"
    }
    kept = ViewRead("weather", contract().views[0].join_keys, 0, contract().views[0].features, stored_name="weather_v2")
    versions = replace(contract(), views=(kept,))
    assert "weather__temp" in plan_carry(contract(), versions, ["weather__temp"], {}).lacking


def _warmer(inputs: dict[str, list[float | None]]) -> dict[str, list[float | None]]:
    """An on-demand function of the tests: the temperature and the length of the way."""
    pairs = zip(inputs["temp"], inputs["way"], strict=True)
    return {"felt": [None if temp is None or way is None else temp + way for temp, way in pairs]}


def _this_module(name: str) -> ModuleType:
    assert name == "functions_of_the_tests"
    return sys.modules[__name__]


def test_on_demand_features_are_computed_again_from_what_was_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    function = "functions_of_the_tests:_warmer"
    inputs = (("temp", "weather__temp"), ("way", "distance"))
    felt = OnDemandView(
        "felt", Mode.PYTHON, function, digest_of(function, _this_module), inputs, (FeatureField("felt", Dtype.FLOAT32),)
    )
    given = replace(contract(), on_demand=(felt,))
    columns = flights(6)
    computed = _warmer({"temp": _floats(columns["weather__temp"]), "way": _floats(columns["distance"])})
    columns["felt__felt"] = column_of(Dtype.FLOAT32, list(computed["felt"]))
    fitted = Transform({"felt": column("felt__felt", Dtype.FLOAT32).impute(0.0)}).fit(columns, 6)
    made = content(given=given, fitted=fitted, columns=columns)
    bundle = load_bundle(tmp_path / "felt", write_bundle(made, tmp_path / "felt"))
    other = OtherBundle(bundle, onnx_scorer(bundle.read_model(), bundle.signature), load=_this_module)
    assert other.needed == {"weather__temp", "distance"}
    batch = answered(_bundle(tmp_path / "recorded", contract()), flights(6))
    found = other.score(other.plan(batch.bundle, contract(), {}), recorded(batch))
    assert found.scores.tobytes() == answered(bundle, columns).probabilities.tobytes()


def _floats(given: Column) -> list[float | None]:
    return [float(item) if ok else None for item, ok in zip(given.values.tolist(), given.valid.tolist(), strict=True)]
