"""Callers that ask for predictions and tell what turned out, and write down both: by id, by entity, twice, corrected.

Every caller has its own seed, entities and predictions; it tells only of predictions that it asked for itself, one
request after the other, so that what it told last is what holds.
"""

import json
import random
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import uuid_utils

from bench.load_http import Connection, body_of, request_bytes, status_of
from harness.bundles import instance
from harness.gateways import ENDPOINT
from harness.log_crash_model import AskedPredictions, CrashModel, ToldOutcome
from skewless.timestamps import DAY_US, MINUTE_US, SECOND_US, Micros, format_timestamp

ROWS = (1, 1, 1, 1, 2, 3, 8)
OUTCOMES = (1, 1, 2, 5)
LABELS = ("late", "on_time")
PREDICT_SHARE, AGAIN_SHARE, OLD_SHARE = 0.65, 0.1, 0.1
"""Of requests those for predictions; of these those of an entity that was asked about, and those of days ago."""
DEADLINE_MS = 5_000
KNOWN_MAX = 200
PAUSE_S = 0.005
"""Between an answer and the caller's next question: some request of four callers is always on its way."""
"""Predictions of its own that a caller remembers to tell about."""
STATION = 7


@dataclass(slots=True)
class Known:
    """A prediction that a caller has the answer of, and what it told about it."""

    prediction_id: str
    tailnum: str
    as_of: Micros
    told: list[ToldOutcome] = field(default_factory=list)


class Caller(threading.Thread):
    """Asks until `over` is set, each time one of the gateways by its address (host, port)."""

    def __init__(
        self, number: int, gateways: dict[str, tuple[str, int]], model: CrashModel, over: threading.Event, *, seed: int
    ) -> None:
        super().__init__(name=f"caller-{number}", daemon=True)
        self._number = number
        self._gateways = gateways
        self._model = model
        self._over = over
        self._random = random.Random(f"{seed}-{number}")
        self._connections: dict[str, Connection] = {}
        self._known: list[Known] = []
        self._made = 0
        self.failure: Exception | None = None
        """What ended it too early."""

    def run(self) -> None:
        """Predictions and outcomes by turns of the seed."""
        try:
            while not self._over.wait(PAUSE_S):
                gateway = self._random.choice(sorted(self._gateways))
                if self._known and self._random.random() > PREDICT_SHARE:
                    self._tell(gateway)
                else:
                    self._predict(gateway)
        except Exception as error:  # noqa: BLE001  # a thread's boundary: the test raises it
            self.failure = error
        finally:
            for connection in self._connections.values():
                connection.close()

    def _predict(self, gateway: str) -> None:
        as_of, tailnums = self._entities()
        asked = AskedPredictions(f"c{self._number}-{self._next()}", gateway, as_of, tailnums)
        body = {
            "instances": [instance(tailnum=tailnum, station=STATION, party=1 + self._number) for tailnum in tailnums],
            "options": {"as_of": format_timestamp(as_of), "deadline_ms": DEADLINE_MS, "receipt": "none"},
        }
        self._model.ask(asked)
        answer = self._ask(gateway, f"/v1/endpoints/{ENDPOINT}/predict", body, asked.request_id)
        if answer is not None:
            asked.probabilities = tuple(each["probability"] for each in answer["predictions"])
            asked.answered_s = time.monotonic()
            asked.ids = tuple(answer["prediction_ids"])
            self._known += map(Known, asked.ids, tailnums, [as_of] * len(tailnums))
            del self._known[:-KNOWN_MAX]

    def _entities(self) -> tuple[Micros, tuple[str, ...]]:
        """New ones as of minutes ago; or a known one as of half a minute later; or new ones as of days ago."""
        drawn = self._random.random()
        if self._known and drawn < AGAIN_SHARE:
            known = self._random.choice(self._known)
            return Micros(known.as_of + MINUTE_US // 2), (known.tailnum,)
        age_us = self._random.randrange(2 * DAY_US, 3 * DAY_US) if drawn > 1 - OLD_SHARE else 2 * MINUTE_US
        rows = self._random.choice(ROWS)
        return Micros(time.time_ns() // 1_000 - age_us), tuple(f"T{self._number}-{self._next()}" for _ in range(rows))

    def _tell(self, gateway: str) -> None:
        told = [self._outcome(gateway) for _ in range(self._random.choice(OUTCOMES))]
        self._model.tell(told)
        answer = self._ask(gateway, "/v1/outcomes", {"outcomes": [_plain(each) for each in told]}, "")
        if answer is not None:
            assert answer["accepted"] == len(told), answer
            for each in told:
                each.accepted_s = time.monotonic()

    def _outcome(self, gateway: str) -> ToldOutcome:
        """A first one, the last one again or corrected, one by entity, or one of a prediction that never was."""
        known = self._random.choice(self._known)
        kind = self._random.choice(("by id", "by id", "again", "corrected", "by entity", "unknown"))
        outcome_time = Micros(known.as_of + SECOND_US + self._next())
        label = self._random.choice(LABELS)
        if kind == "unknown":
            return ToldOutcome(gateway, label, outcome_time, prediction_id=str(uuid_utils.uuid7()))
        if kind == "by entity":
            at = Micros(known.as_of + self._random.randrange(MINUTE_US))
            return ToldOutcome(gateway, label, outcome_time, tailnum=known.tailnum, at=at)
        last = known.told[-1] if known.told else None
        if last is not None and kind == "again":
            label, outcome_time = last.label, last.outcome_time
        elif last is not None and kind == "corrected":
            label = LABELS[1 - LABELS.index(last.label)]
        known.told.append(ToldOutcome(gateway, label, outcome_time, prediction_id=known.prediction_id))
        return known.told[-1]

    def _ask(self, gateway: str, path: str, body: object, request_id: str) -> dict[str, Any] | None:
        """The answer, None where there was none. Refusals that a broken part explains are none either."""
        host, port = self._gateways[gateway]
        headers = {"X-Request-Id": request_id} if request_id else {}
        request = request_bytes(path, json.dumps(body).encode(), host=f"{host}:{port}", headers=headers)
        try:
            connection = self._connections.get(gateway) or Connection(host, port)
            self._connections[gateway] = connection
            reply = connection.ask(request)
        except OSError:
            self._forget(gateway)
            self._over.wait(0.02)  # nobody listens: do not spin
            return None
        if b"connection: close" in reply.lower():
            self._forget(gateway)
        if status_of(reply) != 200:
            self._model.refused(status_of(reply), body_of(reply))
            self._over.wait(0.005)
            return None
        answer: dict[str, Any] = json.loads(body_of(reply))
        return answer

    def _forget(self, gateway: str) -> None:
        connection = self._connections.pop(gateway, None)
        with suppress(OSError):
            if connection is not None:
                connection.close()

    def _next(self) -> int:
        self._made += 1
        return self._made


def _plain(told: ToldOutcome) -> dict[str, object]:
    """An outcome as the API takes it."""
    said: dict[str, object] = {"label": told.label, "outcome_time": format_timestamp(told.outcome_time)}
    if told.prediction_id:
        return {"prediction_id": told.prediction_id, **said}
    assert told.at is not None, "told by entity"
    entity = {"origin": "JFK", "tailnum": told.tailnum, "station": STATION}
    return {"endpoint": ENDPOINT, "entity": entity, "at": format_timestamp(told.at), **said}
