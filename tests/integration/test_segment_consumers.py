"""Consumers of the segment stream that are killed, slow, or meet a server that was: every row has its effect once."""

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from harness.log_batches import a_batch
from harness.redis_topologies import Server, running_cluster, running_sentinels, running_server
from harness.segment_streams import a_segment, named_rows, publish
from harness.servers import running, wait_until
from skewless.adapters.log_tables import plain, segment_tables
from skewless.adapters.redis_url import parse_store_url
from skewless.adapters.segment_consumer import PartRows, SegmentConsumer
from skewless.adapters.segment_parts import SegmentPart
from skewless.adapters.segment_sinks import SealedSegment
from skewless.adapters.segment_stream import SegmentStream, WhenFull
from skewless.adapters.spool import SpoolFile
from skewless.adapters.stream_opening import open_segment_stream
from skewless.adapters.stream_sink import StreamSink
from skewless.adapters.valkey_segment_stream import ValkeySegmentStream
from skewless.errors import Overloaded, Unavailable
from skewless.limits import MIB, STREAM_BYTES_MIN
from skewless.registry import database
from skewless.registry.consumed_segments import ConsumedSegments, SegmentGap, Transaction
from skewless.serving.log_blocks import blocks, encode
from skewless.serving.records import Outcome

Opened = Callable[..., SegmentStream]
ROWS = 400
DEATHS = ("before", "between", "after", "any")
"""Before an effect, between the effect and its commit, after the commit and before the acknowledgement, or wherever it
is after some time. Every member dies in each of these ways."""
BEHIND_MAX = 20
"""Segments that a publisher is ahead of what has had its effect."""
LARGE_ROWS = 1_500
INSERT = text("INSERT INTO effects (name) VALUES (:name)")
PATIENCE_S = 120.0
# Lives one after another in forks of one process, each until it comes to where it is to die, however late that is; the
# last one lives until standard input ends. A file says which deaths were died.
DRIVER = '''
import os, random, signal, sys, threading
from sqlalchemy import text
from skewless.adapters.redis_url import parse_store_url
from skewless.adapters.segment_consumer import SegmentConsumer
from skewless.adapters.segment_stream import WhenFull
from skewless.adapters.valkey_segment_stream import ValkeySegmentStream
from skewless.limits import STREAM_BYTES_MIN
from skewless.registry import database
from skewless.registry.consumed_segments import ConsumedSegments

url, database_url, name, died, *deaths = sys.argv[1:]
drawn = random.Random(name)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def live(step, steps_left, after_s):
    """Consume until that step was come to so often, or the end of standard input."""
    left = [steps_left]

    def reached(which):
        if which == step:
            left[0] -= 1
            if left[0] == 0:
                die()

    def handle(rows, transaction):
        reached("before")
        names = [{"name": each} for each in rows.table.column("outcome_id").to_pylist()]
        transaction.execute(text("INSERT INTO effects (name) VALUES (:name)"), names)
        reached("between")

    stream = ValkeySegmentStream(
        parse_store_url(url), key="stream", bytes_max=STREAM_BYTES_MIN, when_full=WhenFull.WAIT, claim_idle_s=1.0
    )
    made = stream.reader

    def reader(group, consumer):
        found = made(group, consumer)
        acknowledge = found.acknowledge

        def die_or_acknowledge(deliveries):
            reached("after")
            acknowledge(deliveries)

        found.acknowledge = die_or_acknowledge
        return found

    stream.reader = reader
    if step == "any":
        signal.setitimer(signal.ITIMER_REAL, after_s)  # its default ends the process without a word
    ledger = ConsumedSegments(database.engine(database_url))
    stop = threading.Event()
    if step == "never":
        threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
    SegmentConsumer(stream, ledger, group="group", name=name).run(handle, stop=stop)


for step in (*deaths, "never"):
    steps_left, after_s = drawn.randint(1, 2), drawn.uniform(0.01, 0.4)
    process = os.fork()
    if process == 0:
        status = 1
        try:
            live(step, steps_left, after_s)
            status = 0
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    assert status == {"never": 0, "any": -signal.SIGALRM}.get(step, -signal.SIGKILL), (step, status)
    with open(died, "a") as file:
        file.write(step + "\\n")
'''


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A Valkey as the stack starts it, with its append-only file."""
    with running_server(tmp_path) as started:
        yield started


@pytest.fixture
def url(sqlite_registry: Path, tmp_path: Path) -> str:
    """A registry of its own, for what is not about the database."""
    return f"sqlite:///{shutil.copy(sqlite_registry, tmp_path / 'consumers.db')}"


@pytest.fixture
def ledger(url: str) -> Iterator[ConsumedSegments]:
    with effects_table(url), opened_ledger(url) as kept:
        yield kept


@contextmanager
def opened_ledger(url: str) -> Iterator[ConsumedSegments]:
    kept = ConsumedSegments(database.engine(url))
    yield kept
    kept.close()


@contextmanager
def effects_table(url: str) -> Iterator[None]:
    """A table of effects that would show one which happened twice; PostgreSQL's database is used by other tests too."""
    changed(url, "CREATE TABLE effects (name TEXT)")
    yield
    changed(url, "DROP TABLE effects")


