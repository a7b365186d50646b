"""The drift monitor's counting, given parts of segments as a stream delivers them, and the log store."""

from collections.abc import Sequence
from dataclasses import replace

from harness.drift_traffic import WRITER, Clock, Logged
from skewless.adapters.drift_counting import GROUP, DriftCounting
from skewless.adapters.log_following import LogFollower
from skewless.adapters.log_tables import LogTable
from skewless.adapters.segment_consumer import PartRows
from skewless.adapters.segment_parts import SegmentPart, cut_segment, rows_of
from skewless.adapters.watched_bundles import WatchedBundles
from skewless.registry import database
from skewless.registry.consumed_segments import ConsumedSegments, DeliveredRows
from skewless.registry.drift_files import DriftFiles
from skewless.serving.monitoring_policy import DriftPolicy


class Streamed:
    """See the module; to be closed."""

    def __init__(self, logged: Logged, policy: DriftPolicy) -> None:
        self.clock = Clock()
        opened = database.engine(logged.url)
        self.ledger = ConsumedSegments(opened, clock=self.clock)
        self.counting = DriftCounting(self.ledger, WatchedBundles(logged.artifacts), lambda _: policy, clock=self.clock)
        self.follower = LogFollower(
            logged.store, self.ledger, DriftFiles(opened, clock=self.clock), group=GROUP, clock=self.clock
        )

    def deliver(self, parts: Sequence[SegmentPart]) -> None:
        """Take parts of the stream, one after the other."""
        for part in parts:
            head, table = part.head, rows_of(part)
            end = head.first + head.rows
            rows = DeliveredRows(head.segment, WRITER, head.sequence, head.segment_rows, head.table, head.first, end)
            with self.ledger.taking(GROUP, rows) as taking:
                for first, range_end in taking.ranges:
                    cut = PartRows(head, first, table.slice(first - head.first, range_end - first))
                    self.counting.handle(cut, taking.transaction)

    def settle(self) -> None:
        """Take all that is new in the log store."""
        while self.counting.take(self.follower, stopping=lambda: False) is not None:
            pass

    def close(self) -> None:
        """Give back the database's connections."""
        self.ledger.close()


def parts_of(table: LogTable, name: str, sizes: Sequence[int], *, segment_rows: int | None = None) -> list[SegmentPart]:
    """A table of a segment in parts of so many rows; `segment_rows` where the segment has other tables too."""
    whole = len(table.table) if segment_rows is None else segment_rows
    cut: list[SegmentPart] = []
    first = 0
    for size in sizes:
        few = replace(table, table=table.table.slice(first, size))
        (part,) = cut_segment(name, [few], source=WRITER, sequence=1).parts
        fields = {field: getattr(part.head, field) for field in part.head.__struct_fields__}
        placed = {"first": first, "segment_rows": whole, "parts": len(sizes), "part": len(cut)}
        cut.append(SegmentPart(type(part.head)(**{**fields, **placed}), part.data))
        first += size
    return cut
