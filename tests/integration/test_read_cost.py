"""A feature read stays cheap: processor time against Feast's SDK and against a bare pipeline, in the same run.

Processor time and not wall time, the best of several short blocks and not their mean, and bounds well away from what
is measured (`make bench` and docs/performance.md have the numbers): a slow-down of the hot path fails here, a busy
machine does not. Every candidate's best block comes from the same few seconds.
"""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.measure import compare
from bench.read_store import build, running_valkey, spread
from bench.reading import Reading
from bench.wire_floor import WireFloor
from harness.attempts import holds_once
from skewless.adapters.redis_blocking_store import BlockingRedisOnlineStore
from skewless.stack.ports import LOOPBACK

FEATURES = 40
REPETITIONS = 9
BLOCK_S = 0.03
SDK_MIN = {1: 3.5, 100: 9.0}
"""By rows, how many times our processor time the SDK's is at least; measured 4.9 to 6.3, and 15 to 22."""
DECODING_MAX = 2.0
"""How many times the floor's processor time keys and decoding take at most, at 100 rows; measured 0.8 to 1.0."""


@pytest.fixture(scope="module")
def reading(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[int], Reading]]:
    """Makes a reading of so many rows, of six views on three entities."""
    folder: Path = tmp_path_factory.mktemp("read_cost")
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(running_valkey(folder))
        floor = stack.enter_context(contextlib.closing(WireFloor(LOOPBACK, port)))
        blocking = stack.enter_context(contextlib.closing(BlockingRedisOnlineStore(f"redis://{LOOPBACK}:{port}")))
        store = build(spread(FEATURES), folder, port)
        yield lambda rows: Reading(store, rows, floor=floor, blocking=blocking)


def _best_cpu_us(candidates: dict[str, Callable[[], object]]) -> dict[str, float]:
    """The smallest processor time per call of any block, by name."""
    timings = compare(candidates, repetitions=REPETITIONS, min_time_s=BLOCK_S)
    return {name: min(timing.cpus_us) for name, timing in timings.items()}


@pytest.mark.parametrize("rows", [1, 100])
def test_a_read_gives_the_values_that_the_sdk_gives(reading: Callable[[int], Reading], rows: int) -> None:
    made = reading(rows)
    made.check(made.blocking())


@pytest.mark.parametrize(("rows", "sdk_min"), SDK_MIN.items())
def test_a_read_costs_a_fraction_of_the_sdk(reading: Callable[[int], Reading], rows: int, sdk_min: float) -> None:
    made = reading(rows)

    def measure() -> None:
        cpu = _best_cpu_us({"sdk": made.sdk, "ours": made.blocking})
        assert cpu["sdk"] >= sdk_min * cpu["ours"], f"processor time per read in µs: {cpu}"

    holds_once(measure)


def test_keys_and_decoding_cost_no_more_than_a_few_bare_pipelines(reading: Callable[[int], Reading]) -> None:
    made = reading(100)

    def measure() -> None:
        cpu = _best_cpu_us({"floor": made.floor, "ours": made.prepare_and_decode})
        assert cpu["ours"] <= DECODING_MAX * cpu["floor"], f"processor time in µs for 100 rows: {cpu}"

    holds_once(measure)
