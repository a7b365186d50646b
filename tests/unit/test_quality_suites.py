"""Suite files: read whole, or refused with every fault by file, line and field."""

import re
from pathlib import Path

import pytest

from harness.quality_views import SCHEMA, TEXT, suite_file
from skewless.adapters.quality_files import load_suite, load_suites, save_suite
from skewless.errors import InvalidDefinition, NotFound
from skewless.quality.suite import OnFailure, Severity, Suite


def refusal(folder: Path, text: str) -> str:
    with pytest.raises(InvalidDefinition) as refused:
        load_suite(suite_file(folder, text), SCHEMA)
    return str(refused.value)


def with_expectation(lines: str) -> str:
    return f"{TEXT}{lines}"


def test_a_suite_is_read_with_what_follows_from_each_expectation(tmp_path: Path) -> None:
    suite = load_suite(suite_file(tmp_path), SCHEMA)
    assert (suite.view, suite.owner, suite.reviewed) == ("sensors", "tests", "2024-01-01")
    assert [each.on_failure for each in suite.expectations][:2] == [OnFailure.STOP, OnFailure.QUARANTINE]
    assert suite.expectations[4].severity is Severity.WARNING
    assert suite.expectations[4].on_failure is OnFailure.WARN, "a warning warns where it does not say"
    assert [each.line for each in suite.expectations][:2] == [5, 7]


def test_a_suite_survives_being_plain_data_and_its_digest_is_of_what_decides(tmp_path: Path) -> None:
    suite = load_suite(suite_file(tmp_path), SCHEMA)
    again = Suite.from_json(suite.to_json())
    assert again.digest == suite.digest
    other = load_suite(suite_file(tmp_path, TEXT.replace("owner: tests", "owner: others")), SCHEMA)
    assert other.digest == suite.digest
    narrower = load_suite(suite_file(tmp_path, TEXT.replace("max_value: 60", "max_value: 59")), SCHEMA)
    assert narrower.digest != suite.digest


@pytest.mark.parametrize("reviewed", ["no", "false", "~", ""])
def test_a_suite_that_is_not_reviewed_is_a_draft(tmp_path: Path, reviewed: str) -> None:
    text = TEXT.replace("reviewed: 2024-01-01", f"reviewed: {reviewed}")
    assert load_suite(suite_file(tmp_path, text), SCHEMA).reviewed is None


@pytest.mark.parametrize(
    ("lines", "line", "told"),
    [
        ("  - type: expect_column_values_to_be_betwen\n", 22, "no known expectation; allowed: `expect_column_values"),
        ("  - type: expect_column_values_to_be_unique\n    kwargs: {colum: temp}\n", 23, "did you mean `column`"),
        (
            "  - type: expect_column_values_to_be_unique\n    kwargs: {column: tepm}\n",
            23,
            r"has no column `tepm`.*did you mean `temp`",
        ),
        (
            "  - type: expect_column_values_to_match_regex\n    kwargs: {column: temp, regex: a}\n",
            23,
            "column `temp` is float32, which it cannot judge",
        ),
        (
            "  - type: expect_column_values_to_be_between\n    kwargs:\n      column: temp\n      min_value: low\n",
            25,
            "`min_value` is 'low'",
        ),
        (
            "  - type: expect_column_values_to_be_between\n    kwargs: {column: temp, min_value: 9, max_value: 1}\n",
            23,
            "above max_value",
        ),
        ("  - type: expect_column_values_to_be_between\n    kwargs: {column: temp}\n", 23, "it can never fail"),
        (
            "  - type: expect_column_values_to_be_between\n    kwargs: {column: event_time, max_value: 5}\n",
            23,
            "`max_value` is 5, and column `event_time` is timestamp",
        ),
        (
            "  - type: expect_column_values_to_be_between\n"
            "    kwargs: {column: event_time, max_value: {as_of: soon}}\n",
            23,
            "as_of: .5m",
        ),
        (
            "  - type: expect_column_values_to_be_in_set\n    kwargs: {column: station, value_set: [NO, SE]}\n",
            23,
            "False is no value of column `station`.*quote them",
        ),
        (
            "  - type: expect_column_values_to_be_in_set\n    kwargs: {column: station, value_set: []}\n",
            23,
            "not empty",
        ),
        ("  - type: expect_column_values_to_match_regex\n    kwargs: {column: station, regex: '('}\n", 23, "regular"),
        (
            "  - type: expect_column_values_to_not_be_null\n    kwargs: {column: temp, mostly: 1.5}\n",
            23,
            "`mostly` is 1.5; allowed: a number above 0 and up to 1",
        ),
        (
            "  - type: expect_column_values_to_not_be_null\n    kwargs: {column: temp, mostly: 0.5}\n"
            "    on_failure: quarantine\n",
            23,
            "lets rows fail that quarantine would set aside",
        ),
        (
            "  - type: expect_column_mean_to_be_between\n    kwargs: {column: temp, min_value: 0}\n"
            "    on_failure: quarantine\n",
            24,
            "has no failing rows to set aside; allowed: pass, warn, stop",
        ),
        (
            "  - type: expect_column_values_to_be_unique\n    kwargs: {column: temp}\n    on_failure: ignore\n",
            24,
            "on_failure is 'ignore'; allowed: pass, warn, quarantine, stop",
        ),
        (
            "  - type: expect_column_values_to_be_unique\n    kwargs: {column: temp}\n    severity: bad\n",
            24,
            "severity is 'bad'; allowed: critical, warning, info",
        ),
        (
            "  - type: expect_column_values_to_be_unique\n    kwargs: {column: temp}\n    onfailure: warn\n",
            24,
            "`onfailure` is no field here",
        ),
        (
            "  - type: expect_table_row_count_to_be_between\n    kwargs: {min_value: 1}\n",
            22,
            "the same as the one in line 5",
        ),
        (
            "  - type: expect_column_proportion_of_non_null_values_to_be_between\n"
            "    kwargs: {column: temp, min_value: 0, max_value: 1}\n",
            22,
            "hold for whatever comes",
        ),
    ],
)
def test_a_fault_is_told_with_its_line_and_what_is_allowed(tmp_path: Path, lines: str, line: int, told: str) -> None:
    message = refusal(tmp_path, with_expectation(lines))
    found = [each for each in message.splitlines() if each.startswith(f"{tmp_path}/sensors.yaml:{line} ")]
    assert any(re.search(told, each) for each in found), message


