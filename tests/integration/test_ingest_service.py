"""The ingestion service over HTTP: who may bring what, what comes of any body, and when it refuses to take more."""

import asyncio
import json
import random
import socket
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path
from typing import Any, cast

import pytest

from harness.ingest_services import SUITE, VIEW, IngestHome, RunningIngest, arrow, row, running_ingest
from harness.naive_suites import NaiveRunner
from harness.servers import ValkeyServer, running_valkey, wait_until
from skewless.adapters.ingest_intake import Intake
from skewless.adapters.ingest_requests import Decoded, IntakeRequest
from skewless.adapters.quality_files import save_suite
from skewless.ingest_limits import INGEST_BODY_BYTES_MAX, INGEST_INLINE_BYTES, INGEST_JSON_BYTES_MAX
from skewless.ingestion.batches import BatchKind
from skewless.registry.api_scopes import ApiScope
from skewless_http.http_message import HttpRequest
from skewless_http.security.callers import Caller, anonymous
from skewless_http.security.guard import Guard
from skewless_ingest.app import DOCUMENTED
from skewless_ingest.composition import open_service
from skewless_ingest.edges import TakeEdge
from skewless_ingest.front_door import Asked

NDJSON, ARROW = "application/x-ndjson", "application/vnd.apache.arrow.stream"
OPEN = {"/healthz", "/readyz", "/metrics"}


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    with running_valkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture(scope="module")
def ingest(tmp_path_factory: pytest.TempPathFactory, valkey: ValkeyServer) -> Iterator[RunningIngest]:
    """A service in development mode that the tests of this file share; each has users of its own."""
    home = IngestHome.made(tmp_path_factory.mktemp("ingest"), valkey.url)
    with running_ingest(home, public_metrics=True) as running:
        yield running


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, valkey: ValkeyServer) -> Iterator[RunningIngest]:
    """A service that lets nobody in without a key, and delivers nothing."""
    home = IngestHome.made(tmp_path_factory.mktemp("guarded"), valkey.url)
    with running_ingest(home, development=False, deliver=False) as running:
        yield running


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


def a_key(running: RunningIngest, name: str, *scopes: ApiScope) -> dict[str, str]:
    """The header of a new key, once the service knows it."""
    headers = bearer(running.home.key(name, *scopes))
    credential = headers["authorization"].encode()
    wait_until(lambda: running.service.guard.known(credential) is not None, f"the service knows `{name}`")
    return headers


@pytest.fixture(scope="module")
def asker(guarded: RunningIngest) -> dict[str, str]:
    """Who may ask every endpoint, and bring nothing."""
    return a_key(guarded, "asker", ApiScope(("*",)))


def problem(response: Any, status: int, code: str) -> dict[str, Any]:
    """The problem document of a refusal, with what each has."""
    body: dict[str, Any] = response.json()
    assert (response.status_code, body["code"]) == (status, code), body
    assert response.headers["content-type"] == "application/problem+json"
    assert body["request_id"] == response.headers["x-request-id"]
    return body


def test_rows_of_every_form_are_taken_and_reach_both_stores(ingest: RunningIngest) -> None:
    answers = [
        ingest.post([row(1), row(2, clicks_1h=-1)]),
        ingest.send(b"\n".join(json.dumps(row(each)).encode() for each in (3, 4)), NDJSON),
        ingest.send(arrow([row(5)]), ARROW),
    ]
    assert [each.status_code for each in answers] == [202] * 3
    assert [each.json()["accepted"] for each in answers] == [1, 2, 1]
    aside = answers[0].json()["set_aside"]
    assert [each["row"] for each in aside["rows"]] == [1]
    assert aside["quarantine"]
    done = ingest.wait_until_done(answers[2].json()["batch_id"])
    assert done["view"] == VIEW
    assert done["accepted_time"] <= done["online_time"] <= done["offline_time"]
    shown = ingest.client.get(f"/v1/features/{VIEW}").json()
    assert shown["waiting"]["newest_event_time"] == "2024-05-01T00:00:00Z"
    assert shown["policies"] == {"late": "accept", "future": "5m:refuse", "suite": VIEW, "expectations": 9}
    assert shown["row_schema"]["required"] == ["user_id", "clicks_1h", "spend", "tag", "event_time"]
    listed = {each["name"]: each.get("takes_no_rows", "") for each in ingest.client.get("/v1/features").json()["views"]}
    assert listed[VIEW] == ""
    assert "Delta table only" in listed["old"]


