"""`skewless transform …`: what a stored transform is, in what two differ, and whether one runs alike everywhere."""

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from skewless.bundles.bundle import GOLDEN, TRANSFORM
from skewless.bundles.golden import GoldenVectors
from skewless.canonical_json import Digest, digest_bytes
from skewless.cli.output import print_json, say, step
from skewless.cli.workspace import Workspace
from skewless.dtypes import Column, to_python
from skewless.errors import InvalidDefinition, NotFound
from skewless.transforms import FittedTransform
from skewless.transforms.description import OutputDescription, describe
from skewless.transforms.difference import compare
from skewless.transforms.differential import ROWS_DEFAULT, verify
from skewless.transforms.schema import transform_schema

if TYPE_CHECKING:
    from skewless.transforms.executions import Execution

_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")
_SHORT = 12
_REFUSED = 4
"""Exit code of a check that found something; see `skewless --help`."""


@click.group()
def transform() -> None:
    """Fitted transforms. A TARGET is a transform.json, a bundle's folder, or the digest of a registered bundle or of
    its transform."""


@transform.command("show")
@click.argument("target")
@click.argument("output", required=False)
@click.option("--rows", type=click.Path(exists=True, path_type=Path), help="Parquet with rows to plot the outputs of.")
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="SVG file to write; needs --rows.")
@_as_json
def show(target: str, output: str | None, rows: Path | None, plot: Path | None, as_json: bool) -> None:
    """Show every output of TARGET in words, or how OUTPUT is computed step by step."""
    if (rows is None) != (plot is None):
        raise click.UsageError("--rows and --plot go together: the plot is of the outputs over those rows")
    fitted = _load(target).fitted
    described = describe(fitted)
    if output is not None:
        described = tuple(each for each in described if output in (each.name, *each.columns))
        if not described:
            raise NotFound("output", output, known=tuple(name for name, _ in fitted.graph.outputs))
    if as_json:
        print_json(_show_json(fitted, described))
    elif output is not None:
        _echo_steps(described[0])
    else:
        _echo_table(fitted, described)
    if rows is not None and plot is not None:
        _write_plot(fitted, rows, plot)


@transform.command("diff")
@click.argument("before")
@click.argument("after")
@_as_json
def diff(before: str, after: str, as_json: bool) -> None:
    """Say in words what AFTER does otherwise than BEFORE: inputs, outputs, operations, learned parameters."""
    difference = compare(_load(before).fitted, _load(after).fitted)
    if as_json:
        print_json(difference.to_json())
    else:
        click.echo(difference.text())


@transform.command("verify")
@click.argument("target")
@click.option("--rows", type=click.IntRange(1, 100_000), default=ROWS_DEFAULT, show_default=True, help="Rows to make.")
@click.option("--seed", type=int, default=0, show_default=True, help="The same seed makes the same rows.")
@_as_json
def verify_transform(target: str, rows: int, seed: int, as_json: bool) -> None:
    """Run TARGET in every way it can run, on made-up rows, and compare.

    Rows hold nulls, NaN, infinities, denormals, unseen words, changes of the clock and every edge of the transform,
    besides the values of the bundle's golden rows. Each row alone, batches of all sizes and tables must give the same
    bits, the ONNX export the same numbers within its stated bounds. Exit code 4: they differ; the smallest row that
    shows it is printed.
    """
    loaded = _load(target)
    onnx, reason = _onnx(loaded.fitted)
    with step("Verifying") as progress:
        report = verify(loaded.fitted, rows=rows, seed=seed, samples=loaded.samples, onnx=onnx)
        progress.note("all agree" if report.equal else f"{len(report.differences)} differences")
    if as_json:
        print_json({**report.to_json(), "onnx_not_compared": reason})
    else:
        click.echo(report.text())
        if reason:
            say(f"not compared with ONNX: {reason}")
    if not report.equal:
        sys.exit(_REFUSED)


@transform.command("schema")
def schema() -> None:
    """Print the JSON Schema of stored transforms."""
    print_json(transform_schema())


@dataclass(frozen=True, slots=True)
class _Loaded:
    fitted: FittedTransform
    golden: GoldenVectors | None

    @property
    def samples(self) -> Mapping[str, list[object]] | None:
        """Values of the golden rows by column, as typical ones."""
        return None if self.golden is None else {name: _values(each) for name, each in self.golden.columns.items()}


