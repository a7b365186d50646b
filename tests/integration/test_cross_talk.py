"""No answer is ever another request's: mixed requests at once, each answer computed again from what is stored.

The gateway batches reads and model calls of concurrent requests. Here 64 callers ask five endpoints with three bundles
(live, canary, experiment, shadow) for one to twenty rows of entities that are known, unknown, stale and null, wrong
requests among them. Each answer is compared with one that is computed alone: hashes as Valkey holds them, decoded by a
few lines of plain Python, policies by hand, the transform of one row, and ONNX Runtime on one row. Nothing of the data
plane, the feature reader or the coalescing takes part in that.

`make cross-talk` asks 100,000 requests; `SKEWLESS_TEST_CROSS_TALK` says how many.
"""

import json
import os
import struct
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis

from bench.load_exchange import exchange
from bench.load_http import body_of, request_bytes, status_of
from harness.bundles import ORIGIN, STATION, TAILNUM, BuiltBundle, Hashes, contract, instance, merged, stored
from harness.machines import AS_OF, NOW, Machine, running_machine
from harness.servers import wait_until
from skewless.dtypes import Column, column_of
from skewless.features.redis_layout import feature_field, timestamp_field
from skewless.rollout.changes import start_canary, start_experiment, start_shadow
from skewless.rollout.history import RouteAction
from skewless.rollout.routes import Arm, Experiment, ExperimentKind
from skewless.timestamps import HOUR_US, SECOND_US

