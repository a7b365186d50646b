"""Causes of stored features from facts alone: what no store can be made to show, and when runs have written a row."""

import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from skewless.canonical_json import Digest
from skewless.dtypes import Dtype, column_of
from skewless.features.compiled_registry import CompiledRegistry
from skewless.features.contract import FeatureContract, FeatureField, JoinKey, ViewRead
from skewless.features.frame import NO_EVENT_TIME, STATUS_CODE, FeatureFrame
from skewless.features.visibility import Status
from skewless.limits import MATERIALIZATION_S_MAX
from skewless.parity.causes import ACCOUNTS, CAUSES, NO_CAUSE, PENDING, Cause
from skewless.parity.compare import equal_columns
from skewless.parity.definitions import changed_views
from skewless.parity.evidence import NOT_INGESTED, NOT_ONLINE, Versions, Watermark, Written
from skewless.parity.recompute import with_overrides
from skewless.parity.stored_causes import ViewState, differing, stored_causes
from skewless.timestamps import SECOND_US

RUN_US = int(MATERIALIZATION_S_MAX * SECOND_US)
AS_OF = 10 * RUN_US
VIEW = ViewRead("v", (JoinKey("k", Dtype.STRING),), 0, (FeatureField("f", Dtype.INT64), FeatureField("g", Dtype.INT64)))


def _frame(f: Any, g: Any, time: int, status: Status = Status.OK) -> FeatureFrame:
    columns = {"v__f": column_of(Dtype.INT64, [f]), "v__g": column_of(Dtype.INT64, [g])}
    statuses = {name: np.array([STATUS_CODE[status]], dtype=np.uint8) for name in columns}
    return FeatureFrame(1, columns, statuses, {"v": np.array([time], dtype=np.int64)})


def _versions(*lines: tuple[int, int, Any, Any]) -> Versions:
    """Of (event time, created time, f, g)."""
    event, created, f, g = zip(*lines, strict=True) if lines else ((), (), (), ())
    return Versions(
        np.zeros(len(lines), dtype=np.int64),
        np.array(event, dtype=np.int64),
        np.array(created, dtype=np.int64),
        {"f": column_of(Dtype.INT64, f), "g": column_of(Dtype.INT64, g)},
        {},
    )


def _causes(served: FeatureFrame, offline: FeatureFrame, versions: Versions | None, **known: Any) -> list[str]:
    nowhere = np.zeros(1, dtype=np.bool_)
    state = ViewState(
        **{"changed": False, "written": None, "watermark": None, "lower_rung": nowhere, "under_other_key": nowhere}
        | known
    )
    different = differing(VIEW, served, offline, equal_columns(served, offline))
    rows = np.zeros(1, dtype=np.int64)
    found = stored_causes(
        VIEW, rows, served, offline, np.array([AS_OF]), different=different, versions=versions, state=state
    )
    names = {NO_CAUSE: "", PENDING: "pending"}
    return [names[code] if code in names else CAUSES[code].value for code in (int(each[0]) for each in found.values())]


def test_what_no_cause_explains_is_unknown() -> None:
    odd = _frame(None, None, 5, Status.NULL)
    assert _causes(odd, _frame(None, None, 5, Status.MISSING), _versions((5, 5, None, None))) == ["unknown"] * 2


def test_a_row_of_the_future_is_leaked_only_where_all_of_it_was_served() -> None:
    later = _versions((8, AS_OF + 1, 7, 9), (3, 3, 1, 1))
    offline = _frame(1, 1, 3)
    assert _causes(_frame(7, 9, 8), offline, later) == ["future_leak"] * 2
    # The row as it is now is not the one that was served: it was written anew.
    assert _causes(_frame(7, 8, 8), offline, later) == ["restated_row"] * 2


def test_a_column_that_did_not_change_has_no_cause_beside_one_that_was_corrected() -> None:
    versions = _versions((5, 5, 1, 4), (5, 6, 2, 4))
    assert _causes(_frame(1, 4, 5), _frame(2, 4, 5), versions) == ["equal_timestamp_correction", ""]


def test_two_faults_in_one_view_are_told_apart_by_column() -> None:
    versions = _versions((5, 5, 1, 2**53 + 1), (5, 6, 2, 2**53 + 1))
    assert _causes(_frame(1, 2**53, 5), _frame(2, 2**53 + 1, 5), versions) == [
        "equal_timestamp_correction",
        "declared_precision",
    ]


def test_a_row_beyond_the_watermark_is_pending_until_the_source_has_passed_it() -> None:
    served, offline = _frame(1, 1, 8), _frame(2, 2, 3)
    versions = _versions((3, 3, 2, 2))
    assert _causes(served, offline, versions, watermark=Watermark(7, 7)) == ["pending"] * 2
    assert _causes(served, offline, versions, watermark=Watermark(8, 8)) == ["extra_online"] * 2
    assert _causes(served, offline, versions, watermark=Watermark(7, 7), changed=True) == ["definition_changed"] * 2


def test_an_override_is_not_compared() -> None:
    assert _causes(_frame(1, 1, 5, Status.OVERRIDE), _frame(2, 2, 3), _versions()) == ["", ""]


