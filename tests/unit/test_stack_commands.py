"""The command line's frame: lazy commands, errors as exit codes, steps, and what doctor says."""

import inspect
import json
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from skewless import errors
from skewless.cli.main import COMMANDS, EXIT_CODES, EXIT_MEANINGS, exit_code, main
from skewless.cli.output import step
from skewless.errors import Conflict, DeadlineExceeded, InvalidSettings, SkewlessError
from skewless.settings import Settings
from skewless.stack.doctor import Condition, examine


def test_help_lists_every_command_and_exit_code_without_importing_any() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from skewless.cli.main import main; "
        "print(CliRunner().invoke(main, ['--help']).output); "
        "print([name for name in sys.modules if name.startswith(('skewless.cli.', 'feast', 'sqlalchemy', 'numpy'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "['skewless.cli.main']"
    for word in (*COMMANDS, *map(str, EXIT_MEANINGS)):
        assert f"  {word} " in done.stdout


def test_every_error_has_an_exit_code_with_a_meaning() -> None:
    classes = [each for _, each in inspect.getmembers(errors, inspect.isclass) if issubclass(each, SkewlessError)]
    assert len(classes) > 10
    for each in classes:
        assert exit_code(each.__new__(each)) in EXIT_MEANINGS
    assert exit_code(DeadlineExceeded("triton", "late")) == EXIT_CODES[errors.Unavailable]
    assert exit_code(Conflict("taken")) == 5


@pytest.mark.parametrize("command", ["doctor", "down"])
def test_a_wrong_setting_is_a_message_and_exit_code_2(command: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, [command], env={"SKEWLESS_HOME": str(tmp_path), "SKEWLESS_HOEM": "x"})
    assert result.exit_code == exit_code(InvalidSettings("")) == 2
    assert result.stderr.startswith("error: the environment variable SKEWLESS_HOEM is not a setting")
    assert "\n\nhint: did you mean SKEWLESS_HOME" in result.stderr
    assert result.stdout == ""


def test_an_unknown_command_is_wrong_usage() -> None:
    result = CliRunner().invoke(main, ["dctor"])
    assert result.exit_code == 2
    assert "No such command" in result.stderr


def test_doctor_prints_one_line_for_each_check_and_the_same_as_json(tmp_path: Path) -> None:
    environment = {"SKEWLESS_HOME": str(tmp_path)}
    plain = CliRunner().invoke(main, ["doctor"], env=environment)
    data = CliRunner().invoke(main, ["doctor", "--json"], env=environment)
    assert plain.exit_code == data.exit_code == 1
    findings = json.loads(data.stdout)
    assert len(plain.stdout.splitlines()) == len(findings)
    assert {"check", "condition", "seen", "remedy"} == set(findings[0])


def test_in_an_empty_home_doctor_says_what_to_run_and_creates_nothing(tmp_path: Path) -> None:
    home = tmp_path / "home"
    findings = {finding.check: finding for finding in examine(Settings(home=home))}
    for check, remedy in (("stack", "skewless up"), ("feature definitions", "skewless apply")):
        assert findings[check].condition is Condition.MISSING
        assert remedy in findings[check].remedy
    assert findings["registry database"].condition is Condition.MISSING
    assert not home.exists()
    assert all(finding.remedy for finding in findings.values() if finding.condition is not Condition.OK)


def test_doctor_reports_a_database_that_it_cannot_read(tmp_path: Path) -> None:
    (tmp_path / "registry.db").write_bytes(b"this is not a database" * 100)
    findings = {finding.check: finding for finding in examine(Settings(home=tmp_path))}
    assert findings["registry database"].condition is Condition.UNHEALTHY
    assert findings["endpoints"].condition is Condition.UNHEALTHY


def test_a_step_leaves_one_line_on_standard_error_and_nothing_on_standard_output(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with step("Building [source] tables", total=2) as progress:
        progress.advance()
        progress.update(2)
        progress.note("336776 rows")
    written = capsys.readouterr()
    assert written.out == ""
    assert written.err.startswith("  done Building [source] tables: 336776 rows (")
    assert len(written.err.splitlines()) == 1


def test_a_failed_step_says_so_and_lets_the_error_through(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(click.UsageError), step("Training"):
        raise click.UsageError("no")
    assert capsys.readouterr().err.startswith("failed Training (")
