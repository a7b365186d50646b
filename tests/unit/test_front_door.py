"""The front door: which route answers, what every answer carries, and what happens to callers that go away."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from harness.asgi_calls import application_of, ask, predict, scope_of
from harness.bundles import instance
from harness.gateways import ENDPOINT, GatewayOverFakes
from harness.polling import until
from skewless.errors import InvalidRequest, LimitExceeded, SkewlessError
from skewless.limits import PATHS_REMEMBERED_MAX
from skewless_gateway.app import DOCUMENTED
from skewless_gateway.asgi import HotRoute, RouteTable
from skewless_gateway.predictions import RequestHead
from skewless_gateway.routes import hot_routes
from skewless_http.http_message import ClientGone, HttpRequest, Message, Reply, request_id_of, send_parts
from skewless_http.problems import problem_of
from skewless_http.security.headers import ANSWER_HEADERS, DOCS_HEADERS, TLS_HEADERS

PREDICT = f"/v1/endpoints/{ENDPOINT}/predict"
JSON = (b"content-type", b"application/json")


class NamedEdge:
    """An edge that a table can be asked for by name."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def handle(self, _request: HttpRequest, _head: RequestHead) -> Reply:
        return Reply(200, b"text/plain", self.name.encode())

    def refusal(self, error: SkewlessError, request_id: str) -> Reply:
        return problem_of(error, request_id)


def table(*routes: tuple[str, str]) -> RouteTable:
    return RouteTable(tuple(HotRoute((method,), pattern, NamedEdge(pattern)) for method, pattern in routes))


def found(routes: RouteTable, method: str, path: str) -> tuple[str, dict[str, str]] | None:
    seen = routes.find(method, path)
    return None if seen is None else (seen[0].pattern, dict(seen[1]))


ROUTES = table(
    ("POST", "/v1/endpoints/{endpoint}/predict"),
    ("GET", "/v1/endpoints/{endpoint}"),
    ("GET", "/v1/endpoints"),
    ("POST", "/v1/models/{endpoint}:predict"),
    ("POST", "/v2/models/{endpoint}/versions/{version}/infer"),
    ("GET", "/v2/a.b"),
    ("GET", "/v2/{rest}"),
)


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("POST", "/v1/endpoints/a/predict", ("/v1/endpoints/{endpoint}/predict", {"endpoint": "a"})),
        ("GET", "/v1/endpoints/a/predict", None),
        ("POST", "/v1/endpoints//predict", None),
        ("POST", "/v1/endpoints/a/b/predict", None),
        ("POST", "/v1/endpoints/a/predict/", None),
        ("GET", "/v1/endpoints", ("/v1/endpoints", {})),
        ("GET", "/v1/endpoints/", None),
        ("GET", "/v1/endpoints/a", ("/v1/endpoints/{endpoint}", {"endpoint": "a"})),
        ("POST", "/v1/models/a:predict", ("/v1/models/{endpoint}:predict", {"endpoint": "a"})),
        ("POST", "/v1/models/a:b:predict", ("/v1/models/{endpoint}:predict", {"endpoint": "a:b"})),
        (
            "POST",
            "/v2/models/a/versions/3/infer",
            ("/v2/models/{endpoint}/versions/{version}/infer", {"endpoint": "a", "version": "3"}),
        ),
        ("GET", "/v2/a.b", ("/v2/a.b", {})),
        ("GET", "/v2/axb", ("/v2/{rest}", {"rest": "axb"})),
        ("GET", "/v2/x/y/z", ("/v2/{rest}", {"rest": "x/y/z"})),
        ("GET", "/v1/endpoints/a\nb", ("/v1/endpoints/{endpoint}", {"endpoint": "a\nb"})),
    ],
)
def test_the_first_route_that_matches_answers(
    method: str, path: str, expected: tuple[str, dict[str, str]] | None
) -> None:
    for _ in range(2):  # found, and then remembered
        assert found(ROUTES, method, path) == expected


def test_paths_that_callers_make_up_are_not_remembered_for_ever() -> None:
    routes = table(("GET", "/v1/endpoints/{endpoint}"))
    for number in range(3 * PATHS_REMEMBERED_MAX):
        assert found(routes, "GET", f"/v1/endpoints/{number}") is not None
        assert found(routes, "GET", f"/nowhere/{number}") is None
        assert len(routes._remembered) <= PATHS_REMEMBERED_MAX


