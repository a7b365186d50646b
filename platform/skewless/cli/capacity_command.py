"""`skewless capacity`: how many gateways, how much memory and how many GPUs a load takes."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from skewless.capacity.costs import Costs, shipped_costs
from skewless.capacity.plan import Capacity, Demand, capacity
from skewless.cli.output import print_json, say
from skewless.errors import InvalidDefinition


@click.command()
@click.option("--rps", "requests_per_s", type=float, required=True, help="Requests per second at the peak.")
@click.option("--rows", default=1, show_default=True, help="Rows of a request.")
@click.option("--features", default=40, show_default=True, help="Stored features of a row.")
@click.option("--entities", default=1_000_000, show_default=True, help="Keys in the online store.")
@click.option("--utilisation", default=Demand(1).utilisation, show_default=True, help="Share of a core to plan with.")
@click.option("--gateway-cores", default=4, show_default=True, help="Cores of one gateway.")
@click.option("--spare", default=1, show_default=True, help="Replicas that may be away.")
@click.option("--retention-days", default=30, show_default=True, help="Days that the prediction log is kept.")
@click.option("--model-rows-per-s", type=float, help="What one GPU answers; without it trees on CPU cores are assumed.")
@click.option(
    "--costs", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Costs measured elsewhere (JSON)."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")
def capacity_command(costs: Path | None, as_json: bool, **given: Any) -> None:
    """Say what a load takes: replicas, cores, memory of the online store, size of the log.

    It is arithmetic on measured costs. Network, disks, keys that are asked for more than others and bursts above the
    peak are not in it.
    """
    sheet = shipped_costs() if costs is None else _read(costs)
    demand = Demand(**given)
    found = capacity(demand, sheet)
    if as_json:
        print_json({"demand": asdict(demand), "measured": dict(sheet.measured), **asdict(found), "cores": found.cores})
        return
    Console().print(_table(demand, found))
    say(
        f"prediction log: {found.log_gib_a_day:,.1f} GiB a day, {found.log_gib:,.0f} GiB after"
        f" {demand.retention_days} days; {found.cores:,} cores in all"
    )
    say(f"costs measured on {sheet.measured['processor']}, {sheet.measured['date']}, commit {sheet.measured['commit']}")


def _table(demand: Demand, found: Capacity) -> Table:
    table = Table(title=f"{demand.predictions_per_s:,.0f} predictions/s in {demand.requests_per_s:,.0f} requests/s")
    for name in ("part", "busy cores", "replicas", "cores each", "GiB each", "note"):
        table.add_column(name, justify="left" if name in ("part", "note") else "right")
    for part in found.parts:
        table.add_row(
            part.name,
            f"{part.busy_cores:,.1f}",
            f"{part.replicas:,}",
            str(part.cores_each),
            f"{part.memory_gib_each:,.2f}" if part.memory_gib_each else "",
            part.why,
        )
    return table


def _read(path: Path) -> Costs:
    try:
        return Costs.from_json(json.loads(path.read_text()))
    except json.JSONDecodeError as error:
        raise InvalidDefinition(f"`{path}` is no JSON: {error}") from error
