"""What each class of scikit-learn's preprocessing, impute and compose modules is in expressions.

A fitted step is a function from channels to channels. Where our operation learns the very same thing, it gets what
scikit-learn has learned, so that the transform can be fitted again; where scikit-learn was configured otherwise, the
numbers become literals. Classes of scikit-learn are recognised by name: importing it takes longer than everything here.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from skewless.dtypes import Dtype
from skewless.errors import InvalidDefinition
from skewless.transforms import Expression, where
from skewless.transforms import category_operations as categorical
from skewless.transforms import number_operations as number
from skewless.transforms import statistic_operations as statistic
from skewless.transforms import text_operations as words
from skewless.transforms.expressions import declare
from skewless.transforms.operation import Kind, Operation, Settings

_LISTED_MAX = 64
"""Numbers that an encoder of numeric categories may have: each is a comparison of its own."""
_FLOATS = (Dtype.FLOAT32, Dtype.FLOAT64)


class Unmapped(Exception):
    """A step that has no counterpart; the message says why."""


@dataclass(frozen=True, slots=True, eq=False)
class Channel:
    """One feature. `dtype` is None for a computed one; `parts` are all outputs of the encoding it is one of."""

    name: str
    expression: Expression
    dtype: Dtype | None = None
    several: Expression | None = None
    parts: tuple[Expression, ...] = ()


@dataclass(frozen=True, slots=True)
class MappedStep:
    """One step of the report: where it is, the columns it took, what it became, and what is worth knowing of it."""

    step: str
    columns: tuple[str, ...]
    became: str
    notes: tuple[str, ...]


@dataclass(slots=True)
class Importer:
    """One import: collects what was mapped, what was learned, and what could not be mapped."""

    mapped: list[MappedStep] = field(default_factory=list)
    learned: dict[Expression, Settings] = field(default_factory=dict)
    unmapped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def apply(self, step: Any, channels: Sequence[Channel], path: str) -> list[Channel]:
        """The step's outputs; of one that cannot be mapped, which is noted down, its inputs."""
        name = type(step).__name__
        if step is None or step == "passthrough":
            return list(channels)
        if step == "drop" or not channels:
            return []
        compose = _COMPOSED.get(name)
        if compose is not None:
            return compose(self, step, channels, path)
        refused = self.why_not(step)
        try:
            found = STEPS[name](self, step, channels) if refused is None else []
        except Unmapped as reason:
            refused = str(reason)
        if refused is not None:
            self.unmapped.append(f"`{path}` {refused}")
            return list(channels)
        became = ", ".join(dict.fromkeys(each.expression.operation.name for each in found)) or "nothing"
        self.mapped.append(MappedStep(path, tuple(each.name for each in channels), became, tuple(self.notes)))
        self.notes.clear()
        return found

    def why_not(self, step: Any) -> str | None:
        """Why a step cannot be mapped, as far as it can be told without its inputs; None where nothing forbids it."""
        name = type(step).__name__
        if name in _COMPOSED or step is None or step in ("passthrough", "drop"):
            return None
        if name not in STEPS:
            return "has no counterpart"
        return None if name in _STATELESS or hasattr(step, "n_features_in_") else "is not fitted"

    def refuse_what_was_not_mapped(self) -> None:
        """Raise InvalidDefinition naming every step that could not be mapped."""
        if self.unmapped:
            raise InvalidDefinition(
                f"{len(self.unmapped)} of scikit-learn's steps cannot be imported: {'; '.join(self.unmapped)}."
                f" Those that can: {', '.join(sorted({*STEPS, *_COMPOSED}))}",
                hint="convert the whole pipeline with skl2onnx and use it as a step: adapters.onnx_steps.onnx_step",
            )

    def fitted(self, operation: Operation, operand: Expression, learned: Settings, **settings: object) -> Expression:
        """An expression of an operation that has learned this."""
        expression = declare(operation, operand, **settings)
        self.learned[expression] = learned
        return expression

    def note(self, text: str) -> None:
        """Something of the current step that the report should say."""
        if text not in self.notes:
            self.notes.append(text)


Mapping_ = Callable[[Importer, Any, Sequence[Channel]], list[Channel]]


def _numbers(channels: Sequence[Channel]) -> list[Expression]:
    for each in channels:
        if each.expression.kind is not Kind.NUMBER:
            raise Unmapped(f"takes numbers, and `{each.name}` is a {each.expression.kind}")
    return [each.expression for each in channels]


