"""Operations on strings and moments against an independent computation of each value."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction import FeatureHasher
from sklearn.preprocessing import OneHotEncoder

from harness.examples import examples
from skewless.dtypes import Column, Dtype, column_of
from skewless.errors import InvalidDefinition
from skewless.transforms import Expression, Transform, column

NULL = -12345.0
A, B = (column(name, Dtype.STRING) for name in ("a", "b"))
AT, THEN = (column(name, Dtype.TIMESTAMP) for name in ("at", "then"))
WORDS = (
    st.none()
    | st.sampled_from(["a", "b", "ab", "A|b", "|", "\\", "\\|", "", "É", "\ud800", "💥"])
    | st.text(max_size=5)
)
PIECES = st.none() | st.text(alphabet="a|\\\\", max_size=3)
MOMENTS = st.none() | st.integers(-2_000_000_000_000_000, 4_000_000_000_000_000)
ZONES = ["America/New_York", "Asia/Kathmandu", "UTC"]
bounded = settings(max_examples=examples(30), deadline=None)
HARMLESS: dict[str, Column] = {
    "a": column_of(Dtype.STRING, ["a"]),
    "b": column_of(Dtype.STRING, ["a"]),
    "at": column_of(Dtype.TIMESTAMP, [0]),
    "then": column_of(Dtype.TIMESTAMP, [0]),
}


def run(expression: Expression, columns: Mapping[str, Sequence[object]]) -> list[float]:
    """The output, `NULL` where the expression is null; fitted on one harmless row."""
    output = expression.impute(NULL) if expression.nullable else expression
    fitted = Transform({"out": output}).fit(HARMLESS, 1)
    rows = len(next(iter(columns.values())))
    table = {name: column_of(HARMLESS[name].dtype, list(items)) for name, items in columns.items()}
    numbers: list[float] = fitted.prepare().apply(table, rows)[:, 0].tolist()
    return numbers


TEXT: list[tuple[Expression, Callable[[str], object]]] = [
    (A.contains("b"), lambda word: "b" in word),
    (A.starts_with("a"), lambda word: word.startswith("a")),
    (A.ends_with("b"), lambda word: word.endswith("b")),
    (A.is_in(["a", "", "💥"]), lambda word: word in {"a", "", "💥"}),
    (A.upper() == "AB", lambda word: word.upper() == "AB"),
    (A.replace("b", "xyz").length(), lambda word: len(word.replace("b", "xyz"))),
    (A.strip().lower().length(), lambda word: len(word.strip().lower())),
    (A.cast(Dtype.STRING).length(), len),
]


@bounded
@given(st.lists(WORDS, min_size=1, max_size=20))
@pytest.mark.parametrize(("expression", "oracle"), TEXT, ids=lambda value: str(getattr(value, "text", "")))
def test_a_function_of_a_string_is_that_of_python(
    expression: Expression, oracle: Callable[[str], object], words: list[str | None]
) -> None:
    expected = [NULL if word is None else float(oracle(word)) for word in words]  # type: ignore[arg-type]  # numbers
    assert run(expression, {"a": words}) == expected


def murmur3(data: bytes, seed: int) -> int:
    """MurmurHash3_x86_32 as its author published it."""

    def rotated(value: int, bits: int) -> int:
        return (value << bits | value >> (32 - bits)) & 0xFFFFFFFF

    hashed, whole = seed, len(data) // 4 * 4
    for start in range(0, whole, 4):
        block = int.from_bytes(data[start : start + 4], "little") * 0xCC9E2D51 & 0xFFFFFFFF
        hashed = rotated(hashed ^ rotated(block, 15) * 0x1B873593 & 0xFFFFFFFF, 13) * 5 + 0xE6546B64 & 0xFFFFFFFF
    tail = int.from_bytes(data[whole:], "little") * 0xCC9E2D51 & 0xFFFFFFFF
    hashed ^= (rotated(tail, 15) * 0x1B873593 & 0xFFFFFFFF) if data[whole:] else 0
    hashed ^= len(data)
    for shift, multiplier in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        hashed = (hashed ^ hashed >> shift) * multiplier & 0xFFFFFFFF
    return hashed ^ hashed >> 16


@bounded
@given(st.lists(WORDS, min_size=1, max_size=20), st.integers(1, 1_000), st.integers(0, 2**32 - 1))
def test_hashing_is_murmurhash3_of_utf8(words: list[str | None], buckets: int, seed: int) -> None:
    expected = [
        NULL if word is None else float(murmur3(word.encode("utf-8", "surrogatepass"), seed) % buckets)
        for word in words
    ]
    assert run(A.hash_bucket(buckets, seed=seed), {"a": words}) == expected


def test_hashing_finds_the_features_of_scikit_learns_hasher() -> None:
    words = ["red", "green", "blue", "", "é"]
    hashed = FeatureHasher(n_features=2**31 - 1, input_type="string").transform([[word] for word in words])
    # scikit-learn takes the absolute value of the signed hash; ours modulo 2**32 is the unsigned one.
    unsigned = [murmur3(word.encode(), 0) for word in words]
    assert hashed.indices.tolist() == [abs(h - 2**32 if h >= 2**31 else h) % (2**31 - 1) for h in unsigned]
    assert run(A.hash_bucket(2**20), {"a": words}) == [float(h % 2**20) for h in unsigned]


@bounded
@given(st.lists(st.tuples(PIECES, PIECES), min_size=1, max_size=8))
def test_a_cross_is_equal_exactly_where_all_its_strings_are(pairs: list[tuple[str | None, str | None]]) -> None:
    whole = [pair for pair in dict.fromkeys(pairs) if None not in pair]
    crossed = [_crossed(str(left), str(right)) for left, right in whole]
    assert len(set(crossed)) == len(whole)
    table = {"a": [left for left, _ in pairs], "b": [right for _, right in pairs]}
    for (left, right), text in zip(whole, crossed, strict=True):
        expected = [NULL if None in pair else float(pair == (left, right)) for pair in pairs]
        assert run(A.cross(B) == text, table) == expected


def _crossed(*words: str) -> str:
    return "|".join("".join("\\" + each if each in "|\\" else each for each in word) for word in words)


@bounded
@given(st.lists(st.none() | st.sampled_from("abcde"), min_size=1, max_size=30), st.integers(1, 5))
def test_one_hot_without_a_rest_is_scikit_learns_with_unknown_ignored(words: list[str | None], top_k: int) -> None:
    counted = Counter(word for word in words if word is not None)
    top = sorted(counted, key=lambda word: (-counted[word], word))[:top_k]
    transform = Transform({"out": A.one_hot(top_k=top_k, oov=False)})
    table = {"a": column_of(Dtype.STRING, list(words))}
    if not top:
        with pytest.raises(InvalidDefinition, match="hold no category"):
            transform.fit(table, len(words))
        return
    fitted = transform.fit(table, len(words))
    served = ["a", "b", "c", "d", "e", "z"]
    oracle = OneHotEncoder(categories=[top], handle_unknown="ignore", sparse_output=False).fit([[word] for word in top])
    actual = fitted.prepare().apply({"a": column_of(Dtype.STRING, [*served, None])}, 7)
    assert fitted.output_names == tuple(f"out[{word}]" for word in top)
    assert actual[:6].tolist() == oracle.transform([[word] for word in served]).tolist()
    assert not actual[6].any()


PARTS: list[tuple[Callable[[str], Expression], Callable[[datetime], float]]] = [
    (AT.minute, lambda at: at.minute),
    (AT.second, lambda at: at.second),
    (AT.day_of_month, lambda at: at.day),
    (AT.day_of_year, lambda at: at.timetuple().tm_yday),
    (AT.week_of_year, lambda at: at.isocalendar().week),
    (AT.quarter, lambda at: (at.month + 2) // 3),
    (AT.is_weekend, lambda at: float(at.weekday() >= 5)),
]


@bounded
@given(st.lists(MOMENTS, min_size=1, max_size=20), st.sampled_from(ZONES))
@pytest.mark.parametrize(("part", "oracle"), PARTS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_part_of_a_moment_is_that_of_datetime(
    part: Callable[[str], Expression], oracle: Callable[[datetime], float], moments: list[int | None], zone: str
) -> None:
    local = [None if moment is None else _local(moment, zone) for moment in moments]
    assert run(part(zone), {"at": moments}) == [NULL if at is None else float(oracle(at)) for at in local]


def _local(moment: int, zone: str) -> datetime:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=moment)).astimezone(ZoneInfo(zone))


@bounded
@given(st.lists(st.tuples(MOMENTS, MOMENTS), min_size=1, max_size=20))
def test_seconds_between_moments_and_since_1970_are_exact_to_float32(
    pairs: list[tuple[int | None, int | None]],
) -> None:
    table = {"at": [at for at, _ in pairs], "then": [then for _, then in pairs]}
    between = [NULL if None in pair else float(np.float32((pair[0] - pair[1]) / 1e6)) for pair in pairs]  # type: ignore[operator]  # None was just excluded
    assert run(AT.seconds_since(THEN), table) == pytest.approx(between, rel=1e-7)
    since = [NULL if at is None else float(np.float32(at / 1e6)) for at, _ in pairs]
    assert run(AT.cast(Dtype.FLOAT64), {"at": table["at"]}) == since


def test_seconds_between_the_ends_of_int64_do_not_wrap() -> None:
    table: dict[str, Sequence[object]] = {"at": [2**63 - 1, -(2**63)], "then": [-(2**63), 2**63 - 1]}
    assert run(AT.seconds_since(THEN), table) == pytest.approx([2**64 / 1e6, -(2**64) / 1e6], rel=1e-6)
