"""The HTML page and the kept reports of parity checks."""

import json
from pathlib import Path
from typing import Any

import pytest

from skewless.cli.parity_html import page
from skewless.cli.parity_reports import newest_report, store_report
from skewless.errors import InvalidDefinition, NotFound
from skewless.monitor_limits import PARITY_REPORTS_MAX
from skewless.parity.report import Findings

EVIL = "<script>alert('x')</script>"


def _report(**changes: Any) -> dict[str, Any]:
    about = {
        "endpoint": "delay",
        "since": "2024-01-01T00:00:00Z",
        "until": "2024-01-02T00:00:00Z",
        "sample": 1.0,
        "checked_at": "2024-01-02T00:00:01Z",
        "bundles": [],
        "definitions_changed": {},
        "unchecked": [],
    }
    return {**Findings().report(about), **changes}


def _cause() -> dict[str, Any]:
    return {
        "view": EVIL,
        "cause": "coercion",
        "kind": "fault",
        "units": 10,
        "differing": 2,
        "entities": 5,
        "rate": 0.2,
        "low": 0.1,
        "high": 0.4,
        "values": 2,
        "meaning": "both are equal once cast",
        "advice": "agree",
        "repair": "",
        "rules": {EVIL: EVIL},
        "examples": [{"prediction_id": EVIL, "column": EVIL, "words": EVIL}],
    }


def test_nothing_that_was_served_becomes_markup() -> None:
    text = page(_report(endpoint=EVIL, causes=[_cause()]))
    assert "<script" not in text
    assert text.count("&lt;script&gt;") >= 6


def test_a_report_without_a_mismatch_says_so() -> None:
    text = page(_report())
    assert "No mismatch." in text
    assert "src=" not in text
    assert "href=" not in text


def test_the_newest_report_is_found_and_old_ones_go(tmp_path: Path) -> None:
    for number in range(PARITY_REPORTS_MAX + 3):
        store_report(
            tmp_path, _report(checked_at=f"2024-01-02T00:{number // 60:02d}:{number % 60:02d}Z", bundles=[number])
        )
    assert newest_report(tmp_path, "delay")["bundles"] == [PARITY_REPORTS_MAX + 2]
    kept = sorted((tmp_path / "parity" / "delay").iterdir())
    assert len(kept) == PARITY_REPORTS_MAX
    assert json.loads(kept[0].read_text())["bundles"] == [3]


def test_a_report_that_is_not_there_or_of_another_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="of endpoint delay"):
        newest_report(tmp_path, "delay")
    store_report(tmp_path, _report(format=99))
    with pytest.raises(InvalidDefinition, match="of format 99, known is 1"):
        newest_report(tmp_path, "delay")
