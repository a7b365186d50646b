"""Where a null can reach: the proof that a transform's outputs are never null, or the way a null takes to one.

Every operation says when its result can be null (`Operation.nullable`): most hand a null on, `impute` and `is_null`
take it away, `clean` and a division make one. On top of that, `where` is understood as the guard that it is:

    where(x.is_null(), 0, x)            not null: the second side is taken only where x is not null
    where(y == 0, 0, x / y)             null only where x or y is: the division is taken only where y is not zero

A guard is the condition itself, or parts of it joined by `|`, `&` and `~`. The proof is one-sided: what it calls
never null never is; it may fail to see that something cannot be.
"""

from collections.abc import Sequence
from typing import NamedTuple

from skewless.transforms import arithmetic_operations as arithmetic
from skewless.transforms import number_operations as number
from skewless.transforms.declaration import Declared, at
from skewless.transforms.operation import OperandFacts, Operation, Settings

_VISITS_MAX = 400
"""Expressions looked at behind one `where`; beyond, what it guards is taken as it is without the guard."""
_SAME_DEPTH_MAX = 8
_STEPS_SHOWN = 6
_DIVISIONS = (number.DIVIDE, arithmetic.MODULO, arithmetic.FLOOR_DIVIDE)
_NOT_ZERO_WHERE_TRUE = (number.NOT_EQUAL, number.LESS, number.GREATER)
_FLAGS = (
    number.IS_NULL, number.LESS, number.LESS_EQUAL, number.GREATER, number.GREATER_EQUAL, number.EQUAL,
    number.NOT_EQUAL, arithmetic.AND, arithmetic.OR, arithmetic.NOT,
)  # fmt: skip
"""Operations whose result is 1 or 0."""


class Known(NamedTuple):
    """What holds on one side of a guard."""

    not_null: tuple[Declared, ...] = ()
    not_zero: tuple[Declared, ...] = ()

    def and_also(self, other: "Known") -> "Known":
        return Known(self.not_null + other.not_null, self.not_zero + other.not_zero)


_NOTHING = Known()


def can_be_null(operation: Operation, operands: Sequence[Declared], settings: Settings) -> bool:
    """Whether an expression of these operands can be null. Cheap unless it is a `where` over nullable operands."""
    facts = [_facts(operand, nullable=operand.nullable) for operand in operands]
    nullable = operation.nullable(facts, settings)
    if not nullable or operation is not number.WHERE:
        return nullable
    return operation.nullable(_Proof().operand_facts(operation, operands, _NOTHING), settings)


def null_path(expression: Declared) -> list[Declared]:
    """The way of a null, from the input or operation it comes from to the expression itself, which is nullable."""
    path = [expression]
    known = _NOTHING
    while True:
        facts = _Proof().operand_facts(path[-1].operation, path[-1].operands, known)
        guards = _guards(path[-1])
        for place, (operand, fact) in enumerate(zip(path[-1].operands, facts, strict=True)):
            alone = [each._replace(nullable=each.nullable and other == place) for other, each in enumerate(facts)]
            clean = [each._replace(nullable=False) for each in facts]
            hands_on = path[-1].operation.nullable(alone, path[-1].settings)
            if fact.nullable and hands_on and not path[-1].operation.nullable(clean, path[-1].settings):
                path.append(operand)
                known = known.and_also(guards[place])
                break
        else:
            return path[::-1]


