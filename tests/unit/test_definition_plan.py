"""What a plan says of two sets of definitions: how much each change matters, whom it reaches, and what is refused."""

import json
from dataclasses import replace
from typing import Any

import pytest

from skewless.canonical_json import Digest, digest
from skewless.cli.plan_views import plan_lines
from skewless.dtypes import Dtype
from skewless.errors import InvalidDefinition
from skewless.features.compiled_registry import CompiledRegistry
from skewless.features.contract import Action as PolicyAction
from skewless.features.contract import FeatureContract, FeatureField, JoinKey, Mode, OnDemandView, Policy, ViewRead
from skewless.features.definition_diff import Action, Impact, Kind, differences
from skewless.features.definition_metadata import (
    DefinitionSet,
    EntityMetadata,
    FeatureMetadata,
    OnDemandMetadata,
    ServiceMetadata,
    SourceMetadata,
    StreamMetadata,
    ViewMetadata,
    ViewUse,
    read_duration,
    read_range,
)
from skewless.features.definition_metadata_checks import check_metadata
from skewless.features.definition_plan import BundleReads, Plan, Role, SavedPlan, make_plan
from skewless.features.feature_checks import Finding, Severity

SOURCE = SourceMetadata("weather_source", "FileSource", "/data/weather.parquet", "parquet", "happened", "known")
WEATHER = ViewMetadata(
    name="weather",
    entities=("station",),
    join_keys=(("station", "String"),),
    features=(FeatureMetadata("temp", "Float32", "air", {"unit": "°C"}), FeatureMetadata("wind", "Int64")),
    ttl_us=3_600_000_000,
    source=SOURCE,
    description="hourly",
    owner="trains",
)
STATION = EntityMetadata("station", "station", "String")
SERVICE = ServiceMetadata("delays", (ViewUse("weather", "weather", ("temp", "wind")),))
SET = DefinitionSet("prod", entities={"station": STATION}, views={"weather": WEATHER}, services={"delays": SERVICE})
EMPTY = CompiledRegistry("prod", {}, {}, {})


def contract(*features: FeatureField, **changes: Any) -> FeatureContract:
    read = ViewRead("weather", (JoinKey("station", Dtype.STRING),), 3_600_000_000, features, **changes)
    return FeatureContract("prod", (read,), (), digest("definitions"))


CONTRACT = contract(FeatureField("temp", Dtype.FLOAT32), FeatureField("wind", Dtype.INT64))
LIVE = BundleReads(Digest("a" * 64), "delay", CONTRACT, frozenset({"weather__temp"}), (Role("trains", "live"),))


def changed(**fields: Any) -> DefinitionSet:
    """The definitions with fields of the view changed."""
    return replace(SET, views={"weather": replace(WEATHER, **fields)})


def with_temp(**fields: Any) -> DefinitionSet:
    temp, wind = WEATHER.features
    return changed(features=(replace(temp, **fields), wind))


def plan_of(wanted: DefinitionSet, *bundles: BundleReads, **options: Any) -> Plan:
    return make_plan(
        SET, wanted, registered=EMPTY, compiled=EMPTY, source=digest("feast"), bundles=bundles or (LIVE,), **options
    )


def test_equal_definitions_are_nothing_to_do() -> None:
    assert differences(SET, DefinitionSet.from_json(json.loads(json.dumps(SET.to_json())))) == ()
    assert plan_of(SET).is_empty