REQUESTS = int(os.environ.get("SKEWLESS_TEST_CROSS_TALK", "1500"))
AT_ONCE = 1_000
"""Requests whose replies are held at once."""
CALLERS = 64
SEED = 20_13
ORIGINS, TAILNUMS, STATIONS = 40, 60, 30
REFUSED, PATIENCE_S = (503, 504), 60.0
UNKNOWN_SHARE = 0.1
WRONG_SHARE = 0.04
ROWS = (1, 1, 1, 1, 2, 3, 5, 20)
CANARY_SHARE, TRAFFIC = 0.3, 0.6


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Who may answer, by role, and about which share of the rows each does."""

    name: str
    roles: Mapping[str, tuple[BuiltBundle, float]] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Asked:
    """One request; `wrong` is the value that it must be refused for, None where it is right."""

    endpoint: Endpoint
    instances: tuple[dict[str, Any], ...]
    receipt: str
    wrong: str | None = None


def test_no_answer_is_another_requests(tmp_path: Path) -> None:
    with running_machine(tmp_path) as machine:
        endpoints = _endpoints(machine)
        machine.fill(_hashes(np.random.default_rng(SEED)))
        _await(machine, endpoints)
        oracle = Oracle(machine, endpoints)
        rng = np.random.default_rng(SEED)
        checked, made = Checked(), 0
        while made < REQUESTS:
            batch = [_request(rng, endpoints) for _ in range(min(AT_ONCE, REQUESTS - made))]
            for asked, reply in zip(batch, _answers(machine, batch), strict=True):
                checked.check(asked, reply, oracle)
            made += len(batch)
    checked.check_shares(endpoints)


def _endpoints(machine: Machine) -> list[Endpoint]:
    """Five endpoints over three bundles, in every kind of traffic."""
    one, two, three = (machine.build(number) for number in (1, 2, 3))
    arms = (Arm("first", one.digest, 0.5), Arm("third", three.digest, 0.5))
    experiment = Experiment("which", ExperimentKind.AB, arms, TRAFFIC, "late")
    for name, live in (("plain", one), ("other", two), ("canaried", one), ("tried", two), ("mirrored", three)):
        machine.registry.create_endpoint(name, description="", bundle=live.digest, actor="test", reason="test")
    _change(machine, "canaried", RouteAction.START_CANARY, lambda route: start_canary(route, two.digest, CANARY_SHARE))
    _change(machine, "tried", RouteAction.START_EXPERIMENT, lambda route: start_experiment(route, experiment))
    _change(machine, "mirrored", RouteAction.START_SHADOW, lambda route: start_shadow(route, one.digest))
    _change(machine, "mirrored", RouteAction.START_CANARY, lambda route: start_canary(route, two.digest, CANARY_SHARE))
    return [
        Endpoint("plain", {"live": (one, 1.0)}),
        Endpoint("other", {"live": (two, 1.0)}),
        Endpoint("canaried", {"live": (one, 1 - CANARY_SHARE), "canary": (two, CANARY_SHARE)}),
        Endpoint(
            "tried",
            {"live": (two, 1 - TRAFFIC), "first": (one, TRAFFIC / 2), "third": (three, TRAFFIC / 2)},
        ),
        Endpoint("mirrored", {"live": (three, 1 - CANARY_SHARE), "canary": (two, CANARY_SHARE)}),
    ]


def _change(machine: Machine, endpoint: str, action: RouteAction, change: Any) -> None:
    machine.registry.change_route(endpoint, change, action=action, actor="test", reason="test")


def _hashes(rng: np.random.Generator) -> Hashes:
    """Entities with values that tell them apart; one in four origins is stale, some values are stored nulls."""
    parts = []
    for number in range(ORIGINS):
        age_us = 5 * HOUR_US if number % 4 == 3 else HOUR_US
        wind = None if number % 5 == 4 else int(rng.integers(0, 360))
        features = {"temp": _short(rng.normal(20, 10)), "wind_dir": wind}
        parts.append(stored((ORIGIN,), (f"O{number}",), "weather", NOW - age_us, features))
    for number in range(TAILNUMS):
        seats = None if number % 7 == 6 else int(rng.integers(20, 400))
        parts.append(stored((TAILNUM,), (f"N{number}",), "aircraft", NOW - 100 * HOUR_US, {"seats": seats}))
    for number in range(STATIONS):
        level = _short(rng.normal(0, 5))
        parts.append(stored((STATION,), (number,), "noise", NOW - HOUR_US, {"level": level}))
    return merged(*parts)


def _short(value: float) -> float:
    """A number of few bits: sums of such are exact in float32, in whatever order a batch of any size adds them up."""
    return round(value * 8) / 8


def _request(rng: np.random.Generator, endpoints: Sequence[Endpoint]) -> Asked:
    endpoint = endpoints[int(rng.integers(len(endpoints)))]
    rows = ROWS[int(rng.integers(len(ROWS)))]
    instances = tuple(_instance(rng) for _ in range(rows))
    receipt = ("summary", "full")[int(rng.random() < 0.2)]
    if rng.random() >= WRONG_SHARE:
        return Asked(endpoint, instances, receipt)
    wrong = f"no-number-{rng.integers(10**9)}"
    instances[int(rng.integers(rows))]["party"] = wrong
    return Asked(endpoint, instances, receipt, wrong)


def _instance(rng: np.random.Generator) -> dict[str, Any]:
    def some(known: int) -> int:
        return int(rng.integers(known)) if rng.random() >= UNKNOWN_SHARE else known + int(rng.integers(1_000))

    tailnum, distance = some(TAILNUMS), _short(rng.gamma(2.0, 400.0))
    return instance(
        origin=f"O{some(ORIGINS)}",
        tailnum=None if rng.random() < 0.05 else f"N{tailnum}",
        station=some(STATIONS),
        distance=None if rng.random() < 0.1 else distance,
        is_holiday=bool(rng.random() < 0.5),
        party=int(rng.integers(1, 500)),
    )


def _await(machine: Machine, endpoints: Sequence[Endpoint]) -> None:
    """Until every endpoint answers, with everybody who shall take part in it."""
    asked = [Asked(endpoint, (instance(),), "none") for endpoint in endpoints]

    def all_answer() -> bool:
        return all(status_of(reply) == 200 for reply in _replies(machine, asked))

    machine.wait_until_ready()
    wait_until(all_answer, "every endpoint answers")
    for endpoint in endpoints:
        roles_are_there = partial(_roles_are_there, machine, endpoint)
        wait_until(roles_are_there, f"all bundles of `{endpoint.name}` are in service")


def _roles_are_there(machine: Machine, endpoint: Endpoint) -> bool:
    """Whether a hundred entities see every role; a bundle that is not loaded yet is stood in for by live."""
    rng = np.random.default_rng(SEED)
    (reply,) = _replies(machine, [Asked(endpoint, tuple(_instance(rng) for _ in range(100)), "summary")])
    receipt = json.loads(body_of(reply))["receipt"]
    return {_role_of(part) for part in receipt.get("parts", [receipt])} == endpoint.roles.keys()


def _answers(machine: Machine, batch: Sequence[Asked]) -> list[bytes]:
    """A reply to each request; one that is refused for overload, as a busy machine makes happen, is asked again."""
    replies = _replies(machine, batch)
    deadline = time.monotonic() + PATIENCE_S
    while refused := [place for place, reply in enumerate(replies) if status_of(reply) in REFUSED]:
        assert time.monotonic() < deadline, f"still refused: {body_of(replies[refused[0]])!r}"
        for place, reply in zip(refused, _replies(machine, [batch[place] for place in refused]), strict=True):
            replies[place] = reply
    return replies


def _replies(machine: Machine, asked: Sequence[Asked]) -> list[bytes]:
    host, port = machine.url.removeprefix("http://").split(":")
    requests = [
        request_bytes(
            f"/v1/endpoints/{each.endpoint.name}/predict",
            json.dumps(
                {
                    "instances": each.instances,
                    "options": {"receipt": each.receipt, "as_of": AS_OF, "deadline_ms": 10_000},
                }
            ).encode(),
            host=f"{host}:{port}",
        )
        for each in asked
    ]
    return exchange(host, int(port), requests, connections=CALLERS)


def _role_of(part: Mapping[str, Any]) -> str:
    return str(part.get("arm", part["role"]))


class Checked:
    """What was seen so far, over all answers."""

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._roles: dict[str, Counter[str]] = defaultdict(Counter)
        self._sticky: dict[tuple[str, tuple[object, ...]], str] = {}

    def check(self, asked: Asked, reply: bytes, oracle: "Oracle") -> None:
        """Compare one reply with what was asked. Raises AssertionError where it is anything else's."""
        body = json.loads(body_of(reply))
        if asked.wrong is not None:
            assert status_of(reply) == 400, body
            assert asked.wrong in json.dumps(body), f"asked with {asked.wrong}, told {body}"
            return
        assert status_of(reply) == 200, body
        rows = len(asked.instances)
        assert len(body["predictions"]) == len(set(body["prediction_ids"])) == rows
        assert self._ids.isdisjoint(body["prediction_ids"]), "an id was given twice"
        self._ids.update(body["prediction_ids"])
        receipt = body["receipt"]
        assert (receipt["endpoint"], receipt["rung"]) == (asked.endpoint.name, "normal")
        seen: list[int] = []
        for part in receipt.get("parts", [receipt]):
            places = part.get("rows", range(rows))
            seen += places
            self._check_part(asked, body["predictions"], part, places, oracle)
        assert sorted(seen) == list(range(rows)), "each row is answered by one bundle"

    def _check_part(
        self,
        asked: Asked,
        predictions: Sequence[Mapping[str, Any]],
        part: Mapping[str, Any],
        places: Sequence[int],
        oracle: "Oracle",
    ) -> None:
        role = _role_of(part)
        bundle, _ = asked.endpoint.roles[role]
        assert part["bundle"] == bundle.digest
        self._roles[asked.endpoint.name][role] += len(places)
        for number, place in enumerate(places):
            row = asked.instances[place]
            entity = (asked.endpoint.name, (row["origin"], row["tailnum"], row["station"]))
            assert self._sticky.setdefault(entity, role) == role, f"{entity} saw two roles"
            expected = oracle.answer(row, bundle)
            assert predictions[place] == expected.prediction, f"row {place} of {asked}"
            if asked.receipt == "full":
                told = part["instances"][number]["features"]
                values = {name: each["value"] for name, each in told.items()}
                statuses = {name: each["status"] for name, each in told.items()}
                assert (values, statuses) == (expected.values, expected.statuses), f"row {place} of {asked}"

    def check_shares(self, endpoints: Sequence[Endpoint]) -> None:
        """Every role answered about its share of the rows, so that all of them were tested."""
        assert self._roles.keys() == {endpoint.name for endpoint in endpoints}
        for endpoint in endpoints:
            counts = self._roles[endpoint.name]
            for role, (_, share) in endpoint.roles.items():
                assert counts[role] == pytest.approx(share * counts.total(), rel=0.35), (endpoint.name, role, counts)


