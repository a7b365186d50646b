"""Every stream of feature rows: records in order, each taken once, refused ones kept with the reason.

Over a real Valkey, and Kafka as librdkafka mocks it.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import redis
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition

from harness.segment_streams import MockedKafka, kafka_options
from harness.servers import running_valkey
from skewless.adapters.feature_stream import FeatureStream, FeatureStreamConsumer, StreamRecord
from skewless.adapters.kafka_feature_stream import KafkaFeatureStream, topic_of
from skewless.adapters.redis_url import parse_store_url
from skewless.adapters.valkey_feature_stream import ValkeyFeatureStream, stream_key
from skewless.errors import InvalidRequest, LimitExceeded, SkewlessError, Unavailable
from skewless.ingestion.batches import BatchKind

CLICKS = (BatchKind.ROWS, "clicks")
VISITS = (BatchKind.EVENTS, "visits")
NAMES = (CLICKS, VISITS)
DEADLINE_S = 60.0


@dataclass
class Broker:
    """A kind of stream: how one is opened, written to, and its refused records read."""

    open: Callable[[str], FeatureStream]
    publish: Callable[[tuple[BatchKind, str], Sequence[bytes]], None]
    refused: Callable[[tuple[BatchKind, str]], tuple[bytes, str]]
    """The first one that was refused."""
    names: list[tuple[BatchKind, str]]
    """What is read."""


@dataclass
class Taker:
    """Implements `TakeTogether`: an outbox that knows what it has taken, and fails as it is told to."""

    fails: list[Exception] = field(default_factory=list)
    taken: dict[str, bytes] = field(default_factory=dict)
    stop: threading.Event = field(default_factory=threading.Event)
    expected: int = 1
    leaves: list[Callable[[], None]] = field(default_factory=list)
    """As often it takes none of what it is given, and does this."""

    def __call__(self, records: Sequence[StreamRecord]) -> Sequence[SkewlessError | None] | None:
        if self.fails:
            raise self.fails.pop()
        if self.leaves:
            self.leaves.pop(0)()
            return None
        if any(each.body == b"poison" for each in records):
            raise RuntimeError("nobody foresaw this")
        refusals: list[SkewlessError | None] = []
        for each in records:
            wrong = each.body.startswith(b"wrong")
            refusals.append(InvalidRequest("no row", path="$") if wrong else None)
            if not wrong:
                self.taken.setdefault(each.place, each.body)
        self.expected -= len(records)
        if self.expected <= 0:
            self.stop.set()  # what was received is acknowledged before the consumer ends
        return refusals


@pytest.fixture(scope="module")
def valkey_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_valkey(tmp_path_factory.mktemp("valkey")) as valkey:
        yield valkey.url


@pytest.fixture(params=["valkey", "kafka"])
def broker(request: pytest.FixtureRequest, valkey_url: str, tmp_path: Path) -> Broker:
    return _valkey(valkey_url) if request.param == "valkey" else _kafka(tmp_path)


def _valkey(url: str) -> Broker:
    names = list(NAMES)
    with redis.Redis.from_url(url) as client:
        client.flushall()

    def publish(lane: tuple[BatchKind, str], bodies: Sequence[bytes]) -> None:
        with redis.Redis.from_url(url) as client:
            for body in bodies:
                client.xadd(stream_key(*lane), {"data": body})

    def refused(lane: tuple[BatchKind, str]) -> tuple[bytes, str]:
        with redis.Redis.from_url(url) as client:
            ((_, fields),) = client.xrange(f"{stream_key(*lane)}:refused")
            return fields[b"data"], fields[b"reason"].decode()

    def opened(consumer: str) -> FeatureStream:
        address = parse_store_url(url)
        return ValkeyFeatureStream(address, lambda: names, group="g", consumer=consumer, claim_idle_s=0.05)

    return Broker(opened, publish, refused, names)


def _kafka(folder: Path) -> Broker:
    kafka = MockedKafka()
    names = list(NAMES)
    for lane in NAMES:
        for name in (topic_of(*lane), f"{topic_of(*lane)}.refused"):
            kafka.topic(name)
    options = kafka_options(folder)
    producer = Producer({"bootstrap.servers": kafka.servers, "log_level": 0})

    def publish(lane: tuple[BatchKind, str], bodies: Sequence[bytes]) -> None:
        for body in bodies:
            producer.produce(topic_of(*lane), body, key=b"one entity")
        assert producer.flush(30) == 0

    def refused(lane: tuple[BatchKind, str]) -> tuple[bytes, str]:
        shared = {"bootstrap.servers": kafka.servers, "group.id": "look", "auto.offset.reset": "earliest"}
        reader = Consumer({**shared, "log_level": 0})
        try:
            reader.subscribe([f"{topic_of(*lane)}.refused"])
            message = reader.poll(DEADLINE_S)
            assert message is not None
            reason = dict(message.headers() or ())["reason"]
            assert isinstance(reason, bytes)
            return message.value() or b"", reason.decode()
        finally:
            reader.close()

    def opened(_consumer: str) -> FeatureStream:
        return KafkaFeatureStream(kafka.servers, lambda: names, group="g", options=options)

    return Broker(opened, publish, refused, names)


def consume(broker: Broker, taker: Taker, expected: int, name: str = "one") -> FeatureStreamConsumer:
    """A consumer that has been given so many records."""
    taker.expected = expected
    taker.stop.clear()
    consumer = FeatureStreamConsumer(broker.open(name), taker)
    consumer.run(taker.stop, idle_s=DEADLINE_S)
    return consumer


def bodies(count: int, *, of: str = "row") -> list[bytes]:
    return [f"{of} {number}".encode() for number in range(count)]


def test_records_are_taken_in_order_and_refused_ones_kept_with_the_reason(broker: Broker) -> None:
    broker.publish(CLICKS, [*bodies(3), b"wrong", *bodies(2, of="later")])
    broker.publish(VISITS, bodies(2, of="visit"))
    away = [Unavailable("a store", "it is away")] * 2
    taker = Taker([*away])
    first = consume(broker, taker, 8)
    clicks = [body for place, body in taker.taken.items() if "clicks" in place]
    assert clicks == [*bodies(3), *bodies(2, of="later")]
    assert sorted(body for place, body in taker.taken.items() if "visits" in place) == bodies(2, of="visit")
    assert (first.counts.records, first.counts.refused, first.counts.retries) == (8, 1, 2)
    assert broker.refused(CLICKS) == (b"wrong", "no row")
    # Nothing comes again, and a new consumer goes on behind it.
    broker.publish(CLICKS, bodies(1, of="new"))
    second = consume(broker, taker, 1, "two")
    assert second.counts.records == 1
    assert list(taker.taken.values())[-1] == b"new 0"


def test_records_of_a_consumer_that_died_come_again_under_the_same_place(broker: Broker) -> None:
    broker.publish(CLICKS, bodies(4))
    dead = broker.open("dead")
    given: list[StreamRecord] = []
    for _ in range(60):
        given += dead.receive(1.0)
        if len(given) == 4:
            break
    taker = Taker(taken={each.place: each.body for each in given[:2]})
    dead.close()  # what it had taken it had not acknowledged
    consume(broker, taker, 4, "alive")
    assert list(taker.taken) == [each.place for each in given]


def test_a_record_that_always_fails_is_set_aside_and_the_others_are_taken(valkey_url: str) -> None:
    broker = _valkey(valkey_url)
    broker.publish(CLICKS, [b"row 0", b"poison", b"row 1"])
    taker = Taker()
    consumer = consume(broker, taker, 2)
    assert list(taker.taken.values()) == bodies(2)
    assert broker.refused(CLICKS) == (b"poison", "RuntimeError: nobody foresaw this")
    assert consumer.counts.refused == 1


def test_records_of_a_view_that_takes_nothing_wait_in_the_stream(broker: Broker) -> None:
    def not_clicks() -> None:
        broker.names.remove(CLICKS)
        broker.publish(VISITS, bodies(1, of="visit"))  # others are read meanwhile

    taker = Taker(leaves=[lambda: None, not_clicks, lambda: broker.names.insert(0, CLICKS)])
    broker.publish(CLICKS, bodies(3))
    consumer = consume(broker, taker, 4)
    assert [body for place, body in taker.taken.items() if "clicks" in place] == bodies(3)
    assert [body for place, body in taker.taken.items() if "visits" in place] == bodies(1, of="visit")
    assert (consumer.counts.records, consumer.counts.refused) == (4, 0)


class Faulty:
    """A stream whose first reading goes wrong in a way that nobody foresaw."""

    def __init__(self, stream: FeatureStream) -> None:
        self._stream = stream
        self._faults: list[Exception] = [KeyError("a topic")]

    def receive(self, wait_s: float) -> list[StreamRecord]:
        if self._faults:
            raise self._faults.pop()
        return self._stream.receive(wait_s)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def test_no_error_ends_a_consumer_and_what_is_refused_together_is_taken_one_by_one(valkey_url: str) -> None:
    broker = _valkey(valkey_url)
    broker.publish(CLICKS, bodies(3))
    taker = Taker([LimitExceeded("too many rows", path="$")], expected=3)
    told: list[str] = []
    stream: Any = Faulty(broker.open("one"))
    consumer = FeatureStreamConsumer(stream, taker, on_problem=lambda problem, _error: told.append(problem))
    consumer.run(taker.stop, idle_s=DEADLINE_S)
    assert list(taker.taken.values()) == bodies(3)
    assert [each.partition(":")[0] for each in told] == ["KeyError", "LimitExceeded"]
    assert (consumer.counts.records, consumer.counts.refused, consumer.counts.problem) == (3, 0, "")


@dataclass
class Message:
    """One of librdkafka's, as far as it is looked at."""

    place: int
    problem: KafkaError | None = None
    named: str = topic_of(*CLICKS)

    def error(self) -> KafkaError | None:
        return self.problem

    def topic(self) -> str:
        return self.named

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return self.place

    def headers(self) -> None:
        return None

    def value(self) -> bytes:
        return b"{}"


