"""The contract of `SegmentStream` and of a consumer on it: over a real Valkey, and over librdkafka's mock of Kafka.

The mock speaks Kafka's protocol in this process. It shows that what is produced, fetched, committed and rebalanced is
what the client means; it cannot show replication, retention, authentication, quotas, or a broker that loses its disk.
"""

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from harness.segment_streams import MockedKafka, a_segment, kafka_options, named_rows, publish
from harness.servers import ValkeyServer, wait_until
from skewless.adapters.segment_consumer import PartRows, SegmentConsumer
from skewless.adapters.segment_parts import FORMAT, SegmentPart
from skewless.adapters.segment_stream import Delivery, PartReader, SegmentStream
from skewless.adapters.stream_opening import open_segment_stream
from skewless.errors import InvalidDefinition, Unavailable
from skewless.limits import STREAM_BYTES_MIN
from skewless.registry import database
from skewless.registry.consumed_segments import ConsumedSegments, Transaction
from skewless.stack.ports import LOOPBACK, free_ports

_NAMES = itertools.count()


@pytest.fixture(params=["valkey", "kafka"])
def stream(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SegmentStream]:
    """A stream with nothing on it."""
    name = f"test-{next(_NAMES)}"
    if request.param == "valkey":
        server: ValkeyServer = request.getfixturevalue("valkey_server")
        opened = open_segment_stream(server.url, name=name, bytes_max=STREAM_BYTES_MIN)
    else:
        mocked = MockedKafka()  # one of its own: the mock keeps a group waiting that others have left
        opened = open_segment_stream(mocked.topic(name), bytes_max=0, options=kafka_options(tmp_path))
    yield opened
    opened.close()


@pytest.fixture
def ledger(sqlite_registry: Path, tmp_path: Path) -> Iterator[ConsumedSegments]:
    file = tmp_path / "registry.db"
    file.write_bytes(sqlite_registry.read_bytes())
    kept = ConsumedSegments(database.engine(f"sqlite:///{file}"))
    yield kept
    kept.close()


def received(reader: PartReader, count: int) -> list[Delivery]:
    """The next deliveries, as many or more; parts of a mocked cluster come once it has found a member for them."""
    found: list[Delivery] = []

    def enough() -> bool:
        found.extend(reader.receive(0.2))
        return len(found) >= count

    wait_until(enough, f"{count} deliveries")
    return found


def parts_of(deliveries: list[Delivery]) -> list[SegmentPart]:
    return [each.part for each in deliveries if each.part is not None]


class Taken:
    """A consumer's effect: the names of rows that it was given. `until` says after how many it is enough."""

    def __init__(self) -> None:
        self.rows: list[str] = []

    def __call__(self, rows: PartRows, _transaction: Transaction) -> None:
        assert rows.table.column("outcome_id")[0].as_py() == f"{rows.segment}/{rows.first}"
        self.rows += rows.table.column("outcome_id").to_pylist()


@contextmanager
def running(consumer: SegmentConsumer, taken: Taken) -> Iterator[None]:
    """The consumer at work in a thread of its own, stopped on leaving."""
    stop = threading.Event()
    thread = threading.Thread(target=consumer.run, args=(taken,), kwargs={"stop": stop})
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def run(consumer: SegmentConsumer, taken: Taken, parts: int) -> None:
    """Run until it has been given so many parts or what is none."""
    with running(consumer, taken):
        wait_until(lambda: consumer.counts.parts + consumer.counts.damaged >= parts, f"{parts} parts")


def test_parts_of_a_segment_come_in_order_and_bit_for_bit(stream: SegmentStream) -> None:
    segments = [a_segment(number, 4_000) for number in (1, 2)]
    publish(stream, *segments)
    reader = stream.reader("group", "one")
    deliveries = parts_of(received(reader, sum(map(len, segments))))
    for parts in segments:
        assert len(parts) > 2
        assert [each for each in deliveries if each.head.segment == parts[0].head.segment] == list(parts)
    reader.close()


def test_what_was_not_acknowledged_is_delivered_again_and_what_was_is_not(stream: SegmentStream) -> None:
    parts = a_segment(1, 4_000)
    publish(stream, parts)
    reader = stream.reader("group", "one")
    first = received(reader, len(parts))
    reader.acknowledge(first[:2])
    reader.close()
    reader = stream.reader("group", "one")
    assert parts_of(received(reader, len(parts) - 2)) == parts_of(first[2:])
    reader.close()


