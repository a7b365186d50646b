"""Feature rows and events on topics of Kafka: one for each view and stream of events, with commits after acceptance.

skewless.ingest.rows.clicks              a producer's records; keyed by the entity, a partition keeps its order
skewless.ingest.rows.clicks.refused      records that were refused, with the reason as a header
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from skewless.adapters.feature_stream import FEATURE_STREAM, StreamRecord
from skewless.adapters.kafka_segment_stream import read_options, refusing_settings
from skewless.errors import InvalidSettings, Unavailable
from skewless.ingest_limits import (
    FEATURE_RECORD_BYTES_MAX,
    FEATURE_STREAM_NAMES_MAX,
    FEATURE_STREAM_NAMES_S,
    FEATURE_STREAM_RECORDS_AT_ONCE,
    FEATURE_STREAM_TIMEOUT_S,
)
from skewless.ingestion.batches import BatchKind

SCHEME = "kafka://"
PREFIX = "skewless.ingest"
REFUSED = "refused"
_FORMS = frozenset({"ndjson", "json", "arrow"})
_HINT = "check the brokers, that the topics exist and that this user may read them"
_LOST = frozenset(
    {
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError._ASSIGNMENT_LOST,  # noqa: SLF001  # librdkafka's own codes begin with an underscore
    }
)
"""Errors of a commit that say: these partitions are another member's now, which gets the records again."""


def topic_of(kind: BatchKind, name: str, *, prefix: str = PREFIX) -> str:
    """The topic of a view's rows or of a stream's events.

    >>> topic_of(BatchKind.EVENTS, "clicks")
    'skewless.ingest.events.clicks'
    """
    return f"{prefix}.{kind.value}.{name}"


