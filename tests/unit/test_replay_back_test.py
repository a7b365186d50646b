"""A back-test's numbers: counted exactly, the same however traffic was cut, part by part."""

import json
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest

from skewless.canonical_json import Digest
from skewless.dtypes import Column, Dtype, column_of
from skewless.errors import InvalidRequest, LimitExceeded
from skewless.limits import REPLAY_ROWS_MAX, REPLAY_SLICE_VALUES_MAX
from skewless.replays import back_test
from skewless.replays.back_test import NO_OUTCOME, OTHER_OUTCOME, BackTest, BackTestResult, ScoredRows
from skewless.replays.slice_codes import SliceCodes
from skewless.training.slices import VALUES_MAX

GONE = "the bundle is gone"


def _rows(count: int, *, seed: int = 3, left_out: Sequence[int] = ()) -> ScoredRows:
    random = np.random.default_rng(seed)
    recorded = random.random(count, dtype=np.float32)
    other = np.clip(recorded + random.normal(0, 0.1, count), 0, 1).astype(np.float32)
    other[::7] = recorded[::7]
    other[list(left_out)] = np.nan
    carriers: list[object] = [None if each == 3 else f"C{each}" for each in random.integers(0, 4, count).tolist()]
    return ScoredRows(
        prediction_ids=[f"id-{number}" for number in range(count)],
        as_of=np.arange(count, dtype=np.int64),
        bundles=[Digest("a" * 64)] * count,
        roles=["live"] * count,
        rungs=["normal"] * count,
        recorded=recorded,
        recorded_positive=recorded >= 0.5,
        other=other,
        other_positive=other >= 0.5,
        outcomes=random.integers(-1, 2, count).astype(np.int8),
        left_out=[GONE if row in left_out else "" for row in range(count)],
        slices={
            "carrier": column_of(Dtype.STRING, carriers),
            "distance": column_of(Dtype.FLOAT32, [float(each) for each in random.uniform(0, 1_500, count)]),
        },
    )


def _part(rows: ScoredRows, start: int, stop: int) -> ScoredRows:
    here = slice(start, stop)
    return ScoredRows(
        **{
            name: getattr(rows, name)[here]
            for name in (
                "prediction_ids",
                "as_of",
                "bundles",
                "roles",
                "rungs",
                "recorded",
                "recorded_positive",
                "other",
                "other_positive",
                "outcomes",
                "left_out",
            )
        },
        slices={name: Column(each.dtype, each.values[here], each.valid[here]) for name, each in rows.slices.items()},
    )


def _result(*parts: ScoredRows, slices: Sequence[str] = ()) -> BackTestResult:
    test = BackTest([SliceCodes.parse(each) for each in slices])
    for part in parts:
        test.add(part)
    return test.result()


def test_the_result_is_the_same_however_the_traffic_was_cut() -> None:
    rows = _rows(500, left_out=[4, 90])
    slices = ("carrier", "distance:500,1000")
    whole = _result(rows, slices=slices)
    cuts = [0, 1, 7, 200, 201, 500]
    pieces = [_part(rows, start, stop) for start, stop in pairwise(cuts)]
    assert _result(*pieces, slices=slices) == whole
    assert json.loads(json.dumps(whole.to_json(), allow_nan=False)) == whole.to_json()


def test_every_row_is_counted_once_and_those_left_out_with_their_reason() -> None:
    rows = _rows(100, left_out=[0, 1, 2])
    found = _result(rows)
    assert (found.rows, found.left_out) == (100, {GONE: 3})
    assert found.bundles == {"a" * 64: 100}
    assert found.scores is not None
    kept = slice(3, None)
    changed = rows.recorded_positive[kept] != rows.other_positive[kept]
    assert found.scores.rows == 97
    assert found.scores.label_changes == int(changed.sum())
    assert found.scores.to_positive == int((changed & rows.other_positive[kept]).sum())
    assert found.scores.equal == int((rows.recorded[kept] == rows.other[kept]).sum()) > 10
    assert sum(found.scores.recorded_histogram) == sum(found.scores.other_histogram) == 97
    assert sum(found.scores.distances.values()) == 97
    assert found.scores.quantiles[4] == pytest.approx(
        np.median(rows.other[kept].astype(np.float64) - rows.recorded[kept])
    )
    assert found.scores.correlation == pytest.approx(np.corrcoef(rows.recorded[kept], rows.other[kept])[0, 1])
    assert (found.outcomes, found.positives) == (
        int((rows.outcomes[kept] != NO_OUTCOME).sum()),
        int((rows.outcomes[kept] == 1).sum()),
    )


