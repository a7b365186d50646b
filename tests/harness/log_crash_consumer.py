"""A program that notes in a database which records of a stream of segments it has seen, until it is killed.

Its table has no key and refuses nothing, so that whatever it took twice is there twice.
"""

import signal
import sys
import threading
from collections import Counter

from sqlalchemy import BigInteger, Column, MetaData, String, Table, create_engine, insert, select

from skewless.adapters.segment_consumer import PartRows, SegmentConsumer
from skewless.adapters.stream_opening import open_segment_stream
from skewless.limits import MIB
from skewless.registry.consumed_segments import ConsumedSegments, Transaction
from skewless.registry.database import engine

GROUP = "crashes"
ID_OF = {"predictions": "prediction_id", "outcomes": "outcome_id"}
SEEN = Table(
    "seen_records",
    MetaData(),
    Column("kind", String(20), nullable=False),
    Column("record", String(40), nullable=False),
    Column("segment", String(60), nullable=False),
    Column("first", BigInteger, nullable=False),
)


def note(rows: PartRows, transaction: Transaction) -> None:
    """One row per record of a part."""
    if rows.kind in ID_OF:
        told = [
            {"kind": rows.kind, "record": record, "segment": rows.segment, "first": rows.first}
            for record in rows.table.column(ID_OF[rows.kind]).to_pylist()
        ]
        transaction.execute(insert(SEEN), told)


def seen_records(database_url: str) -> dict[str, Counter[str]]:
    """How often each record of a kind was noted."""
    found: dict[str, Counter[str]] = {kind: Counter() for kind in ID_OF}
    database = create_engine(database_url)
    with database.connect() as connection:
        for kind, record in connection.execute(select(SEEN.c.kind, SEEN.c.record)):
            found[kind][record] += 1
    database.dispose()
    return found


def make_table(database_url: str) -> None:
    """The table of records, in a database with the registry's tables."""
    database = create_engine(database_url)
    SEEN.create(database)
    database.dispose()


def main(stream_url: str, database_url: str) -> None:
    """Consume until SIGTERM."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    stream = open_segment_stream(stream_url, bytes_max=64 * MIB)
    ledger = ConsumedSegments(engine(database_url))
    consumer = SegmentConsumer(
        stream, ledger, group=GROUP, name="crashes-1", on_problem=lambda problem: _say(f"problem: {problem}")
    )
    consumer.run(note, stop=stop)
    stream.close()
    _say(f"ended: {consumer.counts}")


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