def changed(url: str, statement: str) -> None:
    engine = database.engine(url)
    with engine.execution_options(**{database.WRITES: True}).begin() as connection:
        connection.execute(text(statement))
    engine.dispose()


def effects(url: str) -> Counter[str]:
    engine = database.engine(url)
    with engine.connect() as connection:
        found = Counter(connection.execute(text("SELECT name FROM effects")).scalars())
    engine.dispose()
    return found


@pytest.fixture
def opened() -> Iterator[Opened]:
    """Opens streams, which are closed in the end."""
    with ExitStack() as stack:

        def open_one(url: str, *, name: str = "stream", when_full: WhenFull = WhenFull.WAIT) -> SegmentStream:
            stream = open_segment_stream(url, name=name, bytes_max=STREAM_BYTES_MIN, when_full=when_full)
            return stack.enter_context(closing(stream))

        yield open_one


def held(stream: SegmentStream, group: str, name: str) -> list[SegmentPart]:
    """Parts that a member takes, and then dies with."""
    with closing(stream.reader(group, name)) as reader:
        return [each.part for each in reader.receive(5.0) if each.part is not None]


def kept(rows: PartRows, transaction: Transaction) -> None:
    names = [{"name": each} for each in rows.table.column("outcome_id").to_pylist()]
    transaction.execute(INSERT, names)


@contextmanager
def consuming(
    stream: SegmentStream,
    ledger: ConsumedSegments,
    name: str = "one",
    *,
    on_gap: Callable[[SegmentGap], None] | None = None,
) -> Iterator[SegmentConsumer]:
    """A consumer in a thread of its own, stopped on leaving."""
    stop = threading.Event()
    consumer = SegmentConsumer(stream, ledger, group="group", name=name, on_gap=on_gap)
    thread = threading.Thread(target=consumer.run, args=(kept,), kwargs={"stop": stop})
    thread.start()
    try:
        yield consumer
    finally:
        stop.set()
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


@dataclass
class Publisher:
    """Publishes one segment after another, every third again: as one that was killed before it noted that it had."""

    stream: SegmentStream
    database_url: str
    segments: list[tuple[SegmentPart, ...]] = field(default_factory=list)

    def publish_next(self) -> None:
        """Publish a segment, where those before have not too much of their effect still to come."""
        if len(self.segments) * ROWS - effects(self.database_url).total() >= BEHIND_MAX * ROWS:
            return
        self.segments.append(a_segment(len(self.segments) + 1, ROWS))
        publish(self.stream, *self.segments[-2 if len(self.segments) % 3 == 0 else -1 :])