def test_events_of_a_stream_are_taken_and_the_view_that_it_feeds_takes_no_rows(ingest: RunningIngest) -> None:
    client = ingest.client
    event = {"user_id": 7, "page": "home", "event_time": "2024-05-01T00:00:00Z"}
    taken = client.post("/v1/events/visits", json={"rows": [event, {**event, "page": None}]})
    assert (taken.status_code, taken.json()["accepted"], taken.json()["stream"]) == (202, 2, "visits")
    assert ingest.wait_until_done(taken.json()["batch_id"])["rows"] == 2
    fed = problem(client.post("/v1/features/visit_counts", json={"rows": [event]}), 400, "takes_no_rows")
    assert "/v1/events/visits" in fed["hint"]
    partial = problem(client.post("/v1/events/visits", json={"rows": [{"user_id": 7}]}), 400, "missing_field")
    assert partial["path"] == "$.rows[0].page"
    ahead = {**event, "event_time": "2999-01-01T00:00:00Z"}
    problem(client.post("/v1/events/visits", json={"rows": [ahead]}), 400, "event_time_ahead")
    shown = client.get("/v1/events/visits").json()
    assert shown["row_schema"]["required"] == ["user_id", "page", "event_time"]
    assert client.get("/v1/events").json() == {"streams": [{"name": "visits"}]}


@pytest.mark.parametrize("entry", DOCUMENTED, ids=lambda each: f"{each.method} {each.path}")
def test_every_route_but_probes_wants_a_credential(guarded: RunningIngest, entry: Any) -> None:
    path = entry.path.format(name=VIEW, id="x")
    answer = guarded.client.request(entry.method, path, json={"rows": [row()]} if entry.method == "POST" else None)
    if entry.path in OPEN:
        assert answer.status_code != HTTPStatus.UNAUTHORIZED
        return
    problem(answer, 401, "unauthenticated")
    wrong = guarded.client.request(entry.method, path, headers=bearer("skw_" + "x" * 43))
    problem(wrong, 401, "unauthenticated")


@pytest.mark.parametrize("entry", DOCUMENTED, ids=lambda each: f"{each.method} {each.path}")
def test_a_key_for_predictions_alone_brings_and_sees_nothing(
    guarded: RunningIngest, asker: dict[str, str], entry: Any
) -> None:
    if entry.path in OPEN:
        return
    path = entry.path.format(name=VIEW, id="x")
    body = {"rows": [row()]} if entry.method == "POST" else None
    answer = guarded.client.request(entry.method, path, json=body, headers=asker)
    if entry.name.startswith("list"):
        assert answer.json() in ({"views": []}, {"streams": []})
    elif entry.name == "show_batch":
        problem(answer, 404, "not_found")
    else:
        problem(answer, 403, "forbidden")


def test_a_key_brings_rows_of_its_views_and_entities_and_no_others(guarded: RunningIngest) -> None:
    headers = a_key(guarded, "clicks-writer", ApiScope((), {"user_id": ("7",)}, features=(VIEW,)))
    taken = guarded.post([row(7), row(71)], **headers)
    assert taken.status_code == 202
    refused = problem(guarded.post([row(7), row(8)], **headers), 403, "forbidden")
    assert refused["path"] == "$.rows[1]"
    problem(guarded.send(arrow([row(8)]), ARROW, **headers), 403, "forbidden")
    problem(guarded.client.post("/v1/features/other", json={"rows": []}, headers=headers), 403, "forbidden")
    problem(guarded.client.post("/v1/events/clicks", json={"rows": []}, headers=headers), 403, "forbidden")
    batch = guarded.client.get(f"/v1/batches/{taken.json()['batch_id']}", headers=headers).json()
    assert (batch["state"], batch["rows"]) == ("accepted", 2)
    stranger = a_key(guarded, "other-writer", ApiScope((), features=("other",)))
    problem(guarded.client.get(f"/v1/batches/{taken.json()['batch_id']}", headers=stranger), 404, "not_found")


