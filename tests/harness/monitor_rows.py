"""A row in every table of the monitors, of the quality gates and of schedules."""

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from skewless.canonical_json import digest
from skewless.model_metrics.compute import Computed
from skewless.model_metrics.records import MetricRecord
from skewless.quality.verdict import Decision
from skewless.registry import drift_tables, parity_tables
from skewless.registry.database import WRITES
from skewless.registry.model_metrics import ModelMetrics
from skewless.registry.quality_results import QualityResults, QuarantineRecord, ResultRecord, RunRecord
from skewless.registry.schedules import Schedules
from skewless.registry.tables import Base
from skewless.timestamps import Micros

A = digest("a")
MODEL = {"endpoint_name": "one", "bundle_digest": A, "role": "live"}


def fill_monitors(engine: Engine) -> None:
    """Of an endpoint `one` and a bundle `a`."""
    with Session(engine.execution_options(**{WRITES: True})) as session, session.begin():
        session.add_all([*_drift(), *_parity()])
    metrics = ModelMetrics(engine)
    metrics.note_outcomes("one", digest("settings"), {"2013-05-01": 3}, frozenset(), afresh=True)
    judged = MetricRecord(
        "one", A, "live", "", Micros(0), 1, "auroc", False, 0.7, 0.6, 0.8, "pointwise", None, 9, 8, None, 0.9, True,
        Micros(5),
    )  # fmt: skip
    metrics.replace_period("one", Micros(0), Computed(9, stale=False, due_us=None, computed_time=Micros(5)), (judged,))
    result = ResultRecord(
        0, "expect_x", {"column": "temp"}, "critical", "quarantine", False, 1, 0.25, None, "told", "hint"
    )
    run = RunRecord(
        "run-1", "weather", "weather", digest("suite"), "materialize", "rows", 1, 2, 3, 4, 1, Decision.QUARANTINE,
        (result,),
    )  # fmt: skip
    schedules = Schedules(engine)
    schedules.follow({"weather": "15 * * * *"})
    schedules.alive("scheduler-1", 2)
    held = QuarantineRecord("batch-1", "run-1", "weather", "weather/batch-1.parquet", digest("rows"), 1, 2, 2)
    QualityResults(engine).add(run, held)


def _drift() -> list[Base]:
    return [
        drift_tables.DriftEndpointRow(
            endpoint_name="one", newest_us=1, sealed_us=0, is_live=True, rows=1, late_rows=0, uncounted_rows=0,
            problem=None, changed_time=1,
        ),
        drift_tables.DriftTallyRow(
            **MODEL, slice="", window_start_us=0, window_us=1, layout=A, rows=1, late_rows=0, recounted=False,
            shapes=None, counts=b"x",
        ),
        drift_tables.DriftWordRow(
            endpoint_name="one", bundle_digest=A, feature="f", word="w", rows=1, over=0, first_us=0, last_us=0
        ),
        drift_tables.DriftWindowRow(
            **MODEL, window_start_us=0, window_us=1, rows=1, level=0.5, leading="f", is_open=False, grade=None,
            breaks=None,
        ),
        drift_tables.DriftAlarmRow(
            id="i", **MODEL, opened_us=1, since_us=0, closed_us=None, peak=1.0, calibrated=True, moved=[], report=None,
            told_time=1,
        ),
        drift_tables.DriftStateRow(
            **MODEL, window_us=1, slices=[], next_start_us=1, grade="training", height=None, promise_days=30.0,
            streams=0, achieved=None, history_start_us=None, history_end_us=None, levels={}, problem=None,
            computed_time=1, version=1, state={}, calibration=b"x",
        ),
        drift_tables.DriftPartialRow(segment="s", table_name="t", first=0, ids=b"x", changed_time=1),
        drift_tables.DriftLogTableRow(path="p", files=[], started_time=1, skipped_segments=0),
        drift_tables.DriftRecountRow(**MODEL, since_us=0, until_us=1, next_us=1, rows=0, changed_time=1),
    ]  # fmt: skip


def _parity() -> list[Base]:
    found = {"endpoint": "one", "period_start_us": 0, "pass_name": "then", "bundle_digest": A, "view": "", "cause": ""}
    return [
        parity_tables.ParityPassRow(
            endpoint="one", pass_name="then", start_us=0, end_us=1, steps={"0": 1}, rows=1, checked_time=1
        ),
        parity_tables.ParityResultRow(
            **found, stratum="entity", level="values", units=2, mismatches=1, entities=1, rate=0.5, low=0.1, high=0.9,
            unit_groups=None, mismatch_groups=b"x",
        ),
        parity_tables.ParityExampleRow(**found, prediction_id="p", explanation={"why": "told"}),
        parity_tables.ParityStateRow(endpoint="one", state={}, changed_time=1),
    ]  # fmt: skip