def _computed(channels: Sequence[Channel], expressions: Sequence[Expression]) -> list[Channel]:
    return [Channel(each.name, expression) for each, expression in zip(channels, expressions, strict=True)]


def _shifted(importer: Importer, x: Expression, operation: Operation, offset: Any, scale: Any) -> Expression:
    """(x - offset) / scale; either may be None."""
    if offset is not None and scale is not None:
        return importer.fitted(operation, x, {"offset": float(offset), "scale": float(scale)})
    if offset is not None:
        return x - float(offset)
    return x if scale is None else x / float(scale)


def _of(values: Any, place: int) -> Any:
    return None if values is None else values[place]


def _standard(importer: Importer, step: Any, channels: Sequence[Channel]) -> list[Channel]:
    mean = step.mean_ if step.with_mean else None
    scale = step.scale_ if step.with_std else None
    xs = _numbers(channels)
    return _computed(
        channels,
        [_shifted(importer, x, number.STANDARDISE, _of(mean, at), _of(scale, at)) for at, x in enumerate(xs)],
    )


def _robust(importer: Importer, step: Any, channels: Sequence[Channel]) -> list[Channel]:
    ours = step.with_centering and step.with_scaling and not step.unit_variance
    as_learned = ours and tuple(step.quantile_range) == (25.0, 75.0)
    found = []
    for at, x in enumerate(_numbers(channels)):
        center, scale = _of(step.center_, at), _of(step.scale_, at)
        if as_learned:
            found.append(_shifted(importer, x, statistic.ROBUST, center, scale))
        else:
            centered = x if center is None else x - float(center)
            found.append(centered if scale is None else centered / float(scale))
    return _computed(channels, found)


def _min_max(importer: Importer, step: Any, channels: Sequence[Channel]) -> list[Channel]:
    low, high = (float(bound) for bound in step.feature_range)
    found = []
    for at, x in enumerate(_numbers(channels)):
        span = float(step.data_range_[at]) or 1.0
        scaled = importer.fitted(number.MIN_MAX, x, {"offset": float(step.data_min_[at]), "scale": span})
        if (low, high) != (0.0, 1.0):
            scaled = scaled * (high - low) + low
        found.append(scaled.clip(low, high) if step.clip else scaled)
    return _computed(channels, found)


def _max_abs(importer: Importer, step: Any, channels: Sequence[Channel]) -> list[Channel]:  # noqa: ARG001
    return _computed(channels, [x / float(step.scale_[at]) for at, x in enumerate(_numbers(channels))])


def _normalizer(importer: Importer, step: Any, channels: Sequence[Channel]) -> list[Channel]:  # noqa: ARG001
    xs = _numbers(channels)
    sizes = [x * x for x in xs] if step.norm == "l2" else [x.abs() for x in xs]
    norm = sizes[0]
    for size in sizes[1:]:
        norm = norm.maximum(size) if step.norm == "max" else norm + size
    norm = norm.sqrt() if step.norm == "l2" else norm
    return _computed(channels, [where(norm == 0, x, x / norm) for x in xs])


def _binarizer(importer: Importer, step: Any, channels: Sequence[Channel]) -> list[Channel]:  # noqa: ARG001
    return _computed(channels, [x > float(step.threshold) for x in _numbers(channels)])


def _polynomial(importer: Importer, step: Any, channels: Sequence[Channel]) -> list[Channel]:  # noqa: ARG001
    xs = _numbers(channels)
    found = []
    for powers in step.powers_.tolist():
        factors = [x for x, power in zip(xs, powers, strict=True) for _ in range(power)]
        product = factors[0] if factors else declare(number.CONSTANT, value=1.0)
        for factor in factors[1:]:
            product = product * factor
        found.append(Channel(product.text, product))
    return found


def _bins(importer: Importer, step: Any, channels: Sequence[Channel]) -> list[Channel]:  # noqa: ARG001
    found = []
    for at, x in enumerate(_numbers(channels)):
        inner = [float(edge) for edge in step.bin_edges_[at][1:-1]]
        bucket = x.bucket(inner) if inner else x * 0.0
        if step.encode == "ordinal":
            found.append(Channel(channels[at].name, bucket))
        else:
            found += [Channel(f"{channels[at].name}_{place}", bucket == place) for place in range(len(inner) + 1)]
    return found


