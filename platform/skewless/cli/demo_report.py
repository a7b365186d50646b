"""What a demo found, computed from the prediction log and the offline store, and how it is told."""

import json
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from skewless.adapters.local_model import local_model
from skewless.adapters.recorded_rows import recorded_rows
from skewless.adapters.served_rows import pick, served_rows
from skewless.bundles.bundle import Bundle
from skewless.cli.demo_state import ReplayRecord
from skewless.cli.output import step
from skewless.cli.replay_bundles import rechecker
from skewless.cli.workspace import Workspace
from skewless.errors import InvalidDefinition, NotFound
from skewless.limits import REPLAY_CHUNK_ROWS
from skewless.parity.compare import Comparison, compare
from skewless.parity.recompute import PointInTime, recompute
from skewless.registry.repository import system_clock
from skewless.replays.recheck import Verdict
from skewless.serving.receipt import json_values
from skewless.simulation.example import Example
from skewless.simulation.summary import DIFFERENCES_SHOWN, Summary, latency_percentiles
from skewless.timestamps import format_timestamp
from skewless.training.definition import Period
from skewless.training.evaluation import Evaluation, evaluate

LOG_TIMEOUT_S = 15.0
"""The gateway flushes its log several times a second; this is how long the last flush is waited for."""
_POLL_S = 0.2


def period_text(period: Period) -> str:
    """A period for people."""
    return f"{format_timestamp(period.start)} to {format_timestamp(period.end)}"


def summarise(
    workspace: Workspace,
    example: Example,
    bundle: Bundle,
    period: Period,
    record: ReplayRecord,
    *,
    offline: PointInTime,
) -> Summary:
    """Compare the logged predictions of a replay with offline scoring, and evaluate them on their outcomes."""
    with step("Scoring the same questions offline, in one batch") as progress:
        table = _logged(workspace, example, period, record.prediction_ids)
        comparison = _compared(bundle, table, offline)
        progress.note(f"{comparison.outputs_equal:,} of {comparison.rows:,} live predictions equal it bit for bit")
    with step("Recomputing every prediction from its own record") as progress:
        replays_equal = _replays_equal(workspace, bundle, table)
        progress.note(f"{replays_equal:,} of {comparison.rows:,} equal what was served bit for bit")
    return Summary(
        endpoint=example.endpoint,
        bundle=bundle.digest,
        period=period_text(period),
        predictions=comparison.rows,
        outcomes=record.outcomes,
        refusals=record.refusals,
        feature_rows=record.feature_rows,
        latency_ms=latency_percentiles(np.array(record.latency_s)),
        live=_live_evaluation(workspace, bundle, table, record),
        held_out=dict(bundle.provenance["holdout"]["metrics"]),
        comparison=comparison,
        replays_equal=replays_equal,
        replay_wall_s=record.wall_s,
        sample=_last_request(bundle, table),
        sample_id=record.prediction_ids[-1],
    )


def lines(summary: Summary) -> Iterator[str]:
    """The summary for people, a line each."""
    latency = ", ".join(f"{name} {value:.1f} ms" for name, value in summary.latency_ms.items())
    comparison, live, held_out = summary.comparison, summary.live, summary.held_out
    yield ""
    yield f"endpoint            {summary.endpoint}, bundle {summary.bundle[:12]}"
    yield f"replayed            {summary.period} in {summary.replay_wall_s:.0f} s"
    yield f"predictions served  {summary.predictions:,} (one request each; {latency})"
    yield f"refused and retried {summary.refusals:,}"
    yield f"features written    {summary.feature_rows:,} rows, each once it was known"
    never = summary.predictions - summary.outcomes
    yield f"outcomes            {summary.outcomes:,}; {never:,} never come"
    yield f"live quality        AUROC {_number(live.auroc)}, Brier {_number(live.brier)}"
    yield (
        f"held-out quality    AUROC {_number(held_out['auroc'])}, Brier {_number(held_out['brier'])} "
        f"({held_out['rows']:,} rows before this period)"
    )
    yield f"equal to offline    {comparison.outputs_equal:,} of {comparison.rows:,} predictions, bit for bit"
    yield f"                    {comparison.tensors_equal:,} model inputs, {comparison.features_equal:,} feature rows"
    yield f"equal by replay     {summary.replays_equal:,} of {comparison.rows:,}, each recomputed from its log record"
    for each in comparison.differences[:DIFFERENCES_SHOWN]:
        column = f" {each.column}" if each.column else ""
        values = f"served {each.served}, offline {each.offline}"
        yield f"  differs           {each.prediction_id} {each.cause}{column}: {values}"
    hidden = len(comparison.differences) - DIFFERENCES_SHOWN
    if hidden > 0:
        yield f"                    and {hidden:,} more"


