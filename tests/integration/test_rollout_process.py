"""Rollouts on a gateway as a process of its own, over a real Valkey, Triton and registry, under load and under fire."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from harness import http_calls
from harness.attempts import holds_once
from harness.bundles import BuiltBundle, instance
from harness.gateways import ENDPOINT
from harness.machines import AS_OF, Machine, running_machine
from harness.postgres import PostgresServer
from harness.servers import wait_until
from skewless.adapters.log_reader import open_log
from skewless.canonical_json import Digest
from skewless.rollout import changes
from skewless.rollout.history import RouteAction
from skewless.rollout.routes import Route

SWAPS = 50
ROWS = 6
CALLERS = 3
PAUSE_S = 0.015
"""Between an answer and the caller's next question: some request is nearly always on its way, for a part of the
processor time of callers who never wait."""


@dataclass
class Load:
    """Callers that ask again soon after each answer, and everything they were answered."""

    url: str
    stop: threading.Event = field(default_factory=threading.Event)
    answers: list[tuple[float, dict[str, Any]]] = field(default_factory=list)
    """When an answer was there (monotonic seconds), and what it was."""
    failures: list[str] = field(default_factory=list)

    def call(self, caller: int) -> None:
        with http_calls.client(timeout=30) as client:
            number = 0
            while not self.stop.wait(PAUSE_S):
                number += 1
                rows = [instance(tailnum=f"T{caller}-{number}-{row}", distance=float(number)) for row in range(ROWS)]
                try:
                    response = client.post(
                        f"{self.url}/v1/endpoints/{ENDPOINT}/predict",
                        json={"instances": rows, "options": {"as_of": AS_OF, "deadline_ms": 10_000}},
                    )
                except httpx.TransportError as error:
                    self.failures.append(repr(error))
                    continue
                if response.status_code == 200:
                    self.answers.append((time.monotonic(), response.json()))
                else:
                    self.failures.append(response.text)


@contextmanager
def under_load(machine: Machine) -> Iterator[Load]:
    load = Load(machine.url)
    threads = [threading.Thread(target=load.call, args=(caller,), daemon=True) for caller in range(CALLERS)]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        load.stop.set()
        for thread in threads:
            thread.join(40)


def _parts(answer: Mapping[str, Any]) -> list[tuple[str, list[int]]]:
    """(bundle, rows) of an answer as its receipt tells them."""
    receipt = answer["receipt"]
    if "parts" in receipt:
        return [(part["bundle"], part["rows"]) for part in receipt["parts"]]
    return [(receipt["bundle"], list(range(len(answer["predictions"]))))]


def _check_answers(machine: Machine, load: Load, bundles: list[BuiltBundle]) -> None:
    """No request failed, and every row was answered as the bundle of its receipt computes its logged tensor."""
    assert load.failures == []
    by_digest = {built.digest: built for built in bundles}
    logged = {row["prediction_id"]: row for row in open_log(machine.log).predictions(ENDPOINT).to_pylist()}
    for _, answer in load.answers:
        for bundle, rows in _parts(answer):
            for row in rows:
                record = logged[answer["prediction_ids"][row]]
                tensor = np.frombuffer(record["tensor"], np.float32).reshape(1, -1)
                expected = by_digest[Digest(bundle)].outputs(tensor)["probabilities"][0, 1]
                assert record["bundle_digest"] == bundle
                assert np.float32(answer["predictions"][row]["probability"]) == expected


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Machine, list[BuiltBundle]]]:
    with running_machine(tmp_path_factory.mktemp("rollouts")) as running:
        yield running, [running.serve(0), *(running.build(number) for number in (1, 2))]


Running = tuple[Machine, list[BuiltBundle]]


def _change(machine: Machine, change: Callable[[Route], Route]) -> Route:
    return machine.registry.change_route(
        ENDPOINT, change, action=RouteAction.PROMOTE, actor="test", reason="test"
    ).route


def test_fifty_swaps_under_load_fail_no_request_and_mix_no_answer(machine: Running) -> None:
    running, bundles = machine
    with under_load(running) as load:
        for number in range(SWAPS):
            live = bundles[(number + 1) % len(bundles)]
            version = running.registry.set_live(ENDPOINT, live.digest, actor="test", reason="test").route.version
            wait_until(
                lambda version=version: running.endpoint()["route_version"] == version,  # type: ignore[misc]
                f"version {version} is served",
                timeout_s=30,
            )
            seen = len(load.answers)
            wait_until(lambda seen=seen: len(load.answers) > seen, f"version {version} is asked")  # type: ignore[misc]
    _check_answers(running, load, bundles)
    assert all(len(_parts(answer)) == 1 for _, answer in load.answers), "one bundle answers a request whole"
    assert {bundle for _, answer in load.answers for bundle, _ in _parts(answer)} == {each.digest for each in bundles}


def test_canaries_that_come_and_go_under_load_fail_no_request(machine: Running) -> None:
    running, bundles = machine
    with under_load(running) as load:
        for number in range(10):
            route = running.registry.endpoint(ENDPOINT).route
            candidate = next(each.digest for each in bundles if each.digest != route.live)
            for change in (
                lambda before, candidate=candidate: changes.start_canary(before, candidate, 0.5),
                (lambda before: changes.abort(before, changes.Part.CANARY)) if number % 2 else changes.promote,
            ):
                version = _change(running, change).version
                wait_until(
                    lambda version=version: running.endpoint()["route_version"] == version,  # type: ignore[misc]
                    f"version {version} is served",
                    timeout_s=30,
                )
    _check_answers(running, load, bundles)
    assert any(len(_parts(answer)) == 2 for _, answer in load.answers), "some requests were split"


def test_a_rollback_ends_the_new_bundles_answers_within_two_seconds(machine: Running) -> None:
    running, bundles = machine

    def measure() -> None:
        before = running.registry.endpoint(ENDPOINT).route
        newer = next(each for each in bundles if each.digest != before.live)
        running.registry.set_live(ENDPOINT, newer.digest, actor="test", reason="test")
        wait_until(lambda: running.endpoint()["bundle"] == newer.digest, "the new bundle answers")
        with under_load(running) as load:
            wait_until(lambda: len(load.answers) > 20, "the new bundle is asked")
            begun = time.monotonic()
            running.registry.rollback(ENDPOINT, actor="test", reason="test")
            wait_until(lambda: running.endpoint()["bundle"] == before.live, "the old bundle answers again")
            seen = len(load.answers)
            wait_until(lambda: len(load.answers) > seen + 20, "the old bundle is asked")
        last = max(moment for moment, answer in load.answers if _parts(answer)[0][0] == newer.digest)
        _check_answers(running, load, bundles)
        assert last - begun < 2.0, f"{last - begun:.2f} s"

    holds_once(measure, attempts=5)


@pytest.mark.parametrize("moment", ["committed", "copied", "served"])
def test_a_gateway_killed_in_the_middle_of_a_swap_restarts_on_one_whole_bundle(machine: Running, moment: str) -> None:
    running, bundles = machine
    newer = running.build(len(bundles))
    bundles.append(newer)
    version = running.registry.set_live(ENDPOINT, newer.digest, actor="test", reason="test").route.version
    reached: dict[str, Callable[[], bool]] = {
        "committed": lambda: True,
        "copied": lambda: (running.log / "bundles" / newer.digest).exists(),
        "served": lambda: running.endpoint()["bundle"] == newer.digest,
    }
    wait_until(reached[moment], f"the swap is {moment}")
    running.stop("gateway", kill=True)
    running.start("gateway")
    running.wait_until_ready()
    wait_until(lambda: running.endpoint().get("route_version") == version, "it is up to date")
    assert running.predict().json()["receipt"]["bundle"] == newer.digest


def test_a_gateway_restarts_and_serves_while_registry_and_artifact_store_are_gone(machine: Running) -> None:
    running, _ = machine
    live = running.registry.endpoint(ENDPOINT).route.live
    running.registry.close()
    hidden = {path: running.folder / f"hidden-{path.name}" for path in running.folder.glob("registry.db*")}
    hidden[running.folder / "artifacts"] = running.folder / "hidden-artifacts"
    for path, elsewhere in hidden.items():
        path.rename(elsewhere)
    try:
        running.stop("gateway", kill=True)
        running.start("gateway")
        running.wait_until_ready()
        answer = running.predict()
        assert answer.status_code == 200, answer.text
        assert answer.json()["receipt"]["bundle"] == live
        assert "last good routes" in http_calls.get(f"{running.url}/readyz", timeout=10).text
    finally:
        for path, elsewhere in hidden.items():
            elsewhere.rename(path)
    wait_until(lambda: "last good routes" not in http_calls.get(f"{running.url}/readyz", timeout=10).text, "it is back")


def test_a_stopped_postgresql_stops_neither_serving_nor_a_restart(
    postgres_server: PostgresServer, tmp_path: Path
) -> None:
    url = postgres_server.new_database()
    with running_machine(tmp_path, database_url=url, tritons=0, TRITON="in-process") as running:
        first, second = running.serve(0), running.build(1)
        copy = running.log / "routes.json"
        wait_until(lambda: copy.exists() and first.digest in copy.read_text(), "the route is copied")
        postgres_server.stop()
        try:
            assert running.predict().status_code == 200
            running.stop("gateway", kill=True)
            running.start("gateway")
            running.wait_until_ready()
            assert running.predict().json()["receipt"]["bundle"] == first.digest
        finally:
            postgres_server.start()
        running.registry.set_live(ENDPOINT, second.digest, actor="test", reason="test")
        wait_until(lambda: running.endpoint().get("bundle") == second.digest, "changes arrive again")