@pytest.mark.parametrize(
    ("wanted", "what", "impact"),
    [
        (with_temp(feast_type="Float64"), "dtype", Impact.BREAKING),
        (with_temp(description="hot air"), "description", Impact.WORDS),
        (with_temp(tags={"unit": "°F"}), "unit", Impact.DATA),
        (with_temp(tags={"unit": "°C", "range": "0..9"}), "range", Impact.WORDS),
        (with_temp(tags={"unit": "°C", "personal": "true"}), "personal", Impact.CONTRACT),
        (with_temp(tags={"unit": "°C", "skewless.log": "omit"}), "skewless.log", Impact.CONTRACT),
        (changed(features=WEATHER.features[:1]), "feature", Impact.BREAKING),
        (changed(features=(*WEATHER.features, FeatureMetadata("fog", "Bool"))), "feature", Impact.DATA),
        (changed(features=WEATHER.features[::-1]), "order of features", Impact.WORDS),
        (changed(join_keys=(("station", "Int64"),)), "join keys", Impact.BREAKING),
        (changed(ttl_us=0), "ttl", Impact.CONTRACT),
        (changed(online=False), "online", Impact.BREAKING),
        (changed(stored_name="weather_v1"), "stored as", Impact.BREAKING),
        (changed(owner="planes"), "owner", Impact.WORDS),
        (changed(tags={"freshness": "2h"}), "freshness", Impact.WORDS),
        (changed(tags={"schedule": "5 * * * *"}), "schedule", Impact.DATA),
        (changed(source=replace(SOURCE, path="/data/other.parquet")), "source path", Impact.DATA),
        (changed(source=replace(SOURCE, event_time="noticed")), "event time", Impact.BREAKING),
        (changed(source=replace(SOURCE, created_time="")), "created time", Impact.BREAKING),
        (changed(source=replace(SOURCE, field_mapping=(("t", "temp"),))), "columns", Impact.BREAKING),
        (changed(source=None), "source", Impact.BREAKING),
    ],
)
def test_each_change_of_a_view_says_how_much_it_matters(wanted: DefinitionSet, what: str, impact: Impact) -> None:
    (change,) = differences(SET, wanted)
    assert (change.action, change.kind, change.name) == (Action.CHANGE, Kind.VIEW, "weather")
    (field,) = [each for each in change.fields if each.what == what]
    assert field.impact is impact
    assert change.impact is impact


def test_added_and_removed_definitions_of_every_kind_are_told() -> None:
    every = replace(
        SET,
        on_demand={"feel": OnDemandMetadata("feel", (FeatureMetadata("chill", "Float64"),), ("weather",))},
        streams={"gusts": StreamMetadata("gusts", "weather", {"form": 1})},
    )
    added = differences(DefinitionSet("prod"), every)
    removed = differences(every, DefinitionSet("prod"))
    assert {each.kind for each in added} == {each.kind for each in removed} == set(Kind)
    assert {each.action for each in added} == {Action.ADD}
    assert {each.kind for each in removed if each.impact is Impact.BREAKING} == {Kind.VIEW, Kind.ON_DEMAND, Kind.STREAM}


def test_a_changed_dtype_that_a_live_bundle_uses_is_refused_with_its_endpoint() -> None:
    plan = plan_of(with_temp(feast_type="Float64"))
    (refused,) = plan.refused
    (touch,) = refused.touches
    assert (touch.uses, touch.is_broken, touch.roles) == (("weather__temp",), True, (Role("trains", "live"),))
    assert refused.services == ("delays",)
    told = "\n".join(plan_lines(plan, width=80))
    assert "breaks bundle aaaaaaaaaaaa delay (live of trains): uses weather__temp" in " ".join(told.split())
    assert max(map(len, plan_lines(plan, width=80))) <= 80


@pytest.mark.parametrize("role", ["canary", "arm", "shadow"])
def test_a_bundle_on_trial_counts_as_one_that_answers(role: str) -> None:
    assert plan_of(with_temp(feast_type="Float64"), replace(LIVE, roles=(Role("trains", role),))).refused


@pytest.mark.parametrize("roles", [(), (Role("trains", "previous"),), (Role("trains", "fallback"),)])
def test_a_bundle_that_answers_nobody_now_is_told_and_not_protected(roles: tuple[Role, ...]) -> None:
    plan = plan_of(with_temp(feast_type="Float64"), replace(LIVE, roles=roles))
    assert not plan.refused
    assert plan.changes[0].touches[0].bundle == LIVE.digest


def test_a_removed_feature_that_the_transform_does_not_look_at_is_not_refused() -> None:
    plan = plan_of(changed(features=WEATHER.features[:1]))
    (touch,) = plan.changes[0].touches
    assert (touch.columns, touch.uses, touch.is_broken) == (("weather__wind",), (), False)


def test_a_removed_feature_whose_absence_is_refused_counts_as_used() -> None:
    strict = contract(
        FeatureField("temp", Dtype.FLOAT32), FeatureField("wind", Dtype.INT64, on_missing=Policy(PolicyAction.REJECT))
    )
    assert plan_of(changed(features=WEATHER.features[:1]), replace(LIVE, contract=strict)).refused


