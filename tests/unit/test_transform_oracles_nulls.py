"""Where a null can reach: what is proven never null never is, guards are understood, and a refusal names the way."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.examples import examples
from skewless.dtypes import Dtype, column_of
from skewless.errors import InvalidDefinition
from skewless.transforms import Expression, Transform, column, where
from skewless.transforms.nulls import null_path

X, Y, Z = (column(name, Dtype.FLOAT64) for name in "xyz")
SURE = column("sure", Dtype.FLOAT64, nullable=False)
RATIO = X.impute(1.0)


@pytest.mark.parametrize(
    "guarded",
    [
        where(X.is_null(), 0.0, X),
        where(X.is_null(), 0.0, X.standardise() * 2.0),
        where(~X.is_null(), X, 0.0),
        where(X.is_null() | Y.is_null(), -1.0, X - Y),
        where(~X.is_null() & ~Y.is_null(), X - Y, -1.0),
        where((SURE > 1) & ~X.is_null(), X, 0.0),
        where(column("x", Dtype.FLOAT64).is_null(), 0.0, X),
        where((X * Y).is_null(), 0.0, X * Y),
        where(X.is_null(), 0.0, where(Y.is_null(), X, X + Y)),
        where(SURE == 0, 0.0, 1.0 / SURE),
        where(SURE != 0, 1.0 / SURE, 0.0),
        where(SURE > 0, RATIO / SURE, 0.0),
        where(0.0 < SURE, RATIO % SURE, 0.0),  # noqa: SIM300  # the reflected form is the point
        where(SURE, RATIO // SURE, 0.0),
        where((SURE < 0) * (RATIO != 0), 1.0 / SURE + 1.0 / RATIO, 0.0),
        where(X.is_null(), 0.0, where(X.impute(0.0) == 0, 0.0, 1.0 / X.impute(0.0) * X)),
    ],
    ids=lambda each: each.text,
)
def test_a_guard_by_where_proves_what_it_guards(guarded: Expression) -> None:
    assert not guarded.nullable
    assert Transform({"out": guarded}) == Transform.from_json(Transform({"out": guarded}).to_json())


@pytest.mark.parametrize(
    "open_",
    [
        where(X.is_null(), X, 0.0),
        where(~X.is_null(), 0.0, X),
        where(X.is_null(), 0.0, Y),
        where(X.is_null() & Y.is_null(), 0.0, X),
        where(X.is_null() | Y.is_null(), X, 0.0),
        where(X == 0, 0.0, 1.0 / X),
        where(SURE == 1, 0.0, 1.0 / SURE),
        where(SURE >= 0, 1.0 / SURE, 0.0),
        where(SURE * RATIO, 1.0 / SURE, 0.0),
        where((SURE != 0) | (RATIO != 0), 1.0 / SURE, 0.0),
        where(X.is_null(), 0.0, X.clean()),
    ],
    ids=lambda each: each.text,
)
def test_what_a_guard_does_not_cover_stays_nullable(open_: Expression) -> None:
    assert open_.nullable


BINARY = [
    Expression.__truediv__, Expression.__floordiv__, Expression.__add__, Expression.__and__, Expression.__or__,
    Expression.__mul__, Expression.__eq__, Expression.__ne__, Expression.__lt__, Expression.__gt__,
]  # fmt: skip
UNARY = [Expression.is_null, Expression.__invert__, Expression.clean, lambda each: each.impute(0.0)]
WITH_ZERO = [lambda each: each == 0, lambda each: each != 0, lambda each: each > 0, lambda each: 0.0 < each]  # noqa: SIM300  # the reflected form is the point


@st.composite
def expressions(draw: st.DrawFn) -> Expression:
    """A graph grown step by step, so that guards and what they guard share expressions; it ends in a guard."""
    grown: list[Expression] = [X, Y, SURE, RATIO]

    def some() -> Expression:
        return grown[draw(st.integers(0, len(grown) - 1))]

    def guard() -> Expression:
        first, second = some(), some()
        guards = [first.is_null(), ~first.is_null(), first == 0, first != 0, first > 0, second]
        guards += [guards[0] | second.is_null(), guards[1] & ~second.is_null(), guards[3] * guards[1]]
        sides = [first, second, SURE, SURE / first, first + second, first % SURE, first.clean()]
        return where(draw(st.sampled_from(guards)), draw(st.sampled_from(sides)), draw(st.sampled_from(sides)))

    for _ in range(draw(st.integers(0, 5))):
        match draw(st.integers(0, 3)):
            case 0:
                grown.append(draw(st.sampled_from(BINARY))(some(), some()))
            case 1:
                grown.append(draw(st.sampled_from([*UNARY, *WITH_ZERO]))(some()))
            case 2:
                grown.append(where(some(), some(), some()))
            case _:
                grown.append(guard())
    return guard()


VALUES = [None, 0.0, -0.0, 1.0, -2.0, np.nan, np.inf, -np.inf, 5e-324, 1e308]


@settings(max_examples=examples(400), deadline=None)
@given(expressions())
def test_what_is_proven_never_null_never_is(expression: Expression) -> None:
    pairs = [(x, y) for x in VALUES for y in VALUES]
    sure = [x if x is not None else 0.0 for x, _ in pairs]
    table = {
        "x": column_of(Dtype.FLOAT64, [x for x, _ in pairs]),
        "y": column_of(Dtype.FLOAT64, [y for _, y in pairs]),
        "sure": column_of(Dtype.FLOAT64, list(sure[::-1])),
    }
    if expression.nullable:
        assert null_path(expression)[-1] is expression
        return
    nulls = Transform({"out": expression.is_null()}).fit(table, len(pairs)).prepare().apply(table, len(pairs))
    assert not nulls.any(), expression.text


def test_a_refusal_names_the_way_from_the_input_to_the_output_with_the_lines() -> None:
    filled = Y.impute(0.0)
    risen = X.clip(0.0, 9.0)
    scaled = (risen + filled).standardise()
    with pytest.raises(InvalidDefinition) as caught:
        Transform({"fine": filled, "bad": scaled * 2.0})
    message = caught.value.message
    assert "input `x` can be, and a null goes `x` at " in message
    assert message.index("→ clip at") < message.index("→ add at") < message.index("→ standardise at")
    assert "`y`" not in message.split("a null goes")[1]


def test_a_refusal_follows_only_sides_that_no_guard_closes() -> None:
    with pytest.raises(InvalidDefinition) as caught:
        Transform({"bad": where(X.is_null(), 0.0, X + Y)})
    assert "input `y` can be" in caught.value.message


def test_a_long_way_is_shortened_in_the_middle() -> None:
    deep = X
    for _ in range(50):
        deep = deep + SURE
    with pytest.raises(InvalidDefinition, match="45 more"):
        Transform({"bad": deep})


def test_proofs_of_deep_and_wide_guards_stay_cheap() -> None:
    deep = X
    for _ in range(300):
        deep = where(deep.is_null(), Y, deep + X)
    assert deep.nullable
