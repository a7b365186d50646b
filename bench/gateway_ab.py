"""`python -m bench.gateway_ab BEFORE`: the gateways of two checkouts side by side over one Valkey, Triton and model.

    git worktree add ../before HEAD~1 && .venv/bin/python -m bench.gateway_ab ../before

Both run with this environment's packages and take turns in short blocks, so a busy machine disturbs both alike: look at
the ratios and at the processor time, not at milliseconds.
"""

import contextlib
import tempfile
from pathlib import Path

import click

from bench.environment import ROOT
from bench.gateway_stack import HTTP, PREPARED, WAYS, GatewayStack, Served, gateway_stack
from bench.load_block import Load
from bench.load_loops import Aim, ClosedLoop
from bench.load_timing import SERVED, load_generator
from bench.measure import Ratio, Timing, cpu_ratio, ratio, ratio_of
from bench.tables import duration, markdown, number

BEFORE, AFTER = "before", "after"


@click.command()
@click.argument("before", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--after", type=click.Path(exists=True, file_okay=False, path_type=Path), default=ROOT, help="This one.")
@click.option("--way", type=click.Choice(WAYS), default=HTTP, show_default=True, help="How they reach the model.")
@click.option("--way-before", type=click.Choice(WAYS), help="How BEFORE does, where that differs.")
@click.option("--callers", default="1,32", show_default=True, help="Counts of callers, with commas.")
@click.option("--rows", type=click.Choice([str(rows) for rows in PREPARED]), default="1", show_default=True)
@click.option("--repetitions", default=9, show_default=True, help="Turns of each.")
@click.option("--seconds", default=0.8, show_default=True, help="Length of one turn.")
def main(
    before: Path,
    after: Path,
    *,
    way: str,
    way_before: str | None,
    callers: str,
    rows: str,
    repetitions: int,
    seconds: float,
) -> None:
    """Print how many times BEFORE's time and processor time this checkout's gateway takes."""

    def progress(text: str) -> None:
        click.echo(text, err=True)

    with (
        tempfile.TemporaryDirectory(prefix="bench-ab-") as scratch,
        gateway_stack(Path(scratch), progress) as stack,
        load_generator() as generator,
    ):
        servers = {
            BEFORE: stack.gateway(BEFORE, way_before or way, source=before),
            AFTER: stack.gateway(AFTER, way, source=after),
        }
        for count in (int(each) for each in callers.split(",")):
            progress(f"{count} callers x {rows} rows")
            jobs = {
                name: ClosedLoop(_aim(stack, served, int(rows)), count, seconds / 4, seconds)
                for name, served in servers.items()
            }
            timings = generator.compare(jobs, repetitions)
            click.echo(f"\n{count} callers, {rows} rows\n\n{_table(timings[BEFORE], timings[AFTER])}")


def _aim(stack: GatewayStack, served: Served, rows: int) -> Aim:
    requests = tuple(served.request(body) for body in stack.bodies(rows))
    return Aim(served.host, served.port, requests, {SERVED: served.pid, **stack.pids})


def _table(before: Timing, after: Timing) -> str:
    old, new = _load(before), _load(after)
    rows = [
        ["p50", duration(before.p50_us), duration(after.p50_us), *_shown(ratio(after, before))],
        [
            "p99 of all",
            duration(before.p99_us),
            duration(after.p99_us),
            *_shown(ratio_of(new.p99s_us, old.p99s_us)),
        ],
        [
            "processor time for one answer",
            duration(before.cpu_us),
            duration(after.cpu_us),
            *_shown(cpu_ratio(after, before)),
        ],
        ["answers/s", *(number(max(each.per_s)) for each in (old, new)), *_shown(ratio_of(new.per_s, old.per_s))],
        ["failed", str(old.failed), str(new.failed), "", ""],
    ]
    return markdown(["", BEFORE, AFTER, "after / before", "spread"], rows)


def _load(timing: Timing) -> Load:
    assert timing.load is not None, "a load generator asked"
    return timing.load


def _shown(found: Ratio) -> tuple[str, str]:
    return number(found.median), f"{number(found.low)} to {number(found.high)}"


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
