"""Questions to a log store of ten million predictions: one by its id, and aggregations over all of them."""

from collections.abc import Callable
from functools import partial

from bench.logged_store import QUESTIONS, ROWS, Made, make_store
from bench.measure import Timing, compare
from bench.report import Case, Goal, Options, single
from skewless.adapters.log_reader import LogReader, open_log

QUICK_ROWS = 200_000
BY_ID = next(iter(QUESTIONS))
BY_ID_S_MAX, AGGREGATION_S_MAX = 1.0, 10.0
"""Wanted of ten million predictions on two cores: one by its id in under a second, all else in seconds."""
_QUESTION = Callable[[LogReader, Made], object]


def query_cases(options: Options) -> list[Case]:
    """Each question, asked of a log that is opened anew each time; and how large the store is."""
    rows = QUICK_ROWS if options.quick else ROWS
    folder = options.scratch / "asked"
    made = make_store(folder, rows=rows, progress=options.progress)

    def asked(question: _QUESTION) -> None:
        with open_log(folder) as log:
            question(log, made)

    candidates = {words: partial(asked, question) for words, question in QUESTIONS.items()}
    options.progress("asking")
    timings = compare(candidates, repetitions=3 if options.quick else 5, min_time_s=0.0, warm_up=True)
    parameters = {"predictions": made.rows, "outcomes": made.outcomes}
    sized = Case("store", parameters, {}, facts={"store, bytes per prediction": made.bytes / made.rows})
    return [Case(words, parameters, {words: timing}) for words, timing in timings.items()] + [sized]


def query_goals(cases: list[Case]) -> list[Goal]:
    """What is wanted of each question, in seconds."""
    goals = []
    for case in cases:
        for words, timing in case.timings.items():
            if words in QUESTIONS:
                wanted_s = BY_ID_S_MAX if words == BY_ID else AGGREGATION_S_MAX
                name = f"{case.parameters['predictions']:,} predictions: {words}"
                goals.append(Goal(name, single(_seconds(timing)), wanted_s, "s", at_most=True))
    return goals


def _seconds(timing: Timing) -> float:
    return timing.p50_us / 1e6
