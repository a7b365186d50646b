"""A process that ingests in forks of itself, which are killed at steps drawn from a seed, until everything is done.

    python -P killed_ingest.py <folder> <database> <store> <seed> <batches> <deaths>

A step is a call or a return of any function of the modules in `_STEPS`; other forks die after a time. Each fork goes on
where the one before was cut off, as a service does that is started again: it accepts the next batches, with keys, notes
which ones it was told are accepted, and delivers. The last one is not killed.
"""

import random
import sys
import threading
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

from harness.deaths import died
from harness.ingest_world import IngestWorld, made_rows
from skewless.errors import Conflict

ACKNOWLEDGED = "acknowledged.txt"
_ROWS_MAX = 160
_PER_LIFE = 4
_LEASE = "lane:rows:clicks"
_STEPS = ("row_lane", "ingest_lane", "ingest_outbox", "ingest_batches", "offline_tables", "offline_sources",
          "online_writer", "transactions", "leases", "durability", "redis_blocking_connection")  # fmt: skip


def live(where: tuple[Path, str, str], seed: int, batches: int, *, last: bool) -> None:
    """Open the world anew, as a process that starts does, and do the work of one life."""
    with closing(IngestWorld(*where)) as world:
        _work(world, seed, batches, last=last)


def _work(world: IngestWorld, seed: int, batches: int, *, last: bool) -> None:
    """Accept some more batches and deliver what waits; all of them, to the end, in the last life."""
    lane, lease, stop = world.lane(world.handler(), settle_s=0.02), world.take_lease(), threading.Event()
    known = {int(line) for line in (world.folder / ACKNOWLEDGED).read_text().split()}
    todo = [(number, rows) for number, rows in enumerate(made_rows(seed, batches, _ROWS_MAX)) if number not in known]
    for number, rows in todo if last else todo[:_PER_LIFE]:
        with suppress(Conflict):  # it was accepted, and who accepted it did not live to say so
            world.accept(rows, key=f"batch-{number}")
        with (world.folder / ACKNOWLEDGED).open("a") as file:
            file.write(f"{number}\n")
        lane.step(lease, stop)
    while world.batches.working():
        lane.step(lease, stop)


def main() -> None:
    """Run forks until the last one has done everything; says how many were killed."""
    folder, url, store_url = sys.argv[1:4]
    seed, batches, deaths = map(int, sys.argv[4:7])
    world = (Path(folder), url, store_url)
    chosen = random.Random(seed)
    (world[0] / ACKNOWLEDGED).touch()
    life, killed = partial(live, world, seed, batches, last=False), 0
    for number in range(deaths):
        if number % 4 == 3:
            killed += died(life, modules=_STEPS, after_s=chosen.uniform(0.02, 0.5))
        else:  # small steps more often: most of a life's steps are those of its later batches
            killed += died(life, modules=_STEPS, at_step=int(10 ** chosen.uniform(0.5, 3.7)))
        opened = IngestWorld(*world)
        with closing(opened):
            if (lease := opened.leases.holder(_LEASE)) is not None:
                opened.leases.release(lease)  # as if its time were over
    died(partial(live, world, seed, batches, last=True), modules=_STEPS)
    sys.stdout.write(f"{killed}\n")


if __name__ == "__main__":
    main()
