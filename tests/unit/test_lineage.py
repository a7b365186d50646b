"""Where things come from and who uses them: the graph, the search for names, and what catalogues are told."""

import json
import uuid
from dataclasses import replace
from typing import Any

import jsonschema
import pytest

from harness.lineage_catalogue import catalogue
from skewless.adapters.openlineage_client import LineageReceiver
from skewless.canonical_json import Digest, digest
from skewless.cli.definition_views import aligned
from skewless.cli.lineage_views import LINES_MAX, lineage_lines
from skewless.dtypes import Dtype
from skewless.errors import InvalidRequest, InvalidSettings, NotFound, Unavailable
from skewless.features.contract import FeatureContract, FeatureField, JoinKey, Mode, OnDemandView, ViewRead
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
)
from skewless.features.definition_plan import BundleReads, Role
from skewless.features.definition_search import search
from skewless.features.lineage import Edge, LineageGraph, Node, NodeKind, lineage_graph, tree_json
from skewless.features.lineage_events import (
    Event,
    RunFacts,
    bundle_event,
    declared_events,
    endpoint_event,
    materialization_events,
    removed_event,
)

WEATHER = ViewMetadata(
    name="weather",
    entities=("station",),
    join_keys=(("station", "String"),),
    features=(
        FeatureMetadata("temp", "Float32", "of the air", {"unit": "°C", "range": "-60..60"}),
        FeatureMetadata("wind_speed", "Float32", "at ten metres", {"unit": "km/h"}),
    ),
    ttl_us=3_600_000_000,
    source=SourceMetadata("weather_source", "FileSource", "/data/weather.parquet", "parquet", "happened", "known",
                          (("t_air", "temp"),)),
    description="hourly weather",
    owner="met office",
    tags={"freshness": "2h"},
)  # fmt: skip
DEFINED = DefinitionSet(
    "prod",
    entities={"station": EntityMetadata("station", "station", "String", "where trains stop")},
    views={"weather": WEATHER},
    on_demand={"feel": OnDemandMetadata("feel", (FeatureMetadata("chill", "Float64"),), ("weather",))},
    services={"delays": ServiceMetadata("delays", (ViewUse("weather", "weather", ("temp", "wind_speed")),))},
    streams={"gusts": StreamMetadata("gusts", "weather", {})},
)
READ = ViewRead(
    "weather", (JoinKey("station", Dtype.STRING),), 0,
    (FeatureField("temp", Dtype.FLOAT32), FeatureField("wind_speed", Dtype.FLOAT32)),
)  # fmt: skip
CHILL = OnDemandView(
    "feel", Mode.PYTHON, "shop:chill", digest("text"), (("temp", "weather__temp"),),
    (FeatureField("chill", Dtype.FLOAT64),),
)  # fmt: skip
BUNDLE = BundleReads(
    Digest("ab" * 32),
    "delay",
    FeatureContract("prod", (READ,), (), digest("definitions"), (CHILL,)),
    frozenset({"feel__chill"}),
    (Role("trains", "live"), Role("buses", "shadow")),
)
GRAPH = lineage_graph(DEFINED, [BUNDLE])


def _names(nodes: Any) -> set[str]:
    return {f"{node.kind.value}:{node.name}" for node in nodes}


def test_a_source_reaches_the_endpoints_that_answer_with_it() -> None:
    source = GRAPH.find("weather_source")
    reached = _names(GRAPH.reached(source, downstream=True))
    assert {"view:weather", "feature:weather:temp", "on-demand view:feel", "feature service:delays"} <= reached
    assert {f"bundle:{BUNDLE.digest}", "endpoint:trains", "endpoint:buses"} <= reached
    assert "entity:station" not in reached


