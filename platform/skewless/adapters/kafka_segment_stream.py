"""Segments on a topic of Kafka: a message per part, keyed by its segment, so that a partition has all parts of one.

The producer is idempotent and waits for all replicas in sync; consumers commit offsets once the effect is kept. What a
topic keeps is bounded by its own retention, on disk: a slow group holds nobody up, and finds a gap where it was slower.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from skewless.adapters.segment_parts import DamagedPart, SegmentPart, read_part
from skewless.adapters.segment_stream import STREAM, Delivery, PartReader, StreamState
from skewless.errors import InvalidRequest, InvalidSettings, Unavailable
from skewless.limits import (
    RETRY_AFTER_S,
    STREAM_HEAD_BYTES_MAX,
    STREAM_PARTS_AT_ONCE,
    STREAM_ROW_BYTES_MAX,
    STREAM_TIMEOUT_S,
)

SCHEME = "kafka://"
_HEAD = "skewless-part"
_MESSAGE_BYTES_MAX = STREAM_ROW_BYTES_MAX + 2 * STREAM_HEAD_BYTES_MAX
_MILLISECONDS = 1_000
_POLL_S_MAX = 300.0
"""A member whose effect takes longer loses its partitions to others; the ledger keeps that from counting twice."""
_OURS = frozenset(
    {
        "acks",
        "auto.offset.reset",
        "bootstrap.servers",
        "enable.auto.commit",
        "enable.auto.offset.store",
        "enable.idempotence",
        "group.id",
        "isolation.level",
        "metadata.broker.list",
        "request.required.acks",
        "transactional.id",
    }
)
"""Properties on which the promises rest; no file of options may set them."""
_SHARED = {"client.id": "skewless", "log_level": 2, "allow.auto.create.topics": False}
"""Its log goes to standard error: level 2 leaves what no error tells."""
_LOST = frozenset(
    {
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError._ASSIGNMENT_LOST,  # noqa: SLF001  # librdkafka's own codes begin with an underscore
    }
)
"""Errors of a commit that say: these partitions are another member's now, which gets the parts again."""


class KafkaSegmentStream:
    """Implements `SegmentStream`."""

    def __init__(self, servers: str, topic: str, *, options: dict[str, str]) -> None:
        """`servers` are host:port, separated by commas. Raises InvalidSettings for options that cannot be used."""
        self._topic = topic
        self._shared = {**_SHARED, **options, "bootstrap.servers": servers}
        self._producer = self._made_producer()
        self.trimmed = 0

    @classmethod
    def at(cls, url: str, *, options: Path | None) -> "KafkaSegmentStream":
        """The topic of a URL, with the options in a file. Raises InvalidSettings."""
        servers, topic = _parse(url)
        return cls(servers, topic, options=read_options(options) if options is not None else {})

    def publish(self, parts: Sequence[SegmentPart]) -> None:
        """See `SegmentStream.publish`: returns when all replicas in sync have every part."""
        problems: list[KafkaError] = []

        def told(error: KafkaError | None, _message: Message) -> None:
            if error is not None:
                problems.append(error)

        try:
            for part in parts:
                headers: list[tuple[str, str | bytes | None]] = [(_HEAD, part.head_bytes())]
                key = part.head.segment.encode()
                self._producer.produce(self._topic, part.data, key, headers=headers, on_delivery=told)
        except KafkaException as error:
            problems.append(error.args[0])
        except BufferError:
            problems.append(KafkaError(KafkaError._QUEUE_FULL))  # noqa: SLF001  # librdkafka's own code
        # A message that is not delivered in its time is told as an error, so that this ends by itself.
        left = self._producer.flush(2 * STREAM_TIMEOUT_S)
        if any(problem.fatal() for problem in problems):
            # Its order can no longer be vouched for; a new producer begins a new one.
            self._producer = self._made_producer()
        if problems or left:
            raise Unavailable(
                STREAM,
                problems[0].str() if problems else f"Kafka has not confirmed {left} parts",
                retry_after_s=RETRY_AFTER_S,
                hint=f"check the brokers, and that topic `{self._topic}` exists and takes {_MESSAGE_BYTES_MAX} bytes",
            )

    def reader(self, group: str, consumer: str) -> PartReader:
        """See `SegmentStream.reader`. Kafka tells its members apart by itself; the name is for its logs."""
        return _KafkaReader({**self._shared, "client.id": consumer, "group.id": group}, self._topic)

    def state(self) -> StreamState:
        """See `SegmentStream.state`: a topic bounds itself, and its groups are asked for by Kafka's own tools."""
        return StreamState(0, 0, 0, ())

    def forget_group(self, group: str) -> bool:
        """Refused with InvalidRequest: Kafka forgets groups by itself."""
        raise InvalidRequest(
            f"group `{group}` is Kafka's to forget",
            path="group",
            hint="brokers do so offsets.retention.minutes after its last member left; no group holds a topic up",
        )

    def close(self) -> None:
        """See `SegmentStream.close`."""
        self._producer.flush(STREAM_TIMEOUT_S)

    def _made_producer(self) -> Producer:
        with refusing_settings():
            return Producer(
                {
                    **self._shared,
                    "enable.idempotence": True,
                    "acks": "all",
                    "compression.type": "none",
                    "linger.ms": 5,
                    "message.max.bytes": _MESSAGE_BYTES_MAX,
                    "delivery.timeout.ms": round(STREAM_TIMEOUT_S * _MILLISECONDS),
                    "queue.buffering.max.kbytes": 2 * STREAM_PARTS_AT_ONCE * _MESSAGE_BYTES_MAX // 1024,
                }
            )


