"""`skewless model-metrics …`: how good the models of an endpoint were, by period, from outcomes."""

from typing import Any

import click

from skewless.cli.arguments import moment
from skewless.cli.model_metrics_table import print_metrics
from skewless.cli.output import print_json, say, step
from skewless.cli.workspace import Workspace
from skewless.model_metrics.history import compare_counters, counter_totals, estimate_errors
from skewless.model_metrics.judged import ALL
from skewless.model_metrics.records import MetricRecord
from skewless.registry.model_metrics import ModelMetrics

_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")


@click.group("model-metrics")
def model_metrics() -> None:
    """How good models were: metrics by period, slice and bundle, once outcomes have come."""


@model_metrics.command("show")
@click.argument("endpoint")
@click.option("--slice", "slice_called", default=ALL, metavar="NAME=VALUE", help="Only rows of this slice.")
@click.option("--slices", is_flag=True, help="List the slices that there are.")
@click.option("--bundle", default="", metavar="DIGEST", help="Only the bundle whose digest begins so.")
@click.option("--metric", "metrics", multiple=True, help="Only this metric; may be given several times.")
@click.option("--since", metavar="TIME", help="Periods from this moment on.")
@click.option("--until", metavar="TIME", help="Periods that begin before this moment.")
@_as_json
def show(
    endpoint: str,
    slice_called: str,
    slices: bool,
    bundle: str,
    metrics: tuple[str, ...],
    since: str | None,
    until: str | None,
    as_json: bool,
) -> None:
    """Show the metrics of ENDPOINT's models: of each bundle and role the newest mature period, and all as a line.

    A period is of the moments that predictions were asked about. Bounds with * hold however often somebody looks. Lines
    with ≈ are estimates from the scores alone, before outcomes; beside them is how far they were off before.
    """
    workspace = Workspace()
    with workspace.registry() as registry:
        references = {digest: registry.bundle(digest).metrics for digest in registry.endpoint(endpoint).names}
    with workspace.kept(ModelMetrics) as store:
        found = store.metrics(
            endpoint,
            start=None if since is None else moment(since, option="--since"),
            end=None if until is None else moment(until, option="--until"),
            slice_called=None if slices else slice_called,
            bundle=bundle,
        )
    if slices:
        _show_slices(found, as_json=as_json)
        return
    kept = [each for each in found if not metrics or each.metric in metrics]
    if as_json:
        print_json(_plain(endpoint, kept))
    elif not kept:
        say("nothing is computed: `skewless model-metrics compute` does it now, the monitor does it all the time")
    else:
        print_metrics(kept, references)


@model_metrics.command("compute")
@click.argument("endpoint")
@_as_json
def compute(endpoint: str, as_json: bool) -> None:
    """Compute the periods of ENDPOINT that have new outcomes or predictions, as the monitor does.

    Both may run at once: a period is replaced as a whole, by the same numbers whoever computes it.
    """
    from skewless.adapters.log_reader import open_log
    from skewless.adapters.model_metrics_run import BundleLabels, keep_endpoint_up
    from skewless.monitor_limits import MODEL_METRIC_PERIODS_MAX
    from skewless.registry.repository import system_clock

    workspace = Workspace()
    with workspace.registry(create=True) as registry:
        record = registry.endpoint(endpoint)
    with (
        workspace.kept(ModelMetrics) as store,
        step(f"Computing metrics of {endpoint}") as progress,
        open_log(workspace.home.predictions, workspace.settings.log_store_address) as log,
    ):
        kept = keep_endpoint_up(
            record,
            log,
            store,
            BundleLabels(workspace.artifacts),
            now=system_clock(),
            periods_max=MODEL_METRIC_PERIODS_MAX,
        )
        progress.note(f"{kept.computed:,} periods")
    if as_json:
        print_json({"endpoint": endpoint, "computed": kept.computed, "waiting": kept.waiting})


def _plain(endpoint: str, records: list[MetricRecord]) -> dict[str, Any]:
    totals = counter_totals(records)
    return {
        "endpoint": endpoint,
        "metrics": [each.to_json() for each in records],
        "estimate_errors": [
            {"bundle": bundle, "role": role, "metric": metric, "error": error}
            for (bundle, role, metric), error in sorted(estimate_errors(records).items())
        ],
        "counters": [each.to_json() for each in totals],
        "comparisons": [each.to_json() for each in compare_counters(totals)],
    }


def _show_slices(records: tuple[MetricRecord, ...], *, as_json: bool) -> None:
    names = sorted({each.slice for each in records if each.slice != ALL})
    if as_json:
        print_json(names)
        return
    for name in names:
        click.echo(name)
    if not names:
        say("there are no slices: `skewless endpoint set --monitoring` names their columns in metrics.slices")
