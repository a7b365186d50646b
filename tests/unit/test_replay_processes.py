"""Chunks of work in several processes: in order, bounded, and with errors that stay what they are."""

import os
from collections.abc import Callable, Iterator

import pytest

from harness import replay_work
from skewless.cli.replay_processes import in_order, processes_for
from skewless.errors import BundleRefused, SkewlessError
from skewless.limits import REPLAY_CHUNKS_AHEAD, REPLAY_ROWS_PER_PROCESS

CHUNKS = 12


def test_results_come_in_the_order_of_the_chunks_from_other_processes() -> None:
    found = list(in_order(replay_work.squares, range(CHUNKS), processes=2))
    assert [square for square, _ in found] == [number * number for number in range(CHUNKS)]
    assert os.getpid() not in {process for _, process in found}


def test_a_single_chunk_or_process_is_worked_on_here() -> None:
    for chunks, processes in ((range(1), 2), (range(5), 1)):
        found = list(in_order(replay_work.squares, chunks, processes=processes))
        assert {process for _, process in found} == {os.getpid()}
    assert list(in_order(replay_work.squares, range(0), processes=2)) == []


def test_no_more_chunks_are_read_than_processes_are_given_ahead() -> None:
    read = 0

    def chunks() -> Iterator[int]:
        nonlocal read
        for number in range(CHUNKS):
            read += 1
            yield number

    results = in_order(replay_work.squares, chunks(), processes=2)
    next(results)
    assert read <= 2 * REPLAY_CHUNKS_AHEAD + 1
    results.close()  # type: ignore[attr-defined]  # a generator; what waits is given up


@pytest.mark.parametrize(
    ("make", "kind"), [(replay_work.refuses_three, BundleRefused), (replay_work.forbids_three, SkewlessError)]
)
@pytest.mark.parametrize("processes", [1, 2])
def test_an_error_of_a_worker_is_raised_with_its_message_and_hint(
    make: Callable[[], Callable[[int], int]], kind: type[SkewlessError], processes: int
) -> None:
    done: list[int] = []
    with pytest.raises(kind, match="three is not possible") as refusal:
        done.extend(in_order(make, range(CHUNKS), processes=processes))
    assert refusal.value.hint == "take another number"


def test_processes_are_started_where_there_is_enough_to_do() -> None:
    assert processes_for(0) == processes_for(REPLAY_ROWS_PER_PROCESS) == 1
    assert processes_for(10**9) == len(os.sched_getaffinity(0))