def test_created_times_are_for_the_entities_of_their_own_scope(guarded: RunningIngest) -> None:
    scopes = [
        ApiScope((), {"user_id": ("7",)}, features=(VIEW,), created_time=True),
        ApiScope((), {"user_id": ("8",)}, features=(VIEW,)),
    ]
    headers = a_key(guarded, "two-scopes", *scopes)
    dated = {"created_time": "2024-05-01T01:00:00Z"}
    assert guarded.post([row(8), row(7)], **headers).status_code == 202
    assert guarded.post([row(7, **dated)], **headers).status_code == 202
    assert problem(guarded.post([row(7, **dated), row(8, **dated)], **headers), 403, "forbidden")["path"] == "$.rows[1]"


def test_created_times_take_a_scope_of_their_own(guarded: RunningIngest) -> None:
    plain = a_key(guarded, "plain", ApiScope((), features=("*",)))
    trusted = a_key(guarded, "trusted", ApiScope((), features=("*",), created_time=True))
    dated = row(1, created_time="2024-05-01T01:00:00Z")
    assert "created-time" in problem(guarded.post([dated], **plain), 403, "forbidden")["hint"]
    assert guarded.post([dated], **trusted).status_code == 202


def test_what_is_wrong_with_a_request_is_told_before_and_after_its_body_is_read(ingest: RunningIngest) -> None:
    client = ingest.client
    assert problem(ingest.send(b"{}", "text/csv"), 415, "unsupported_media_type")["allowed"]
    problem(ingest.send(b"{}", "application/json", **{"content-encoding": "gzip"}), 415, "unsupported_media_type")
    problem(client.post("/v1/features/nothing", json={"rows": [row()]}), 404, "not_found")
    problem(client.post("/v1/features/old", json={"rows": [row()]}), 400, "takes_no_rows")
    problem(client.post("/v1/events/nothing", json={"rows": [row()]}), 404, "not_found")
    problem(ingest.post([row()], **{"idempotency-key": "x" * 201}), 400, "invalid_idempotency_key")
    problem(ingest.send(b"x" * (INGEST_JSON_BYTES_MAX + 1), "application/json"), 413, "limit_exceeded")
    problem(ingest.send(b"x" * (INGEST_BODY_BYTES_MAX + 1), NDJSON), 413, "limit_exceeded")
    assert problem(ingest.post([{**row(), "clicks_1h": "3"}]), 400, "mistyped_field")["path"] == "$.rows[0].clicks_1h"
    partial = {name: value for name, value in row().items() if name != "tag"}
    assert "partial" in problem(ingest.post([partial]), 400, "missing_field")["hint"]
    problem(client.get("/v1/nothing"), 404, "path_not_found")
    problem(client.delete(f"/v1/features/{VIEW}"), 405, "method_not_allowed")
    assert problem(ingest.post([row(1, spend=5e6)]), 422, "batch_refused")["hint"]


def test_a_repeated_request_is_answered_as_before_and_another_one_refused(ingest: RunningIngest) -> None:
    key = {"idempotency-key": "once"}
    first, again = ingest.post([row(40)], **key).json(), ingest.post([row(40)], **key).json()
    assert again == {**first, "repeated": True}
    assert "byte for byte" in problem(ingest.post([row(41)], **key), 409, "conflict")["hint"]


