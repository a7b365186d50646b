"""`skewless bundle compare|evaluate|gates`: how a bundle does beside another."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from skewless.cli.output import print_json, say, step
from skewless.errors import InvalidDefinition

if TYPE_CHECKING:
    from skewless.bundles.bundle import Bundle
    from skewless.training.definition import ModelDefinition

_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")
_REFUSED = 4


@click.command("compare")
@click.argument("before")
@click.argument("after")
@_as_json
def compare(before: str, after: str, as_json: bool) -> None:
    """Compare two registered bundles, given by their digests.

    Metrics and slices on one hold-out, differences of the contract, the transform and the training baseline, and all
    that is stated otherwise: serving profile, post-processing, learner, versions, code revision.
    """
    from skewless.cli.comparison_table import comparison_lines
    from skewless.cli.gate_check import evaluations_of
    from skewless.cli.workspace import Workspace
    from skewless.training.compare import compare_bundles

    workspace = Workspace()
    first, second = workspace.bundle(before), workspace.bundle(after)
    found = compare_bundles(first, second, evaluations_of(workspace, first.digest))
    if as_json:
        print_json(found.to_json())
    else:
        click.echo("\n".join(comparison_lines(found)))


@click.command("evaluate")
@click.argument("digest")
@click.option("--model", help="The model whose hold-out is scored; the one of the bundle's name where not given.")
@_as_json
def evaluate(digest: str, model: str | None, as_json: bool) -> None:
    """Score a model's hold-out with the bundle of DIGEST and keep the metrics, so that gates can compare with them.

    The bundle must not have been trained on rows of the hold-out.
    """
    from skewless.adapters.local_model import local_model
    from skewless.cli.model_commands import score_words
    from skewless.cli.training_run import record_evaluation
    from skewless.cli.workspace import Workspace
    from skewless.training.evaluate_bundle import evaluate_bundle

    workspace = Workspace()
    bundle = workspace.bundle(digest)
    definition = workspace.model(model or bundle.name)
    offline = workspace.offline(definition)
    _require_sources(bundle, definition, offline.sources)
    with step(f"Evaluating bundle {bundle.digest[:12]}") as progress:
        found = evaluate_bundle(bundle, definition, offline, lambda each: local_model(each).run, progress.note)
        with workspace.registry() as registry:
            record_evaluation(registry, bundle.digest, found.dataset, found.evaluation)
        progress.note(score_words(found.evaluation.overall))
    if found.slices_left_out:
        say(f"slices that the bundle cannot be cut by: {', '.join(found.slices_left_out)}")
    if as_json:
        print_json({"bundle": bundle.digest, "dataset": found.dataset.digest, **found.evaluation.to_json()})


def _require_sources(bundle: "Bundle", definition: "ModelDefinition", sources: Mapping[str, object]) -> None:
    """Raise InvalidDefinition where the bundle reads a view that the model's feature service does not."""
    missing = sorted({view.name for view in bundle.contract.views} - sources.keys())
    if missing:
        raise InvalidDefinition(
            f"bundle {bundle.digest[:12]} reads view `{missing[0]}`, which feature service"
            f" `{definition.feature_service}` of model `{definition.name}` does not have",
            hint="name by --model a model whose feature service has all views that the bundle reads",
        )


@click.command("gates")
@click.argument("digest")
@click.option("--against", metavar="DIGEST", help="The bundle to compare with, as if it were live.")
@click.option("--endpoint", help="Compare with what is live there.")
@_as_json
def gates(digest: str, against: str | None, endpoint: str | None, as_json: bool) -> None:
    """Check the gates of the bundle with DIGEST. Exit code 4: a gate failed, or could not be decided.

    Without --against and --endpoint nothing counts as live. Latency is measured on this machine, now.
    """
    from skewless.cli.gate_check import check_bundle
    from skewless.cli.workspace import Workspace

    if against and endpoint:
        raise click.UsageError("give --against or --endpoint, not both")
    workspace = Workspace()
    with workspace.registry() as registry:
        candidate = registry.bundle(digest).digest
        live = registry.bundle(against).digest if against else None
        if endpoint:
            live = registry.endpoint(endpoint).route.live
    report = check_bundle(workspace, candidate, live)
    if as_json:
        print_json(report.to_json())
    else:
        click.echo(report.text())
    if not report.passed:
        raise click.exceptions.Exit(_REFUSED)
