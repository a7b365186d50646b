"""The point-in-time engine against twenty obvious lines, on random histories of three views with keys of their own.

What histories hold: rows out of order, late rows, rows known before their time (forecasts), corrections, exact
duplicates, ages on both edges of a ttl, entities that nobody wrote, keys that are null, and a source without created
times. Both kinds of knowledge, asked at once and in parts.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from skewless.adapters.duckdb_point_in_time import OfflineSession, features_at
from skewless.canonical_json import Digest
from skewless.dtypes import Dtype, column_of, to_python
from skewless.features.contract import FeatureContract, FeatureField, JoinKey, ViewRead
from skewless.features.frame import NO_EVENT_TIME, STATUS_CODES, FeatureFrame
from skewless.features.point_in_time import Known, OfflineSource
from skewless.features.visibility import Status
from skewless.parity.evidence import take

MICROS = pa.timestamp("us", tz="UTC")
STATION = JoinKey("station", Dtype.STRING, nullable=True)
LINE = JoinKey("line", Dtype.INT64, nullable=True)
VIEWS = (
    ViewRead("one", (STATION,), 5, (FeatureField("f", Dtype.INT64), FeatureField("g", Dtype.STRING))),
    ViewRead("two", (LINE, STATION), 0, (FeatureField("f", Dtype.FLOAT32),)),
    ViewRead("none", (), 3, (FeatureField("f", Dtype.BOOL),)),
)
UNDATED = "none"
"""The view whose source says nothing of created times: a row is known at its event time."""
CONTRACT = FeatureContract("p", VIEWS, (), Digest("0" * 64))
ARROW = {Dtype.INT64: pa.int64(), Dtype.STRING: pa.string(), Dtype.FLOAT32: pa.float32(), Dtype.BOOL: pa.bool_()}
VALUES: dict[Dtype, list[Any]] = {
    Dtype.INT64: [None, 0, 1, 2**53 + 1],
    Dtype.STRING: [None, "", "a", "süd"],
    Dtype.FLOAT32: [None, 0.5, 1.5],
    Dtype.BOOL: [None, True, False],
}
KEYS: dict[str, list[Any]] = {"station": ["a", "ü"], "line": [-1, 2**40]}

Row = dict[str, Any]


def _rows(view: ViewRead) -> st.SearchStrategy[list[Row]]:
    fields = {key.name: st.sampled_from([*KEYS[key.name], None]) for key in view.join_keys}
    fields |= {each.name: st.sampled_from(VALUES[each.dtype]) for each in view.features}
    row = st.fixed_dictionaries({**fields, "event": st.integers(0, 7), "late": st.integers(-2, 4)})

    def both_times(row: Row) -> tuple[Any, ...]:
        late = row["late"] if view.name != UNDATED else 0
        return (*(row[key.name] for key in view.join_keys), row["event"], late)

    # Of rows with both times equal any may be the answer, so such ties are whole duplicates here.
    sizes = (12, 40) if view.name != UNDATED else (4, 8)
    rows = st.lists(row, min_size=sizes[0], max_size=sizes[1], unique_by=both_times)
    return st.tuples(rows, st.integers(0, 3)).map(lambda made: made[0] + made[0][: made[1]])


HISTORIES = st.fixed_dictionaries({view.name: _rows(view) for view in VIEWS})
QUESTIONS: list[Row] = [
    {"station": station, "line": line, "as_of": as_of}
    for station in [*KEYS["station"], "unknown", None]
    for line in [*KEYS["line"], None]
    for as_of in range(-1, 16)
]
"""Every entity, known or not, at every moment."""


def _naive(view: ViewRead, rows: list[Row], question: Row, known: Known) -> tuple[dict[str, Any], Status | None, int]:
    """The rule, said again as plainly as possible: values, status (None: by value) and event time."""
    as_of, nothing = question["as_of"], {each.name: None for each in view.features}
    keys = [key.name for key in view.join_keys]
    if any(question[key] is None for key in keys):
        return nothing, Status.MISSING, NO_EVENT_TIME
    seen = [row for row in rows if all(row[key] == question[key] for key in keys) and row["event"] <= as_of]
    if known is Known.THEN and view.name != UNDATED:
        seen = [row for row in seen if row["event"] + row["late"] <= as_of]
    if not seen:
        return nothing, Status.MISSING, NO_EVENT_TIME
    newest = max(seen, key=lambda row: (row["event"], row["event"] + row["late"]))
    if view.ttl_us and as_of - newest["event"] > view.ttl_us:
        return nothing, Status.STALE, newest["event"]
    return {each.name: newest[each.name] for each in view.features}, None, newest["event"]


def _sources(histories: dict[str, list[Row]], folder: Path) -> dict[str, OfflineSource]:
    sources = {}
    for view in VIEWS:
        rows = histories[view.name]
        columns = {key.name: pa.array([row[key.name] for row in rows], ARROW[key.dtype]) for key in view.join_keys}
        columns |= {each.name: pa.array([row[each.name] for row in rows], ARROW[each.dtype]) for each in view.features}
        columns["happened"] = pa.array([row["event"] for row in rows], MICROS)
        dated = view.name != UNDATED
        if dated:
            columns["known"] = pa.array([row["event"] + row["late"] for row in rows], MICROS)
        path = folder / f"{view.name}.parquet"
        pq.write_table(pa.table(columns), path)
        sources[view.name] = OfflineSource(view.name, str(path), "happened", "known" if dated else None)
    return sources


def _check(frame: FeatureFrame, histories: dict[str, list[Row]], questions: list[Row], known: Known) -> None:
    for view in VIEWS:
        for row, question in enumerate(questions):
            values, status, event_time = _naive(view, histories[view.name], question, known)
            assert frame.event_times[view.name][row] == event_time
            for feature in view.features:
                name = f"{view.name}__{feature.name}"
                told = status or (Status.NULL if values[feature.name] is None else Status.OK)
                assert to_python(frame.columns[name])[row] == values[feature.name], (known, view.name, question)
                assert STATUS_CODES[frame.statuses[name][row]] is told


@pytest.mark.parametrize("known", Known)
# Without shrinking: a history is small already, and each step would cost two runs of the engine.
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck), phases=(Phase.reuse, Phase.generate))
@given(histories=HISTORIES)
def test_the_engine_gives_what_the_naive_join_gives(
    known: Known, tmp_path_factory: pytest.TempPathFactory, histories: dict[str, list[Row]]
) -> None:
    questions = QUESTIONS
    sources = _sources(histories, tmp_path_factory.mktemp("history"))
    keys = {
        key.name: column_of(key.dtype, [question[key.name] for question in questions]) for key in CONTRACT.join_keys
    }
    as_of = np.array([question["as_of"] for question in questions], dtype=np.int64)
    _check(features_at(CONTRACT, sources, keys, as_of, known), histories, questions, known)
    half, total = len(questions) // 2, len(questions)
    with OfflineSession(CONTRACT, sources) as session:
        # A few questions, then so many that timelines are kept, then a few of those.
        many = {name: take(each, np.arange(5_000) % total) for name, each in keys.items()}
        for start, stop in ((0, half), (half, total)):
            if start:
                session.features_at(many, as_of[np.arange(5_000) % total], known)
            part = {
                name: type(each)(each.dtype, each.values[start:stop], each.valid[start:stop])
                for name, each in keys.items()
            }
            _check(session.features_at(part, as_of[start:stop], known), histories, questions[start:stop], known)


def test_versions_are_those_of_the_asked_rows_in_order_and_bounded(tmp_path: Path) -> None:
    rows = [{"station": "a", "f": number, "g": "x", "event": 3, "late": number} for number in range(20)]
    rows += [
        {"station": "b", "f": 7, "g": "y", "event": 3, "late": 0},
        {"station": None, "f": 9, "g": "", "event": 3, "late": 0},
    ]
    sources = _sources({"one": rows, "two": [], "none": []}, tmp_path)
    keys = {"station": column_of(Dtype.STRING, ["b", "a", None]), "line": column_of(Dtype.INT64, [1, 1, 1])}
    with OfflineSession(CONTRACT, sources) as session:
        asked, times = np.array([1, 0, 1, 2]), np.array([3, 3, 3, 3])
        found = session.versions(VIEWS[0], keys, asked, times)
        marks = session.watermarks()
    assert found.row.tolist() == [0, *[1] * 16]
    assert found.columns["f"].values.tolist() == [7, *range(4, 20)]
    assert found.created_time.tolist() == [3, *range(7, 23)]
    assert found.raw["f"].values.tolist() == [7.0, *map(float, range(4, 20))]
    assert (marks["one"].event_time, marks["one"].created_time) == (3, 22)
    assert marks["two"].event_time == NO_EVENT_TIME