def next_steps(workspace: Workspace, summary: Summary) -> Iterator[str]:
    """Where to look and what to type next, a line each."""
    url = workspace.gateway_url
    body = json.dumps(summary.sample, ensure_ascii=False)
    yield ""
    yield f"The stack is up. The API in a browser: {url}/docs"
    yield f"metrics {workspace.stack().gateway_admin_url}/metrics, readiness {url}/readyz"
    yield f"processes and health: {_program()} doctor"
    yield "Ask the last question again:"
    yield f"  curl -s {url}/v1/endpoints/{summary.endpoint}/predict -H 'Content-Type: application/json' \\"
    yield f"    -d '{body}'"
    yield f"Recompute one answer from the log: {_program()} replay {summary.sample_id}"
    words = ("drift status", f"parity status {summary.endpoint}", f"model-metrics show {summary.endpoint}")
    yield f"Watch it: {', '.join(f'{_program()} {each}' for each in words)}"
    yield f"Stop with `{_program()} down`; `make clean` removes everything."


def _program() -> str:
    """This command as it was called, so that what is printed can be typed where it is not on the PATH."""
    called = Path(sys.argv[0])
    if called.name != "skewless" or shutil.which("skewless"):
        return "skewless"
    return str(called.relative_to(Path.cwd())) if called.is_relative_to(Path.cwd()) else str(called)


def _last_request(bundle: Bundle, table: Any) -> dict[str, Any]:
    """The last question as a body for the REST API."""
    served = served_rows(table.slice(table.num_rows - 1), bundle.contract, bundle.signature.outputs[0][0])
    instance = {name: json_values(column)[0] for name, column in served.given.items()}
    return {
        "instances": [instance],
        "options": {"as_of": format_timestamp(int(served.as_of[0])), "receipt": "summary"},
    }


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"


def _logged(workspace: Workspace, example: Example, period: Period, prediction_ids: Sequence[str]) -> Any:
    """The log's rows of a replay, in its order; waits for the gateway's last flush."""
    give_up = time.monotonic() + LOG_TIMEOUT_S
    while True:
        with workspace.log() as log:
            table = log.predictions(example.endpoint, period.start, period.end)
        try:
            return pick(table, prediction_ids)
        except NotFound:
            if time.monotonic() > give_up:
                raise
            time.sleep(_POLL_S)


def _compared(bundle: Bundle, table: Any, offline: PointInTime) -> Comparison:
    model = local_model(bundle)
    served = served_rows(table, bundle.contract, model.output_name)
    scored = recompute(bundle, offline, model.run, served.given, served.as_of)
    return compare(bundle.contract, served.prediction_ids, served.scored, scored)


def _replays_equal(workspace: Workspace, bundle: Bundle, table: Any) -> int:
    """How many logged predictions are recomputed bit for bit from their records, as `skewless replay --all` does."""
    own = rechecker(bundle, workspace.settings.target)
    inputs = [name for name, _ in bundle.transform.inputs]
    equal = 0
    for first in range(0, table.num_rows, REPLAY_CHUNK_ROWS):
        rows = recorded_rows(table.slice(first, REPLAY_CHUNK_ROWS), bundle, inputs)
        equal += own.recheck(rows, told_max=0).counts[Verdict.EXACT]
    return equal


def _live_evaluation(workspace: Workspace, bundle: Bundle, table: Any, record: ReplayRecord) -> Evaluation:
    """Quality of the logged probabilities on the outcomes that callers reported since the replay began."""
    with workspace.log() as log:
        outcomes = log.outcomes(record.started, system_clock() + 1)
    # A prediction whose outcome came twice has the later one; the table is in order of receipt.
    labels = dict(zip(outcomes.column("prediction_id").to_pylist(), outcomes.column("label").to_pylist(), strict=True))
    rows = [
        (labels[prediction_id] == bundle.post.labels.positive, probability)
        for prediction_id, probability in zip(
            table.column("prediction_id").to_pylist(), table.column("probability").to_pylist(), strict=True
        )
        if prediction_id in labels
    ]
    if not rows:
        raise InvalidDefinition("no outcome of the replayed predictions has arrived, so their quality is not known")
    return evaluate(np.array([row[0] for row in rows]), np.array([row[1] for row in rows], dtype=np.float32))
