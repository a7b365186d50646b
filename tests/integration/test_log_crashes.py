"""Whatever breaks: each answered prediction is logged once, each outcome joined once, each record consumed once.

Callers ask two gateways for predictions and tell outcomes, while gateways, shipper, Valkey and a consumer are killed,
stopped and ended at random, and the log store goes away and comes back; nothing is broken for good. All the while a
reader finds what was answered. At the end the log is compared with what the callers know.

`make crashes` does so for ten minutes; SKEWLESS_TEST_CRASHES_S says for how long, SKEWLESS_TEST_CRASHES_SEED how.
"""

import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.compute as pc

from harness.bundles import BuiltBundle, flights_at
from harness.gateways import ENDPOINT
from harness.log_crash_callers import Caller
from harness.log_crash_checks import check_order, check_outcomes, check_predictions
from harness.log_crash_consumer import seen_records
from harness.log_crash_looker import Looker, opened_log
from harness.log_crash_model import CrashModel
from harness.log_crash_truth import OUTCOMES, PREDICTIONS, Row, naive_join, stored_rows
from harness.log_crashes import (
    BUFFERED,
    CONSUMER,
    FLUSH_MS,
    FLUSHED,
    GATEWAYS,
    SHIPPER,
    Chaos,
    LogMachine,
    running_log_machine,
)
from harness.servers import wait_until
from skewless.adapters.served_rows import served_rows
from skewless.bundles.post_processing import PROBABILITIES
from skewless.rollout.changes import start_canary
from skewless.rollout.history import RouteAction
from skewless.serving.outcome_terms import OUTCOME_WINDOW_US
from skewless.stack.process import tail

SECONDS = float(os.environ.get("SKEWLESS_TEST_CRASHES_S", "8"))
SEED = int(os.environ.get("SKEWLESS_TEST_CRASHES_SEED", "7"))
CALLERS = 4
CANARY_SHARE = 0.3
ANSWERED_MIN = 60
"""Or a test of nothing would pass: on a machine that answers fewer in that time, breaking goes on until they are."""
SETTLED_S, THREAD_END_S = 60.0, 60.0
REPLAYED_MAX = 20_000


def test_whatever_breaks_each_answer_is_logged_joined_and_consumed_once(tmp_path: Path) -> None:
    model = CrashModel({FLUSHED: 0.0, BUFFERED: FLUSH_MS / 1_000})
    with running_log_machine(tmp_path) as log_machine:
        bundles = _serve(log_machine)
        chaos = Chaos(log_machine.machine, model, log_machine.store, random.Random(SEED))
        with _busy(log_machine, model) as looker:
            chaos.run(SECONDS, enough=lambda: looker.failure is not None)
            while len(model.answered()) < ANSWERED_MIN and looker.failure is None:
                chaos.run(1.0)
        _settle(log_machine)
        stored = {kind: stored_rows(log_machine.store.path, kind) for kind in (PREDICTIONS, OUTCOMES)}
        _tell(model, chaos, looker)
        _tell_counts("predictions", check_predictions(model, stored[PREDICTIONS]))
        _tell_counts("outcomes", check_outcomes(model, stored[OUTCOMES]))
        assert check_order(model, stored[OUTCOMES]) > 0
        _check_joined(log_machine, stored)
        _check_consumed(log_machine, stored)
        _check_replayed(log_machine, bundles)
        assert looker.looks > 0