def test_outcomes_that_are_neither_class_are_counted_and_judge_nobody() -> None:
    rows = _rows(20)
    rows.outcomes[:] = OTHER_OUTCOME
    found = _result(rows)
    assert (found.outcomes, found.other_outcomes, found.metrics) == (0, 20, ())


def test_nothing_at_all_and_nothing_scored_are_results_too() -> None:
    assert _result().scores is None
    nothing = _result(_rows(3, left_out=[0, 1, 2]), slices=["carrier"])
    assert (nothing.scores, nothing.metrics, nothing.slices) == (None, (), ())


def test_parts_of_a_slice_hold_all_rows_and_their_own_metrics() -> None:
    rows = _rows(400)
    found = _result(rows, slices=["carrier", "distance:500,1000"])
    parts: dict[str, dict[str, int]] = {}
    for each in found.slices:
        parts.setdefault(each.slice, {})[each.part] = each.scores.rows
    assert all(sum(own.values()) == 400 for own in parts.values())
    assert set(parts["carrier"]) == {"C0", "C1", "C2", "(null)"}
    assert list(parts["distance"]) == ["below 500", "500 to 1000", "1000 and above"]
    first = next(each for each in found.slices if each.part == "C1")
    mask = rows.slices["carrier"].values == "C1"
    assert first.scores.rows == int(mask.sum())
    assert first.scores.recorded_mean == pytest.approx(float(rows.recorded[mask].mean()), abs=1e-6)
    assert first.outcomes == int((rows.outcomes[mask] != NO_OUTCOME).sum())


def test_rare_values_and_values_beyond_the_bound_are_told_together() -> None:
    codes = SliceCodes("tail")
    names = [f"N{number}" for number in range(REPLAY_SLICE_VALUES_MAX + 50)]
    found = codes.codes(column_of(Dtype.STRING, [*names, "N7", "N7", None]))
    parts = {name: int(mask.sum()) for name, mask in codes.parts(found)}
    assert len(parts) == VALUES_MAX + 1
    assert parts["N7"] == 3
    assert sum(parts.values()) == len(names) + 3


def test_numbers_that_are_none_and_nulls_have_parts_of_their_own() -> None:
    column = column_of(Dtype.FLOAT64, [float("nan"), 1.0, None, float("nan"), 5.0])
    for text in ("x", "x:2"):
        codes = SliceCodes.parse(text)
        parts = {name: mask.tolist() for name, mask in codes.parts(codes.codes(column))}
        assert parts["(not a number)"] == [True, False, False, True, False]
        assert parts["(null)"] == [False, False, True, False, False]


@pytest.mark.parametrize("text", ["", ":1", "x:a", "x:2,1", "x:1,1", "x:nan", "x:inf"])
def test_a_slice_that_is_no_slice_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="names no slice"):
        SliceCodes.parse(text)


def test_a_column_that_cannot_be_cut_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="column `x` is bytes"):
        SliceCodes("x").codes(column_of(Dtype.BYTES, [b"a"]))
    with pytest.raises(InvalidRequest, match="column `x` is string"):
        SliceCodes("x", (1.0,)).codes(column_of(Dtype.STRING, ["a"]))


def test_more_traffic_than_can_be_held_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert REPLAY_ROWS_MAX > 10_000_000
    monkeypatch.setattr(back_test, "REPLAY_ROWS_MAX", 150)
    with pytest.raises(LimitExceeded, match="more than 150 predictions"):
        _result(_rows(100), _rows(100))
