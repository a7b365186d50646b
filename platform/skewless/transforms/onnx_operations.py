"""What each operation becomes in ONNX, and by how much ONNX Runtime may round it otherwise than its kernel here.

A bound is in units in the last place of the float64 result, 0 where the result is the same number (0.0 and -0.0 are
one, and so is every NaN). Sine and cosine have an absolute one instead: next to zero ONNX Runtime does not reduce the
angle as finely as NumPy does. Each bound is twice what was seen (ONNX Runtime 1.31, NumPy 2.4, AVX-512, 600,000 values
of every size): log1p 2, exp 2, log 1, power 1 units, cyclical 2**-51; the tests measure every operation again.

An operation that ONNX or ONNX Runtime cannot compute to the letter is refused with the reason, never replaced by one
that is nearly the same.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from skewless.timestamps import DAY_US, HOUR_US, MINUTE_US, SECOND_US
from skewless.transforms.catalogue import CATALOGUE
from skewless.transforms.graph import Graph
from skewless.transforms.onnx_builder import DOUBLE, FLOAT, ML, Builder, Operand
from skewless.transforms.operation import Coding

_LARGEST = float(np.finfo(np.float64).max)
_INT64_MIN = -(2**63)


class Parameters:
    """Settings and learned values of one operation, or of all in a stack."""

    def __init__(
        self, builder: Builder, settings: Sequence[Mapping[str, Any]], scalars: Sequence[tuple[float, ...]]
    ) -> None:
        self._builder = builder
        self._settings = settings
        self._scalars = scalars

    def __getitem__(self, name: str) -> Any:
        assert len(self._settings) == 1, "an operation of a stack has scalars"
        return self._settings[0][name]

    def scalar(self, place: int) -> str:
        """One scalar of every operation of the stack, as a literal (1, stack)."""
        return self._builder.constant(np.array([[each[place] for each in self._scalars]], dtype=np.float64))

    def coding(self, operation: str) -> Coding:
        """The look-up that the operation of that name is."""
        coding = CATALOGUE[operation].coding(self._settings[0])
        assert coding is not None, "asked of look-ups only"
        return coding


Emit = Callable[[Builder, Sequence[Operand], Parameters], list[Operand]]
"""Writes the operation down. Gives its result: one operand, or one per part where a stack has several parts."""


@dataclass(frozen=True, slots=True)
class Export:
    """How an operation is written, and its bound: units in the last place of float64, and a distance on top."""

    emit: Emit
    ulps: int = 0
    absolute: float = 0.0
    reads_sign_of_zero: bool = False
    """Whether -0.0 gives another infinity than 0.0 does: ONNX Runtime's `Where` makes 0.0 of both."""

    @property
    def exact(self) -> bool:
        """Whether the result is the same number."""
        return not self.ulps and not self.absolute and not self.reads_sign_of_zero


def _unary(compute: Callable[[Builder, str, Parameters], str]) -> Emit:
    """Null in gives null out."""
    return lambda b, operands, p: [Operand(compute(b, operands[0].values, p), operands[0].valid)]


def _binary(compute: Callable[[Builder, str, str], str]) -> Emit:
    def emit(b: Builder, operands: Sequence[Operand], _: Parameters) -> list[Operand]:
        left, right = operands
        return [Operand(compute(b, left.values, right.values), b.both(left.valid, right.valid))]

    return emit


def _arithmetic(operator: str) -> Emit:
    return _binary(lambda b, left, right: b.add(operator, left, right))


def _comparison(operator: str) -> Emit:
    return _binary(lambda b, left, right: b.truth(b.add(operator, left, right)))


def _is_true(b: Builder, value: str) -> str:
    """Where a number is not zero; NaN is not."""
    return b.add("Not", b.add("Equal", value, b.number(0.0)))


def _divide(b: Builder, operands: Sequence[Operand], _: Parameters) -> list[Operand]:
    left, right = operands
    return [
        Operand(b.add("Div", left.values, right.values), b.both(left.valid, right.valid, _is_true(b, right.values)))
    ]


def _where(b: Builder, operands: Sequence[Operand], _: Parameters) -> list[Operand]:
    condition, chosen, otherwise = operands
    holds = _is_true(b, condition.values)
    values = b.add("Where", holds, chosen.values, otherwise.values)
    # Only the chosen one's null counts. ONNX Runtime has no `Where` of bool.
    known = [condition.valid]
    if chosen.valid is not None:
        known.append(b.add("Or", b.add("Not", holds), chosen.valid))
    if otherwise.valid is not None:
        known.append(b.add("Or", holds, otherwise.valid))
    return [Operand(values, b.both(*known))]


