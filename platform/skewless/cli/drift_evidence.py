"""What a drift report shows of rows: Evidently's page, and Great Expectations' verdict on what training lets expect.

Both look at a sample out of the log, since neither takes counts. Importing them takes 20 s together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

import numpy as np

from skewless.adapters.drift_sample import LogSample, pseudo_sample, sample_log, table_of
from skewless.adapters.log_reader import LogReader
from skewless.adapters.recorded_rows import not_kept, recorded_rows
from skewless.bundles.bundle import Bundle
from skewless.cli.drift_expectations_page import expectations_json, expectations_page
from skewless.cli.drift_reports import as_json, fits
from skewless.dtypes import Column, Dtype
from skewless.features.frame import NO_EVENT_TIME
from skewless.monitor_limits import DRIFT_REPORT_COLUMNS_MAX, DRIFT_REPORT_ROWS_MAX
from skewless.monitors.expectations import age_column, training_suite
from skewless.monitors.window_report import Scope, WindowReport
from skewless.statistics.variable import Part, Variable
from skewless.timestamps import SECOND_US

EVIDENTLY = "evidently.html"
EXPECTATIONS, EXPECTATIONS_JSON = "expectations.html", "expectations.json"
REFERENCE_ROWS_MIN = 200
"""Rows of recent weeks from which they are worth drawing; with fewer, rows are made of training's counts."""


@dataclass(slots=True)
class Evidence:
    """Files by name, with their text and with what each is; and what the reader must know."""

    files: dict[str, str] = field(default_factory=dict)
    titles: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, name: str, title: str, text: str) -> None:
        """Add a file; one that is too large is only told of."""
        if fits(text):
            self.files[name], self.titles[name] = text, title
        else:
            self.notes.append(f"{name} is left out: it would have {len(text.encode()):,} bytes")


@dataclass(frozen=True, slots=True)
class ServedSample:
    """Sampled rows of one bundle as columns: those of its contract that the log keeps, ages (s) and scores by name."""

    rows: int
    rows_of: int
    columns: Mapping[str, Column]
    ages: Mapping[str, Column]
    scores: Mapping[str, Column]

    @classmethod
    def of(cls, sample: LogSample, bundle: Bundle) -> "ServedSample":
        """Out of rows of the log."""
        wanted = [name for name, _ in bundle.contract.columns]
        rows = recorded_rows(sample.table, bundle, wanted)
        ages = {}
        for view, times in rows.event_times.items():
            known = times != NO_EVENT_TIME
            seconds = np.where(known, (rows.as_of - times) / SECOND_US, 0.0)
            ages[view] = Column(Dtype.FLOAT64, seconds, known)
        scores = [variable.name for variable in bundle.baseline.of(Part.SCORE)]
        valid = np.isfinite(rows.probabilities)
        score = Column(Dtype.FLOAT32, np.where(valid, rows.probabilities, np.float32(0)), valid)
        # A bundle has one score, whatever its baseline calls it.
        return cls(sample.table.num_rows, sample.rows_of, rows.columns, ages, dict.fromkeys(scores[:1], score))


def evidence_of(
    log: LogReader, bundle: Bundle, report: WindowReport, spans: Sequence[tuple[int, int]], without: frozenset[str]
) -> Evidence:
    """Evidently's page and Great Expectations' summary of a window, but for those `without`.

    `spans` are the same hours of recent weeks. Where one of them cannot be made, `notes` say why, and the report goes
    without it.
    """
    found = Evidence()
    scope = report.scope
    served = ServedSample.of(_sample(log, scope, [(scope.since_us, scope.until_us)]), bundle)
    if not served.rows:
        found.notes.append("The log holds no row of this window, so there is no picture of single rows.")
        return found
    if "evidently" not in without:
        reference = ServedSample.of(_sample(log, scope, spans), bundle)
        _add_evidently(found, bundle, report, served, reference)
    if "expectations" not in without:
        _add_expectations(found, bundle, report, served)
    return found