def _serve(log_machine: LogMachine) -> dict[str, BuiltBundle]:
    """Two bundles, the second as a canary, answered by both gateways."""
    machine = log_machine.machine
    live = machine.serve(1)
    machine.fill(flights_at(time.time_ns() // 1_000))
    canary = machine.build(2)
    machine.registry.change_route(
        ENDPOINT,
        lambda route: start_canary(route, canary.digest, CANARY_SHARE),
        action=RouteAction.START_CANARY,
        actor="test",
        reason="test",
    )
    return {each.digest: each for each in (live, canary)}


@contextmanager
def _busy(log_machine: LogMachine, model: CrashModel) -> Iterator[Looker]:
    """Callers that ask, and a reader that looks, as long as the block lasts."""
    over = threading.Event()
    looker = Looker(log_machine, model, over)
    looker.look()  # what is imported for it takes seconds
    callers = [Caller(number, log_machine.addresses, model, over, seed=SEED) for number in range(CALLERS)]
    threads: tuple[Looker | Caller, ...] = (looker, *callers)
    for thread in threads:
        thread.start()
    try:
        yield looker
    finally:
        over.set()
        for thread in threads:
            thread.join(THREAD_END_S)
    for each in threads:
        assert not each.is_alive(), f"{each.name} waits for ever"
        if each.failure is not None:
            raise each.failure


def _settle(log_machine: LogMachine) -> None:
    """Gateways end in peace, all is shipped, and the consumer has seen it."""
    machine = log_machine.machine
    for gateway in GATEWAYS:
        machine.stop(gateway)
    spool = machine.log / "spool"
    shipper_log, consumer_log = (machine.specs[name].log_file for name in (SHIPPER, CONSUMER))
    what = "everything is shipped"
    wait_until(lambda: not list(spool.iterdir()), f"{what}\n{tail(shipper_log)}", timeout_s=SETTLED_S)
    rows = sum(len(stored_rows(log_machine.store.path, kind)) for kind in (PREDICTIONS, OUTCOMES))

    def is_consumed() -> bool:
        return sum(map(len, seen_records(log_machine.database_url).values())) >= rows

    wait_until(is_consumed, f"the consumer has seen {rows} records\n{tail(consumer_log)}", timeout_s=SETTLED_S)
    for name in (SHIPPER, CONSUMER):
        machine.stop(name)


def _check_joined(log_machine: LogMachine, stored: dict[str, list[Row]]) -> None:
    """Each prediction once, beside the outcome that a naive twin gives it."""
    wanted = naive_join(stored[PREDICTIONS], stored[OUTCOMES], window_us=OUTCOME_WINDOW_US)
    with opened_log(log_machine) as reader:
        rows = reader.joined(ENDPOINT, columns=["prediction_id"]).to_pylist()
    assert Counter(row["prediction_id"] for row in rows) == Counter(row["prediction_id"] for row in stored[PREDICTIONS])
    joined = {row["prediction_id"]: row["outcome"] for row in rows if row["outcome"] is not None}
    assert joined == {id_: each.label for id_, each in wanted.items()}
    assert joined, "some outcome must have come"


def _check_consumed(log_machine: LogMachine, stored: dict[str, list[Row]]) -> None:
    """What the consumer did is what was stored, each record once."""
    seen = seen_records(log_machine.database_url)
    assert seen[PREDICTIONS] == Counter(row["prediction_id"] for row in stored[PREDICTIONS])
    assert seen[OUTCOMES] == Counter(row["outcome_id"] for row in stored[OUTCOMES])


def _check_replayed(log_machine: LogMachine, bundles: dict[str, BuiltBundle]) -> None:
    """Recorded predictions give their tensors and outputs again, bit for bit."""
    with opened_log(log_machine) as reader:
        table = reader.predictions(ENDPOINT).slice(0, REPLAYED_MAX)
    for digest, built in bundles.items():
        of_bundle = table.filter(pc.equal(table.column("bundle_digest"), digest))
        assert of_bundle.num_rows, f"bundle {digest} answered"
        served = served_rows(of_bundle, built.bundle.contract, PROBABILITIES)
        given = {**served.given, **served.scored.frame.columns}
        tensor = built.bundle.transform.prepare().apply(given, of_bundle.num_rows)
        assert tensor.tobytes() == served.scored.tensor.tobytes()
        assert built.model.run(tensor).tobytes() == served.scored.output.tobytes()


def _tell(model: CrashModel, chaos: Chaos, looker: Looker) -> None:
    sys.stdout.write(
        f"seed {SEED}: {len(model.asked)} requests, {len(model.answered())} answered, {looker.looks} looks; "
        f"faults {dict(chaos.done)}; refusals {dict(model.refusals)}\n"
    )


def _tell_counts(what: str, counts: Counter[str]) -> None:
    sys.stdout.write(f"{what}: {dict(counts)}\n")