def _is_null(b: Builder, operands: Sequence[Operand], _: Parameters) -> list[Operand]:
    (operand,) = operands
    if operand.valid is not None:
        return [Operand(b.truth(b.add("Not", operand.valid)), None)]
    nowhere = b.filled(np.array([[0.0]]))
    width = b.width(operand.values)
    return [Operand(b.add("Concat", *[nowhere] * width, axis=1, columns=width), None)]


def _impute(b: Builder, operands: Sequence[Operand], p: Parameters) -> list[Operand]:
    values, valid = operands[0]
    return [Operand(values if valid is None else b.add("Where", valid, values, p.scalar(0)), None)]


def _impute_text(b: Builder, operands: Sequence[Operand], p: Parameters) -> list[Operand]:
    values, valid = operands[0]
    text = b.constant(np.array([[p["value"]]], dtype=object))
    return [Operand(values if valid is None else b.add("Where", valid, values, text), None)]


def _clip(b: Builder, value: str, p: Parameters) -> str:
    low, high = p.scalar(0), p.scalar(1)
    below_high = b.add("Where", b.add("Greater", value, high), high, value)
    return b.add("Where", b.add("Less", value, low), low, below_high)


def _clean(b: Builder, operands: Sequence[Operand], p: Parameters) -> list[Operand]:
    values, valid = operands[0]
    finite = b.add("LessOrEqual", b.add("Abs", values), b.number(_LARGEST))  # NaN is not less either
    low, high = b.add("GreaterOrEqual", values, p.scalar(0)), b.add("LessOrEqual", values, p.scalar(1))
    return [Operand(values, b.both(valid, finite, low, high))]


def _log1p(b: Builder, value: str, _: Parameters) -> str:
    """ONNX has no log1p: log(u) * (x / (u - 1)) for u = 1 + x makes up for the digits that u lost (Kahan)."""
    one = b.number(1.0)
    sum_ = b.add("Add", value, one)
    logarithm = b.add("Log", sum_)
    corrected = b.add("Mul", logarithm, b.add("Div", value, b.add("Sub", sum_, one)))
    finite = b.add("LessOrEqual", b.add("Abs", value), b.number(_LARGEST))
    large = b.add("Where", finite, corrected, logarithm)
    return b.add("Where", b.add("Equal", sum_, one), value, large)


def _cyclical(b: Builder, operands: Sequence[Operand], p: Parameters) -> list[Operand]:
    values, valid = operands[0]
    turns = b.add("Div", values, p.scalar(0))
    angle = b.add("Mul", b.add("Sub", turns, b.add("Floor", turns)), b.number(float(2 * np.pi)))
    sine, cosine = b.add("Sin", angle), b.add("Cos", angle)
    if b.width(values) > 1:
        return [Operand(sine, valid), Operand(cosine, valid)]
    return [Operand(b.add("Concat", sine, cosine, axis=1, columns=2), valid)]


def _bucket(b: Builder, value: str, p: Parameters) -> str:
    edges = b.constant(np.array([p["edges"]], dtype=np.float64))
    return b.cast(b.count(b.add("Not", b.add("Less", value, edges))), DOUBLE)  # NaN is below no edge


def _one_operator(operator: str) -> Emit:
    return _unary(lambda b, value, _: b.add(operator, value))


def _power(b: Builder, value: str, p: Parameters) -> str:
    exponent = p["exponent"]
    if exponent == -1.0:
        return b.add("Div", b.number(1.0), value)
    if exponent == 0.5:
        return b.add("Sqrt", value)
    if exponent == 1.0:
        return value
    if exponent in (2.0, 3.0):
        square = b.add("Mul", value, value)
        return square if exponent == 2.0 else b.add("Mul", square, value)
    return b.add("Pow", value, b.number(exponent))


def _extreme(first_wins: str) -> Emit:
    def compute(b: Builder, left: str, right: str) -> str:
        not_a_number = b.add("Not", b.add("Equal", left, left))
        return b.add("Where", b.add("Or", b.add(first_wins, left, right), not_a_number), left, right)

    return _binary(compute)


def _remainder(b: Builder, left: str, right: str) -> tuple[str, str]:
    """The remainder with the divisor's sign, and where C's had the other one; as NumPy computes it (npy_divmod)."""
    zero = b.number(0.0)
    rest = b.add("Mod", left, right, fmod=1)
    signs = b.add("Xor", b.add("Less", rest, zero), b.add("Less", right, zero))
    turned = b.add("And", _is_true(b, rest), signs)
    return b.add("Where", turned, b.add("Add", rest, right), rest), turned