@dataclass(frozen=True, slots=True)
class Expected:
    """An answer computed alone: the prediction, and each stored feature's value and status."""

    prediction: Mapping[str, Any]
    values: Mapping[str, Any]
    statuses: Mapping[str, str]


class Oracle:
    """Computes one row at a time from the hashes that Valkey holds."""

    def __init__(self, machine: Machine, endpoints: Sequence[Endpoint]) -> None:
        with redis.Redis(port=machine.valkey_port) as client:
            self._hashes: dict[bytes, dict[bytes, bytes]] = {key: client.hgetall(key) for key in client.keys("*")}
        bundles = {bundle.digest: bundle for endpoint in endpoints for bundle, _ in endpoint.roles.values()}
        self._transforms = {digest: built.bundle.transform.prepare() for digest, built in bundles.items()}
        self._given = [(field.name, field.dtype) for field in contract().request_fields]
        self._given += [(key.name, key.dtype) for key in contract().join_keys]

    def answer(self, row: Mapping[str, Any], built: BuiltBundle) -> Expected:
        """What the bundle must answer for a row, with what it must have read for it."""
        found = {name: self._feature(row, name) for name in FEATURES}
        values = {name: value for name, (value, _) in found.items()}
        statuses = {name: status for name, (_, status) in found.items()}
        tensor = self._transforms[built.digest].apply(_columns({**row, **values}, self._given), 1)
        probability = float(built.model.run(tensor)[0, 1])
        prediction = {"label": "late" if probability >= 0.5 else "on_time", "probability": probability}
        return Expected(prediction, values, statuses)

    def _feature(self, row: Mapping[str, Any], name: str) -> tuple[float | int | None, str]:
        view, feature = name.split("__")
        key, ttl_us, default = FEATURES[name]
        given = row[key.name]
        stored_key = next(iter(stored((key,), (given,), view, NOW, {}))) if given is not None else b""
        fields = self._hashes.get(stored_key, {})
        moment = fields.get(timestamp_field(view))
        if moment is None:
            return (default, "default") if default is not None else (None, "missing")
        if ttl_us and NOW - _varint(moment[1:]) * SECOND_US > ttl_us:
            return None, "stale"
        value = _decoded(fields[feature_field(view, feature)])
        return (value, "ok") if value is not None else (None, "null")


FEATURES = {
    "weather__temp": (ORIGIN, 4 * HOUR_US, None),
    "weather__wind_dir": (ORIGIN, 4 * HOUR_US, 90),
    "aircraft__seats": (TAILNUM, 0, None),
    "noise__level": (STATION, 0, None),
}
"""By column: its key, its time to live in µs (0: for ever), and what stands for an entity that is not stored."""


def _columns(row: Mapping[str, Any], given: Sequence[tuple[str, Any]]) -> dict[str, Column]:
    dtypes = {f"{view.view}__{each.name}": each.dtype for view in contract().views for each in view.features}
    values = {**row, "scheduled_departure": NOW}
    return {name: column_of(dtype, [values[name]]) for name, dtype in (*given, *dtypes.items())}


def _decoded(data: bytes) -> float | int | None:
    """A stored value by its protobuf tag: float32, int64, or nothing for null."""
    if not data:
        return None
    if data[0] == 0x35:
        return float(struct.unpack("<f", data[1:])[0])
    assert data[0] == 0x20, data
    return _varint(data[1:])


def _varint(data: bytes) -> int:
    return sum((byte & 0x7F) << (7 * place) for place, byte in enumerate(data))