def test_what_an_on_demand_function_reads_counts_as_used_where_its_result_is() -> None:
    computed = OnDemandView(
        "feel", Mode.PYTHON, "shop:chill", digest("text"), (("wind", "weather__wind"),),
        (FeatureField("chill", Dtype.FLOAT64),),
    )  # fmt: skip
    reads = replace(LIVE, contract=replace(CONTRACT, on_demand=(computed,)), inputs=frozenset({"feel__chill"}))
    assert reads.used == {"feel__chill", "weather__wind"}
    assert plan_of(changed(features=WEATHER.features[:1]), reads).refused


def test_a_bundle_that_pins_an_older_version_of_the_view_is_not_reached() -> None:
    pinned = replace(LIVE, contract=contract(*CONTRACT.views[0].features, alias="weather@v1"))
    assert plan_of(with_temp(feast_type="Float64"), pinned).changes[0].touches == ()


def test_a_bundle_of_another_project_is_not_reached() -> None:
    other = replace(LIVE, contract=replace(CONTRACT, project="other"))
    assert plan_of(with_temp(feast_type="Float64"), other).changes[0].touches == ()


def test_an_entitys_type_reaches_every_bundle_that_reads_its_views() -> None:
    wanted = replace(SET, entities={"station": replace(STATION, feast_type="Int64")})
    assert plan_of(wanted).refused
    assert not plan_of(replace(SET, entities={"station": replace(STATION, description="a stop")})).refused


def test_a_removed_view_is_refused_and_a_stream_whose_declaration_differs_too() -> None:
    assert plan_of(replace(SET, views={}), prune=True).refused
    streamed = replace(SET, streams={"gusts": StreamMetadata("gusts", "weather", {"window": "1h"})})
    other = replace(SET, streams={"gusts": StreamMetadata("gusts", "weather", {"window": "2h"})})
    plan = make_plan(streamed, other, registered=EMPTY, compiled=EMPTY, source=digest("feast"), bundles=[LIVE])
    assert plan.refused


def test_words_alone_reach_nobody() -> None:
    assert plan_of(with_temp(description="hot air")).changes[0].touches == ()


def test_a_bundle_whose_contract_would_be_another_is_named_with_what_differs() -> None:
    now = CompiledRegistry("prod", {"delays": CONTRACT}, {}, {})
    other = replace(CONTRACT, views=(replace(CONTRACT.views[0], ttl_us=0),), definitions_digest=digest("other"))
    plan = make_plan(
        SET, changed(ttl_us=0), registered=now, compiled=replace(now, contracts={"delays": other}),
        source=digest("feast"), bundles=[LIVE],
    )  # fmt: skip
    (move,) = plan.moves
    assert (move.bundle, plan.refused) == (LIVE.digest, ())
    assert "ttl of view `weather` was 3600 s, is unlimited" in move.detail


def test_what_is_registered_and_not_declared_is_kept_and_named() -> None:
    declared = replace(SET, services={})
    plan = plan_of(SET, declared=declared)
    assert (plan.is_empty, plan.kept) == (True, ((Kind.SERVICE, "delays"),))
    assert "--prune removes them): feature service delays" in "\n".join(plan_lines(plan, width=160))


def test_a_saved_plan_is_known_again_and_another_or_an_edited_one_is_not() -> None:
    plan = plan_of(with_temp(feast_type="Float64"))
    saved = json.loads(json.dumps(plan.saved()))
    assert SavedPlan.from_json(saved).digest == plan.digest
    finding = Finding(Severity.WARNING, "unknown_tag", "a tag", "a hint")
    assert plan_of(with_temp(feast_type="Float64"), findings=[finding]).digest == plan.digest
    others = [
        plan_of(with_temp(feast_type="Int64")),
        plan_of(with_temp(feast_type="Float64"), replace(LIVE, roles=())),
        plan_of(with_temp(feast_type="Float64"), prune=True),
        replace(plan, source=digest("somebody applied meanwhile")),
    ]
    assert len({plan.digest, *(each.digest for each in others)}) == 5
    with pytest.raises(InvalidDefinition, match="was changed after it was made"):
        SavedPlan.from_json({**saved, "changes": []})
    with pytest.raises(InvalidDefinition, match="no saved plan"):
        SavedPlan.from_json({"some": "file"})


