"""Feature reads: Feast's SDK, the floor and ours, over shapes of keys, rows and features.

The floor is one hiredis pipeline of exactly the commands that ours sends, over a blocking socket, without decoding.
"""

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import uvloop

from bench.measure import AwaitedCalls, Calls, Candidate, Timing, compare, cpu_ratio, ratio
from bench.plots import line_plot
from bench.read_store import ReadStore, Shape, build, one_entity, running_valkey, skewed, spread
from bench.reading import Reading
from bench.report import Case, Goal, Options, SuiteResult
from bench.wire_floor import WireFloor
from skewless.adapters.redis_blocking_store import BlockingRedisOnlineStore
from skewless.adapters.redis_online_store import RedisOnlineStore
from skewless.features.frame import FeatureFrame
from skewless.features.online_store import BlockingOnlineStore
from skewless.features.reader import FeatureReads
from skewless.limits import FLUSH_ROWS_MAX, FLUSHES_MAX, ROWS_WAITING_MAX
from skewless.stack.ports import LOOPBACK

FLOOR = "floor"
PREPACKED = "prepacked floor"
ROWS = (1, 10, 100, 1_000)
FEATURES = (1, 10, 40, 100, 500)
CALLERS, CROWD_FEATURES = 32, 40
"""Callers at once, each for one row of its own; measured on the first shape with so many features."""
HEAVY_VALUES = 40_000
"""From here on the SDK takes up to seconds a call: fewer turns, no warm-up but the check, one of its two forms."""
HEAVY_REPETITIONS = 3
PLOTTED = ("SDK", FLOOR, "lists", "async", "blocking")
NOTES = (
    "Caller and Valkey share this machine's cores; one caller where no other number is said, one connection, no TLS.",
    "Every case is checked before it is timed: each value that is read equals the one that Feast's SDK reads.",
    "floor: hiredis packs the commands, a blocking socket, hiredis parses; prepacked: the bytes are ready before.",
    "blocking and async: keys as columns → plan → store → frame with statuses and event times; async under uvloop.",
    "lists: from lists to lists, which is what SDK (with to_dict) is given and gives.",
    "SDK: registry cached, service resolved, keys given as columns, the form that it takes with the least work.",
)


@dataclass(frozen=True, slots=True)
class _Clients:
    """Connections to one Valkey, and the loop that the awaited one lives in."""

    loop: asyncio.AbstractEventLoop
    floor: WireFloor
    blocking: BlockingOnlineStore
    awaited: FeatureReads


def run(options: Options) -> SuiteResult:
    """Measure every shape at its rows. The full suite takes about three minutes, the quick one about 20 s."""
    cases: list[Case] = []
    with running_valkey(options.scratch) as port, _connected(port) as clients:
        for shape, counts in _points(quick=options.quick):
            options.progress(f"writing {shape.name}, {shape.features} features")
            store = build(shape, options.scratch, port)
            for rows in counts:
                options.progress(_case_name(shape, rows))
                cases.append(_measure(store, rows, clients, options))
            if shape.features == CROWD_FEATURES and shape.name == spread(CROWD_FEATURES).name:
                options.progress(f"{CALLERS} callers")
                cases.append(_measure_crowd(store, clients, options))
    return SuiteResult(
        suite="reads",
        cases=tuple(cases),
        goals=tuple(_goals(cases)),
        floor=FLOOR,
        notes=NOTES,
        plots={} if options.quick else _plots(cases),
    )


def _points(*, quick: bool) -> list[tuple[Shape, tuple[int, ...]]]:
    """Shapes, each with the numbers of rows to read."""
    if quick:
        return [(spread(40), (1, 100)), (one_entity(40), (1,)), (skewed(40), (100,))]
    grid: list[tuple[Shape, tuple[int, ...]]] = [(spread(features), ROWS) for features in FEATURES]
    return [*grid, (one_entity(40), (1, 100)), (skewed(40), (1, 100, 1_000))]


@contextlib.contextmanager
def _connected(port: int) -> Iterator[_Clients]:
    loop = uvloop.new_event_loop()
    url = f"redis://{LOOPBACK}:{port}"
    with (
        contextlib.closing(WireFloor(LOOPBACK, port)) as floor,
        contextlib.closing(BlockingRedisOnlineStore(url)) as blocking,
        contextlib.closing(loop),
    ):
        store = RedisOnlineStore(url)
        awaited = FeatureReads(
            store,
            near_cache=None,
            rows_max=FLUSH_ROWS_MAX,
            flushes_max=FLUSHES_MAX,
            rows_waiting_max=ROWS_WAITING_MAX,
        )
        try:
            yield _Clients(loop, floor, blocking, awaited)
        finally:
            loop.run_until_complete(store.close())


def _measure(store: ReadStore, rows: int, clients: _Clients, options: Options) -> Case:
    reading = Reading(store, rows, floor=clients.floor, blocking=clients.blocking)
    reading.check(reading.blocking())
    reading.check(clients.loop.run_until_complete(reading.awaited(clients.awaited)))
    heavy = reading.values >= HEAVY_VALUES
    timings = compare(
        _candidates(reading, clients, heavy=heavy),
        repetitions=min(HEAVY_REPETITIONS, options.repetitions) if heavy else options.repetitions,
        min_time_s=options.min_time_s,
        warm_up=not heavy,
    )
    return Case(_case_name(store.shape, rows), _parameters(store.shape, rows), timings, values=reading.values)


