"""Reports that tell of an entity are found in whatever way they write its values, and others stay."""

import html
import json
from pathlib import Path

import pytest

from skewless.adapters.report_erasure import ReportErasure
from skewless.features.chosen_entities import ChosenEntities


def is_found(folder: Path, text: str, value: str) -> bool:
    (folder / "report.json").write_text(text)
    return ReportErasure([folder], ChosenEntities({"courier": value}), lambda: ()).look() != {}


@pytest.mark.parametrize("value", ["c07", "O'Brien", "Müller", 'the "boss"', "R&D", "a\\b", "1.5"])
def test_a_value_is_found_however_a_report_writes_it(tmp_path: Path, value: str) -> None:
    escaped = html.escape(value)
    for text in (
        f"The worst one is {value}.",
        f"{value}, and others",
        f"<td>{escaped}</td>",
        f"<td>{escaped.replace('&#x27;', '&#39;').replace('&quot;', '&#34;')}</td>",
        json.dumps({"courier": value}),
        json.dumps({"courier": value}, ensure_ascii=False),
        json.dumps({"told": f"first:\n{value}"}),
        f"<pre>{html.escape(json.dumps([value]))}</pre>",
        'id,"' + value.replace('"', '""') + '"',
    ):
        assert is_found(tmp_path, text, value), text


@pytest.mark.parametrize("text", ["c070", "xc07", "c07.5", "v.c07", "c07.parquet", "c08"])
def test_a_value_within_another_word_is_not_that_value(tmp_path: Path, text: str) -> None:
    assert not is_found(tmp_path, f"one {text} more", "c07")
