"""`skewless bundle import-mlflow`: a bundle around a model that was fitted and logged elsewhere."""

from pathlib import Path

import click

from skewless.cli.output import print_json, say, step

_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")
_file = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("import-mlflow")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--model", required=True, help="The model definition that it is an answer to.")
@click.option(
    "--transform", "transform_file", type=_file, help="The fitted transform (transform.json) it was fitted on."
)
@_as_json
def import_mlflow(folder: Path, model: str, transform_file: Path | None, as_json: bool) -> None:
    """Make and register a bundle of the MLflow model in FOLDER.

    Flavours onnx, lightgbm and xgboost; nothing is unpickled. Without --transform the definition's transform is fitted
    on its training rows. The hold-out's metrics are printed; whether the model has seen it is not known here.
    """
    from skewless.adapters.code_revision import code_revision
    from skewless.adapters.mlflow_import import read_mlflow
    from skewless.adapters.model_scoring import run_model
    from skewless.cli.model_commands import describe
    from skewless.cli.training_run import bundle_folder, record
    from skewless.cli.workspace import Workspace
    from skewless.training.imported import ImportParts, import_model
    from skewless.transforms import FittedTransform

    workspace = Workspace()
    definition = workspace.model(model)
    transform = None
    if transform_file is not None:
        transform = FittedTransform.from_bytes(transform_file.read_bytes(), workspace.steps({}))
    with step(f"Importing {folder.name} as {model}") as progress, bundle_folder(workspace) as built:
        parts = ImportParts(workspace.offline(definition), run_model, transform, code_revision(workspace.settings.repo))
        training = import_model(
            lambda columns: read_mlflow(folder, columns),
            definition,
            workspace.contract(definition),
            parts,
            built,
            progress.note,
        )
        progress.note("verifying and registering the bundle")
        workspace.register(built)
        record(workspace, training)
        progress.note(describe(training))
    if as_json:
        print_json({"bundle": training.digest, "holdout": training.evaluation.overall.to_json()})
    else:
        say(f"bundle {training.digest}")
