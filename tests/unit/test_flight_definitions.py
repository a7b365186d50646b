"""The example's Feast definitions, its model and its tables name the same things with the same types."""

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from feast import Entity, FeatureView, ValueType

from feature_repo import features
from feature_repo.example import EXAMPLE
from feature_repo.models.flight_delay import flight_delay
from feature_repo.sources import TABLES
from skewless.adapters.feast_repository import Connections, FeatureRepository
from skewless.dtypes import TABLE, Dtype, from_feast
from skewless.features.contract import FeatureContract
from skewless.timestamps import parse_timestamp

VIEWS = features.flight_delay_v1.feature_view_projections
FOLDER = Path(features.__file__).parent


@pytest.fixture(scope="module")
def contract(tmp_path_factory: pytest.TempPathFactory) -> FeatureContract:
    """What the registered definitions say, read back from a Feast registry."""
    home = tmp_path_factory.mktemp("registry")
    repository = FeatureRepository(FOLDER, Connections("127.0.0.1:1", f"sqlite:///{home}/feast.db"))
    repository.apply(features)
    return repository.contract(
        flight_delay.feature_service,
        request_fields=flight_delay.request_fields,
        nullable_keys=flight_delay.nullable_keys,
        policies=flight_delay.policies,
    )


def _defined(kind: type) -> list[Any]:
    return [item for item in vars(features).values() if isinstance(item, kind)]


def test_the_feature_service_holds_every_feature_of_every_view() -> None:
    defined = _defined(FeatureView)
    assert {view.name for view in VIEWS} == {view.name for view in defined}
    assert len(defined) == 8
    assert sum(len(view.features) for view in VIEWS) == sum(len(view.features) for view in defined) == 44


def test_every_view_reads_the_table_of_its_name_with_its_own_columns_and_types() -> None:
    columns = {table.name: table.sql for table in TABLES}
    for view in _defined(FeatureView):
        assert Path(view.batch_source.path) == features.DATA_FOLDER / f"{view.name}.parquet"
        assert (view.batch_source.timestamp_field, view.batch_source.created_timestamp_column) == (
            "event_time",
            "created_time",
        )
        for field in view.features:
            assert re.search(rf"\b{field.name}\b", columns[view.name]), f"{view.name}.{field.name}"


def test_names_are_safe_for_feast_and_every_field_says_what_it_is_and_in_which_unit() -> None:
    for view in _defined(FeatureView):
        assert view.description, view.name
        for field in view.features:
            # Feast's DuckDB joins drop a suffix `_y`, and `__` separates view from feature.
            assert not field.name.endswith("_y"), field.name
            assert "__" not in field.name, field.name
            assert field.description, field.name
            assert field.tags["unit"], field.name


def test_keys_are_strings_named_like_their_entity() -> None:
    for entity in _defined(Entity):
        assert entity.join_key == entity.name
        assert entity.value_type is ValueType.STRING


def test_the_registry_gives_back_the_declared_contract(contract: FeatureContract) -> None:
    assert {key.name: (key.dtype, key.nullable) for key in contract.join_keys} == {
        "origin": (Dtype.STRING, False),
        "carrier": (Dtype.STRING, False),
        "route": (Dtype.STRING, False),
        "tailnum": (Dtype.STRING, True),
    }
    ttl = {view.view: timedelta(microseconds=view.ttl_us) for view in contract.views}
    assert ttl["origin_weather"] == timedelta(hours=4)
    assert ttl["aircraft"] == timedelta(0)


def test_the_transform_reads_every_column_of_the_contract_with_its_dtype(contract: FeatureContract) -> None:
    available = dict(contract.columns) | {key.name: key.dtype for key in contract.join_keys}
    inputs = dict(flight_delay.transform.inputs)
    assert inputs.items() <= available.items()
    assert set(available) - set(inputs) == {"tailnum"}
    stored = {name for name, _ in contract.columns} - {field.name for field in flight_delay.request_fields}
    assert not stored & flight_delay.transform.not_null_inputs


def test_declared_dtypes_are_those_that_feast_and_the_table_of_dtypes_share() -> None:
    for view in _defined(FeatureView):
        for field in view.features:
            dtype = from_feast(str(field.dtype), where=field.name)
            assert dtype in {Dtype.FLOAT32, Dtype.INT64, Dtype.STRING}
            assert TABLE[dtype].feast == str(field.dtype)


def test_the_example_replays_after_what_the_model_was_trained_on() -> None:
    assert flight_delay.training.end <= EXAMPLE.replay_start < EXAMPLE.replay_until
    assert EXAMPLE.replay_start == parse_timestamp("2013-05-01")
    assert EXAMPLE.model is flight_delay
