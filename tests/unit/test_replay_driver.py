"""The replay's clock: features, then questions, then outcomes, each at their moment, through refusals."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from skewless.dtypes import Dtype, column_of
from skewless.errors import InvalidRequest, Unavailable
from skewless.simulation import replay as driver
from skewless.simulation.replay import CONCURRENCY, OUTCOMES_PER_CALL, Answer, Instance, instances_of, replay
from skewless.training.examples import NO_OUTCOME, Examples

SOON_S = 0.0001


def _examples(as_of: list[int], outcome_time: list[int] | None = None) -> Examples:
    rows = len(as_of)
    outcomes = np.array(outcome_time if outcome_time is not None else [NO_OUTCOME] * rows, dtype=np.int64)
    return Examples(
        rows=rows,
        keys={
            "row": column_of(Dtype.INT64, list(range(rows))),
            "tail": column_of(Dtype.STRING, [None if row % 3 == 0 else f"N{row}" for row in range(rows)]),
        },
        as_of=np.array(as_of, dtype=np.int64),
        labels=np.arange(rows) % 2 == 0,
        labelled=outcomes != NO_OUTCOME,
        outcome_time=outcomes,
    )


@dataclass
class World:
    """Both ports at once. `events` is everything that happened in order; refusals are taken from the counters."""

    seed: int = 0
    refusals: dict[str, int] = field(default_factory=dict)
    random_latency: bool = False
    events: list[tuple[str, int]] = field(default_factory=list)
    outcomes: list[tuple[str, bool, int]] = field(default_factory=list)
    calls: list[int] = field(default_factory=list)
    known_to: int = -1
    in_flight: int = 0
    in_flight_max: int = 0

    def __post_init__(self) -> None:
        self._rng = random.Random(self.seed)

    def advance(self, to: int) -> int:
        self._refuse("advance")
        self.events.append(("features", to))
        self.known_to = to
        return 2

    async def predict(self, instance: Instance, *, as_of: int) -> Answer:
        self._refuse("predict")
        assert self.known_to == as_of, "a question sees exactly what was known at its moment"
        self.in_flight += 1
        self.in_flight_max = max(self.in_flight_max, self.in_flight)
        for _ in range(self._rng.randrange(20) if self.random_latency else 0):
            await asyncio.sleep(0)
        self.in_flight -= 1
        self.events.append(("question", as_of))
        row = instance["row"]
        assert isinstance(row, int)
        return Answer(f"id-{row}", row / 1024, row * 0.5)

    async def report(self, outcomes: Sequence[tuple[str, bool, int]]) -> None:
        self._refuse("report")
        self.calls.append(len(outcomes))
        self.outcomes += outcomes
        self.events += [("outcome", when) for _, _, when in outcomes]

    def _refuse(self, what: str) -> None:
        if self.refusals.get(what, 0):
            self.refusals[what] -= 1
            raise Unavailable("gateway", "restarting", retry_after_s=SOON_S)


def _nothing(_asked: int, _rows: int) -> None:
    """Progress that nobody watches."""


async def test_at_each_moment_features_come_first_then_questions_then_outcomes() -> None:
    world = World()
    await replay(_examples([10, 10, 20], [10, 20, 25]), world, world, _nothing)
    assert world.events == [
        ("features", 10),
        ("question", 10),
        ("question", 10),
        ("outcome", 10),
        ("features", 20),
        ("question", 20),
        ("outcome", 20),
        ("outcome", 25),
    ]


@pytest.mark.parametrize("seed", range(5))
async def test_outcomes_come_at_or_after_their_time_and_all_in_the_end(seed: int) -> None:
    rng = random.Random(seed)
    as_of = sorted(rng.randrange(100) for _ in range(60))
    late = [NO_OUTCOME if rng.random() < 0.2 else moment + rng.randrange(80) for moment in as_of]
    world = World(seed)
    done = await replay(_examples(as_of, late), world, world, _nothing)
    clock = -1
    for kind, moment in world.events:
        if kind == "features":
            clock = moment
        elif kind == "outcome" and clock < max(as_of):
            assert moment <= clock
    expected = {(f"id-{row}", row % 2 == 0, when) for row, when in enumerate(late) if when != NO_OUTCOME}
    assert set(world.outcomes) == expected
    assert done.outcomes == len(world.outcomes) == len(expected)


async def test_an_outcome_that_is_known_before_its_question_waits_for_it() -> None:
    world = World()
    await replay(_examples([10, 20], [30, 5]), world, world, _nothing)
    assert world.events == [
        ("features", 10),
        ("question", 10),
        ("features", 20),
        ("question", 20),
        ("outcome", 5),
        ("outcome", 30),
    ]


async def test_one_early_outcome_does_not_hold_up_the_others() -> None:
    world = World()
    await replay(_examples([10, 15, 20], [12, 16, 5]), world, world, _nothing)
    assert world.events.index(("outcome", 12)) < world.events.index(("features", 20))


@pytest.mark.parametrize("seed", range(3))
async def test_answers_stay_aligned_with_rows_whatever_order_they_come_in(seed: int) -> None:
    world = World(seed, random_latency=True)
    done = await replay(_examples([10] * 100 + [20] * 50), world, world, _nothing)
    assert done.prediction_ids == tuple(f"id-{row}" for row in range(150))
    assert np.array_equal(done.probabilities, (np.arange(150) / 1024).astype(np.float32))
    assert np.array_equal(done.latency_s, np.arange(150) * 0.5)
    assert done.feature_rows == 4
    assert world.in_flight_max == CONCURRENCY


async def test_refusals_are_tried_again_and_counted() -> None:
    world = World(refusals={"advance": 2, "predict": 3, "report": 1})
    done = await replay(_examples([10, 20], [11, 21]), world, world, _nothing)
    assert done.refusals == 6
    assert done.prediction_ids == ("id-0", "id-1")
    assert len(world.outcomes) == 2


@pytest.mark.parametrize("what", ["advance", "predict", "report"])
async def test_a_part_that_stays_away_ends_the_replay(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "PATIENCE_S", 10 * SOON_S)
    world = World(refusals={what: 1_000_000})
    with pytest.raises(Unavailable, match="restarting"):
        await replay(_examples([10], [11]), world, world, _nothing)


async def test_any_other_refusal_ends_the_replay_at_once() -> None:
    class Wrong(World):
        async def predict(self, instance: Instance, *, as_of: int) -> Answer:
            raise InvalidRequest(f"no such field at {as_of}: {instance}", path="$.instances[0].row")

    world = Wrong()
    with pytest.raises(InvalidRequest):
        await replay(_examples([10]), world, world, _nothing)


async def test_outcomes_are_reported_in_calls_of_bounded_size() -> None:
    rows = 2 * OUTCOMES_PER_CALL + 1
    world = World()
    done = await replay(_examples([10] * rows, [10] * rows), world, world, _nothing)
    assert world.calls == [OUTCOMES_PER_CALL, OUTCOMES_PER_CALL, 1]
    assert done.outcomes == rows


async def test_no_examples_are_an_empty_replay() -> None:
    world = World()
    done = await replay(_examples([]), world, world, _nothing)
    assert (done.prediction_ids, len(done.probabilities), done.outcomes, done.feature_rows) == ((), 0, 0, 0)
    assert world.events == []


async def test_progress_ends_with_every_row() -> None:
    seen: list[tuple[int, int]] = []
    world = World()
    await replay(_examples([10, 20, 30]), world, world, lambda *each: seen.append(each))
    assert seen[-1] == (3, 3)


def test_instances_hold_nulls_as_none() -> None:
    assert instances_of(_examples([10, 10])) == [{"row": 0, "tail": None}, {"row": 1, "tail": "N1"}]
