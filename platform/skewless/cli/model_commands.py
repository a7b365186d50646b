"""`skewless train` and `skewless dataset`: models and the sets they are trained on."""

from pathlib import Path

import click

from skewless.cli.output import print_json, say, step
from skewless.cli.workspace import Workspace
from skewless.training.train import Training

_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")


@click.command()
@click.argument("model")
@_as_json
def train(model: str, as_json: bool) -> None:
    """Train MODEL on its point-in-time training set and register the bundle.

    The metrics printed are of a fit that did not see the hold-out; the bundle's model is fitted on all rows.
    """
    workspace = Workspace()
    definition = workspace.model(model)
    with step(f"Training {model}") as progress:
        training = workspace.train(definition, progress.note)
        progress.note(describe(training))
    if as_json:
        print_json({"bundle": training.digest, "rows": training.rows, "holdout": training.evaluation.to_json()})
    else:
        say(f"bundle {training.digest}")
        say(f"next: `skewless endpoint create {model} --bundle {training.digest[:12]}`")


def describe(training: Training) -> str:
    """The result in a line."""
    held_out = training.evaluation
    auroc = "undefined" if held_out.auroc is None else f"{held_out.auroc:.4f}"
    return (
        f"bundle {training.digest[:12]}, {training.rows:,} rows, "
        f"held-out AUROC {auroc}, Brier {held_out.brier:.4f} over {held_out.rows:,} rows"
    )


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
    from skewless.adapters.training_parquet import write_training_set

    workspace = Workspace()
    definition = workspace.model(model)
    with step(f"Building the training set of {model}") as progress:
        contract, offline = workspace.contract(definition), workspace.offline(definition)
        examples = offline.examples(definition.examples, contract, definition.training)
        progress.note(f"joining features to {examples.rows:,} examples, point in time")
        frame = offline.features_at(contract, examples.keys, examples.as_of)
        write_training_set(examples, frame, out)
        progress.note(f"{examples.rows:,} rows of {len(contract.columns)} columns in {out}")
    if as_json:
        print_json({"rows": examples.rows, "columns": [name for name, _ in contract.columns], "file": str(out)})