def _power(importer: Importer, step: Any, channels: Sequence[Channel]) -> list[Channel]:
    bend = _yeo_johnson if step.method == "yeo-johnson" else _box_cox
    found = [bend(x, float(step.lambdas_[at])) for at, x in enumerate(_numbers(channels))]
    if step.standardize:
        scaler = step._scaler  # noqa: SLF001  # what it standardises by has no public name
        found = [
            _shifted(importer, x, number.STANDARDISE, scaler.mean_[at], scaler.scale_[at]) for at, x in enumerate(found)
        ]
    return _computed(channels, found)


def _yeo_johnson(x: Expression, exponent: float) -> Expression:
    """Yeo and Johnson (2000), equation 2.1."""
    rest = 2.0 - exponent
    above = x.log1p() if exponent == 0.0 else ((x + 1.0) ** exponent - 1.0) / exponent
    below = -((-x).log1p()) if rest == 0.0 else -((1.0 - x) ** rest - 1.0) / rest
    return where(x >= 0, above, below)


def _box_cox(x: Expression, exponent: float) -> Expression:
    return x.log() if exponent == 0.0 else (x**exponent - 1.0) / exponent


def _function(importer: Importer, step: Any, channels: Sequence[Channel]) -> list[Channel]:  # noqa: ARG001
    if step.func is None:
        return list(channels)
    known = _FUNCTIONS.get(getattr(step.func, "__name__", "")) if isinstance(step.func, np.ufunc) else None
    if known is None or step.kw_args:
        raise Unmapped(f"calls {step.func!r}; known are {', '.join(f'numpy.{name}' for name in _FUNCTIONS)}")
    return _computed(channels, [known(x) for x in _numbers(channels)])


_FUNCTIONS: dict[str, Callable[[Expression], Expression]] = {
    "log1p": Expression.log1p,
    "log": Expression.log,
    "exp": Expression.exp,
    "sqrt": Expression.sqrt,
    "absolute": Expression.abs,
    "square": lambda x: x**2,
    "negative": Expression.__neg__,
    "floor": Expression.floor,
    "ceil": Expression.ceil,
    "rint": Expression.round,
}


def _null_where_missing(channel: Channel, missing: Any) -> Expression:
    """The channel's expression, null where scikit-learn takes the value for missing."""
    x = channel.expression
    if missing is None or missing != missing or type(missing).__name__ == "NAType":  # NaN
        # NaN is a value here and missing there. Whole numbers and strings have none.
        return x.clean() if x.kind is Kind.NUMBER and (channel.dtype is None or channel.dtype in _FLOATS) else x
    if x.kind is not Kind.NUMBER:
        raise Unmapped(f"takes the string {missing!r} for missing")
    return x / (x != float(missing))  # a division by zero is null, and by one changes no bit


def _imputer(importer: Importer, step: Any, channels: Sequence[Channel]) -> list[Channel]:
    found, cleaned = [], [_null_where_missing(each, step.missing_values) for each in channels]
    for at, channel in enumerate(channels):
        value, x = step.statistics_[at], cleaned[at]
        if value is None or value != value:  # NaN: a column without a value is left out
            importer.note(f"`{channel.name}` had no value in training, so scikit-learn leaves it out")
            continue
        text = x.kind is Kind.STRING
        operation = words.IMPUTE_MOST_FREQUENT if text else _IMPUTERS.get(step.strategy, number.IMPUTE_MEAN)
        value = str(value) if text else float(value)
        constant = step.strategy == "constant"
        imputed = x.impute(value) if constant else importer.fitted(operation, x, {"value": value})
        found.append(Channel(channel.name, imputed))
    if step.add_indicator:
        found += _indicators(step.indicator_, channels, cleaned)
    return found


_IMPUTERS: Mapping[str, Operation] = {
    "mean": number.IMPUTE_MEAN,
    "median": number.IMPUTE_MEDIAN,
    "most_frequent": statistic.IMPUTE_MOST_FREQUENT_NUMBER,
}


def _missing_indicator(importer: Importer, step: Any, channels: Sequence[Channel]) -> list[Channel]:  # noqa: ARG001
    return _indicators(step, channels, [_null_where_missing(each, step.missing_values) for each in channels])


def _indicators(step: Any, channels: Sequence[Channel], cleaned: Sequence[Expression]) -> list[Channel]:
    return [Channel(f"missingindicator_{channels[at].name}", cleaned[at].is_null()) for at in step.features_.tolist()]


def _is_missing(category: Any) -> bool:
    return category is None or (isinstance(category, float) and math.isnan(category))


