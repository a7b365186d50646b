"""What `skewless replay` does, by what it is asked for: accounts, a check of many predictions, a back-test."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from skewless.adapters.backtest_parquet import BackTestFile
from skewless.adapters.recorded_traffic import answered_with_outcomes, count, recorded
from skewless.bundles.bundle import Bundle
from skewless.cli.output import Step, print_json, step
from skewless.cli.replay_back_test import OtherSource, run_back_test
from skewless.cli.replay_back_test_tables import show_back_test
from skewless.cli.replay_bulk import BulkCheck, check_all
from skewless.cli.replay_bundles import ReplayBundles
from skewless.cli.replay_check import accounts
from skewless.cli.replay_command import EXIT_DIFFERENT, EXIT_NOT_DECIDED, Asked
from skewless.cli.replay_processes import processes_for
from skewless.cli.replay_tables import console, show_account, show_check
from skewless.cli.workspace import Workspace
from skewless.errors import InvalidDefinition, InvalidRequest, NotFound
from skewless.limits import REPLAY_SLICES_MAX
from skewless.replays.back_test import ScoredRows
from skewless.replays.recheck import Verdict
from skewless.replays.slice_codes import SliceCodes

if TYPE_CHECKING:
    from skewless.adapters.duckdb_point_in_time import DuckDBOffline
    from skewless.adapters.log_reader import LogReader

_SHORT = 12


def account_for(prediction_ids: Sequence[str], *, as_json: bool) -> int:
    """Print the account of each prediction; the exit code."""
    workspace = Workspace()
    with workspace.log() as log:
        told = list(accounts(workspace, log, prediction_ids))
    if as_json:
        plain = [each.to_json() for each in told]
        print_json(plain[0] if len(plain) == 1 else plain)
    else:
        shown = console()
        for number, each in enumerate(told):
            if number:
                shown.print("")
            show_account(each, shown)
    return _exit_code({each.verdict for each in told})


def recompute_all(asked: Asked, *, told_max: int) -> int:
    """Recompute a part of the log, and print what came of it; the exit code."""
    workspace, found = Workspace(), BulkCheck()
    bundles = ReplayBundles(workspace)
    with workspace.log() as log:
        endpoints = (asked.endpoint,) if asked.endpoint is not None else log.endpoints()
        counts = [count(log, each, asked.start, asked.end) for each in endpoints]
        total = min(sum(counts), asked.limit or sum(counts))
        if not total:
            raise _nothing_recorded(asked)
        with step("Recomputing logged predictions", total=total) as progress:
            for endpoint in endpoints:
                left = None if asked.limit is None else asked.limit - found.rows
                if left is not None and left <= 0:
                    break
                parts = check_all(
                    recorded(log, endpoint, asked.start, asked.end, limit=left),
                    bundles,
                    target=workspace.settings.target,
                    packages=workspace.settings.allowed_step_packages,
                    processes=asked.processes or processes_for(total),
                    told_max=told_max,
                )
                for part in parts:
                    found.add(part, told_max=told_max)
                    progress.update(found.rows, total)
            progress.note(f"{found.rows:,} predictions, {found.verdicts[Verdict.DIFFERENT]:,} different")
    if asked.as_json:
        print_json(found.to_json())
    else:
        show_check(found, console())
    return _exit_code(set(found.verdicts))


def back_test(
    asked: Asked, digest: str, *, fill: bool, model: str | None, slices: Sequence[str], output: Path | None
) -> None:
    """Score a part of the log with another bundle, and print how the answers compare."""
    if len(slices) > REPLAY_SLICES_MAX:
        raise InvalidRequest(f"{len(slices)} slices", path="--slice", allowed=f"up to {REPLAY_SLICES_MAX}")
    cuts = [SliceCodes.parse(each) for each in slices]
    workspace = Workspace()
    other = workspace.bundle(digest)
    offline = _offline(workspace, other, model) if fill else None
    source = OtherSource(other.digest, other.folder, workspace.settings.allowed_step_packages, offline)
    with workspace.log() as log, ExitStack() as files:
        endpoint = _endpoint(log, asked)
        total = count(log, endpoint, asked.start, asked.end)
        rows_of = files.enter_context(BackTestFile(output, other.post.labels)) if output is not None else None
        with step(f"Scoring with bundle {other.digest[:_SHORT]}", total=min(total, asked.limit or total)) as progress:

            def take(rows: ScoredRows) -> None:
                progress.advance(rows.rows)
                if rows_of is not None:
                    rows_of.write(rows)

            result = run_back_test(
                answered_with_outcomes(log, endpoint, asked.start, asked.end, limit=asked.limit),
                ReplayBundles(workspace),
                source,
                cuts,
                processes=asked.processes or processes_for(total),
                each=take,
            )
            if not result.rows:
                raise _nothing_recorded(asked)
            _note(progress, result.rows, output)
    if asked.as_json:
        print_json({"bundle": other.digest, "endpoint": endpoint, **result.to_json()})
    else:
        show_back_test(result, f"{other.name} {other.digest[:_SHORT]}", console())


def _note(progress: Step, rows: int, output: Path | None) -> None:
    progress.note(f"{rows:,} predictions" + ("" if output is None else f", row by row in {output.name}"))


def _endpoint(log: "LogReader", asked: Asked) -> str:
    """The endpoint that is asked for; the log's only one where none is."""
    if asked.endpoint is not None:
        return asked.endpoint
    known = log.endpoints()
    if len(known) != 1:
        raise InvalidRequest(
            "no endpoint is named, and the log has " + (f"{len(known)} of them" if known else "none"),
            path="--endpoint",
            allowed=", ".join(f"`{each}`" for each in known) or "an endpoint with predictions in the log",
        )
    return known[0]


def _offline(workspace: Workspace, other: Bundle, model: str | None) -> "DuckDBOffline":
    """The offline store, with a source for every view that the bundle reads. Raises InvalidDefinition without one."""
    definition = workspace.model(model or other.name)
    offline = workspace.offline(definition)
    missing = sorted({view.name for view in other.contract.views} - offline.sources.keys())
    if missing:
        raise InvalidDefinition(
            f"bundle {other.digest[:_SHORT]} reads view `{missing[0]}`, which feature service"
            f" `{definition.feature_service}` of model `{definition.name}` does not have",
            hint="name by --model a model whose feature service has all views that the bundle reads",
        )
    return offline


def _nothing_recorded(asked: Asked) -> NotFound:
    return NotFound(
        "prediction",
        f"of {asked.endpoint or 'any endpoint'} in that period",
        hint="--since and --until are about the moments as of which predictions were asked; the log keeps a prediction"
        " at the latest one flush interval after its answer",
    )


def _exit_code(verdicts: set[Verdict]) -> int:
    if Verdict.DIFFERENT in verdicts:
        return EXIT_DIFFERENT
    return EXIT_NOT_DECIDED if Verdict.NOT_DECIDED in verdicts else 0