def _floor_quotient(b: Builder, left: str, right: str) -> str:
    rest = b.add("Mod", left, right, fmod=1)
    _, turned = _remainder(b, left, right)
    quotient = b.add("Div", b.add("Sub", left, rest), right)
    quotient = b.add("Where", turned, b.add("Sub", quotient, b.number(1.0)), quotient)
    floor = b.add("Floor", quotient)
    too_low = b.add("Greater", b.add("Sub", quotient, floor), b.number(0.5))
    return b.add("Where", too_low, b.add("Add", floor, b.number(1.0)), floor)


def _divided(compute: Callable[[Builder, str, str], str]) -> Emit:
    """Null where the divisor is zero."""

    def emit(b: Builder, operands: Sequence[Operand], _: Parameters) -> list[Operand]:
        left, right = operands
        valid = b.both(left.valid, right.valid, _is_true(b, right.values))
        return [Operand(compute(b, left.values, right.values), valid)]

    return emit


def _to_integer(b: Builder, operands: Sequence[Operand], p: Parameters) -> list[Operand]:
    values, valid = operands[0]
    up = b.add("Less", values, b.number(0.0))
    whole = b.add("Where", up, b.add("Ceil", values), b.add("Floor", values))
    limit = p.scalar(0)
    low = b.add("GreaterOrEqual", whole, b.add("Neg", limit))
    return [Operand(whole, b.both(valid, low, b.add("Less", whole, limit)))]


def _coding(operation: str) -> Emit:
    def emit(b: Builder, operands: Sequence[Operand], p: Parameters) -> list[Operand]:
        coding = p.coding(operation)
        words, valid = operands[0]
        known = list(coding.places) or [""]
        table = [*(coding.places.get(word, coding.unseen) for word in known), coding.unseen]
        place = b.add(
            "LabelEncoder",
            words,
            domain=ML,
            keys_strings=known,
            values_int64s=list(range(len(known))),
            default_int64=len(known),
        )
        flat = b.add("Gather", b.constant(np.array(table, dtype=np.float64)), place, axis=0, columns=1)
        codes = flat if valid is None else b.add("Where", valid, flat, b.number(coding.null))
        if coding.parts is None:
            return [Operand(codes, None)]
        numbers = b.constant(np.arange(coding.parts, dtype=np.float64)[np.newaxis])
        return [Operand(b.truth(b.add("Equal", codes, numbers)), None)]

    return emit


def _matches(before: str, after: str) -> Emit:
    """Whether the whole string is the given text between the two patterns."""

    def compute(b: Builder, value: str, p: Parameters) -> str:
        # Each code point by its number, which RE2 reads as nothing else; `s` lets `.` stand for a line's end too.
        text = "".join(f"\\x{{{ord(each):x}}}" for each in p["text"])
        return b.truth(b.add("RegexFullMatch", value, pattern=f"(?s){before}{text}{after}"))

    return _unary(compute)


def _is_in(b: Builder, value: str, p: Parameters) -> str:
    known = p["items"] or [""]
    is_known = [1 if p["items"] else 0] * len(known)
    found = b.add("LabelEncoder", value, domain=ML, keys_strings=known, values_int64s=is_known, default_int64=0)
    return b.cast(found, DOUBLE)


def _local_time(b: Builder, value: str, p: Parameters) -> str:
    offsets = b.constant(np.array(p["offsets"], dtype=np.int64) * SECOND_US)
    if not p["transitions"]:
        return b.add("Add", value, b.whole(p["offsets"][0] * SECOND_US))
    transitions = b.constant(np.array([p["transitions"]], dtype=np.int64) * SECOND_US)
    passed = b.count(b.add("GreaterOrEqual", value, transitions))
    return b.add("Add", value, b.add("Gather", offsets, passed, axis=0, columns=1))


def _clock(unit_us: int, count: int) -> Emit:
    def compute(b: Builder, local: str, _: Parameters) -> str:
        return b.cast(b.modulo(b.floor_divide(local, unit_us), count), DOUBLE)

    return _unary(compute)


def _day_part(part: Callable[[Builder, str], str]) -> Emit:
    """A part that follows from the days since 1970."""
    return _unary(lambda b, local, _: b.cast(part(b, b.floor_divide(local, DAY_US)), DOUBLE))


def _month_part(part: Callable[[Builder, str], str]) -> Emit:
    """A part that follows from the months since January 1970. NumPy takes the least int64 for no time, and keeps it."""

    def compute(b: Builder, local: str, _: Parameters) -> str:
        (months, _day) = _civil(b, b.floor_divide(local, DAY_US))
        least = b.whole(_INT64_MIN)
        return b.cast(part(b, b.add("Where", b.add("Equal", local, least), least, months)), DOUBLE)

    return _unary(compute)


