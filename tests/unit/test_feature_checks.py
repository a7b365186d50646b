"""What is checked when definitions are registered, over plain data."""

import itertools

import mmh3
import pytest

from skewless.canonical_json import digest
from skewless.errors import InvalidDefinition, NotFound
from skewless.features.compiled_registry import CompiledRegistry
from skewless.features.contract import FeatureContract
from skewless.features.feature_checks import Severity, ViewDefinition, check_definitions, hash_sizes

STATION = (("station", "String"),)
LINE = (("line", "Int64"),)


def _view(name: str, *features: str, keys: tuple[tuple[str, str], ...] = STATION, **options: object) -> ViewDefinition:
    return ViewDefinition(name, keys, tuple((feature, "Float32") for feature in features), **options)  # type: ignore[arg-type]  # test data


def _codes(*views: ViewDefinition, projects: tuple[str, ...] = ("prod",)) -> list[str]:
    return [finding.code for finding in check_definitions(views, projects)]


def _colliding(view: str) -> tuple[str, str]:
    """Two features of a view with one 32-bit hash; about 80,000 names are enough to find a pair."""
    seen: dict[int, str] = {}
    for number in itertools.count():
        feature = f"f{number}"
        other = seen.setdefault(mmh3.hash(f"{view}:{feature}", signed=False), feature)
        if other != feature:
            return other, feature
    raise AssertionError


def test_sound_definitions_give_no_findings() -> None:
    assert (
        _codes(
            _view("weather", "temp", "wind"),
            _view("leg", "late", keys=LINE + STATION),
            _view("net", "load", keys=()),
        )
        == []
    )


def test_two_features_with_one_hash_in_one_entity_are_an_error() -> None:
    one, other = _colliding("weather")
    (finding,) = check_definitions([_view("weather", one, other)], ["prod"])
    assert (finding.severity, finding.code) == (Severity.ERROR, "hash_collision")
    assert f"`weather:{one}`" in finding.message
    assert f"`weather:{other}`" in finding.message
    assert "rename" in finding.hint


def test_a_collision_is_found_between_versions_of_a_view_and_not_between_entities() -> None:
    one, other = _colliding("weather")
    versioned = ViewDefinition("w", STATION, ((one, "Int64"), (other, "Int64")), stored_names=("w", "weather"))
    assert _codes(versioned) == ["hash_collision"]
    on_demand = ViewDefinition("weather", (), ((one, "Int64"), (other, "Int64")), on_demand=True)
    assert _codes(_view("weather", one), _view("weather", other, keys=LINE), on_demand) == []


def test_views_of_one_name_in_one_hash_share_their_fields_without_a_collision() -> None:
    assert _codes(_view("weather", "temp", aliases=("here", "there"))) == []


def test_a_join_key_with_two_types_is_an_error_that_names_both() -> None:
    text, number = _view("weather", "temp"), _view("stops", "count", keys=(("station", "Int64"),))
    (finding,) = check_definitions([text, number], ["prod"])
    assert (finding.severity, finding.code) == (Severity.ERROR, "join_key_types")
    assert "String in view `weather`, Int64 in view `stops`" in finding.message


@pytest.mark.parametrize("missing", ["", "Invalid"])
def test_what_has_no_declared_type_is_an_error(missing: str) -> None:
    keys = ViewDefinition("weather", (("station", missing),), (("temp", "Float32"),))
    features = ViewDefinition("leg", STATION, (("late", missing),))
    nothing = ViewDefinition("net", (), ())
    found = check_definitions([keys, features, nothing], ["prod"])
    assert [finding.code for finding in found] == ["undeclared_type"] * 3
    assert [finding.severity for finding in found] == [Severity.ERROR] * 3
    assert "join key `station` of view `weather`" in found[0].message
    assert "feature `late` of view `leg`" in found[1].message
    assert "declares no features" in found[2].message


def test_columns_that_two_views_would_share_are_a_warning() -> None:
    (finding,) = check_definitions([_view("a", "b__c"), _view("a__b", "c", keys=LINE)], ["prod"])
    assert (finding.severity, finding.code) == (Severity.WARNING, "ambiguous_column")
    assert "`a__b__c`" in finding.message
    assert _codes(_view("a", "b"), _view("x", "b", aliases=("a",))) == ["ambiguous_column"]


def test_a_project_that_ends_like_another_is_a_warning() -> None:
    (finding,) = check_definitions([], ["prod", "nonprod", "dev"])
    assert (finding.severity, finding.code) == (Severity.WARNING, "project_suffix")
    assert "`nonprod` ends like project `prod`" in finding.message
    assert _codes(projects=("prod", "prod2", "prod")) == []


def test_errors_come_before_warnings() -> None:
    found = check_definitions([_view("a", "b__c"), _view("a__b", "c"), _view("z")], ["prod", "nonprod"])
    severities = [finding.severity for finding in found]
    assert severities == sorted(severities, key=lambda severity: severity is not Severity.ERROR)
    assert set(severities) == set(Severity)


def test_a_hash_has_the_fields_of_all_its_views_and_versions() -> None:
    weather = _view("weather", "temp", "wind", stored_names=("weather", "weather_v2"))
    queue, leg = _view("queue", "length"), _view("leg", "late", keys=STATION + LINE)
    on_demand = ViewDefinition("comfort", (), (("feels", "Float64"),), on_demand=True)
    assert hash_sizes([weather, queue, leg, on_demand]) == {("station",): 2 * 3 + 2, ("line", "station"): 2}


def test_a_compiled_registry_survives_its_json() -> None:
    contract = FeatureContract("prod", (), (), digest("definitions"))
    registry = CompiledRegistry("prod", {"delays": contract}, {"odd": "a Map"}, {("line", "station"): 4, (): 2})
    assert CompiledRegistry.from_json(registry.to_json()) == registry
    assert CompiledRegistry.from_json(registry.to_json()).digest == registry.digest
    assert registry.contract("delays") is contract
    with pytest.raises(InvalidDefinition, match="`odd` cannot be read: a Map"):
        registry.contract("odd")
    with pytest.raises(NotFound, match="Known: `delays`, `odd`"):
        registry.contract("nope")
    with pytest.raises(InvalidDefinition, match="not a compiled registry"):
        CompiledRegistry.from_json({"project": "prod"})