def _categories(step: Any, at: int, channel: Channel) -> list[Any]:
    """The categories of a column as Python values; strings for a string column, floats for numbers."""
    text = channel.expression.kind is Kind.STRING
    found = []
    for category in step.categories_[at].tolist():
        if not _is_missing(category) and text != isinstance(category, str):
            raise Unmapped(f"has the category {category!r} in `{channel.name}`, a {channel.expression.kind}")
        found.append(category if text or _is_missing(category) else float(category))
    if not text and len(found) > _LISTED_MAX:
        raise Unmapped(f"has {len(found)} numbers as categories of `{channel.name}`, at most {_LISTED_MAX} are taken")
    return found


def _without_nulls(x: Expression) -> Expression:
    """Of a comparison: 0 where it is null."""
    return x.impute(0.0) if x.nullable else x


def _one_hot(importer: Importer, step: Any, channels: Sequence[Channel]) -> list[Channel]:
    if step.handle_unknown == "error":
        importer.note("scikit-learn raises on an unknown category; the import gives zeros")
    if any(each is not None for each in getattr(step, "infrequent_categories_", None) or []):
        raise Unmapped("has infrequent categories")
    found = []
    for at, channel in enumerate(channels):
        categories = _categories(step, at, channel)
        dropped = None if step.drop_idx_ is None else step.drop_idx_[at]
        kept = [category for place, category in enumerate(categories) if place != dropped]
        cleaned = _null_where_missing(channel, None)
        parts = [
            cleaned.is_null() if _is_missing(each) else _without_nulls(channel.expression == each) for each in kept
        ]
        named = [Channel(f"{channel.name}_{each}", part) for each, part in zip(kept, parts, strict=True)]
        if kept and all(isinstance(each, str) for each in kept):
            several = importer.fitted(
                categorical.ONE_HOT_KNOWN, channel.expression, {"vocabulary": kept}, top_k=None, categories=kept
            )
            named = [replace(each, several=several, parts=tuple(parts)) for each in named]
        found += named
    return found


def _ordinal(importer: Importer, step: Any, channels: Sequence[Channel]) -> list[Channel]:
    unknown = step.unknown_value if step.handle_unknown == "use_encoded_value" else -1.0
    if step.handle_unknown == "error":
        importer.note("scikit-learn raises on an unknown category; the import gives -1")
    if any(each is not None for each in getattr(step, "infrequent_categories_", None) or []):
        raise Unmapped("has infrequent categories")
    found = []
    for at, channel in enumerate(channels):
        categories = _categories(step, at, channel)
        missing = step.encoded_missing_value if any(map(_is_missing, categories)) else unknown
        if not math.isfinite(float(unknown)) or not math.isfinite(float(missing)):
            raise Unmapped(f"encodes an unknown or missing value of `{channel.name}` as NaN; a constant must be finite")
        known = [each for each in categories if not _is_missing(each)]
        encode = _text_places if channel.expression.kind is Kind.STRING else _number_places
        found.append(Channel(channel.name, encode(importer, channel, known, float(unknown), float(missing))))
    return found


def _text_places(importer: Importer, channel: Channel, known: list[str], unknown: float, missing: float) -> Expression:
    index = importer.fitted(words.INDEX, channel.expression, {"vocabulary": known}, top_k=max(len(known), 1))
    if missing != words.NULL_CODE:
        index = where(index == words.NULL_CODE, missing, index)
    return index if unknown == words.OUT_OF_VOCABULARY else where(index == words.OUT_OF_VOCABULARY, unknown, index)


def _number_places(
    importer: Importer,  # noqa: ARG001  # as _text_places
    channel: Channel,
    known: list[float],
    unknown: float,
    missing: float,
) -> Expression:
    x = _null_where_missing(channel, None)
    place: Expression | float = unknown
    for at in reversed(range(len(known))):
        place = where(x == known[at], float(at), place)
    placed = place if isinstance(place, Expression) else x * 0.0 + unknown
    return placed.impute(missing) if placed.nullable else placed


