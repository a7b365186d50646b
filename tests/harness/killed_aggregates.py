"""A process that computes a stream in forks of itself, which are killed at steps drawn from a seed.

    python -P killed_aggregates.py <folder> <project> <store> <seed> <batches> <deaths>

A step is a call or a return of any function of the modules in `_STEPS`. Each fork goes on where the one before was cut
off, as a service does: with the batch that it was not told the end of. The last one is not killed. It prints how many
were.
"""

import random
import sys
from contextlib import closing
from functools import partial
from pathlib import Path

from harness.aggregate_stores import StreamWorld, random_batches
from harness.deaths import died
from skewless.timestamps import SECOND_US

PROGRESS = "progress.txt"
QUIET_US = 100 * SECOND_US
_STEPS = ("aggregate_lane", "aggregate_lane_step", "aggregate_state", "offline_tables", "online_writer", "durability",
          "redis_blocking_connection", "aggregate_backfill", "duckdb_aggregates")  # fmt: skip


def live(world: StreamWorld, seed: int, count: int) -> None:
    """Deliver what is not noted as delivered, with the clock going on, and let all windows end."""
    batches = random_batches(seed, count)
    progress = world.folder / PROGRESS
    with closing(world.lane()) as lane:
        for number, (known, sent) in enumerate([*batches, (batches[-1][0] + QUIET_US, [])], start=1):
            if number <= len(progress.read_text()):
                continue
            world.now = known
            if sent:
                lane.deliver(world.batch(number, known, sent))
            while lane.tick():
                pass
            with progress.open("a") as file:
                file.write(".")


def main() -> None:
    """Run forks until the last one has done everything."""
    folder, project, store = sys.argv[1:4]
    seed, count, deaths = map(int, sys.argv[4:7])
    world = StreamWorld(Path(folder), store, project=project)
    (world.folder / PROGRESS).touch()
    chosen = random.Random(seed)
    life = partial(live, world, seed, count)
    killed = sum(died(life, modules=_STEPS, at_step=int(10 ** chosen.uniform(0.5, 3.2))) for _ in range(deaths))
    died(life, modules=_STEPS)
    sys.stdout.write(f"{killed}\n")


if __name__ == "__main__":
    main()