@pytest.mark.parametrize("given", [b"abc-1._Z", b"a" * 100])
def test_a_request_id_in_order_is_kept(given: bytes) -> None:
    assert request_id_of(given) == given.decode()


@pytest.mark.parametrize("given", [None, b"", b"a" * 101, b"a b", b"a\nb", "ä".encode(), b"abc\n"])
def test_a_request_id_that_could_do_harm_is_replaced(given: bytes | None) -> None:
    made = {request_id_of(given) for _ in range(100)}
    assert len(made) == 100
    assert all(len(each) == 32 and each.isalnum() for each in made)


def request(*messages: Message, headers: tuple[tuple[bytes, bytes], ...] = ()) -> HttpRequest:
    waiting = list(messages)

    async def receive() -> Message:
        if waiting:
            return waiting.pop(0)
        await asyncio.Event().wait()
        raise AssertionError("nothing ever comes")

    return HttpRequest(scope_of("POST", "/", headers=headers), receive)


def part(body: bytes, *, more: bool = True) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


GONE: Message = {"type": "http.disconnect"}


async def test_a_body_is_put_together_whatever_it_comes_in() -> None:
    assert await request(part(b"abc", more=False)).body(3) == b"abc"
    assert await request(part(b"a"), part(b""), part(b"bc", more=False)).body(3) == b"abc"
    assert await request({"type": "http.request"}).body(3) == b""
    assert [each async for each in request(part(b"a"), part(b""), part(b"bc", more=False)).stream()] == [b"a", b"bc"]


async def test_a_body_past_its_limit_is_left_unread() -> None:
    for too_large in (
        request(part(b"abcd", more=False)),
        request(part(b"ab"), part(b"cd"), part(b"never read")),
        request(headers=((b"content-length", b"4"),)),
    ):
        with pytest.raises(LimitExceeded, match=r"has more than 3|announces 4"):
            await too_large.body(3)


async def test_a_body_that_does_not_come_is_given_up_and_nothing_stays_cancelled() -> None:
    for slow in (request(), request(part(b"a"))):
        with pytest.raises(InvalidRequest, match="did not arrive within 10 ms"):
            await slow.body(timeout_s=0.01)
    reader = asyncio.current_task()
    assert reader is not None
    assert not reader.cancelling()
    assert await request(part(b"abc", more=False)).body() == b"abc"


