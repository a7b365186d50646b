"""Streams of segments for tests: a Kafka cluster that librdkafka mocks, and segments of made-up rows."""

from pathlib import Path

import numpy as np
import pyarrow as pa
from confluent_kafka import Producer

from skewless.adapters.log_tables import OUTCOMES, LogTable
from skewless.adapters.segment_parts import SegmentPart, cut_segment
from skewless.adapters.segment_stream import SegmentStream
from skewless.limits import STREAM_PARTS_AT_ONCE

SOURCE = "tests"
# The mock gives a group whose last member has left to nobody before a session's time is over.
KAFKA_OPTIONS = "session.timeout.ms=3000\nheartbeat.interval.ms=300\nlog_level=0\n"


class MockedKafka:
    """A cluster that lives within this process, and listens on loopback until it is garbage."""

    def __init__(self) -> None:
        self._client = Producer({"bootstrap.servers": "mock", "test.mock.num.brokers": 2, "log_level": 0})
        brokers = self._client.list_topics(timeout=30).brokers.values()
        self.servers = ",".join(f"{broker.host}:{broker.port}" for broker in brokers)

    def topic(self, name: str) -> str:
        """What a new topic is called by a stream: whoever asks the mock for one has it made."""
        self._client.list_topics(name, timeout=30)
        return f"kafka://{self.servers}/{name}"


def kafka_options(folder: Path) -> Path:
    """A file of options with which groups of a mocked cluster change hands in seconds."""
    file = folder / "kafka.properties"
    file.write_text(KAFKA_OPTIONS)
    return file


def outcome_rows(segment: str, rows: int, *, row_bytes: int = 300, seed: int = 0) -> LogTable:
    """A table of rows that are named after their segment, each with bytes that cannot be compressed."""
    generator = np.random.default_rng(seed)
    values = [generator.bytes(row_bytes) for _ in range(rows)]
    table = pa.table({"outcome_id": [f"{segment}/{row}" for row in range(rows)], "label": values})
    return LogTable(OUTCOMES, "", "0123456789ab", table)


def a_segment(number: int, rows: int, *, source: str = SOURCE, row_bytes: int = 300) -> tuple[SegmentPart, ...]:
    """The parts of a segment whose name and sequence follow from its number, from 1 on."""
    name = f"20261121T{number:06d}"
    table = outcome_rows(name, rows, row_bytes=row_bytes, seed=number)
    return cut_segment(name, [table], source=source, sequence=number).parts


def publish(stream: SegmentStream, *segments: tuple[SegmentPart, ...]) -> None:
    """Have a stream keep segments, as a publisher does."""
    for parts in segments:
        for start in range(0, len(parts), STREAM_PARTS_AT_ONCE):
            stream.publish(parts[start : start + STREAM_PARTS_AT_ONCE])


def named_rows(*segments: tuple[SegmentPart, ...]) -> list[str]:
    """What the rows of segments are called, in order."""
    return [
        f"{part.head.segment}/{part.head.first + row}"
        for parts in segments
        for part in parts
        for row in range(part.head.rows)
    ]