def _sample(log: LogReader, scope: Scope, spans: Sequence[tuple[int, int]]) -> LogSample:
    return sample_log(log, scope.endpoint, scope.bundle, scope.role, spans, rows_max=DRIFT_REPORT_ROWS_MAX)


def _add_evidently(
    found: Evidence, bundle: Bundle, report: WindowReport, served: ServedSample, reference: ServedSample
) -> None:
    from skewless.adapters.evidently_report import ComparedColumn, evidently_page

    is_pseudo = reference.rows < REFERENCE_ROWS_MIN
    chosen = _drawn(bundle, report, served)
    columns = [
        ComparedColumn(
            each,
            pseudo_sample(each, DRIFT_REPORT_ROWS_MAX) if is_pseudo else _column(reference, each),
            _column(served, each),
        )
        for each in chosen
    ]
    if not columns:
        found.notes.append("No column can be drawn: all are hashed or left out in the log.")
        return
    page = evidently_page(columns, title=f"Drift of {report.scope.endpoint}")
    told = _sides(served, reference, is_pseudo=is_pseudo)
    banner = f"<div style='font:15px system-ui;padding:12px 24px;background:#fff0c2;color:#222'>{escape(told)}</div>"
    text = page.html.replace("<body>", f"<body>{banner}", 1)
    found.add(EVIDENTLY, f"Evidently's view of single rows. {told}", text)
    found.notes += page.notes
    if len(chosen) == DRIFT_REPORT_COLUMNS_MAX:
        found.notes.append(f"Evidently draws the {DRIFT_REPORT_COLUMNS_MAX} columns that moved furthest.")


def _drawn(bundle: Bundle, report: WindowReport, served: ServedSample) -> list[Variable]:
    """The bins of columns and scores that rows are there of, the furthest first."""
    order = {(each.current.part, each.current.name): place for place, each in enumerate(report.of())}
    known = [
        each
        for each in bundle.baseline.variables
        if (each.part is Part.COLUMN and each.name in served.columns and each.name not in report.hidden)
        or (each.part is Part.SCORE and each.name in served.scores)
    ]
    known.sort(key=lambda each: order.get(each.key, len(order)))
    return known[:DRIFT_REPORT_COLUMNS_MAX]


def _column(sample: ServedSample, variable: Variable) -> Column:
    return (sample.scores if variable.part is Part.SCORE else sample.columns)[variable.name]


def _sides(served: ServedSample, reference: ServedSample, *, is_pseudo: bool) -> str:
    now = f"Current: {served.rows:,} rows sampled of {served.rows_of:,}."
    if is_pseudo:
        return (
            f"{now} Reference: NOT ROWS, but {DRIFT_REPORT_ROWS_MAX:,} made of the counts of training, spread evenly"
            " within their bins; how many they are is invented, so read shapes and no tests of significance."
        )
    return f"{now} Reference: {reference.rows:,} rows sampled of {reference.rows_of:,} at the same hours before."


def _add_expectations(found: Evidence, bundle: Bundle, report: WindowReport, served: ServedSample) -> None:
    from skewless.adapters.great_expectations_runner import run_suite

    without = frozenset({*report.hidden, *not_kept(bundle.contract)})
    suite = training_suite(report.scope.endpoint, bundle.baseline, without=without)
    results = run_suite(suite, expected_table(served))
    document = expectations_json(suite, results, report.scope)
    failed = sum(not each.success for each in results)
    title = f"Great Expectations on what training lets expect: {failed} of {len(results)} are not met."
    found.add(EXPECTATIONS, title, expectations_page(document))
    found.add(EXPECTATIONS_JSON, "the same as JSON", as_json(document))


def expected_table(served: ServedSample) -> Any:
    """Sampled rows as an Arrow table with the columns that a training suite names."""
    return table_of(
        {**served.columns, **{age_column(view): each for view, each in served.ages.items()}, **served.scores}
    )
