"""The client against the gateway's real application over fakes, and against a server that is no gateway."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from harness.bundles import instance
from harness.gateways import ENDPOINT, NOW, GatewayOverFakes
from skewless.adapters.gateway_client import GatewayClient
from skewless.errors import InvalidRequest, Unavailable
from skewless.stack.ports import free_ports
from skewless.timestamps import HOUR_US, parse_timestamp


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[GatewayOverFakes]:
    built = GatewayOverFakes.build(tmp_path)
    built.allow_as_of = True
    with built.running() as running:
        yield running


def _client(url: str, endpoint: str = ENDPOINT) -> GatewayClient:
    return GatewayClient(
        url, endpoint, timestamp_fields=frozenset({"scheduled_departure"}), label_names=("on_time", "late")
    )


def _url(gateway: GatewayOverFakes) -> str:
    return str(gateway.client.base_url)


async def test_a_prediction_is_answered_with_its_id_probability_and_latency(gateway: GatewayOverFakes) -> None:
    moment = parse_timestamp("2013-05-01T12:30:00.000001Z")
    async with _client(_url(gateway)) as client:
        answer = await client.predict(instance(scheduled_departure=moment), as_of=NOW - HOUR_US)
    (batch,) = gateway.log.batches
    assert answer.prediction_id == batch.prediction_ids[0]
    assert answer.probability == pytest.approx(float(batch.probabilities[0]))
    assert answer.latency_s > 0
    assert batch.as_of == NOW - HOUR_US
    assert batch.given["scheduled_departure"].values.tolist() == [moment]


async def test_the_gateways_clock_is_used_where_no_moment_is_given(gateway: GatewayOverFakes) -> None:
    async with _client(_url(gateway)) as client:
        await client.predict(instance(), as_of=None)
    assert gateway.log.batches[0].as_of == NOW


async def test_outcomes_are_reported_by_label_name(gateway: GatewayOverFakes) -> None:
    async with _client(_url(gateway)) as client:
        answer = await client.predict(instance(), as_of=None)
        await client.report([(answer.prediction_id, True, NOW + 1)])
    (outcome,) = gateway.log.outcomes
    assert (outcome.prediction_id, outcome.label, outcome.outcome_time) == (answer.prediction_id, "late", NOW + 1)


async def test_a_refusal_is_an_invalid_request_that_keeps_the_gateways_words(gateway: GatewayOverFakes) -> None:
    async with _client(_url(gateway)) as client:
        with pytest.raises(InvalidRequest, match="answered 4") as refused:
            await client.predict(instance(party="two"), as_of=None)
    assert refused.value.path == "$.instances[0].party"
    assert refused.value.allowed


async def test_an_unknown_endpoint_is_an_invalid_request(gateway: GatewayOverFakes) -> None:
    async with _client(_url(gateway), "nope") as client:
        with pytest.raises(InvalidRequest, match=r"answered 404.*nope"):
            await client.predict(instance(), as_of=None)


async def test_a_part_that_is_away_is_unavailable_for_as_long_as_the_gateway_says(gateway: GatewayOverFakes) -> None:
    gateway.store.failure = Unavailable("online store", "gone", retry_after_s=3)
    async with _client(_url(gateway)) as client:
        with pytest.raises(Unavailable, match="online store") as refused:
            await client.predict(instance(), as_of=None)
    assert refused.value.retry_after_s >= 1


async def test_nobody_listening_is_unavailable() -> None:
    (port,) = free_ports(1)
    async with _client(f"http://127.0.0.1:{port}") as client:
        with pytest.raises(Unavailable, match="gateway"):
            await client.predict(instance(), as_of=None)


@asynccontextmanager
async def _answering(response: bytes) -> AsyncIterator[str]:
    """A server that answers anything with the same bytes."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(response)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield "http://{}:{}".format(*server.sockets[0].getsockname())


@pytest.mark.parametrize(
    ("status", "headers", "body", "error"),
    [
        ("502 Bad Gateway", "", b"<html>", InvalidRequest),
        ("503 Service Unavailable", "", b"busy", Unavailable),
        ("503 Service Unavailable", "Retry-After: Wed, 21 Oct 2026 07:28:00 GMT\r\n", b"{}", Unavailable),
        ("503 Service Unavailable", "", b"[]", Unavailable),
        ("504 Gateway Timeout", "Retry-After: 2\r\n", b'"text"', Unavailable),
        ("200 OK", "", b"<html>", InvalidRequest),
        ("200 OK", "", b"[]", InvalidRequest),
    ],
)
async def test_a_server_that_is_no_gateway_gives_a_typed_error(
    status: str, headers: str, body: bytes, error: type[Any]
) -> None:
    response = f"HTTP/1.1 {status}\r\n{headers}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body
    async with _answering(response) as url, _client(url) as client:
        with pytest.raises(error):
            await client.predict(instance(), as_of=None)