def test_consumers_that_are_killed_at_any_point_have_every_effect_exactly_once(
    server: Server, registry_url: str, opened: Opened, tmp_path: Path
) -> None:
    ways = {"member-1": DEATHS, "member-2": DEATHS[::-1]}
    died = {name: tmp_path / name for name in ways}
    with effects_table(registry_url):
        publisher = Publisher(opened(server.url), registry_url)

        def have_died() -> bool:
            publisher.publish_next()
            return all(died[name].exists() and died[name].read_text().split() == [*ways[name]] for name in ways)

        members = [
            subprocess.Popen(
                [sys.executable, "-c", DRIVER, server.url, registry_url, name, str(died[name]), *ways[name]],
                stdin=subprocess.PIPE,
                start_new_session=True,
            )
            for name in ways
        ]
        try:
            wait_until(have_died, "every member died in every way", timeout_s=PATIENCE_S)
            wanted = Counter(named_rows(*publisher.segments))
            wait_until(lambda: effects(registry_url).total() >= wanted.total(), "all effects", timeout_s=PATIENCE_S)
            for member in members:
                member.communicate(timeout=PATIENCE_S)
        finally:
            for member in members:
                with suppress(ProcessLookupError):
                    os.killpg(member.pid, signal.SIGKILL)
                member.communicate()
        assert [member.returncode for member in members] == [0, 0]
        assert effects(registry_url) == wanted
    with opened_ledger(registry_url) as ledger:
        assert ledger.gaps("group") == ()
        assert list(ledger.missed("group", [parts[0].head.segment for parts in publisher.segments])) == []


def test_a_server_killed_and_started_again_loses_nothing_that_was_published(
    server: Server, ledger: ConsumedSegments, url: str, opened: Opened
) -> None:
    segments = [a_segment(number, ROWS) for number in range(1, 13)]
    stream = opened(server.url)
    with consuming(stream, ledger) as consumer:
        publish(stream, *segments[:6])
        wait_until(lambda: consumer.counts.rows > 0, "the first rows")
        server.process.signal_group(signal.SIGKILL)
        wait_until(lambda: server.process.exit_status() is not None, "the server is gone")
        with pytest.raises(Unavailable):
            publish(stream, segments[6])
        with running(server.process.spec):
            publish(stream, *segments[6:])
            wait_until(lambda: consumer.counts.rows >= 12 * ROWS, "all rows", timeout_s=PATIENCE_S)
    assert effects(url) == Counter(named_rows(*segments))
    assert consumer.counts.retries > 0


def test_a_server_that_lost_its_data_shows_as_a_gap(server: Server, ledger: ConsumedSegments, opened: Opened) -> None:
    gaps: list[SegmentGap] = []
    stream = opened(server.url)
    with consuming(stream, ledger, on_gap=gaps.append) as consumer:
        publish(stream, a_segment(1, 10))
        wait_until(lambda: consumer.counts.rows == 10, "the first segment")
        server.run("DEL", "stream")
        publish(stream, a_segment(4, 10))
        wait_until(lambda: consumer.counts.rows == 20, "the segment after")
    assert [(gap.first, gap.last, gap.after, gap.before) for gap in gaps] == [
        (2, 3, "20261121T000001", "20261121T000004")
    ]
    assert ledger.gaps("group") == tuple(gaps)


def test_parts_that_a_dead_consumer_held_are_taken_by_another(
    server: Server, ledger: ConsumedSegments, url: str, opened: Opened
) -> None:
    parts = a_segment(1, 4_000)
    publish(opened(server.url), parts)
    address = parse_store_url(server.url)
    impatient = ValkeySegmentStream(
        address, key="stream", bytes_max=STREAM_BYTES_MIN, when_full=WhenFull.WAIT, claim_idle_s=0.5
    )
    assert len(held(impatient, "group", "dead")) == len(parts)
    with consuming(impatient, ledger) as consumer:
        wait_until(lambda: consumer.counts.rows == 4_000, "all rows")
    assert effects(url) == Counter(named_rows(parts))
    (group,) = impatient.state().groups
    impatient.close()
    assert (group.pending, group.unread) == (0, 0)


