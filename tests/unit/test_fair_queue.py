"""Lines take turns by rows, whoever stands in them."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from skewless.serving.fair_queue import FairQueue, Line


def _all(_line: Line[str]) -> bool:
    return True


def _never(_line: Line[str]) -> bool:
    return False


def _pop(queue: FairQueue[str], *, newest_first: bool = False) -> str | None:
    return queue.pop(may_go=_all, newest_first=_all if newest_first else _never)


def test_one_line_is_first_come_first_served_or_the_other_way_round() -> None:
    queue: FairQueue[str] = FairQueue()
    line: Line[str] = Line()
    for name in "abcd":
        queue.push(line, name, 100)
    assert [_pop(queue), _pop(queue, newest_first=True), _pop(queue), _pop(queue), _pop(queue)] == [
        "a", "d", "b", "c", None,
    ]  # fmt: skip
    assert (queue.waiting, queue.rows) == (0, 0)


def test_a_long_line_and_large_requests_get_no_more_rows_than_others() -> None:
    queue: FairQueue[str] = FairQueue()
    rows = {"flood": 1, "large": 500, "few": 40}
    lines: dict[str, Line[str]] = {name: Line() for name in rows}
    for name, count in (("flood", 9_000), ("large", 18), ("few", 225)):
        for number in range(count):
            queue.push(lines[name], f"{name}-{number}", rows[name])
    let_in: Counter[str] = Counter()
    while sum(let_in.values()) < 12_000:
        name = (_pop(queue) or "").partition("-")[0]
        let_in[name] += rows[name]
    assert max(let_in.values()) - min(let_in.values()) <= 600, let_in


def test_a_line_that_may_not_go_holds_nobody_up() -> None:
    queue: FairQueue[str] = FairQueue()
    stuck: Line[str] = Line()
    free: Line[str] = Line()
    queue.push(stuck, "a", 1)
    queue.push(free, "b", 1)
    assert queue.pop(may_go=lambda line: line is free, newest_first=_never) == "b"
    assert queue.pop(may_go=lambda line: line is free, newest_first=_never) is None
    assert _pop(queue) == "a"


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 1_000), st.booleans()), max_size=60))
def test_nobody_is_lost_or_let_in_twice(arrivals: list[tuple[int, int, bool]]) -> None:
    queue: FairQueue[str] = FairQueue()
    lines: list[Line[str]] = [Line() for _ in range(3)]
    expected: set[str] = set()
    for number, (line, rows, gives_up) in enumerate(arrivals):
        queue.push(lines[line], str(number), rows)
        expected.add(str(number))
        if gives_up:
            assert queue.remove(lines[line], str(number))
            assert not queue.remove(lines[line], str(number))
            expected.discard(str(number))
    popped = list(iter(lambda: _pop(queue), None))
    assert len(popped) == len(expected)
    assert set(popped) == expected
    assert (queue.waiting, queue.rows, [line.rows for line in lines]) == (0, 0, [0, 0, 0])