def test_a_view_that_is_only_pushed_to_is_behind_and_not_lost() -> None:
    versions = _versions((3, 3, 1, 1), (5, 5, 2, 2))
    assert _causes(_frame(1, 1, 3), _frame(2, 2, 5), versions) == ["materialization_lag"] * 2
    absent = _frame(None, None, NO_EVENT_TIME, Status.MISSING)
    assert _causes(absent, _frame(2, 2, 5), versions) == ["missing_online"] * 2


class _Accepted:
    """Implements `IngestTimes`: by the moment at which a batch was accepted, when it was online."""

    def __init__(self, online: dict[int, int]) -> None:
        self._online = online

    def online_times(self, view: str, created_times: Any) -> Any:
        assert view == "v"
        return np.array([self._online.get(each, NOT_INGESTED) for each in created_times.tolist()], dtype=np.int64)


@pytest.mark.parametrize(("online", "cause"), [(AS_OF + 1, "lag"), (NOT_ONLINE, "lag"), (AS_OF, "fault")])
def test_a_row_that_was_accepted_and_not_online_yet_is_behind_and_not_lost(online: int, cause: str) -> None:
    ingested = _Accepted({AS_OF - 1: online})
    lag = ["materialization_lag"] * 2
    absent = _frame(None, None, NO_EVENT_TIME, Status.MISSING)
    first = _versions((5, AS_OF - 1, 2, 2))
    found = _causes(absent, _frame(2, 2, 5), first, ingested=ingested)
    assert found == (lag if cause == "lag" else ["missing_online"] * 2)
    # A restated row, of which the older version was served.
    restated = _versions((5, 6, 1, 1), (5, AS_OF - 1, 2, 2))
    found = _causes(_frame(1, 1, 5), _frame(2, 2, 5), restated, ingested=ingested)
    assert found == (lag if cause == "lag" else ["equal_timestamp_correction"] * 2)
    # A late row of a view that is materialized too.
    late = _versions((3, 3, 1, 1), (5, AS_OF - 1, 2, 2))
    written = Written.of(((0, 8 * RUN_US),))
    found = _causes(_frame(1, 1, 3), _frame(2, 2, 5), late, ingested=ingested, written=written)
    assert found == (lag if cause == "lag" else ["late_row"] * 2)


def _covers(runs: list[tuple[int, int]], event: int, created: int, as_of: int) -> bool:
    return any(start <= event <= end and created <= end and end + RUN_US <= as_of for start, end in runs)


def _passed(runs: list[tuple[int, int]], event: int, created: int, as_of: int) -> bool:
    return any(start <= event <= end < created and end + RUN_US <= as_of for start, end in runs)


@pytest.mark.parametrize("seed", range(6))
def test_what_runs_have_written_equals_the_plain_rule(seed: int) -> None:
    rng = random.Random(seed)
    runs = [(rng.randrange(60), rng.randrange(60)) for _ in range(rng.choice([1, 2, 3, 9, 17]))]
    written = Written.of(tuple(runs))
    rows = [(rng.randrange(70), rng.randrange(70), RUN_US + rng.randrange(-5, 70)) for _ in range(300)]
    event, created, as_of = (np.array(each, dtype=np.int64) for each in zip(*rows, strict=True))
    covered, passed = written.covers(event, created, as_of), written.passed(event, created, as_of)
    assert covered.tolist() == [_covers(runs, *row) for row in rows]
    assert passed.tolist() == [_passed(runs, *row) for row in rows]
    assert covered.any() or seed


def _contract(ttl_us: int = 0, digest: str = "a", **more: Any) -> FeatureContract:
    view = ViewRead("v", VIEW.join_keys, ttl_us, VIEW.features)
    other = ViewRead("w", VIEW.join_keys, 0, (FeatureField("n", Dtype.INT64),))
    return FeatureContract("p", (view, other), (), Digest(digest * 64), **more)


def test_only_the_view_that_changed_is_named() -> None:
    registry = CompiledRegistry("p", {"service": _contract(ttl_us=5 * SECOND_US, digest="b")}, {}, {})
    assert changed_views(_contract(), registry) == {"v": "ttl of view `v` was unlimited, is 5 s"}
    assert changed_views(_contract(), CompiledRegistry("p", {"service": _contract()}, {}, {})) == {}
    assert changed_views(_contract(), None) == {}


def test_a_change_that_contracts_do_not_hold_may_be_of_any_view() -> None:
    registry = CompiledRegistry("p", {"service": _contract(digest="b")}, {}, {})
    assert set(changed_views(_contract(), registry)) == {"v", "w"}


def test_the_order_of_causes_is_their_precedence() -> None:
    assert CAUSES[0] is Cause.DEFINITION_CHANGED
    assert CAUSES[-1] is Cause.UNKNOWN


def test_every_cause_is_documented_in_order_with_its_kind() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "parity.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (timing|fault) \|", guide, re.MULTILINE)
    assert rows == [(each.value, ACCOUNTS[each].kind.value) for each in CAUSES]


def test_values_of_requests_stand_in_the_offline_rows_too_and_are_counted() -> None:
    served, offline = _frame(7, 8, 5, Status.OVERRIDE), _frame(1, None, 5)
    found, count = with_overrides(served, offline)
    assert count == 2
    assert [column.values.tolist() for column in found.columns.values()] == [[7], [8]]
    assert not any(mask.any() for mask in differing(VIEW, served, found, equal_columns(served, found)).values())
    assert with_overrides(offline, offline) == (offline, 0)
