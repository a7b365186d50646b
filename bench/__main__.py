"""`python -m bench run [SUITE ...]` measures and writes a result file; `python -m bench compare REV` compares two."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from bench.environment import CONTENDED, ROOT, environment, revision
from bench.history import change_table, changes, newest
from bench.report import SuiteResult, read, write
from bench.suites import SUITES, run_apart
from bench.tables import suite_tables
from skewless.errors import SkewlessError

RESULTS = ROOT / "bench" / "results"


@click.group()
def main() -> None:
    """Benchmarks of Skewless, always as ratios to a floor measured in the same run."""


@main.command()
@click.argument("suites", nargs=-1, type=click.Choice(tuple(SUITES)))
@click.option("--quick", is_flag=True, help="Fewer and shorter repetitions: enough to see what a change did.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Where to write the result file.")
def run(suites: tuple[str, ...], *, quick: bool, out: Path | None) -> None:
    """Run SUITES, or every suite, each in a process of its own. Exits with 1 where one of them failed."""
    where = environment()
    if where["contention"] > CONTENDED:
        click.echo(f"this machine is busy (contention {where['contention']}): mind the spreads", err=True)
    results, failures = _run_all(suites or tuple(SUITES), quick=quick)
    stamp = "".join(character for character in where["date"][:19] if character not in "-:")
    files = write(out or RESULTS / f"{stamp}Z-{where['commit']}.json", where, results)
    _show(where, results)
    for file in files:
        click.echo(f"wrote {_shown(file)}", err=True)
    if failures:
        raise click.ClickException("; ".join(f"suite {name} failed: {error!r}" for name, error in failures.items()))


@main.command()
@click.argument("result")
def show(result: str) -> None:
    """Print the tables of RESULT: a result file, or the newest one of a revision."""
    try:
        _show(*read(_result_file(result)))
    except SkewlessError as error:
        raise click.ClickException(str(error)) from error


@main.command()
@click.argument("before")
@click.argument("after", required=False)
def compare(before: str, after: str | None) -> None:
    """Compare the newest result of revision BEFORE with that of AFTER (the newest of all where not given).

    Each may also be a result file. Exits with 1 where something became slower beyond its spread.
    """
    try:
        old, new = (_result_file(each) for each in (before, after))
        found = changes(read(old)[1], read(new)[1])
    except SkewlessError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"# {_shown(old)} → {_shown(new)}\n\n{change_table(found)}")
    if any(change.verdict == "slower" for change in found):
        raise click.exceptions.Exit(1)


def _run_all(names: tuple[str, ...], *, quick: bool) -> tuple[tuple[SuiteResult, ...], dict[str, Exception]]:
    """Results of the suites that ended well, and the errors of those that did not, by name."""
    results: list[SuiteResult] = []
    failures: dict[str, Exception] = {}
    for name in names:
        try:
            results.append(run_apart(name, quick=quick))
        except Exception as error:  # noqa: BLE001  # a process boundary: the other suites' numbers are kept
            failures[name] = error
    return tuple(results), failures


def _show(where: Mapping[str, Any], results: Iterable[SuiteResult]) -> None:
    click.echo(
        f"# {where['date']}, commit {where['commit']}, {where['cores']} cores (contention {where['contention']}), "
        f"Python {where['python']}\n"
    )
    click.echo("\n".join(suite_tables(result) for result in results))


def _result_file(name: str | None) -> Path:
    if name is None:
        return newest(RESULTS)
    path = Path(name)
    return path if path.is_file() else newest(RESULTS, revision(name) or name)


def _shown(path: Path) -> Path:
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


if __name__ == "__main__":
    main()