@pytest.mark.parametrize("seed", range(3))
def test_any_body_is_taken_or_refused_and_never_a_fault(ingest: RunningIngest, seed: int) -> None:
    chosen = random.Random(seed)
    bodies = {
        "application/json": json.dumps({"rows": [row(1), row(2)]}).encode(),
        NDJSON: json.dumps(row(3)).encode() + b"\n" + json.dumps(row(4)).encode(),
        ARROW: arrow([row(5)]),
    }
    statuses = set()
    for _ in range(60):
        media_type = chosen.choice(list(bodies))
        body = bytearray(bodies[chosen.choice(list(bodies))] if chosen.random() < 0.1 else bodies[media_type])
        for _ in range(chosen.randrange(4)):
            place = chosen.randrange(len(body))
            body[place : place + chosen.randrange(4)] = chosen.randbytes(chosen.randrange(5))
        answer = ingest.send(bytes(body), media_type)
        statuses.add(answer.status_code)
        assert answer.status_code in {202, 400, 413, 422}, answer.text
    assert {202, 400} <= statuses


def test_a_body_that_stops_coming_frees_its_room_when_its_caller_is_gone(ingest: RunningIngest) -> None:
    room = ingest.service.room
    url = ingest.client.base_url
    with socket.create_connection((url.host, url.port or 0)) as slow:
        head = f"POST /v1/features/{VIEW} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: {NDJSON}\r\n"
        slow.sendall(head.encode() + b"content-length: 5000\r\n\r\n{")
        wait_until(lambda: room.bytes == 5000, "room is made for the announced body")
    wait_until(lambda: room.bytes == 0, "and given back once the caller is gone")


class HeldIntake:
    """An intake whose decoding waits until the door is open."""

    def __init__(self, intake: Intake) -> None:
        self.target, self.join, self._decode = intake.target, intake.join, intake.decode
        self.inside, self.door = threading.Event(), threading.Event()

    def decode(self, request: IntakeRequest) -> Decoded:
        self.inside.set()
        assert self.door.wait(60)
        return self._decode(request)


class Till:
    """What of the guard a request meets behind the door: it is charged."""

    def __init__(self) -> None:
        self.paid: list[int] = []

    def charge(self, _caller: Caller, rows: int) -> None:
        self.paid.append(rows)


async def test_who_hangs_up_while_rows_are_decoded_leaves_none_uncounted_and_pays(tmp_path: Path) -> None:
    home = IngestHome.made(tmp_path, "redis://127.0.0.1:1")
    body = "\n".join(json.dumps(row(each, tag="x" * 200)) for each in range(1_000)).encode()
    assert len(body) > INGEST_INLINE_BYTES

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    headers = [(b"content-type", NDJSON.encode()), (b"content-length", b"%d" % len(body))]
    scope = {"type": "http", "method": "POST", "path": f"/v1/features/{VIEW}", "scheme": "http", "headers": headers}
    async with open_service(home.settings(deliver=False), runner=NaiveRunner()) as opened:
        intake, till = HeldIntake(opened.intake), Till()
        service = replace(opened, intake=cast("Intake", intake), guard=cast("Guard", till))
        request = HttpRequest({**scope, "state": {}}, receive, {"name": VIEW})
        asked = Asked(request, anonymous(), "r")
        task = asyncio.create_task(TakeEdge(service, BatchKind.ROWS).handle(asked))
        assert await asyncio.to_thread(intake.inside.wait, 60)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (service.room.bytes, till.paid) == (len(body), []), "its rows are in hand yet"
        intake.door.set()
        is_over = lambda: bool(till.paid) and not service.room.bytes  # noqa: E731  # asked from another thread
        await asyncio.to_thread(wait_until, is_over, "what was begun is decoded, paid and let go of")
        assert till.paid == [1_000]


def test_nothing_is_taken_while_the_outbox_is_full_or_the_database_away(tmp_path: Path, valkey: ValkeyServer) -> None:
    home = IngestHome.made(tmp_path, valkey.url, suite=None)
    with running_ingest(home, outbox_batches_max=10, deliver=False) as running:
        answers = [running.post([row(each)]) for each in range(30)]
        taken = [each for each in answers if each.status_code == 202]
        assert len(taken) == 10
        refused = problem(answers[-1], 503, "overloaded")
        assert int(answers[-1].headers["retry-after"]) >= 1
        assert refused["hint"]
        wait_until(lambda: running.client.get("/readyz").status_code == 503, "it is not ready while it is full")
        with closing(sqlite3.connect(tmp_path / "registry.db")) as database, database:
            database.execute("ALTER TABLE ingest_lanes RENAME TO away")
        problem(running.post([row(1)]), 503, "overloaded")
        with closing(sqlite3.connect(tmp_path / "registry.db")) as database, database:
            database.execute("ALTER TABLE away RENAME TO ingest_lanes")
        assert running.client.get("/healthz").status_code == 200