@pytest.mark.parametrize(
    ("left_out", "told"),
    [
        ("  - type: expect_table_row_count_to_be_between\n    kwargs: {min_value: 1}\n", "an empty batch would pass"),
        (
            "  - type: expect_column_values_to_not_be_null\n    kwargs: {column: station}\n"
            "    on_failure: quarantine\n",
            "rows without join key `station` would pass",
        ),
        (
            "  - type: expect_column_values_to_not_be_null\n    kwargs: {column: event_time}\n"
            "    on_failure: quarantine\n",
            "rows without event time `event_time` would pass",
        ),
        (
            "  - type: expect_column_values_to_not_be_null\n    kwargs: {column: temp, mostly: 0.9}\n"
            "    severity: warning\n",
            "feature `temp` could be null in every row",
        ),
    ],
)
def test_a_suite_that_cannot_fail_where_it_must_is_refused(tmp_path: Path, left_out: str, told: str) -> None:
    assert left_out in TEXT
    assert told in refusal(tmp_path, TEXT.replace(left_out, ""))


def test_what_is_only_noted_protects_nothing(tmp_path: Path) -> None:
    noted = TEXT.replace("kwargs: {min_value: 1}\n", "kwargs: {min_value: 1}\n    on_failure: pass\n")
    assert "an empty batch would pass" in refusal(tmp_path, noted)


def test_every_fault_of_a_file_is_told_at_once(tmp_path: Path) -> None:
    text = TEXT.replace("name: sensors\n", "").replace("reviewed: 2024-01-01", "reviewed: soon") + "colour: red\n"
    message = refusal(tmp_path, text)
    assert "3 fault(s)" in message
    for told in ("name is missing", "reviewed is 'soon'", "`colour` is no field here"):
        assert told in message


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "the file holds no suite"),
        ("- a\n- b\n", "the file holds no suite"),
        ("name: [", "sensors.yaml:1: it is no YAML"),
        ("name: a\nview: b\nname: c\n", "sensors.yaml:3: it is no YAML: `name` is there twice"),
        ("name: !!python/object:os.system {}", "it is no YAML"),
        (TEXT.replace("view: sensors", "view: others"), "the suite is of view `others`; allowed: `sensors`"),
        ("name: \x00", "it is no YAML"),
    ],
)
def test_a_file_that_holds_no_suite_is_refused_in_words(tmp_path: Path, text: str, told: str) -> None:
    assert told in refusal(tmp_path, text)


def test_a_suite_of_no_registered_view_is_refused(tmp_path: Path) -> None:
    (tmp_path / "quality").mkdir()
    suite_file(tmp_path / "quality", name="sensor")
    with pytest.raises(InvalidDefinition, match="named after no registered feature view; views: sensors"):
        load_suites(tmp_path, {"sensors": SCHEMA})


def test_a_file_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="quality suggest"):
        load_suite(tmp_path / "sensors.yaml", SCHEMA)


def test_a_suite_that_somebody_wrote_is_never_replaced(tmp_path: Path) -> None:
    suite = load_suite(suite_file(tmp_path), SCHEMA)
    path = tmp_path / "folder" / "sensors.yaml"
    save_suite(path, suite, note="first line\nsecond line")
    assert path.read_text().startswith("# first line\n# second line\n")
    assert load_suite(path, SCHEMA).digest == suite.digest
    with pytest.raises(InvalidDefinition, match="is not replaced"):
        save_suite(path, suite, note="again")