def _civil(b: Builder, days: str) -> tuple[str, str]:
    """Months since January 1970 and the day of the month, from 0 (Hinnant, civil_from_days), as in `row_forms`."""

    def whole(operator: str, value: str, number: int) -> str:
        return b.add(operator, value, b.whole(number))

    shifted = whole("Add", days, 719_468)
    era, day = b.floor_divide(shifted, 146_097), b.modulo(shifted, 146_097)
    leaps = b.add("Sub", whole("Div", day, 36_524), b.add("Add", whole("Div", day, 1_460), whole("Div", day, 146_096)))
    year = whole("Div", b.add("Add", day, leaps), 365)
    past = b.add("Add", whole("Mul", year, 365), b.add("Sub", whole("Div", year, 4), whole("Div", year, 100)))
    day_of_year = b.add("Sub", day, past)
    month = whole("Div", whole("Add", whole("Mul", day_of_year, 5), 2), 153)
    years = b.add("Add", whole("Mul", era, 400), year)
    months = b.add("Add", whole("Mul", years, 12), whole("Add", month, 2 - 1970 * 12))
    begun = whole("Div", whole("Add", whole("Mul", month, 153), 2), 5)
    return months, b.add("Sub", day_of_year, begun)


def _day_of_year(b: Builder, days: str) -> str:
    """From 0: days since the year's first of January."""
    months, _ = _civil(b, days)
    before = b.add("Add", b.floor_divide(months, 12), b.whole(1969))
    leaps = b.add("Sub", b.floor_divide(before, 4), b.floor_divide(before, 100))
    leaps = b.add("Add", leaps, b.floor_divide(before, 400))
    january = b.add("Add", b.add("Mul", before, b.whole(365)), b.add("Sub", leaps, b.whole(719_162)))
    return b.add("Sub", days, january)


def _week(b: Builder, days: str) -> str:
    monday = b.add("Sub", days, b.modulo(b.add("Add", days, b.whole(3)), 7))
    return b.floor_divide(_day_of_year(b, b.add("Add", monday, b.whole(3))), 7)


def _plus(b: Builder, value: str, number: int) -> str:
    return b.add("Add", value, b.whole(number))


def _seconds_between(b: Builder, later: str, earlier: str) -> str:
    whole = b.add("Sub", b.floor_divide(later, SECOND_US), b.floor_divide(earlier, SECOND_US))
    rest = b.add("Sub", b.modulo(later, SECOND_US), b.modulo(earlier, SECOND_US))
    fraction = b.add("Div", b.cast(rest, DOUBLE), b.number(float(SECOND_US)))
    return b.add("Add", b.cast(whole, DOUBLE), fraction)


def _not_equal(b: Builder, left: str, right: str) -> str:
    return b.truth(b.add("Not", b.add("Equal", left, right)))


def _text_not_equal(b: Builder, left: str, right: str) -> str:
    return b.truth(b.add("Not", b.text_equal(left, right)))


_IMPUTE = Export(_impute)
_CLIP = Export(_unary(_clip))
_RESCALE = Export(_unary(lambda b, value, p: b.add("Div", b.add("Sub", value, p.scalar(0)), p.scalar(1))))
_BUCKET = Export(_unary(_bucket))
_IMPUTE_TEXT = Export(_impute_text)