def large(number: int) -> tuple[SegmentPart, ...]:
    """A segment of three parts, about 1.3 MiB of the stream."""
    return a_segment(number, LARGE_ROWS, row_bytes=900)


def filled(stream: SegmentStream, first: int) -> int:
    """Publish large segments from a number on until one is refused; the number of that one."""
    for number in range(first, first + 100):
        try:
            publish(stream, large(number))
        except Overloaded:
            return number
    raise AssertionError("the stream takes any number of segments")


def published_now(stream: SegmentStream, parts: tuple[SegmentPart, ...]) -> bool:
    """Whether the stream takes a segment now, as a publisher asks again and again."""
    try:
        publish(stream, parts)
    except Unavailable:
        return False
    return True


def test_a_slow_group_is_waited_for_and_misses_nothing(
    server: Server, ledger: ConsumedSegments, url: str, opened: Opened
) -> None:
    stream = opened(server.url)
    publish(stream, large(1))
    assert held(stream, "group", "slow"), "it has parts in hand, and no time for more"
    refused = filled(stream, 2)
    state = stream.state()
    assert state.bytes_max - 2 * MIB < state.bytes < state.bytes_max == STREAM_BYTES_MIN
    with pytest.raises(Overloaded, match=r"`group` .* parts unacknowledged"):
        publish(stream, large(refused))
    with consuming(stream, ledger, "slow") as consumer:
        wait_until(lambda: published_now(stream, large(refused)), "room", timeout_s=PATIENCE_S)
        wait_until(lambda: consumer.counts.rows >= LARGE_ROWS * refused, "all rows", timeout_s=PATIENCE_S)
    assert stream.trimmed == 0
    assert effects(url) == Counter(named_rows(*map(large, range(1, refused + 1))))
    assert ledger.gaps("group") == ()


def test_a_group_that_is_not_waited_for_finds_the_gap_and_takes_what_it_missed_from_elsewhere_once(
    server: Server, ledger: ConsumedSegments, url: str, opened: Opened
) -> None:
    stream = opened(server.url, when_full=WhenFull.TRIM)
    last = 20
    gaps: list[SegmentGap] = []
    with consuming(stream, ledger) as consumer:
        publish(stream, large(1))
        wait_until(lambda: consumer.counts.rows == LARGE_ROWS, "the first segment")
    for number in range(2, last + 1):
        publish(stream, large(number))
        assert stream.state().bytes < STREAM_BYTES_MIN
    assert stream.trimmed > 0
    with consuming(stream, ledger, on_gap=gaps.append) as consumer:
        wait_until(lambda: large(last)[0].head.segment not in missed(ledger, last), "the newest", timeout_s=PATIENCE_S)
    (gap,) = gaps
    lost = missed(ledger, last)
    assert lost == [large(number)[0].head.segment for number in range(gap.first, gap.last + 1)], "whole segments went"
    for segment in lost:
        with ledger.settling("group", segment) as settling:
            assert not settling.taken
            parts = large(int(segment[-6:]))
            settling.transaction.execute(INSERT, [{"name": name} for name in named_rows(parts)])
    assert missed(ledger, last) == []
    # One of them comes all the same, as from a publisher that publishes it again.
    with consuming(stream, ledger) as consumer:
        publish(stream, large(gap.first))
        wait_until(lambda: consumer.counts.repeated == len(large(gap.first)), "what is nothing new")
    assert effects(url) == Counter(named_rows(*map(large, range(1, last + 1))))


def missed(ledger: ConsumedSegments, last: int) -> list[str]:
    names = [a_segment(number, 1)[0].head.segment for number in range(1, last + 1)]
    return [each.segment for each in ledger.missed("group", names)]