def test_every_group_has_its_own_effect_of_every_row_once_though_all_is_published_twice(
    stream: SegmentStream, ledger: ConsumedSegments
) -> None:
    segments = [a_segment(number, 4_000) for number in (1, 2)]
    rows = sorted(named_rows(*segments))
    publish(stream, *segments, *segments)
    for group in ("drift", "quality"):
        taken = Taken()
        consumer = SegmentConsumer(stream, ledger, group=group, name="one")
        run(consumer, taken, 2 * sum(map(len, segments)))
        assert sorted(taken.rows) == rows
        assert consumer.counts.repeated == sum(map(len, segments))
        assert ledger.gaps(group) == ()


def test_members_share_a_groups_work_and_one_that_leaves_leaves_it_to_the_others(
    stream: SegmentStream, ledger: ConsumedSegments
) -> None:
    taken = Taken()
    leaving, staying = (SegmentConsumer(stream, ledger, group="group", name=name) for name in ("leaving", "staying"))
    segments = [a_segment(number, 50) for number in range(1, 31)]
    with running(staying, taken):
        with running(leaving, taken):
            for number, parts in enumerate(segments[:20], start=1):
                publish(stream, parts)
                wait_until(lambda number=number: len(taken.rows) >= 50 * number, "its rows")  # type: ignore[misc]  # bound now
        publish(stream, *segments[20:])
        wait_until(lambda: len(taken.rows) >= 1_500, "the rows after it has left")
    assert sorted(taken.rows) == sorted(named_rows(*segments))
    assert leaving.counts.rows + staying.counts.rows == 1_500
    assert staying.counts.rows > 0


def test_what_is_no_part_is_told_and_stops_nobody(stream: SegmentStream, ledger: ConsumedSegments) -> None:
    first, damaged, last = (a_segment(number, 10) for number in (1, 2, 3))
    cut_short = replace(damaged[0], data=damaged[0].data[:-3])
    liar = replace(damaged[0], head=msgspec.structs.replace(damaged[0].head, rows=9))
    publish(stream, first, (cut_short, liar), last)
    problems: list[str] = []
    taken = Taken()
    consumer = SegmentConsumer(stream, ledger, group="group", name="one", on_problem=problems.append)
    run(consumer, taken, 4)
    assert sorted(taken.rows) == sorted(named_rows(first, last))
    assert consumer.counts.damaged == len(problems) == 2
    assert any("not what was published" in problem for problem in problems)
    assert any("says 9 rows and has 10" in problem for problem in problems)
    assert [
        each.segment for each in ledger.missed("group", [parts[0].head.segment for parts in (first, damaged, last)])
    ] == [damaged[0].head.segment]


def test_a_part_of_a_newer_format_stops_the_consumer_and_stays(stream: SegmentStream, ledger: ConsumedSegments) -> None:
    (part,) = a_segment(1, 10)
    publish(stream, (replace(part, head=msgspec.structs.replace(part.head, format=FORMAT + 1)),))
    consumer = SegmentConsumer(stream, ledger, group="group", name="one")
    for _ in range(2):
        with pytest.raises(InvalidDefinition, match="format 2"):
            consumer.run(Taken(), idle_s=30)


def test_an_effect_that_fails_is_tried_again_by_whoever_runs_next(
    stream: SegmentStream, ledger: ConsumedSegments
) -> None:
    def fail(_rows: PartRows, _transaction: Transaction) -> None:
        raise RuntimeError("not today")

    parts = a_segment(1, 4_000)
    publish(stream, parts)
    consumer = SegmentConsumer(stream, ledger, group="group", name="one")
    with pytest.raises(RuntimeError, match="not today"):
        consumer.run(fail, idle_s=30)
    taken = Taken()
    run(consumer, taken, len(parts))
    assert sorted(taken.rows) == sorted(named_rows(parts))


@pytest.mark.parametrize("scheme", ["redis", "kafka"])
def test_a_server_that_is_away_is_unavailable_within_a_bounded_time(scheme: str, tmp_path: Path) -> None:
    url = f"{scheme}://{LOOPBACK}:{free_ports(1)[0]}" + ("/topic" if scheme == "kafka" else "")
    options = kafka_options(tmp_path) if scheme == "kafka" else None
    stream = open_segment_stream(url, bytes_max=STREAM_BYTES_MIN, options=options)
    with pytest.raises(Unavailable, match="segment stream is unavailable"):
        publish(stream, a_segment(1, 10))
    stream.close()