def _values(column: Column) -> list[object]:
    return [item for item in to_python(column) if item is not None]


def _load(target: str) -> _Loaded:
    path = Path(target)
    if path.is_dir():
        golden = path / GOLDEN
        return _Loaded(
            _read(path / TRANSFORM),
            GoldenVectors.from_json(json.loads(golden.read_bytes())) if golden.exists() else None,
        )
    if path.is_file():
        return _Loaded(_read(path), None)
    if not re.fullmatch(r"[0-9a-f]{8,64}", target):
        raise NotFound("file, folder or digest", target, hint="a digest is given by its first 8 digits or more")
    bundle = Workspace().bundle(_bundle_digest(target))
    return _Loaded(bundle.transform, bundle.golden)


def _read(path: Path) -> FittedTransform:
    try:
        data = path.read_bytes()
        files = [each.read_bytes() for each in (path.parent / "transform").glob("*.onnx")]
    except OSError as error:
        raise InvalidDefinition(f"`{path}` cannot be read: {error.strerror}") from error
    models: dict[Digest, bytes] = {digest_bytes(model): model for model in files}
    try:
        return FittedTransform.from_bytes(data, Workspace().steps(models))
    except InvalidDefinition as error:
        raise InvalidDefinition(f"`{path}`: {error.message}", hint=error.hint) from error


def _bundle_digest(prefix: str) -> str:
    """The digest of the newest bundle whose transform has a digest that begins so; else the text itself."""
    with Workspace().registry() as registry:
        known = registry.bundles(None)
    return next((record.digest for record in known if record.transform_digest.startswith(prefix)), prefix)


def _onnx(fitted: FittedTransform) -> "tuple[Execution | None, str]":
    """The ONNX export as an execution, or why there is none."""
    from skewless.adapters.onnx_transform import OnnxTransform

    try:
        return OnnxTransform(fitted).apply, ""
    except InvalidDefinition as error:
        return None, error.message


def _show_json(fitted: FittedTransform, described: tuple[OutputDescription, ...]) -> dict[str, Any]:
    return {
        "digest": fitted.digest,
        "semantics_version": fitted.to_json()["semantics_version"],
        "inputs": [
            {"name": each.name, "dtype": str(each.dtype), "nullable": each.nullable} for each in fitted.graph.inputs
        ],
        "outputs": [each.to_json() for each in described],
    }


def _echo_table(fitted: FittedTransform, described: tuple[OutputDescription, ...]) -> None:
    version = fitted.to_json()["semantics_version"]
    click.echo(
        f"transform {fitted.digest[:_SHORT]}, semantics version {version}: {len(fitted.inputs)} inputs,"
        f" {len(described)} outputs in {len(fitted.output_names)} columns"
    )
    places = [_place(each) for each in described]
    widths = max(map(len, places)), max(len(each.name) for each in described)
    for place, each in zip(places, described, strict=True):
        click.echo(f"{place:>{widths[0]}}  {each.name:<{widths[1]}}  {each.words}")


def _place(output: OutputDescription) -> str:
    first, count = output.first_column, len(output.columns)
    return str(first) if count == 1 else f"{first}-{first + count - 1}"


def _echo_steps(output: OutputDescription) -> None:
    click.echo(f"{output.name}: column {_place(output)} of the tensor")
    if output.columns != (output.name,):
        click.echo(f"  columns  {', '.join(output.columns)}")
    for name, dtype, nullable in output.reads:
        click.echo(f"  reads    {name} ({dtype}{', may be null' if nullable else ''})")
    for number, each in enumerate(output.steps, start=1):
        click.echo(f"  {number:>2}. {each.text}\n      {each.meaning}")


def _write_plot(fitted: FittedTransform, rows: Path, plot: Path) -> None:
    from skewless.adapters.tabular import columns_of
    from skewless.cli.transform_plot import outputs_svg

    columns, count = columns_of(rows, fitted.inputs)
    tensor = fitted.prepare().apply(columns, count)
    plot.write_text(outputs_svg(fitted.output_names, tensor))
    say(f"{len(fitted.output_names)} columns over {count:,} rows: {plot}")