@dataclass
class Client:
    """A client of Kafka that has some messages, and notes what is committed."""

    messages: list[Message]
    committed: list[int] = field(default_factory=list)

    def subscribe(self, topics: list[str]) -> None:
        assert topics == [topic_of(*CLICKS)]

    def poll(self, _wait_s: float) -> Message | None:
        return self.messages.pop(0) if self.messages else None

    def consume(self, count: int, _wait_s: float) -> list[Message]:
        given, self.messages = self.messages[:count], self.messages[count:]
        return given

    def commit(self, *, offsets: list[TopicPartition], asynchronous: bool) -> None:
        assert not asynchronous
        self.committed += [each.offset for each in offsets]


def test_records_that_come_with_an_error_of_kafkas_are_given_before_it_is_told() -> None:
    stream = KafkaFeatureStream("nowhere:1", lambda: [CLICKS], group="g")
    stream.close()
    denied = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)
    missing = KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART)
    client = Client([Message(0), Message(-1, denied), Message(9, None, "gone"), Message(1), Message(-1, missing)])
    holder: Any = stream
    holder._consumer = client
    given = stream.receive(0.0)
    assert [each.place.rpartition("/")[2] for each in given] == ["0", "1"]
    stream.acknowledge(given)
    assert client.committed == [2]
    client.messages = [Message(2)]
    with pytest.raises(Unavailable):
        stream.receive(0.0)
    assert [each.place.rpartition("/")[2] for each in stream.receive(0.0)] == ["2"]