def test_an_endpoint_is_made_of_what_its_bundles_read_and_unused_reads_are_marked() -> None:
    made_of = _names(GRAPH.reached(GRAPH.find("trains"), downstream=False))
    assert {"source:weather_source", "stream:gusts", "entity:station", "feature:feel:chill"} <= made_of
    notes = {edge.source.name: edge.note for edge in GRAPH.upstream(GRAPH.find(BUNDLE.digest[:12]))}
    # What the function reads counts as used, since the transform looks at its result.
    assert notes == {"weather:temp": "", "weather:wind_speed": "read, not used", "feel:chill": ""}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("weather", (NodeKind.VIEW, "weather")),
        ("weather:temp", (NodeKind.FEATURE, "weather:temp")),
        ("weather__wind_speed", (NodeKind.FEATURE, "weather:wind_speed")),
        ("entity:station", (NodeKind.ENTITY, "station")),
        ("abababab", (NodeKind.BUNDLE, BUNDLE.digest)),
        ("trains", (NodeKind.ENDPOINT, "trains")),
    ],
)
def test_things_are_found_by_what_people_call_them(text: str, found: tuple[NodeKind, str]) -> None:
    assert GRAPH.find(text) == Node(*found)


def test_an_unknown_name_is_refused_with_the_known_ones_and_one_of_several_with_all() -> None:
    with pytest.raises(NotFound, match=r"`wether` does not exist\. Known: .*`weather`"):
        GRAPH.find("wether")
    twice = LineageGraph.of({Node(NodeKind.ENTITY, "route"): "", Node(NodeKind.ENDPOINT, "route"): ""}, [])
    with pytest.raises(InvalidRequest) as refused:
        twice.find("route")
    assert refused.value.allowed == "endpoint:route, entity:route"
    assert twice.find("endpoint:route").kind is NodeKind.ENDPOINT


def test_what_a_bundle_reads_and_nobody_declares_any_more_is_in_the_graph() -> None:
    graph = lineage_graph(replace(DEFINED, views={}), [BUNDLE])
    assert graph.nodes[Node(NodeKind.FEATURE, "weather:temp")] == "not registered any more"


def test_a_tree_shows_each_branch_once_and_is_cut_where_it_is_long() -> None:
    lines = lineage_lines(GRAPH, GRAPH.find("weather"))
    assert lines[0] == "view weather"
    assert "└─ stream gusts  [aggregates]" in lines
    assert sum("endpoint trains" in line for line in lines) == 1
    assert any(line.endswith("(see above)") for line in lines)
    source = Node(NodeKind.SOURCE, "wide")
    many = [Node(NodeKind.VIEW, f"view_{number}") for number in range(LINES_MAX + 5)]
    wide = LineageGraph.of(dict.fromkeys([source, *many], ""), [Edge(source, each) for each in many])
    assert lineage_lines(wide, source)[-1] == "… and 5 lines more; --json has all of it"


def test_a_tree_as_json_names_every_edge_by_its_nodes() -> None:
    tree = json.loads(json.dumps(tree_json(GRAPH, GRAPH.find("weather:temp"))))
    named = [f"{each['kind']}:{each['name']}" for each in tree["nodes"]]
    edges = {(named[each["from"]], named[each["to"]]) for each in tree["edges"]}
    assert ("source:weather_source", "view:weather") in edges
    assert ("feature:weather:temp", f"bundle:{BUNDLE.digest}") in edges
    assert "feature:weather:wind_speed" not in named


# --- search ----------------------------------------------------------------------------------------------------------


def _found(*words: str) -> list[str]:
    return [each.name for each in search(DEFINED, words)]


def test_a_whole_name_comes_before_a_part_and_a_part_before_a_description() -> None:
    assert _found("weather")[0] == "weather"
    assert _found("wind")[0] == "weather:wind_speed"
    assert _found("wind_speed")[0] == "weather:wind_speed"
    assert _found("air") == ["weather:temp"]


def test_every_word_must_occur_and_what_a_view_says_counts_for_its_features() -> None:
    assert _found("temp", "hourly") == ["weather:temp"]
    assert _found("temp", "zebra") == []
    assert _found() == []
    assert set(_found("OFFICE")) == {"weather", "weather:temp", "weather:wind_speed"}
    assert _found("km/h") == ["weather:wind_speed"]


def test_no_more_is_found_than_was_asked_for() -> None:
    assert len(search(DEFINED, ["weather"], limit=2)) == 2