def _target(importer: Importer, step: Any, channels: Sequence[Channel]) -> list[Channel]:
    if step.target_type_ not in ("binary", "continuous"):
        raise Unmapped(f"encodes a {step.target_type_} target; binary and continuous ones are taken")
    smoothing = 0.0 if isinstance(step.smooth, str) else float(step.smooth)
    if isinstance(step.smooth, str):
        importer.note(f'smooth="{step.smooth}" has no counterpart; fitted again, the import would smooth by 0')
    found = []
    for at, channel in enumerate(channels):
        if channel.expression.kind is not Kind.STRING:
            raise Unmapped(f"encodes the number `{channel.name}`; strings are taken")
        categories = _categories(step, at, channel)
        values = dict(zip(categories, step.encodings_[at].tolist(), strict=True))
        x = channel.expression
        for category in [each for each in categories if _is_missing(each)]:
            stand_in = _unused("missing", categories)
            x, values[stand_in] = x.impute(stand_in), values.pop(category)
        learned = {"categories": list(values), "values": list(values.values()), "prior": float(step.target_mean_)}
        folds = step.cv if isinstance(step.cv, int) else 5
        found.append(
            Channel(
                channel.name, importer.fitted(categorical.TARGET_ENCODE, x, learned, smoothing=smoothing, folds=folds)
            )
        )
    return found


def _unused(word: str, words_used: Sequence[Any]) -> str:
    while word in words_used:
        word += "_"
    return word


def _pipeline(importer: Importer, step: Any, channels: Sequence[Channel], path: str) -> list[Channel]:
    current, before = list(channels), len(importer.unmapped)
    for name, inner in step.steps:
        if len(importer.unmapped) == before:
            current = importer.apply(inner, current, _inside(path, name, inner))
        elif (reason := importer.why_not(inner)) is not None:  # what it would be given is not known any more
            importer.unmapped.append(f"`{_inside(path, name, inner)}` {reason}")
    return current


def _union(importer: Importer, step: Any, channels: Sequence[Channel], path: str) -> list[Channel]:
    weights = step.transformer_weights or {}
    return [
        _weighted(channel, weights.get(name))
        for name, inner in step.transformer_list
        for channel in importer.apply(inner, channels, _inside(path, name, inner))
    ]


def _column_transformer(importer: Importer, step: Any, channels: Sequence[Channel], path: str) -> list[Channel]:
    if not hasattr(step, "transformers_"):
        importer.unmapped.append(f"`{path}` is not fitted")
        return list(channels)
    weights = step.transformer_weights or {}
    return [
        _weighted(channel, weights.get(name))
        for name, inner, chosen in step.transformers_
        for channel in importer.apply(inner, _chosen(channels, chosen), _inside(path, name, inner))
    ]


def _weighted(channel: Channel, weight: float | None) -> Channel:
    return channel if weight is None else Channel(channel.name, channel.expression * float(weight))


def _inside(path: str, name: str, step: Any) -> str:
    kind = step if isinstance(step, str) or step is None else type(step).__name__
    return f"{path} / {name}: {kind}"


def _chosen(channels: Sequence[Channel], chosen: Any) -> list[Channel]:
    """The channels that a ColumnTransformer's column specification names."""
    if isinstance(chosen, slice):
        if isinstance(chosen.start, str) or isinstance(chosen.stop, str):
            names = [each.name for each in channels]
            start = 0 if chosen.start is None else names.index(chosen.start)
            stop = len(names) if chosen.stop is None else names.index(chosen.stop) + 1
            return list(channels[start:stop])
        return list(channels[chosen])
    listed = [chosen] if isinstance(chosen, str | int | np.integer) else list(chosen)
    if listed and isinstance(listed[0], bool | np.bool_):
        return [each for each, take in zip(channels, listed, strict=True) if take]
    by_name = {each.name: each for each in channels}
    return [by_name[each] if isinstance(each, str) else channels[int(each)] for each in listed]


STEPS: Mapping[str, Mapping_] = {
    "Binarizer": _binarizer,
    "FunctionTransformer": _function,
    "KBinsDiscretizer": _bins,
    "MaxAbsScaler": _max_abs,
    "MinMaxScaler": _min_max,
    "MissingIndicator": _missing_indicator,
    "Normalizer": _normalizer,
    "OneHotEncoder": _one_hot,
    "OrdinalEncoder": _ordinal,
    "PolynomialFeatures": _polynomial,
    "PowerTransformer": _power,
    "RobustScaler": _robust,
    "SimpleImputer": _imputer,
    "StandardScaler": _standard,
    "TargetEncoder": _target,
}
"""The classes that can be imported, by name."""
_COMPOSED: Mapping[str, Callable[[Importer, Any, Sequence[Channel], str], list[Channel]]] = {
    "ColumnTransformer": _column_transformer,
    "FeatureUnion": _union,
    "Pipeline": _pipeline,
}
_STATELESS = frozenset({"FunctionTransformer"})