def _measure_crowd(store: ReadStore, clients: _Clients, options: Options) -> Case:
    """Callers that ask at the same moment, where the awaited reads share pipelines; the others take turns."""
    readings = [
        Reading(store, 1, floor=clients.floor, blocking=clients.blocking, draw=caller) for caller in range(CALLERS)
    ]

    async def at_once() -> list[FeatureFrame]:
        return list(await asyncio.gather(*(reading.awaited(clients.awaited) for reading in readings)))

    for reading, frame in zip(readings, clients.loop.run_until_complete(at_once()), strict=True):
        reading.check(frame)
    candidates: dict[str, Candidate] = {
        FLOOR: Calls(lambda: [reading.floor() for reading in readings]),
        "blocking": Calls(lambda: [reading.blocking() for reading in readings]),
        "async": AwaitedCalls(clients.loop, at_once),
        "SDK": Calls(lambda: [reading.sdk() for reading in readings]),
    }
    timings = compare(candidates, repetitions=options.repetitions, min_time_s=options.min_time_s)
    name = f"{store.shape.name}, {CALLERS} callers x {_counted(1, 'row')} x {_counted(store.shape.features, 'feature')}"
    parameters = {**_parameters(store.shape, 1), "callers": CALLERS}
    return Case(name, parameters, timings, values=sum(reading.values for reading in readings))


def _candidates(reading: Reading, clients: _Clients, *, heavy: bool) -> dict[str, Candidate]:
    candidates: dict[str, Candidate] = {
        FLOOR: Calls(reading.floor),
        PREPACKED: Calls(reading.prepacked_floor),
        "blocking": Calls(reading.blocking),
        "prepare and decode": Calls(reading.prepare_and_decode),
        "async": AwaitedCalls(clients.loop, partial(reading.awaited, clients.awaited)),
        "lists": Calls(reading.lists),
        "Arrow": Calls(reading.arrow),
        "pandas": Calls(reading.pandas),
        "SDK": Calls(reading.sdk),
    }
    return candidates if heavy else {**candidates, "SDK without to_dict": Calls(reading.sdk_response)}


def _goals(cases: Sequence[Case]) -> Iterator[Goal]:
    """What a read is wanted to cost, for three entities and 40 features.

    The floor packs its commands with hiredis, which for long ones costs more than our own packing; so the stricter
    floor is held to the same bound.
    """
    for case in cases:
        rows, at = case.parameters["rows"], case.timings
        wanted = {"shape": spread(40).name, "features": 40, "callers": 1}
        if wanted.items() <= case.parameters.items() and rows in (1, 100):
            where = f"{_counted(int(rows), 'row')} of 40 features"
            yield Goal(f"{where}: SDK / blocking", ratio(at["SDK"], at["blocking"]), 10 if rows == 1 else 15)
            yield Goal(f"{where}: CPU of SDK / blocking", cpu_ratio(at["SDK"], at["blocking"]), 10 if rows == 1 else 15)
            yield Goal(f"{where}: SDK / lists", ratio(at["SDK"], at["lists"]), 10 if rows == 1 else 15)
            for ours in ("blocking", "async"):
                yield Goal(f"{where}: {ours} / floor", ratio(at[ours], at[FLOOR]), 1.3, at_most=True)
            yield Goal(f"{where}: blocking / {PREPACKED}", ratio(at["blocking"], at[PREPACKED]), 1.3, at_most=True)


def _plots(cases: Sequence[Case]) -> dict[str, str]:
    shape = spread(40).name
    return {
        "reads-rows.svg": _plot(cases, shape, "rows", features=40),
        "reads-features-1-row.svg": _plot(cases, shape, "features", rows=1),
        "reads-features-100-rows.svg": _plot(cases, shape, "features", rows=100),
    }


def _plot(cases: Sequence[Case], shape: str, axis: str, **fixed: int) -> str:
    """Median time over one parameter, with the others of the shape's cases fixed."""
    wanted = {"shape": shape, "callers": 1, **fixed}
    chosen = [case for case in cases if wanted.items() <= case.parameters.items()]
    series = {name: [(float(case.parameters[axis]), _ms(case.timings[name])) for case in chosen] for name in PLOTTED}
    held = " and ".join(_counted(value, name.removesuffix("s")) for name, value in fixed.items())
    return line_plot(f"One read of {held}", axis, "milliseconds (median)", series)


def _ms(timing: Timing) -> float:
    return timing.p50_us / 1_000


def _parameters(shape: Shape, rows: int) -> dict[str, int | float | str]:
    return {"shape": shape.name, "callers": 1, "rows": rows, "features": shape.features, "views": len(shape.views)}


def _case_name(shape: Shape, rows: int) -> str:
    return f"{shape.name}, {_counted(rows, 'row')} x {_counted(shape.features, 'feature')}"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