def test_a_table_is_cut_at_the_terminals_edge_and_only_in_its_last_column() -> None:
    rows = [("name", "description"), ("weather", "x" * 200)]
    for width in (80, 160):
        lines = aligned(rows, width=width).splitlines()
        assert max(map(len, lines)) == width
        assert lines[1].endswith("x…")


# --- OpenLineage -----------------------------------------------------------------------------------------------------

_FACETS = {
    "type": "object",
    "additionalProperties": {
        "type": "object",
        "required": ["_producer", "_schemaURL"],
        "properties": {
            "_producer": {"type": "string", "pattern": "^[a-z]+:"},
            "_schemaURL": {
                "type": "string",
                "pattern": r"^https://openlineage\.io/spec/facets/\d+-\d+-\d+/(\w+)\.json#/\$defs/\1$",
            },
        },
    },
}
_NAMED = {
    "type": "object",
    "required": ["namespace", "name"],
    "properties": {
        "namespace": {"type": "string", "minLength": 1},
        "name": {"type": "string", "minLength": 1},
        "facets": _FACETS,
        "inputFacets": _FACETS,
        "outputFacets": _FACETS,
    },
    "additionalProperties": False,
}
_COMMON: dict[str, Any] = {
    "eventTime": {"type": "string", "format": "date-time"},
    "producer": {"type": "string", "pattern": "^[a-z]+:"},
    "schemaURL": {"type": "string"},
}
_JOB: dict[str, Any] = {
    "job": _NAMED,
    "inputs": {"type": "array", "items": _NAMED},
    "outputs": {"type": "array", "items": _NAMED},
}
_RUN: dict[str, Any] = {
    "eventType": {"enum": ["START", "RUNNING", "COMPLETE", "ABORT", "FAIL", "OTHER"]},
    "run": {
        "type": "object",
        "required": ["runId"],
        "properties": {"runId": {"type": "string", "format": "uuid"}, "facets": _FACETS},
        "additionalProperties": False,
    },
}
_PROPERTIES: dict[str, dict[str, Any]] = {
    "RunEvent": {**_RUN, **_JOB},
    "JobEvent": _JOB,
    "DatasetEvent": {"dataset": _NAMED},
}
"""What specification 2-0-2 asks of each kind of event, in our own words."""


def check_event(event: Event) -> None:
    base, _, kind = event["schemaURL"].rpartition("/")
    assert base == "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs"
    properties = {**_COMMON, **_PROPERTIES[kind]}
    required = [name for name in properties if name not in ("inputs", "outputs", "eventType")]
    schema = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    jsonschema.validate(json.loads(json.dumps(event, allow_nan=False)), schema)
    if "run" in event:
        uuid.UUID(event["run"]["runId"])


RUN = RunFacts("0199", "weather", 1_700_000_000_000_000, 1_700_000_001_000_000, 1_700_000_002_000_000, 7)
EVENTS = [
    *declared_events(DEFINED, ["weather"], 1),
    removed_event("prod", "weather", 2),
    *materialization_events(DEFINED, RUN),
    *materialization_events(replace(DEFINED, views={}), replace(RUN, error="it was cut off")),
    bundle_event("prod", BUNDLE, 5, 3),
    endpoint_event("prod", "trains", {BUNDLE.digest: "delay"}, 4),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event["schemaURL"].rpartition("/")[2])
def test_events_have_the_form_of_the_specification(event: Event) -> None:
    check_event(event)


def test_a_view_is_told_with_its_columns_owner_tags_and_where_each_column_is_from() -> None:
    dataset, job = declared_events(DEFINED, ["weather"], 1)
    facets = dataset["dataset"]["facets"]
    assert [each["name"] for each in facets["schema"]["fields"]] == ["station", "temp", "wind_speed"]
    assert facets["ownership"]["owners"] == [{"name": "met office", "type": "OWNER"}]
    assert {"key": "unit", "value": "°C", "source": "FEAST", "field": "temp"} in facets["tags"]["tags"]
    (origin,) = facets["columnLineage"]["fields"]["temp"]["inputFields"]
    assert (origin["namespace"], origin["name"], origin["field"]) == ("file", "/data/weather.parquet", "t_air")
    assert [(each["namespace"], each["name"]) for each in job["inputs"]] == [("file", "/data/weather.parquet")]
    assert (job["job"]["name"], job["outputs"][0]["name"]) == ("materialize/weather", "weather")


