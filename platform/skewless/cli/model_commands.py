"""`skewless train` and `skewless dataset`: models and the sets they are trained on."""

from collections.abc import Iterator
from pathlib import Path

import click

from skewless.cli.output import print_json, say, step
from skewless.cli.workspace import Workspace
from skewless.training.assembly import Training
from skewless.training.holdout import ScoreEvaluation

_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")

_ROWS_TOLD_MIN = 200
"""Parts of a slice with fewer rows have an AUROC that is mostly chance."""


@click.command()
@click.argument("model")
@_as_json
def train(model: str, as_json: bool) -> None:
    """Train MODEL on its point-in-time training set and register the bundle.

    MODEL's learner is a declared one, or a training function of the feature repository, which runs in this process.
    The metrics printed are of a fit that did not see the hold-out; the bundle's model is fitted on all rows.
    """
    from skewless.cli.training_run import run_training

    workspace = Workspace()
    definition = workspace.model(model)
    with step(f"Training {model}") as progress:
        training = run_training(workspace, definition, progress.note)
        progress.note(describe(training))
    if as_json:
        print_json(_json(training))
        return
    for line in _slice_lines(training):
        say(line)
    say(f"bundle {training.digest}")
    say(f"next: `skewless endpoint create {model} --bundle {training.digest[:12]}`")


def describe(training: Training) -> str:
    """The result in a line."""
    return (
        f"bundle {training.digest[:12]}, {training.rows:,} rows, held out: {score_words(training.evaluation.overall)}"
    )


def score_words(found: ScoreEvaluation) -> str:
    """Metrics in a line, AUROC with its interval."""
    metrics, interval = found.evaluation, found.auroc_interval
    auroc = "undefined" if metrics.auroc is None else f"{metrics.auroc:.4f}"
    sure = "" if interval is None else f" ({interval.low:.4f} to {interval.high:.4f})"
    return f"AUROC {auroc}{sure}, Brier {metrics.brier:.4f}, ECE {found.ece:.4f} over {metrics.rows:,} rows"


def _slice_lines(training: Training) -> Iterator[str]:
    """The part of each slice on which the model is worst, by AUROC; small parts only where there is no other."""
    for name, parts in training.evaluation.slices.items():
        metrics = {part: found.evaluation for part, found in parts.items()}
        ranked = [
            (each.rows < _ROWS_TOLD_MIN, each.auroc, part) for part, each in metrics.items() if each.auroc is not None
        ]
        if ranked:
            *_, worst = min(ranked)
            yield f"       worst {name} of {len(parts)}: {worst}, {score_words(parts[worst])}"


def _json(training: Training) -> dict[str, object]:
    judgement = training.judgement
    return {
        "bundle": training.digest,
        "rows": training.rows,
        "dataset": training.dataset.digest,
        "holdout": training.evaluation.overall.to_json(),
        "holdout_dataset": judgement.dataset.digest,
        "slices": training.evaluation.to_json()["slices"],
        "calibration": judgement.calibration.to_json(),
    }


@click.group()
def dataset() -> None:
    """Training sets."""


@dataset.command("build")
@click.argument("model")
@click.option(
    "--out",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Parquet file to write: keys, request fields, every feature, as_of and label.",
)
@_as_json
def build(model: str, out: Path, as_json: bool) -> None:
    """Write the point-in-time training set of MODEL as Parquet."""
    from skewless.adapters.training_parquet import TrainingSetWriter
    from skewless.cli.quality_check import warn_of_training

    workspace = Workspace()
    definition = workspace.model(model)
    with step(f"Building the training set of {model}") as progress:
        contract, offline = workspace.contract(definition), workspace.offline(definition)
        with TrainingSetWriter(out) as writer:
            for examples, frame in offline.training_parts(definition.examples, contract, definition.training):
                writer.write(examples, frame)
                progress.note(f"{writer.rows:,} examples joined with their features, point in time")
        progress.note(f"{writer.rows:,} rows of {len(contract.columns)} columns in {out}")
    warn_of_training(workspace, out)
    if as_json:
        print_json({"rows": writer.rows, "columns": [name for name, _ in contract.columns], "file": str(out)})
