"""Validation of instances: agrees with its own JSON Schema, and keeps every accepted value exactly."""

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.bundles import contract, instance
from harness.examples import examples
from skewless.dtypes import Dtype, to_python
from skewless.errors import InvalidDefinition, InvalidRequest
from skewless.features.contract import FeatureContract, RequestField
from skewless.serving.instances import InstanceValidator

VALIDATOR = InstanceValidator.compile(contract())
SCHEMA = jsonschema.Draft202012Validator(VALIDATOR.json_schema())
NAMES = [field.name for field in VALIDATOR.fields]
ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 65), 1 << 65),
    st.floats(-1e30, 1e30).filter(lambda value: not value.is_integer()),
    st.text(max_size=20),
    st.lists(st.integers(), max_size=2),
)


@settings(max_examples=examples(300), deadline=None)
@given(st.sampled_from([name for name in NAMES if name != "scheduled_departure"]), ANYTHING)
def test_a_value_is_accepted_exactly_when_the_published_schema_accepts_it(name: str, value: object) -> None:
    row = instance(**{name: value})
    if SCHEMA.is_valid(row):
        VALIDATOR.columns([row])
        return
    with pytest.raises(InvalidRequest) as refused:
        VALIDATOR.columns([row])
    assert refused.value.path == f"$.instances[0].{name}"


@settings(max_examples=examples(100), deadline=None)
@given(st.lists(st.tuples(st.integers(-(1 << 63), (1 << 63) - 1), st.floats(width=32, allow_nan=False), st.text())))
def test_accepted_values_are_kept_exactly(values: list[tuple[int, float, str]]) -> None:
    finite = [each for each in values if np.isfinite(each[1])]
    rows = [instance(station=station, distance=distance, origin=origin) for station, distance, origin in finite]
    if not rows:
        return
    columns, count = VALIDATOR.columns(rows)
    assert count == len(rows)
    kept = zip(*(to_python(columns[name]) for name in ("station", "distance", "origin")), strict=True)
    assert [tuple(each) for each in kept] == finite


def test_a_null_is_kept_where_it_is_allowed() -> None:
    columns, _ = VALIDATOR.columns([instance(tailnum=None), instance(distance=None)])
    assert columns["tailnum"].valid.tolist() == [False, True]
    assert columns["distance"].valid.tolist() == [True, False]


def test_one_name_with_two_meanings_is_refused_when_compiled() -> None:
    declared = contract()
    twice = FeatureContract(
        declared.project, declared.views, (RequestField("origin", Dtype.INT64),), declared.definitions_digest
    )
    with pytest.raises(InvalidDefinition, match="origin"):
        InstanceValidator.compile(twice)