def test_a_bucket_is_named_by_its_address_and_a_table_of_another_kind_by_its_name() -> None:
    def source_of(**fields: Any) -> tuple[str, str]:
        assert WEATHER.source is not None
        view = replace(WEATHER, source=replace(WEATHER.source, **fields))
        _, job = declared_events(replace(DEFINED, views={"weather": view}), ["weather"], 1)
        return job["inputs"][0]["namespace"], job["inputs"][0]["name"]

    assert source_of(path="s3://lake/weather/") == ("s3://lake", "weather/")
    assert source_of(path="", kind="SnowflakeSource") == ("skewless.prod", "weather_source")


def test_a_run_is_the_same_run_whenever_it_is_told() -> None:
    started, ended = materialization_events(DEFINED, RUN)
    assert (started["eventType"], ended["eventType"]) == ("START", "COMPLETE")
    assert started["run"]["runId"] == ended["run"]["runId"]
    assert ended["outputs"][0]["outputFacets"]["outputStatistics"]["rowCount"] == 7
    assert list(materialization_events(DEFINED, RUN)) == [started, ended]
    (_, failed) = materialization_events(DEFINED, replace(RUN, id="0200", error="it was cut off"))
    assert (failed["eventType"], failed["run"]["facets"]["errorMessage"]["message"]) == ("FAIL", "it was cut off")
    assert failed["run"]["runId"] != ended["run"]["runId"]
    (_, failed) = materialization_events(DEFINED, replace(RUN, error="1 of 2 differ:\n  station 'b'"))
    assert failed["run"]["facets"]["errorMessage"]["message"] == "1 of 2 differ:", "what names entities stays here"


def test_a_bundle_is_made_of_the_columns_that_its_transform_looks_at() -> None:
    event = bundle_event("prod", BUNDLE, 5, 3)
    columns = {
        each["name"]: [field["name"] for field in each["facets"]["schema"]["fields"]] for each in event["inputs"]
    }
    assert columns == {"weather": ["temp"], "feel": ["chill"]}
    assert event["outputs"][0]["facets"]["version"]["datasetVersion"] == BUNDLE.digest


def test_events_are_posted_in_order_with_the_password_as_bearer_token() -> None:
    with catalogue() as (url, got):
        receiver = LineageReceiver(url)
        assert list(receiver.send(EVENTS, within_s=30.0)) == list(range(1, len(EVENTS) + 1))
    assert [each["event"] for each in got] == EVENTS
    assert {(each["path"], each["authorization"]) for each in got} == {("/api/v1/lineage", "Bearer secret")}
    assert "secret" not in receiver.address


def test_what_was_taken_before_a_refusal_is_known() -> None:
    taken: list[int] = []
    with (
        catalogue(taken_max=2) as (url, got),
        pytest.raises(Unavailable, match="it answered 503 at http://127") as told,
    ):
        taken.extend(LineageReceiver(url).send(EVENTS, within_s=30.0))
    assert (taken, len(got)) == ([1, 2], 2)
    assert "secret" not in str(told.value)


def test_a_receiver_that_is_away_or_no_url_is_named() -> None:
    with pytest.raises(Unavailable, match="the receiver of lineage is unavailable: ConnectError"):
        list(LineageReceiver("http://127.0.0.1:1/api").send(EVENTS[:1], within_s=5.0))
    with pytest.raises(Unavailable, match="0 of 1 events were taken"):
        list(LineageReceiver("http://127.0.0.1:1/api").send(EVENTS[:1], within_s=0.0))
    for wrong in ("kafka://host/topic", "marquez:5000", ""):
        with pytest.raises(InvalidSettings, match="SKEWLESS_OPENLINEAGE_URL"):
            LineageReceiver(wrong)