def test_where_no_group_reads_the_newest_are_kept_within_the_bound(server: Server, opened: Opened) -> None:
    stream = opened(server.url)
    for number in range(1, 21):
        publish(stream, large(number))
        assert stream.state().bytes < STREAM_BYTES_MIN
    assert stream.trimmed == 0, "nobody missed anything"
    begins = held(stream, "late", "one")[0].head
    assert (begins.part, begins.segment) > (0, large(1)[0].head.segment), "with a whole segment, and not the first"


def test_what_every_group_has_acknowledged_makes_room_at_once(
    server: Server, ledger: ConsumedSegments, opened: Opened
) -> None:
    stream = opened(server.url)
    with consuming(stream, ledger) as consumer:
        for number in range(1, 31):
            wait_until(lambda number=number: published_now(stream, large(number)), "room")  # type: ignore[misc]  # bound now
        wait_until(lambda: consumer.counts.rows == 30 * LARGE_ROWS, "all rows", timeout_s=PATIENCE_S)
    publish(stream, a_segment(31, 10))
    assert stream.state().entries == 1
    assert stream.trimmed == 0


def test_a_group_that_nobody_reads_for_any_more_can_be_forgotten(server: Server, opened: Opened) -> None:
    stream = opened(server.url)
    publish(stream, large(1))
    assert held(stream, "gone", "one")
    refused = filled(stream, 2)
    assert stream.forget_group("gone")
    assert not stream.forget_group("gone")
    publish(stream, large(refused))
    assert stream.state().groups == ()


def test_a_stream_in_a_cluster_is_published_and_read(tmp_path: Path, opened: Opened) -> None:
    with running_cluster(tmp_path) as cluster:
        # The third node holds the slot of one of these keys, whichever, and is not in the URL.
        for key in ("a", "b", "c"):
            stream = opened(cluster.url, name=key)
            publish(stream, a_segment(1, 100))
            assert held(stream, "group", "one") == list(a_segment(1, 100))


def test_a_stream_behind_sentinels_follows_the_master(
    tmp_path: Path, ledger: ConsumedSegments, url: str, opened: Opened
) -> None:
    with running_sentinels(tmp_path) as sentinels:
        stream = opened(sentinels.url)
        publish(stream, a_segment(1, 100))
        sentinels.wait_until_copied()
        sentinels.master.process.signal_group(signal.SIGKILL)
        wait_until(lambda: published_now(stream, a_segment(2, 100)), "the replica is master", timeout_s=PATIENCE_S)
        SegmentConsumer(stream, ledger, group="group", name="one").run(kept, idle_s=2.0)
    assert effects(url) == Counter(named_rows(a_segment(1, 100), a_segment(2, 100)))


def test_what_a_gateway_logged_comes_out_as_the_log_store_would_have_it(
    server: Server, ledger: ConsumedSegments, tmp_path: Path, opened: Opened
) -> None:
    spool = SpoolFile.create(tmp_path)
    outcome = Outcome("a-0", "late", None, 5)
    for entry in (*blocks([a_batch("a", rows=30), a_batch("b", rows=2)]), (outcome,)):
        spool.append(encode(entry))
    sealed = spool.seal()
    assert sealed is not None
    segment = SealedSegment(sealed)
    found: dict[str, Any] = {}
    stream = opened(server.url)
    StreamSink(stream, tmp_path / "stream.json").take([segment])
    consumer = SegmentConsumer(stream, ledger, group="group", name="one")
    consumer.run(lambda rows, _: found.update({rows.head.table: rows.table}), idle_s=0.5)
    wanted = {
        f"{each.kind}/{each.endpoint}/{each.columns}": each for each in segment_tables(segment.name, segment.entries())
    }
    assert found.keys() == wanted.keys()
    for name, each in wanted.items():
        assert found[name].schema == plain(each.table).schema
        assert repr(found[name].to_pylist()) == repr(plain(each.table).to_pylist()), "NaN is NaN, and -0.0 is not 0.0"
