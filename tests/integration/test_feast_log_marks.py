"""Marks for the prediction log, from tags of Feast definitions through a real registry into feature contracts."""

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from feast import Field, RequestSource
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Bool, Float64, Int32

from harness.feature_repository import SmallRepository, small_repository
from skewless.adapters.feast_repository import FeatureRepository
from skewless.dtypes import Dtype
from skewless.errors import InvalidDefinition
from skewless.features.contract import FeatureContract, LogMark, RequestField
from skewless.features.contract_changes import Definitions, compare_contract
from skewless.serving.log_privacy import log_marks

TAG = "skewless.log"


@pytest.fixture
def small(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[SmallRepository]:
    name = f"marked_{abs(hash(request.node.name)) % 10**8}"  # each test changes the module's objects
    with small_repository(tmp_path / "repository", name) as made:
        yield made


@pytest.fixture
def definitions(small: SmallRepository) -> ModuleType:
    return small.definitions("extended")


@pytest.fixture
def repository(small: SmallRepository, definitions: ModuleType, tmp_path: Path) -> FeatureRepository:
    made = small.open("127.0.0.1:1", tmp_path / "registry.db")
    made.apply(definitions)
    return made


def module(**changed: Any) -> Any:
    return SimpleNamespace(__name__="changed", **changed)


def test_a_marked_entity_marks_its_key_under_every_name(repository: FeatureRepository, definitions: ModuleType) -> None:
    definitions.station.tags = {TAG: "hash"}
    before = repository.contract("renamed")
    repository.apply(module(station=definitions.station))
    contract = repository.contract("renamed")
    assert log_marks(before) == {}
    assert log_marks(contract) == {"station": LogMark.HASH, "destination": LogMark.HASH}
    assert FeatureContract.from_json(contract.to_json()) == contract
    assert contract.definitions_digest != before.definitions_digest
    state = compare_contract(before, repository.compiled())
    assert state.definitions is Definitions.CHANGED
    assert "the prediction log's mark of join key `station` of view `here` was `keep`, is `hash`" in state.detail


def test_a_marked_field_holds_for_services_that_were_registered_before_it(
    repository: FeatureRepository, definitions: ModuleType
) -> None:
    before = repository.contract("stored_lists")
    cargo = definitions.cargo
    for field in cargo.features:
        field.tags = {TAG: "omit"} if field.name in ("goods", "counts") else {}
    repository.apply(module(cargo=cargo))
    assert log_marks(repository.contract("stored_lists")) == {
        "cargo__counts": LogMark.OMIT,
        "cargo__goods": LogMark.OMIT,
    }
    assert repository.contract("stored_lists").definitions_digest != before.definitions_digest


def test_marks_of_request_sources_and_computed_features(repository: FeatureRepository, definitions: ModuleType) -> None:
    before = repository.contract("functions")
    trip = RequestSource(name="trip", schema=[Field(name="cars", dtype=Int32, tags={TAG: "hash"})])
    comfort = on_demand_feature_view(
        name="comfort",
        sources=[definitions.weather[["temp", "wind"]], trip],
        schema=[Field(name="feels", dtype=Float64), Field(name="crowded", dtype=Bool)],
        mode="python",
        tags={f"{TAG}.feels": "omit"},
    )(definitions.computed.comfort)
    repository.apply(module(trip=trip, comfort=comfort))
    contract = repository.contract("functions")
    assert log_marks(contract) == {"cars": LogMark.HASH, "comfort__feels": LogMark.OMIT}
    assert compare_contract(before, repository.compiled()).definitions is Definitions.CHANGED
    assert compare_contract(contract, repository.compiled()).definitions is Definitions.CURRENT
    # A model may declare the same field: marked there or in Feast, it is marked; marked in two ways, it is refused.
    declared = RequestField("cars", Dtype.INT32)
    assert log_marks(repository.contract("functions", request_fields=(declared,)))["cars"] is LogMark.HASH
    other = RequestField("cars", Dtype.INT32, log=LogMark.OMIT)
    with pytest.raises(InvalidDefinition, match="marked `omit` for the prediction log"):
        repository.contract("functions", request_fields=(other,))
    own = RequestField("fare", Dtype.INT32, log=LogMark.OMIT)
    marked = repository.contract("functions", request_fields=(own,))
    assert log_marks(marked)["fare"] is LogMark.OMIT
    assert compare_contract(marked, repository.compiled()).definitions is Definitions.CURRENT


def test_a_mark_that_says_nothing_known_or_stands_where_none_is_looked_for_is_refused(
    repository: FeatureRepository, definitions: ModuleType
) -> None:
    weather, station = definitions.weather, definitions.station
    station.tags = {TAG: "hide"}
    repository.apply(module(station=station))
    with pytest.raises(InvalidDefinition, match=r"has the tag skewless\.log='hide'"):
        repository.contract("renamed")
    station.tags = {}
    weather.tags = {TAG: "hash"}
    repository.apply(module(station=station, weather=weather))
    with pytest.raises(InvalidDefinition, match=r"tag skewless\.log, which stands there for nothing"):
        repository.contract("renamed")
    weather.tags = {}
    for column in weather.entity_columns:
        column.tags = {TAG: "hash"}
    repository.apply(module(weather=weather))
    with pytest.raises(InvalidDefinition, match="join key `station` has the tag"):
        repository.contract("renamed")
