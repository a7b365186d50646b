"""What the command line checks bundles with: everything that admission knows, with tools that a gateway lacks."""

import time
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import click

from skewless.bundles.admission import Admission, Check, ModelTools, Result, Surroundings, admit
from skewless.bundles.model_files import ModelFormat
from skewless.canonical_json import Digest
from skewless.errors import NotFound
from skewless.features.compiled_registry import CompiledRegistry
from skewless.registry.database import revision_status

if TYPE_CHECKING:
    from skewless.cli.workspace import Workspace

_MARKS = {Result.PASSED: ("ok", "green"), Result.REFUSED: ("refused", "red"), Result.SKIPPED: ("skipped", "yellow")}


def admission_of(
    workspace: "Workspace", folder: Path, expected: Digest | None = None, *, definitions: bool = True
) -> Admission:
    """Every check of a bundle's folder. Without `definitions` the registered feature definitions are not looked at.

    Raises Unavailable where the registry database does not answer.
    """
    return admit(folder, expected, surroundings(workspace, definitions=definitions))


def surroundings(workspace: "Workspace", *, definitions: bool = True) -> Surroundings:
    """What a workspace has to check bundles with."""
    # These load `onnx` and ONNX Runtime, half a second that commands which verify nothing do not pay.
    from skewless.adapters.onnx_scorer import onnx_scorer
    from skewless.adapters.onnx_signature import onnx_signature
    from skewless.adapters.onnx_transform import OnnxTransform

    return Surroundings(
        clock=time.monotonic_ns,
        steps=workspace.steps,
        import_module=import_module,
        export=lambda fitted: OnnxTransform(fitted).apply,
        model=ModelTools(signature={ModelFormat.ONNX: onnx_signature}, run={ModelFormat.ONNX: onnx_scorer}),
        registered=(lambda project: _registered(workspace, project)) if definitions else None,
    )


def _registered(workspace: "Workspace", project: str) -> CompiledRegistry | None:
    """What is registered of a Feast project; None where nothing ever was, or where there is no registry yet."""
    migrated, _ = revision_status(workspace.settings.registry_url)
    if migrated is None:
        return None
    try:
        with workspace.snapshots() as snapshots:
            return snapshots.newest(project).registry
    except NotFound:
        return None


def echo_checks(admission: Admission) -> None:
    """Print every check, one to a line, and below it why it refused or did not run."""
    width = max(len(check.name) for check in admission.checks)
    for check in admission.checks:
        _echo_check(check, width)


def _echo_check(check: Check, width: int) -> None:
    mark, colour = _MARKS[check.result]
    line = f"{click.style(f'{mark:>8}', fg=colour)}  {check.name:<{width}}  {check.seconds * 1_000:6.0f} ms  "
    click.echo(line + (check.looked_at or check.message))
    if check.hint:
        click.echo(f"{'':>8}  hint: {check.hint}")
