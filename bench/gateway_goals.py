"""What the gateway is wanted to reach beside the floor and the textbook, from the cases of its benchmark."""

from collections.abc import Iterator, Sequence

from bench.load_block import Load
from bench.measure import Timing, ratio, ratio_of
from bench.report import Case, Goal

FLOOR = "floor"
TEXTBOOK = "textbook"
GATEWAY = "gateway"
IN_PROCESS_GATEWAY = "gateway, in process"
P50_OF_FLOOR_MAX = 1.3
P99_OF_FLOOR_MAX = 1.6
IN_PROCESS_OF_FLOOR_MAX = 0.6
CALLERS = 32
TIMES_TEXTBOOK_MIN = 20.0
P99_OF_TEXTBOOK_MAX = 0.1
ROWS = 100
P50_OF_TEXTBOOK_MAX = 1 / 15


def goals(cases: Sequence[Case]) -> Iterator[Goal]:
    """Each goal whose case and candidates were measured."""
    alone = _timings(cases, rows=1, callers=1)
    if {FLOOR, GATEWAY} <= alone.keys():
        gateway, floor = alone[GATEWAY], alone[FLOOR]
        yield Goal("1 caller: gateway / floor, p50", ratio(gateway, floor), P50_OF_FLOOR_MAX, at_most=True)
        p99 = ratio_of(load_of(gateway).p99s_us, load_of(floor).p99s_us)
        yield Goal("1 caller: gateway / floor, p99", p99, P99_OF_FLOOR_MAX, at_most=True)
    if {FLOOR, IN_PROCESS_GATEWAY} <= alone.keys():
        found = ratio(alone[IN_PROCESS_GATEWAY], alone[FLOOR])
        yield Goal(f"1 caller: {IN_PROCESS_GATEWAY} / floor, p50", found, IN_PROCESS_OF_FLOOR_MAX, at_most=True)
    crowd = _timings(cases, rows=1, callers=CALLERS)
    if {TEXTBOOK, GATEWAY} <= crowd.keys():
        ours, theirs = load_of(crowd[GATEWAY]), load_of(crowd[TEXTBOOK])
        found = ratio_of(ours.per_s, theirs.per_s)
        yield Goal(f"{CALLERS} callers: gateway / textbook, answers per second", found, TIMES_TEXTBOOK_MIN)
        found = ratio_of(ours.p99s_us, theirs.p99s_us)
        yield Goal(f"{CALLERS} callers: gateway / textbook, p99", found, P99_OF_TEXTBOOK_MAX, at_most=True)
    many = _timings(cases, rows=ROWS, callers=1)
    if {TEXTBOOK, GATEWAY} <= many.keys():
        found = ratio(many[GATEWAY], many[TEXTBOOK])
        yield Goal(f"{ROWS} rows: gateway / textbook, p50", found, P50_OF_TEXTBOOK_MAX, at_most=True)


def load_of(timing: Timing) -> Load:
    """What a load generator saw of a candidate."""
    assert timing.load is not None, "a load generator asked"
    return timing.load


def _timings(cases: Sequence[Case], **parameters: int) -> dict[str, Timing]:
    """Timings of the case with exactly these parameters; empty where there is none."""
    return next((dict(case.timings) for case in cases if case.parameters == parameters), {})