class _KafkaReader:
    """Implements `PartReader`."""

    def __init__(self, shared: dict[str, Any], topic: str) -> None:
        with refusing_settings():
            self._consumer = Consumer(
                {
                    **shared,
                    "enable.auto.commit": False,
                    "enable.auto.offset.store": False,
                    "auto.offset.reset": "earliest",
                    "max.poll.interval.ms": round(_POLL_S_MAX * _MILLISECONDS),
                    "queued.max.messages.kbytes": 2 * STREAM_PARTS_AT_ONCE * _MESSAGE_BYTES_MAX // 1024,
                    "fetch.message.max.bytes": _MESSAGE_BYTES_MAX,
                }
            )
        self._topic = topic
        self._consumer.subscribe([topic])

    def receive(self, wait_s: float) -> list[Delivery]:
        """See `PartReader.receive`."""
        try:
            # To ask for several at once would wait for all of them.
            first = self._consumer.poll(wait_s)
            messages = [] if first is None else [first, *self._consumer.consume(STREAM_PARTS_AT_ONCE - 1, 0.0)]
        except KafkaException as error:
            raise self._unavailable(error) from error
        for message in messages:
            if (problem := message.error()) is not None:
                raise self._unavailable(KafkaException(problem))
        return [_delivery(message) for message in messages]

    def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """See `PartReader.acknowledge`: the offset behind the last of each partition."""
        ends: dict[int, int] = {}
        for each in deliveries:
            assert isinstance(each.token, tuple), "made by _delivery"
            partition, offset = each.token
            ends[partition] = max(ends.get(partition, 0), offset + 1)
        if not ends:
            return
        offsets = [TopicPartition(self._topic, partition, offset) for partition, offset in ends.items()]
        try:
            self._consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            if error.args[0].code() not in _LOST:
                raise self._unavailable(error) from error

    def close(self) -> None:
        """See `PartReader.close`: others get its partitions at once."""
        self._consumer.close()

    def _unavailable(self, error: KafkaException) -> Unavailable:
        return Unavailable(
            STREAM,
            str(error.args[0]),
            retry_after_s=RETRY_AFTER_S,
            hint=f"check the brokers, that the topic `{self._topic}` exists and that this user may read it",
        )


def read_options(path: Path) -> dict[str, str]:
    """The properties of a file, one `name=value` a line; empty lines and lines that begin with `#` say nothing.

    Raises InvalidSettings for a file that cannot be read and for a property that is not to be set; shows no value.
    """
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSettings(f"the options of the Kafka client cannot be read from {path}: {error}") from error
    options: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        name, equals, value = line.partition("=")
        if not line.strip() or name.lstrip().startswith("#"):
            continue
        if not equals or name.strip() in _OURS:
            said = f"sets `{name.strip()}`, which is Skewless's to set" if equals else "is no `name=value`"
            raise InvalidSettings(
                f"line {number} of {path} {said}",
                hint="allowed: librdkafka's properties such as security.protocol, sasl.mechanisms, sasl.username, "
                "sasl.password, ssl.ca.location",
            )
        options[name.strip()] = value.strip()
    return options


def _parse(url: str) -> tuple[str, str]:
    """Servers and topic of a URL.

    >>> _parse("kafka://one:9092,two:9092/predictions")
    ('one:9092,two:9092', 'predictions')
    """
    servers, _, topic = url.removeprefix(SCHEME).partition("/")
    # Whoever writes a password here is told so without its being shown.
    if "@" in url or not servers or not topic or "/" in topic or "?" in topic:
        raise InvalidSettings(
            "the segment stream's URL cannot be used: it must name brokers and one topic, and nothing else",
            hint="allowed: kafka://host:port,host:port/topic; users and passwords go into the file of options",
        )
    return servers, unquote(topic)


def _delivery(message: Message) -> Delivery:
    token = (message.partition(), message.offset())
    head = dict(message.headers() or ()).get(_HEAD) or b""
    try:
        return Delivery(read_part(head.encode() if isinstance(head, str) else head, message.value() or b""), token)
    except DamagedPart as damaged:
        return Delivery(None, token, str(damaged))


@contextmanager
def refusing_settings() -> Iterator[None]:
    """Inside, what librdkafka says of a configuration is a refusal of settings."""
    try:
        yield
    except KafkaException as error:
        raise InvalidSettings(
            f"the Kafka client cannot be configured: {error.args[0].str()}",
            hint="correct the file of options; librdkafka's CONFIGURATION.md lists every property",
        ) from error