def test_nobody_is_told_where_a_suite_lies_and_probes_are_told_no_reason(tmp_path: Path, valkey: ValkeyServer) -> None:
    home = IngestHome.made(tmp_path, valkey.url)
    (home.repo / "quality" / f"{VIEW}.yaml").write_text("expectations: 3\n")
    with running_ingest(home, deliver=False) as running:
        ready = running.client.get("/readyz")
        assert all(set(part) == {"ok"} for part in ready.json()["parts"].values())
        assert VIEW not in ready.text
        listed = {
            each["name"]: each.get("takes_no_rows") for each in running.client.get("/v1/features").json()["views"]
        }
        assert f"quality/{VIEW}.yaml" in listed[VIEW]
        inside = running.service.parts()["definitions"]["detail"]
        assert VIEW in inside
        for told in (ready.text, listed[VIEW], inside, running.post([row()]).text):
            assert str(tmp_path) not in told


def test_definitions_that_are_applied_while_it_runs_are_taken_up(tmp_path: Path, valkey: ValkeyServer) -> None:
    from harness.ingest_services import apply, clicks

    home = IngestHome.made(tmp_path, valkey.url, suite=None)
    with running_ingest(home, deliver=False) as running:
        late = row(1, event_time="2024-01-01T00:00:00Z")
        assert running.post([late]).json()["dropped"] == 0
        apply(home.url, clicks(tmp_path, late="1d:drop"))
        wait_until(lambda: running.post([late]).json()["dropped"] == 1, "the new policy is in force")


def test_rows_that_were_accepted_are_delivered_while_the_suite_is_a_draft(tmp_path: Path, valkey: ValkeyServer) -> None:
    home = IngestHome.made(tmp_path, valkey.url, suite=None)
    with running_ingest(home, deliver=False) as running:
        batch = running.post([row(61)]).json()["batch_id"]
    save_suite(home.repo / "quality" / f"{VIEW}.yaml", replace(SUITE, reviewed=None), note="a draft")
    with running_ingest(home) as running:
        problem(running.post([row(62)]), 400, "takes_no_rows")
        assert running.wait_until_done(batch)["error"] == ""


def test_metrics_count_rows_by_what_became_of_them(ingest: RunningIngest) -> None:
    def count(outcome: str) -> float:
        page = ingest.client.get("/metrics").text
        wanted = f'skewless_ingest_rows_total{{kind="rows",name="{VIEW}",outcome="{outcome}"}} '
        return next((float(line.removeprefix(wanted)) for line in page.splitlines() if line.startswith(wanted)), 0.0)

    before = {each: count(each) for each in ("accepted", "quarantined", "refused")}
    ingest.post([row(50), row(51), row(52, clicks_1h=-1)])
    ingest.post([row(53, spend=5e6)])
    wait_until(lambda: count("refused") == before["refused"] + 1, "the refusal is counted")
    assert count("accepted") == before["accepted"] + 2
    assert count("quarantined") == before["quarantined"] + 1
    page = ingest.client.get("/metrics").text
    assert "skewless_ingest_delivery_lag_seconds_bucket" in page
    assert f'skewless_ingest_outbox_batches{{kind="rows",name="{VIEW}"}}' in page


def test_the_documentation_names_every_route(ingest: RunningIngest) -> None:
    document = ingest.client.get("/openapi.json").json()
    told = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert told == {(entry.method, entry.path) for entry in DOCUMENTED}
    assert ingest.client.get("/docs").status_code == 200
