"""`skewless bundle …`: verify, register, show and list bundles; comparing and importing are in modules of their own."""

import re
from pathlib import Path
from typing import Any

import click

from skewless.bundles.bundle import Bundle
from skewless.bundles.schema import bundle_schema
from skewless.bundles.triton_model import targets_of
from skewless.canonical_json import Digest
from skewless.cli.bundle_admission import admission_of, echo_checks
from skewless.cli.comparison_commands import compare, evaluate, gates
from skewless.cli.deployments import told_dry_run
from skewless.cli.import_commands import import_mlflow
from skewless.cli.output import print_json, say, step
from skewless.cli.rollout_options import skip_parity
from skewless.cli.workspace import Workspace
from skewless.parity.dry_run import DryRun
from skewless.timestamps import format_timestamp

_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")
_SHORT = 12


@click.group()
def bundle() -> None:
    """The immutable units that are shipped: contract, transform, model, baseline and golden vectors."""


@bundle.command("verify")
@click.argument("target")
@_as_json
def verify(target: str, as_json: bool) -> None:
    """Verify a bundle: TARGET is a folder, or the digest of a registered bundle.

    Runs every check of admission and prints each with what it looked at: files against the manifest, parts against
    each other, golden vectors bit for bit through transform, post-processing and model, the transform run in every way
    on made-up rows, the model's own tensors, and the feature contract against what is registered today. Exit code 4:
    refused.
    """
    workspace = Workspace()
    with step("Verifying") as progress:
        folder, expected = _target(workspace, target)
        admission = admission_of(workspace, folder, expected)
        refused = ", ".join(check.name for check in admission.refusals)
        progress.note(f"refused by {refused}" if refused else f"bundle {(admission.digest or '')[:_SHORT]} is admitted")
    if as_json:
        print_json(admission.to_json())
    else:
        echo_checks(admission)
    admission.require()


def _target(workspace: Workspace, target: str) -> tuple[Path, Digest | None]:
    """The folder to look at, and the digest that it should have; None where nothing says it."""
    folder = Path(target)
    if folder.is_dir():
        # In an artifact store a folder is named by its bundle's digest.
        return folder, Digest(folder.name) if re.fullmatch("[0-9a-f]{64}", folder.name) else None
    with workspace.registry() as registry:
        digest = registry.bundle(target).digest
    return workspace.artifacts.open(digest), digest


@bundle.command("schema")
def schema() -> None:
    """Print the JSON Schema of a bundle's documents."""
    print_json(bundle_schema())


@bundle.command("register")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@skip_parity
def register(folder: Path, skip_parity: str) -> None:
    """Verify the bundle in FOLDER, keep it in the artifact store and record it.

    Where an online store is up it is given a dry parity run first: recent entities read online and offline,
    transformed, scored and compared. Exit code 4: refused.
    """
    workspace = Workspace()

    def check_parity(bundle: Bundle) -> DryRun:
        return DryRun.skipped(skip_parity) if skip_parity else told_dry_run(workspace, bundle, None)

    with step("Registering") as progress:
        progress.note(f"bundle {workspace.register(folder, check_parity).digest}")


@bundle.command("list")
@click.option("--name", help="Only bundles of this model.")
@_as_json
def list_bundles(name: str | None, as_json: bool) -> None:
    """List registered bundles, newest first."""
    with Workspace().registry() as registry:
        records = registry.bundles(name)
    if as_json:
        print_json([record.to_json() for record in records])
        return
    for record in records:
        auroc = record.metrics.get("auroc")
        quality = "" if auroc is None else f"  held-out AUROC {auroc:.4f}"
        click.echo(f"{record.digest[:_SHORT]}  {record.name}  {format_timestamp(record.created_time)}{quality}")
    if not records:
        say("no bundles yet: `skewless train MODEL` makes one")


@bundle.command("show")
@click.argument("digest")
@_as_json
def show(digest: str, as_json: bool) -> None:
    """Show the bundle with DIGEST (or its first 8 digits or more): what it reads, gives and came from."""
    found = Workspace().bundle(digest)
    if as_json:
        print_json(_json(found))
        return
    contract = found.contract
    click.echo(f"{found.name} {found.digest}")
    click.echo(
        f"reads     {sum(len(view.features) for view in contract.views)} features of {len(contract.views)} views"
    )
    for view in contract.views:
        keys = ", ".join(key.name for key in view.join_keys) or "no entity"
        click.echo(f"            {view.name} [{keys}]: {', '.join(feature.name for feature in view.features)}")
    for computed in contract.on_demand:
        features = ", ".join(feature.name for feature in computed.features)
        click.echo(f"            {computed.name} by {computed.function}: {features}")
    asked = [key.name for key in contract.join_keys] + [field.name for field in contract.request_fields]
    click.echo(f"asks for  {', '.join(asked)}")
    click.echo(f"transform {found.transform.digest[:_SHORT]}, {len(found.transform.output_names)} columns")
    size = sum(each.bytes for each in found.model.files.values())
    click.echo(f"model     {found.model.format}, {size:,} bytes; runs on {', '.join(targets_of(found.model.format))}")
    labels, calibration = found.post.labels, found.post.calibration
    click.echo(
        f"answers   `{labels.positive}` from {labels.threshold:g} on, else `{labels.negative}`;"
        f" calibration {calibration.kind}"
    )
    click.echo(f"golden    {found.golden.rows} rows")
    _echo_provenance(found)


def _echo_provenance(found: Bundle) -> None:
    """Where it came from, as far as its provenance says: a bundle that was not trained here may say little."""
    provenance = found.provenance
    training, rows = provenance.get("training"), provenance.get("rows")
    if isinstance(training, dict) and isinstance(rows, int):
        click.echo(f"trained   {training.get('start')} to {training.get('end')}, {rows:,} rows")
    metrics = provenance.get("holdout", {}).get("metrics")
    if isinstance(metrics, dict):
        numbers = {name: value for name, value in metrics.items() if isinstance(value, int | float)}
        click.echo("held out  " + ", ".join(f"{name} {value:.6g}" for name, value in numbers.items()))


def _json(found: Bundle) -> dict[str, Any]:
    return {
        "digest": found.digest,
        "name": found.name,
        "contract": found.contract.to_json(),
        "transform": {"digest": found.transform.digest, "outputs": found.transform.output_names},
        "model": {
            "format": found.model.format.value,
            "files": sorted(found.model.files),
            "targets": list(targets_of(found.model.format)),
        },
        "serving": found.serving.to_json(),
        "post_processing": found.post.to_json(),
        "golden_rows": found.golden.rows,
        "provenance": dict(found.provenance),
    }


for _command in (compare, evaluate, gates, import_mlflow):
    bundle.add_command(_command)
