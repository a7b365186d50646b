"""Row ranges are sets of row numbers, whatever the order in which rows come."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from skewless.registry.row_ranges import RowRange, joined, rows_in, without

SPANS = st.tuples(st.integers(0, 40), st.integers(1, 12)).map(lambda span: (span[0], span[0] + span[1]))


def rows(ranges: list[RowRange]) -> set[int]:
    return {row for first, end in ranges for row in range(first, end)}


@given(st.lists(SPANS, max_size=12), SPANS)
def test_ranges_hold_what_a_set_of_rows_would(taken: list[RowRange], asked: RowRange) -> None:
    ranges: list[RowRange] = []
    for span in taken:
        ranges = joined(ranges, *span)
    assert rows(ranges) == rows(taken)
    assert rows_in(ranges) == len(rows(taken))
    assert all(before[1] < after[0] for before, after in pairwise(ranges)), "no two touch"
    left = list(without(ranges, *asked))
    assert rows(left) == rows([asked]) - rows(taken)
    assert rows_in(left) == len(rows(left)), "nothing is left twice"