def explain_null(expression: Declared, *, is_input: bool) -> str:
    """Why the expression can be null, in words: where a null comes from and, step by step, how it arrives.

    `is_input` says whether the path's first expression is a column.
    """
    path = null_path(expression)
    origin = path[0]
    reason = f"input `{origin.text}` can be" if is_input else f"`{origin.text}` makes nulls"
    steps = [f"`{origin.text}`{at(origin.location)}"]
    steps += [f"{each.operation.name}{at(each.location)}" for each in path[1:]]
    if len(steps) == 1:
        return reason
    if len(steps) > _STEPS_SHOWN:
        left_out = len(steps) - _STEPS_SHOWN
        steps = [*steps[: _STEPS_SHOWN // 2], f"{left_out} more", *steps[-_STEPS_SHOWN // 2 :]]
    return f"{reason}, and a null goes {' → '.join(steps)}"


class _Proof:
    """One search behind a guard, with its budget of visits."""

    def __init__(self) -> None:
        self._visits = 0

    def operand_facts(self, operation: Operation, operands: Sequence[Declared], known: Known) -> list[OperandFacts]:
        """Facts of the operands, given what is known; a `where` adds what its condition says of each side."""
        guards = _guards_of(operation, operands)
        facts = []
        for place, (operand, guard) in enumerate(zip(operands, guards, strict=True)):
            all_known = known.and_also(guard)
            fact = _facts(operand, nullable=self._nullable(operand, all_known))
            if place == 1 and operation in _DIVISIONS and _is_among(operand, known.not_zero):
                fact = fact._replace(constant=1.0)  # stands for any divisor that is not zero
            facts.append(fact)
        return facts

    def _nullable(self, expression: Declared, known: Known) -> bool:
        self._visits += 1
        if not expression.nullable or self._visits > _VISITS_MAX or not (known.not_null or known.not_zero):
            return expression.nullable
        if _is_among(expression, known.not_null):
            return False
        facts = self.operand_facts(expression.operation, expression.operands, known)
        return expression.operation.nullable(facts, expression.settings)


def _guards(expression: Declared) -> tuple[Known, ...]:
    return _guards_of(expression.operation, expression.operands)


def _guards_of(operation: Operation, operands: Sequence[Declared]) -> tuple[Known, ...]:
    """What is known in each operand because of the others: the two sides of a `where` know its condition."""
    if operation is not number.WHERE:
        return (_NOTHING,) * len(operands)
    return (_NOTHING, _where_true(operands[0]), _where_false(operands[0]))


def _where_true(condition: Declared) -> Known:
    """What holds where the condition is not zero (and not null: the whole `where` is null there)."""
    if condition.operation is arithmetic.NOT:
        return _where_false(condition.operands[0])
    if condition.operation is arithmetic.AND or _is_product_of_flags(condition):
        left, right = condition.operands
        return _where_true(left).and_also(_where_true(right))
    if condition.operation in _NOT_ZERO_WHERE_TRUE:
        left, right = condition.operands
        if 0.0 in (_constant(left), _constant(right)):
            return Known((), (left if _constant(right) == 0.0 else right,))
    return Known((), (condition,))


def _is_product_of_flags(condition: Declared) -> bool:
    """Of other factors a product says nothing: zero times infinity is NaN, which is not zero."""
    return condition.operation is number.MULTIPLY and all(each.operation in _FLAGS for each in condition.operands)


def _where_false(condition: Declared) -> Known:
    """What holds where the condition is zero."""
    if condition.operation is number.IS_NULL:
        return Known((condition.operands[0],), ())
    if condition.operation is arithmetic.NOT:
        return _where_true(condition.operands[0])
    if condition.operation is arithmetic.OR:
        left, right = condition.operands
        return _where_false(left).and_also(_where_false(right))
    if condition.operation is number.EQUAL and _constant(condition.operands[1]) == 0.0:
        return Known((), (condition.operands[0],))
    return _NOTHING


def _facts(operand: Declared, *, nullable: bool) -> OperandFacts:
    return OperandFacts(operand.kind, nullable, _constant(operand))


def _constant(operand: Declared) -> float | None:
    return operand.settings["value"] if operand.operation is number.CONSTANT else None


def _is_among(expression: Declared, others: Sequence[Declared]) -> bool:
    return any(_same(expression, other, _SAME_DEPTH_MAX) for other in others)


def _same(left: Declared, right: Declared, depth: int) -> bool:
    """Whether both compute the same, as far as a short look can tell."""
    if left is right:
        return True
    if left.operation is not right.operation or left.settings != right.settings or depth == 0:
        return False
    pairs = zip(left.operands, right.operands, strict=True)
    return all(_same(one, other, depth - 1) for one, other in pairs)