class KafkaFeatureStream:
    """Implements `FeatureStream`. One thread."""

    def __init__(
        self,
        servers: str,
        names: Callable[[], Sequence[tuple[BatchKind, str]]],
        *,
        group: str,
        prefix: str = PREFIX,
        options: Path | None = None,
    ) -> None:
        """`servers` are host:port, separated by commas. Raises InvalidSettings for options that cannot be used."""
        if not servers or "@" in servers or "/" in servers:
            raise InvalidSettings(
                "the feature stream's URL cannot be used: it must name brokers and nothing else",
                hint="allowed: kafka://host:port,host:port; users and passwords go into the file of options",
            )
        shared: dict[str, Any] = {
            "client.id": "skewless-ingest",
            "log_level": 2,
            "allow.auto.create.topics": False,
            **(read_options(options) if options is not None else {}),
            "bootstrap.servers": servers,
        }
        with refusing_settings():
            self._consumer = Consumer(
                {
                    **shared,
                    "group.id": group,
                    "enable.auto.commit": False,
                    "enable.auto.offset.store": False,
                    "auto.offset.reset": "earliest",
                    "isolation.level": "read_committed",
                    "queued.max.messages.kbytes": 32 * FEATURE_RECORD_BYTES_MAX // 1024,
                }
            )
            self._producer = Producer({**shared, "enable.idempotence": True, "acks": "all"})
        self._names = names
        self._prefix = prefix
        self._topics: dict[str, tuple[BatchKind, str]] = {}
        self._look_at = 0.0
        self._problem: Unavailable | None = None
        """What came beside records, to be told by the next `receive`: they would be lost with it."""

    def receive(self, wait_s: float) -> list[StreamRecord]:
        """See `FeatureStream.receive`."""
        self._subscribe()
        if not self._topics:
            time.sleep(wait_s)  # no view or stream is declared yet
            return []
        messages = [] if self._problem is not None else self._messages(wait_s)
        records = []
        for each in messages:
            if (error := each.error()) is None:
                # Of a topic that is read no more nothing is committed, so it comes again when the topic is read again.
                if each.topic() in self._topics:
                    records.append(self._record(each))
            elif error.code() != KafkaError.UNKNOWN_TOPIC_OR_PART:  # else nobody has anything to say about that view
                self._problem = _unavailable(error)
        if not records and self._problem is not None:
            problem, self._problem = self._problem, None
            raise problem
        return records

    def _messages(self, wait_s: float) -> list[Message]:
        """What came, records and errors."""
        try:
            # To ask for several at once would wait for all of them.
            first = self._consumer.poll(wait_s)
        except KafkaException as error:
            raise _unavailable(error.args[0]) from error
        if first is None:
            return []
        try:
            return [first, *self._consumer.consume(FEATURE_STREAM_RECORDS_AT_ONCE - 1, 0.0)]
        except KafkaException as error:
            self._problem = _unavailable(error.args[0])
            return [first]

    def acknowledge(self, records: Sequence[StreamRecord]) -> None:
        """See `FeatureStream.acknowledge`: the offset behind the last of each partition."""
        ends: dict[tuple[str, int], int] = {}
        for record in records:
            assert isinstance(record.token, tuple), "made by _record"
            topic, partition, offset = record.token
            ends[topic, partition] = max(ends.get((topic, partition), 0), offset + 1)
        offsets = [TopicPartition(topic, partition, offset) for (topic, partition), offset in ends.items()]
        try:
            if offsets:
                self._consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            if error.args[0].code() not in _LOST:
                raise _unavailable(error.args[0]) from error

    def set_aside(self, record: StreamRecord, reason: str) -> None:
        """See `FeatureStream.set_aside`: onto the topic `<topic>.refused`, which somebody has to have made."""
        problems: list[KafkaError] = []
        headers: list[tuple[str, str | bytes | None]] = [("place", record.place.encode()), ("reason", reason.encode())]
        headers.append(("form", record.form.encode()))
        topic = f"{topic_of(record.kind, record.name, prefix=self._prefix)}.{REFUSED}"

        def told(error: KafkaError | None, _message: Message) -> None:
            if error is not None:
                problems.append(error)

        try:
            self._producer.produce(topic, record.body, headers=headers, on_delivery=told)
            left = self._producer.flush(FEATURE_STREAM_TIMEOUT_S)
        except (KafkaException, BufferError) as error:
            raise Unavailable(FEATURE_STREAM, f"`{topic}` took no record: {error}", hint=_HINT) from error
        if problems or left:
            told_problem = problems[0].str() if problems else "no answer in time"
            raise Unavailable(FEATURE_STREAM, f"`{topic}` took no record: {told_problem}", hint=_HINT)

    def leave(self, records: Sequence[StreamRecord]) -> None:
        """See `FeatureStream.leave`: back to the first of each partition, wherever the topic is still this member's."""
        starts: dict[tuple[str, int], int] = {}
        for record in records:
            assert isinstance(record.token, tuple), "made by _record"
            topic, partition, offset = record.token
            starts[topic, partition] = min(starts.get((topic, partition), offset), offset)
        self._look_at = 0.0
        own = {(each.topic, each.partition) for each in self._consumer.assignment()}
        try:
            for (topic, partition), offset in starts.items():
                if (topic, partition) in own:  # else whoever has it begins behind what was committed
                    self._consumer.seek(TopicPartition(topic, partition, offset))
        except KafkaException as error:
            raise _unavailable(error.args[0]) from error

    def close(self) -> None:
        """See `FeatureStream.close`: others get its partitions at once."""
        self._consumer.close()
        self._producer.flush(FEATURE_STREAM_TIMEOUT_S)

    def _subscribe(self) -> None:
        if time.monotonic() < self._look_at:
            return
        wanted = {
            topic_of(kind, name, prefix=self._prefix): (kind, name)
            for kind, name in list(self._names())[:FEATURE_STREAM_NAMES_MAX]
        }
        if wanted.keys() != self._topics.keys():
            if wanted:
                self._consumer.subscribe(sorted(wanted))
            else:
                self._consumer.unsubscribe()
        self._topics = wanted
        self._look_at = time.monotonic() + FEATURE_STREAM_NAMES_S

    def _record(self, message: Message) -> StreamRecord:
        topic, partition, offset = str(message.topic()), message.partition(), message.offset()
        kind, name = self._topics[topic]
        value = dict(message.headers() or ()).get("form") or b"ndjson"
        form = value if isinstance(value, str) else value.decode(errors="replace")
        return StreamRecord(
            kind,
            name,
            f"{topic}/{partition}/{offset}",
            message.value() or b"",
            form if form in _FORMS else "ndjson",
            (topic, partition, offset),
        )


def _unavailable(error: KafkaError) -> Unavailable:
    return Unavailable(FEATURE_STREAM, error.str(), hint=_HINT)