async def test_who_cancels_a_reader_is_not_taken_for_its_time_limit() -> None:
    reading = asyncio.create_task(request().body(timeout_s=30))
    await asyncio.sleep(0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading


async def test_hanging_up_ends_every_way_of_reading() -> None:
    for read in (request(GONE).body(), request(part(b"a"), GONE).body()):
        with pytest.raises(ClientGone):
            await read
    with pytest.raises(ClientGone):
        [each async for each in request(part(b"a"), GONE).stream()]
    await request(part(b"a", more=False), GONE).disconnected()


class Work:
    """A body made part by part, which remembers that it was told to stop."""

    def __init__(self, *parts: bytes, error: Exception | None = None) -> None:
        self._parts = list(parts)
        self._error = error
        self.closed = 0

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._parts:
            return self._parts.pop(0)
        if self._error is not None:
            raise self._error
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self.closed += 1


async def test_work_for_a_streamed_answer_is_stopped_however_it_ends() -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def refuse(_message: Message) -> None:
        raise OSError("the connection is gone")

    whole = Work(b"a", b"b")
    await send_parts(send, 200, (), whole)
    assert [message.get("body") for message in sent] == [None, b"a", b"b", b""]
    assert [message.get("more_body", False) for message in sent] == [False, True, True, False]
    broken = Work(b"a", error=InvalidRequest("no", path="$"))
    with pytest.raises(InvalidRequest):
        await send_parts(send, 200, (), broken)
    unsent = Work(b"a")
    with pytest.raises(OSError, match="gone"):
        await send_parts(refuse, 200, (), unsent)
    assert (whole.closed, broken.closed, unsent.closed) == (1, 1, 1)


async def test_every_answer_has_an_id_and_the_headers_that_keep_it_private(tmp_path: Path) -> None:
    gateway = GatewayOverFakes.build(tmp_path)
    async with application_of(gateway) as application:
        for method, path, scheme in (
            ("POST", PREDICT, "http"),
            ("GET", "/healthz", "http"),
            ("GET", "/nowhere", "http"),
            ("PUT", PREDICT, "https"),
            ("POST", "/v1/outcomes", "https"),
        ):
            mine = (JSON, (b"x-request-id", b"mine"))
            answer = await ask(application, method, path, b"{}", headers=mine, scheme=scheme)
            assert answer is not None
            assert answer.headers[b"x-request-id"] == b"mine"
            assert tuple((name, answer.headers[name]) for name, _ in ANSWER_HEADERS) == ANSWER_HEADERS
            assert (TLS_HEADERS[0][0] in answer.headers) == (scheme == "https")
        page = await ask(application, "GET", "/docs")
        assert page is not None
        assert tuple((name, page.headers[name]) for name, _ in DOCS_HEADERS) == DOCS_HEADERS


async def test_who_is_not_known_learns_nothing_and_sends_no_body(tmp_path: Path) -> None:
    gateway = GatewayOverFakes.build(tmp_path)
    gateway.anonymous = None
    async with application_of(gateway) as application:
        for path in (PREDICT, "/v1/endpoints/nowhere/predict"):
            answer = await ask(application, "POST", path, [])  # a body would never come
            assert answer is not None
            assert (answer.status, answer.json()["code"]) == (401, "unauthenticated")
            assert b"www-authenticate" in answer.headers
        health = await ask(application, "GET", "/healthz")
        assert health is not None
        assert health.status == 200


async def test_a_caller_that_hangs_up_is_counted_and_not_answered(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gateway = GatewayOverFakes.build(tmp_path)
    async with application_of(gateway) as application:
        assert await ask(application, "POST", PREDICT, [part(b"{"), GONE]) is None
        gateway.backend.is_held = True
        asked = asyncio.create_task(predict(application, instance()))
        reads = len(gateway.store.reads)
        await until(lambda: len(gateway.store.reads) > reads)
        asked.cancel()  # as a server does when the connection ends
        with pytest.raises(AssertionError, match="is answered"):
            await asked
        gateway.backend.is_held = False
        assert (await predict(application, instance())).status == 200
    counted = gateway.metrics.exposition().decode()
    assert f'skewless_requests_total{{code="499",endpoint="{ENDPOINT}"}} 2.0' in counted
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_fault_of_ours_is_told_by_its_id_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    gateway = GatewayOverFakes.build(tmp_path)
    async with application_of(gateway) as application:
        gateway.backend.repository = {}  # makes the fake raise a KeyError, which nobody expects
        answer = await predict(application, instance())
    assert (answer.status, answer.json()["code"], answer.json()["detail"]) == (500, "internal", "internal error")
    assert answer.json()["request_id"] in caplog.text
    assert "KeyError" in caplog.text


async def test_a_deadline_may_stand_in_the_head(tmp_path: Path) -> None:
    gateway = GatewayOverFakes.build(tmp_path)
    gateway.backend.slow_s = 0.2
    async with application_of(gateway) as application:
        for headers, status in (
            (((b"x-request-timeout-ms", b"50"),), 504),
            (((b"x-request-timeout-ms", b"5000"),), 200),
            (((b"x-request-timeout-ms", b"soon"),), 400),
            ((), 200),
        ):
            body = b'{"instances": [%s]}' % json.dumps(instance()).encode()
            answer = await ask(application, "POST", PREDICT, body, headers=(JSON, *headers))
            assert answer is not None
            assert answer.status == status, answer.body


async def test_what_is_documented_is_what_is_answered(tmp_path: Path) -> None:
    gateway = GatewayOverFakes.build(tmp_path)
    async with gateway.opened() as parts:
        answered = {(method, route.pattern) for route in hot_routes(parts) for method in route.methods}
    documented = {(route.method, route.path) for route in DOCUMENTED}
    assert documented - answered == set(), "documented, and answered by nobody"
    unheard = {(method, pattern) for method, pattern in answered - documented if "{rest}" not in pattern}
    assert unheard == set(), "answered, and documented nowhere"
