"""`skewless bundle …`: verify, register, show and list bundles."""

from pathlib import Path

import click

from skewless.bundles.bundle import Bundle, load_bundle
from skewless.cli.output import print_json, say, step
from skewless.cli.workspace import Workspace, verify_outputs
from skewless.timestamps import format_timestamp

_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")
_SHORT = 12


@click.group()
def bundle() -> None:
    """The immutable units that are shipped: contract, transform, model and golden vectors."""


@bundle.command("verify")
@click.argument("target")
def verify(target: str) -> None:
    """Verify a bundle: TARGET is a folder, or the digest of a registered bundle.

    Checks every file against the manifest, and that transform and model reproduce the golden vectors bit for bit.
    Exit code 4: refused; the message names the file or the row.
    """
    with step("Verifying") as progress:
        folder = Path(target)
        found = load_bundle(folder, steps=Workspace().steps) if folder.is_dir() else Workspace().bundle(target)
        verify_outputs(found)
        progress.note(f"bundle {found.digest[:_SHORT]} of {found.name}: {found.golden.rows} golden rows reproduced")


@bundle.command("register")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
def register(folder: Path) -> None:
    """Verify the bundle in FOLDER, keep it in the artifact store and record it."""
    with step("Registering") as progress:
        progress.note(f"bundle {Workspace().register(folder).digest}")


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
    contract, provenance = found.contract, found.provenance
    click.echo(f"{found.name} {found.digest}")
    click.echo(
        f"reads     {sum(len(view.features) for view in contract.views)} features of {len(contract.views)} views"
    )
    for view in contract.views:
        keys = ", ".join(key.name for key in view.join_keys) or "no entity"
        click.echo(f"            {view.view} [{keys}]: {', '.join(feature.name for feature in view.features)}")
    asked = [key.name for key in contract.join_keys] + [field.name for field in contract.request_fields]
    click.echo(f"asks for  {', '.join(asked)}")
    click.echo(f"transform {found.transform.digest[:_SHORT]}, {len(found.transform.output_names)} columns")
    click.echo(
        f"trained   {provenance['training']['start']} to {provenance['training']['end']}, {provenance['rows']:,} rows"
    )
    click.echo(f"held out  {provenance['holdout']['metrics']}")


def _json(found: Bundle) -> dict[str, object]:
    return {
        "digest": found.digest,
        "name": found.name,
        "contract": found.contract.to_json(),
        "transform": {"digest": found.transform.digest, "outputs": found.transform.output_names},
        "provenance": dict(found.provenance),
    }
