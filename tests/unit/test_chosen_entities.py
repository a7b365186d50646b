"""What the texts of a named entity mean in a view, and the keyed hash that stands for it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skewless.dtypes import Column, Dtype, column_of
from skewless.errors import InvalidRequest
from skewless.features.chosen_entities import ChosenEntities, row_hashes
from skewless.features.contract import JoinKey

KEY = b"k" * 32


def hashes_of(columns: dict[str, Column]) -> list[str | None]:
    rows = len(next(iter(columns.values())))
    return row_hashes(KEY, columns, np.arange(rows))


def test_a_text_is_the_value_that_the_join_key_has_of_it() -> None:
    chosen = ChosenEntities({"tail": "N1", "line": "7"})
    keys = (JoinKey("line", Dtype.INT64), JoinKey("tail", Dtype.STRING), JoinKey("origin", Dtype.STRING))
    assert chosen.values(keys) == {"line": 7, "tail": "N1"}


@pytest.mark.parametrize(
    ("dtype", "text"),
    [
        (Dtype.INT32, "2147483648"),
        (Dtype.INT64, "seven"),
        (Dtype.INT64, "7.0"),
        (Dtype.TIMESTAMP, "noon"),
        (Dtype.BYTES, "?"),
    ],
)
def test_a_text_that_is_no_value_of_the_join_key_is_refused_with_its_name(dtype: Dtype, text: str) -> None:
    with pytest.raises(InvalidRequest, match="`line`") as refused:
        ChosenEntities({"line": text}).values([JoinKey("line", dtype)])
    assert refused.value.path == "line"


@given(st.integers(-(2**31), 2**31 - 1))
def test_a_number_has_one_hash_in_integers_of_either_size(number: int) -> None:
    hashes = set(ChosenEntities({"line": str(number)}).hashes(KEY))
    for dtype in (Dtype.INT32, Dtype.INT64):
        assert hashes_of({"line": column_of(dtype, [number])})[0] in hashes


@given(st.text(max_size=20))
def test_a_text_is_found_as_a_text_and_rows_without_a_key_are_nobodys(text: str) -> None:
    found = hashes_of({"tail": column_of(Dtype.STRING, [text, None])})
    assert found[0] in ChosenEntities({"tail": text}).hashes(KEY)
    assert found[1] is None


def test_the_text_of_a_number_is_not_the_number_and_neither_is_its_bytes() -> None:
    as_text, as_number = (
        hashes_of({"k": column_of(Dtype.STRING, ["42"])}),
        hashes_of({"k": column_of(Dtype.INT64, [42])}),
    )
    assert as_text != as_number
    assert {*as_text, *as_number} <= set(ChosenEntities({"k": "42"}).hashes(KEY))


@given(st.lists(st.tuples(st.text(max_size=5), st.text(max_size=5)), min_size=1, max_size=8))
def test_different_entities_have_different_hashes_however_their_keys_are_cut(pairs: list[tuple[str, str]]) -> None:
    first, second = ([pair[place] for pair in pairs] for place in (0, 1))
    columns = {"a": column_of(Dtype.STRING, [*first]), "b": column_of(Dtype.STRING, [*second])}
    assert len(set(hashes_of(columns))) == len(set(pairs))


def test_another_key_or_another_join_key_gives_another_hash() -> None:
    chosen = ChosenEntities({"tail": "N1"})
    assert set(chosen.hashes(KEY)).isdisjoint(chosen.hashes(b"l" * 32))
    assert set(chosen.hashes(KEY)).isdisjoint(ChosenEntities({"nose": "N1"}).hashes(KEY))


def test_a_hash_says_nothing_of_the_value() -> None:
    (hashed,) = ChosenEntities({"tail": "N14228"}).hashes(KEY)
    assert "14228" not in hashed
    assert len(hashed) == 64