OPERATIONS: Mapping[str, Export] = {
    "add": Export(_arithmetic("Add")),
    "subtract": Export(_arithmetic("Sub")),
    "multiply": Export(_arithmetic("Mul")),
    "divide": Export(_divide),
    "less": Export(_comparison("Less")),
    "less_equal": Export(_comparison("LessOrEqual")),
    "greater": Export(_comparison("Greater")),
    "greater_equal": Export(_comparison("GreaterOrEqual")),
    "equal": Export(_comparison("Equal")),
    "not_equal": Export(_binary(_not_equal)),
    "and": Export(_binary(lambda b, left, right: b.truth(b.add("And", _is_true(b, left), _is_true(b, right))))),
    "or": Export(_binary(lambda b, left, right: b.truth(b.add("Or", _is_true(b, left), _is_true(b, right))))),
    "not": Export(_unary(lambda b, value, _: b.truth(b.add("Equal", value, b.number(0.0))))),
    "where": Export(_where),
    "is_null": Export(_is_null),
    "impute": _IMPUTE,
    "impute_mean": _IMPUTE,
    "impute_median": _IMPUTE,
    "impute_most_frequent_number": _IMPUTE,
    "clip": _CLIP,
    "clip_quantiles": _CLIP,
    "clean": Export(_clean),
    "standardise": _RESCALE,
    "min_max": _RESCALE,
    "robust": _RESCALE,
    "log1p": Export(_unary(_log1p), ulps=4),
    "cyclical": Export(_cyclical, absolute=2.0**-50),
    "bucket": _BUCKET,
    "quantile_bucket": _BUCKET,
    "abs": Export(_one_operator("Abs")),
    "floor": Export(_one_operator("Floor")),
    "ceil": Export(_one_operator("Ceil")),
    "round": Export(_one_operator("Round")),
    "sqrt": Export(_one_operator("Sqrt")),
    "exp": Export(_one_operator("Exp"), ulps=4),
    "log": Export(_one_operator("Log"), ulps=2),
    "power": Export(_unary(_power), ulps=2, reads_sign_of_zero=True),
    "minimum": Export(_extreme("Less")),
    "maximum": Export(_extreme("Greater")),
    "modulo": Export(_divided(lambda b, left, right: _remainder(b, left, right)[0])),
    "floor_divide": Export(_divided(_floor_quotient)),
    "to_integer": Export(_to_integer),
    "to_float32": Export(_unary(lambda b, value, _: b.cast(b.cast(value, FLOAT), DOUBLE))),
    "text_equal": Export(_binary(lambda b, left, right: b.truth(b.text_equal(left, right)))),
    "text_not_equal": Export(_binary(_text_not_equal)),
    "impute_text": _IMPUTE_TEXT,
    "impute_most_frequent": _IMPUTE_TEXT,
    "index": Export(_coding("index")),
    "one_hot": Export(_coding("one_hot")),
    "one_hot_known": Export(_coding("one_hot_known")),
    "target_encode": Export(_coding("target_encode")),
    "is_in": Export(_unary(_is_in)),
    "contains": Export(_matches(".*", ".*")),
    "starts_with": Export(_matches("", ".*")),
    "ends_with": Export(_matches(".*", "")),
    "local_time": Export(_unary(_local_time)),
    "hour": Export(_clock(HOUR_US, 24)),
    "minute": Export(_clock(MINUTE_US, 60)),
    "second": Export(_clock(SECOND_US, 60)),
    "minute_of_day": Export(_clock(MINUTE_US, 24 * 60)),
    "day_of_week": Export(_day_part(lambda b, days: b.modulo(_plus(b, days, 3), 7))),
    "day_of_month": Export(_day_part(lambda b, days: _plus(b, _civil(b, days)[1], 1))),
    "day_of_year": Export(_day_part(lambda b, days: _plus(b, _day_of_year(b, days), 1))),
    "week_of_year": Export(_day_part(lambda b, days: _plus(b, _week(b, days), 1))),
    "month": Export(_month_part(lambda b, months: _plus(b, b.modulo(months, 12), 1))),
    "quarter": Export(_month_part(lambda b, months: _plus(b, b.floor_divide(b.modulo(months, 12), 3), 1))),
    "year": Export(_month_part(lambda b, months: _plus(b, b.floor_divide(months, 12), 1970))),
    "epoch_seconds": Export(
        _unary(lambda b, value, _: b.add("Div", b.cast(value, DOUBLE), b.number(float(SECOND_US))))
    ),
    "seconds_between": Export(_binary(_seconds_between)),
}
"""Every operation that can be exported."""

_UNICODE = "ONNX has no operator for Unicode text that does what Python's does"
REFUSED: Mapping[str, str] = {
    "lower": _UNICODE,
    "upper": _UNICODE,
    "strip": _UNICODE,
    "length": "ONNX has no operator for the length of a text",
    "replace": "ONNX has no operator that replaces within a text",
    "cross": "ONNX has no operator that escapes a text",
    "hash_bucket": "ONNX has no hash of a text's UTF-8",
    "to_text": "ONNX's text of a number is another",
    "to_number": "ONNX reads other texts as numbers",
    "onnx": "its model is a file of its own, with operators of another version",
    "python": "ONNX cannot hold Python code",
}
"""Every operation that cannot, and why."""


def refusals(graph: Graph) -> list[str]:
    """One sentence per operation of the graph that cannot be exported, with an expression that uses it."""
    found: dict[str, str] = {}
    for node in graph.nodes:
        name = node.operation.name
        if node.operands and name not in OPERATIONS:
            reason = REFUSED.get(name, "its export is not written")
            found.setdefault(name, f"`{name}` in `{node.text}`: {reason}")
    return list(found.values())