@pytest.mark.parametrize("text", ["", "2 hours", "0s", "-1h", "1.5h", "soon", "9999999999s"])
def test_what_is_no_duration_reads_as_none(text: str) -> None:
    assert read_duration(text) is None


@pytest.mark.parametrize("text", ["", "..", "5", "9..1", "a..b", "1...2", "nan..1", "0..inf"])
def test_what_is_no_range_reads_as_none(text: str) -> None:
    assert read_range(text) is None


def test_a_range_holds_its_ends_and_may_be_open() -> None:
    assert [str(read_range(text)) for text in ("0..1e3", " -2.5 .. ", "..4")] == ["0..1000", "-2.5..", "..4"]
    wide = read_range("0..")
    assert wide is not None
    assert [wide.holds(value) for value in (-0.1, 0.0, 1e300)] == [False, True, True]


def _findings(definitions: DefinitionSet) -> list[tuple[str, str]]:
    return [(each.severity.value, each.code) for each in check_metadata(definitions)]


@pytest.mark.parametrize(
    ("definitions", "expected"),
    [
        (SET, []),
        (changed(tags={"freshness": "30m", "schedule": "0 4 * * *", "team": "night"}), []),
        (changed(tags={"freshness": "two hours"}), [("error", "bad_tag")]),
        (changed(tags={"schedule": " "}), [("error", "bad_tag")]),
        (changed(tags={"freshnes": "2h"}), [("warning", "unknown_tag")]),
        (changed(tags={"skewless.near_cahce": "true"}), [("warning", "unknown_tag")]),
        (changed(tags={"personal": "true"}), [("error", "misplaced_tag")]),
        (changed(tags={"unit": "km"}), [("warning", "misplaced_tag")]),
        (changed(tags={"owner": "me"}), [("warning", "unread_tag")]),
        (changed(tags={"freshness": "2h"}), [("warning", "freshness_beyond_ttl")]),
        (with_temp(tags={"range": "9..1"}), [("error", "bad_tag")]),
        (with_temp(tags={"personal": "yes"}), [("error", "bad_tag")]),
        (with_temp(tags={"skewless.logg": "hash"}), [("warning", "unknown_tag")]),
        (with_temp(tags={"skewless.log": "hash"}), []),
        (with_temp(feast_type="String", tags={"range": "0..1"}), [("error", "bad_tag")]),
        (replace(SET, entities={"station": replace(STATION, tags={"personal": "no"})}), [("error", "bad_tag")]),
        (replace(SET, streams={"gusts": StreamMetadata("gusts", "nowhere", {})}), [("error", "unknown_view")]),
    ],
)
def test_wrong_tags_are_findings(definitions: DefinitionSet, expected: list[tuple[str, str]]) -> None:
    assert _findings(definitions) == expected


def test_what_is_computed_of_personal_data_is_to_be_marked_by_hand() -> None:
    personal = with_temp(tags={"personal": "true"})
    feel = OnDemandMetadata("feel", (FeatureMetadata("chill", "Float64"),), ("weather",))
    assert _findings(replace(personal, on_demand={"feel": feel})) == [("warning", "unmarked_personal")]
    marked = replace(feel, tags={"skewless.log.chill": "hash"})
    assert _findings(replace(personal, on_demand={"feel": marked})) == []
    assert _findings(replace(SET, on_demand={"feel": feel})) == []


def test_definitions_are_the_same_after_a_round_through_json() -> None:
    every = replace(
        SET,
        on_demand={
            "feel": OnDemandMetadata(
                "feel",
                (FeatureMetadata("chill", "Float64"),),
                ("weather",),
                (("cars", "Int32"),),
                "pandas",
                "shop:chill",
            )
        },
        streams={"gusts": StreamMetadata("gusts", "weather", {"keys": ["station"], "lateness_us": 5})},
    )
    again = DefinitionSet.from_json(json.loads(json.dumps(every.to_json())))
    assert again == every
    assert again.digest == every.digest
    with pytest.raises(InvalidDefinition, match="no set of feature definitions"):
        DefinitionSet.from_json({"project": "prod", "views": []})
