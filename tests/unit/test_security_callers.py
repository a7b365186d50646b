"""What a caller may ask: endpoints, and entities by the columns of a request."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skewless.dtypes import Column, Dtype, column_of
from skewless.errors import Forbidden
from skewless.registry.api_scopes import ApiScope
from skewless_http.security.callers import ENDPOINTS_REMEMBERED_MAX, Caller, anonymous

TAILS = ApiScope(("flight-delay",), {"tailnum": ("N1", "N2")})


def _caller(*scopes: ApiScope) -> Caller:
    return Caller("key:shop", scopes)


def _columns(**values: list[object]) -> dict[str, Column]:
    return {name: column_of(Dtype.STRING, given) for name, given in values.items()}


def test_an_endpoint_that_no_scope_names_may_not_be_asked() -> None:
    caller = _caller(ApiScope(("one",)), ApiScope(("two",)))
    caller.may_ask("one")
    caller.may_ask("two")
    assert not caller.allows("three")
    with pytest.raises(Forbidden, match="`key:shop` may not ask the endpoint `three`"):
        caller.may_ask("three")


def test_a_caller_without_scopes_may_ask_nothing_and_an_anonymous_one_anything() -> None:
    with pytest.raises(Forbidden):
        _caller().may_ask("one")
    anonymous().may_ask("one")
    anonymous().check_entities("one", {}, 1_000)
    anonymous().may_ask_raw("one")


def test_the_first_instance_about_another_entity_is_named_and_its_value_is_not() -> None:
    with pytest.raises(Forbidden, match="the entity of instance 2") as refused:
        _caller(TAILS).check_entities("flight-delay", _columns(tailnum=["N14", "N2", "X9-secret", "N1"]), 4)
    assert refused.value.path == "$.instances[2].tailnum"
    assert "X9-secret" not in str(refused.value)


def test_what_one_scope_allows_for_any_entity_no_other_scope_takes_back() -> None:
    both = _caller(TAILS, ApiScope(("*",)))
    both.check_entities("flight-delay", _columns(tailnum=["X"]), 1)
    both.may_ask_raw("flight-delay")


def test_an_entity_limit_holds_though_the_endpoint_has_no_such_join_key() -> None:
    with pytest.raises(Forbidden):
        _caller(TAILS).check_entities("flight-delay", _columns(origin=["JFK"]), 1)


def test_numbers_are_compared_as_they_are_written() -> None:
    caller = _caller(ApiScope(("one",), {"shop": ("12",)}))
    columns = {"shop": column_of(Dtype.INT64, [12, 120, 1_234])}
    caller.check_entities("one", columns, 3)
    with pytest.raises(Forbidden, match="instance 1"):
        caller.check_entities("one", {"shop": column_of(Dtype.INT64, [12, 21])}, 2)


def test_a_null_begins_with_no_prefix_whatever_stands_in_its_place() -> None:
    caller = _caller(ApiScope(("one",), {"shop": ("0",)}))
    caller.check_entities("one", {"shop": column_of(Dtype.INT64, [0])}, 1)
    with pytest.raises(Forbidden):
        caller.check_entities("one", {"shop": column_of(Dtype.INT64, [None])}, 1)


def test_a_model_without_entities_may_not_be_asked_where_entities_are_limited() -> None:
    with pytest.raises(Forbidden, match="some entities only"):
        _caller(TAILS).may_ask_raw("flight-delay")
    with pytest.raises(Forbidden, match="may not ask the endpoint"):
        _caller(TAILS).may_ask_raw("other")


def test_asking_for_endless_names_takes_no_endless_memory() -> None:
    caller = _caller(ApiScope(("one",)))
    for number in range(3 * ENDPOINTS_REMEMBERED_MAX):
        assert not caller.allows(f"made-up-{number}")
    assert len(caller._limits) <= ENDPOINTS_REMEMBERED_MAX
    assert caller.allows("one")


_WORDS = st.text("ab10", min_size=1, max_size=3)
_SCOPES = st.builds(
    ApiScope,
    st.sampled_from([("one",), ("two",), ("*",)]),
    st.dictionaries(st.sampled_from(["a", "b"]), st.lists(_WORDS, min_size=1, max_size=2).map(tuple), max_size=2),
)


@given(
    st.lists(_SCOPES, max_size=3),
    st.lists(st.tuples(st.none() | _WORDS, st.none() | st.integers(-20, 20)), min_size=1, max_size=5),
)
def test_columns_are_allowed_as_each_entity_would_be_by_itself(
    scopes: list[ApiScope], entities: list[tuple[str | None, int | None]]
) -> None:
    """The oracle is the scope's own rule, for one entity as a mapping."""
    columns = {
        "a": column_of(Dtype.STRING, [each[0] for each in entities]),
        "b": column_of(Dtype.INT32, [each[1] for each in entities]),
    }
    allowed = [any(scope.allows("one", {"a": a, "b": b}) for scope in scopes) for a, b in entities]
    caller = _caller(*scopes)
    if all(allowed):
        caller.check_entities("one", columns, len(entities))
        return
    with pytest.raises(Forbidden) as refused:
        caller.check_entities("one", columns, len(entities))
    assert f"$.instances[{allowed.index(False)}]" in refused.value.path
