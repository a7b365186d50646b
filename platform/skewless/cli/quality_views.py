"""Results of quality gates for a terminal, and as plain data."""

from collections.abc import Sequence
from typing import Any

from skewless.quality.verdict import Decision
from skewless.registry.quality_results import QuarantineRecord, ResultRecord, RunRecord
from skewless.timestamps import format_timestamp

TOO_MANY = (
    "a larger share of the rows fails than the suite lets be set aside (quarantine_share_max), so that the batch itself"
    " must be wrong"
)


def stops_by_share(run: RunRecord) -> bool:
    """Whether a batch stops only because too many of its rows would be set aside."""
    return run.decision is Decision.STOP and all(each.follows != Decision.STOP.value for each in run.results)


def run_lines(run: RunRecord) -> list[str]:
    """A run and every expectation of it that is not met, with what to do."""
    lines = [
        f"{run.view}  {run.decision.value}  {run.rows:,} rows, {run.set_aside:,} set aside, "
        f"{len(run.results)} expectations; {run.batch}; judged for {format_timestamp(run.as_of)}"
    ]
    if stops_by_share(run):
        lines.append(f"  stop: {TOO_MANY}")
    failed = sorted((each for each in run.results if not each.success), key=lambda each: each.position)
    for each in failed:
        lines += [f"  {each.follows}: {each.told}", f"    {each.hint}"]
    return lines


def run_table(runs: Sequence[RunRecord]) -> list[tuple[str, ...]]:
    """Cells of a table of runs, with its head."""
    head = ("view", "decision", "rows", "set aside", "from", "judged", "run")
    return [head, *(_run_cells(each) for each in runs)]


def _run_cells(run: RunRecord) -> tuple[str, ...]:
    counts = (f"{run.rows:,}", f"{run.set_aside:,}")
    return (run.view, run.decision.value, *counts, run.origin, format_timestamp(run.time), run.id)


def quarantine_table(batches: Sequence[QuarantineRecord]) -> list[tuple[str, ...]]:
    """Cells of a table of quarantined batches, with its head."""
    head = ("batch", "view", "rows", "state", "released", "since")
    return [head, *(_batch_cells(each) for each in batches)]


def _batch_cells(batch: QuarantineRecord) -> tuple[str, ...]:
    counts = (f"{batch.rows:,}", batch.state.value, f"{batch.released:,}")
    return (batch.id, batch.view, *counts, format_timestamp(batch.created_time))


def run_json(run: RunRecord) -> dict[str, Any]:
    """A run as plain data; `results` is empty where they were not read."""
    return {
        "id": run.id,
        "view": run.view,
        "suite": run.suite,
        "suite_digest": run.suite_digest,
        "origin": run.origin,
        "batch": run.batch,
        "as_of": format_timestamp(run.as_of),
        "time": format_timestamp(run.time),
        "duration_s": run.duration_us / 1e6,
        "rows": run.rows,
        "set_aside": run.set_aside,
        "decision": run.decision.value,
        "results": [_result_json(each) for each in run.results],
    }


def _result_json(result: ResultRecord) -> dict[str, Any]:
    return {
        "type": result.type,
        "kwargs": dict(result.kwargs),
        "severity": result.severity,
        "follows": result.follows,
        "success": result.success,
        "unexpected": result.unexpected,
        "unexpected_share": result.unexpected_share,
        "observed": result.observed,
        "told": result.told,
        "hint": result.hint,
    }


def batch_json(batch: QuarantineRecord) -> dict[str, Any]:
    """A quarantined batch as plain data."""
    return {
        "id": batch.id,
        "run": batch.run_id,
        "view": batch.view,
        "rows": batch.rows,
        "released": batch.released,
        "state": batch.state.value,
        "file": batch.file,
        "since": format_timestamp(batch.created_time),
        "changed": format_timestamp(batch.changed_time),
    }


def aligned(lines: Sequence[tuple[str, ...]]) -> str:
    """Lines of cells as one text, each column as wide as its widest cell."""
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
