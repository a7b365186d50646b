"""Records of a stream through the same way in as requests over HTTP: decoded, judged, kept, one group after another.

A group has as many rows as one of requests has. None of a record's rows is kept before those of a record before it.
"""

from collections.abc import Callable, Sequence

from skewless.adapters.feature_stream import StreamRecord
from skewless.adapters.ingest_gate import IngestGate
from skewless.adapters.ingest_group import Group
from skewless.adapters.ingest_intake import Intake
from skewless.adapters.ingest_requests import Decoded, GroupDone, IntakeRequest, Keeper, may_join
from skewless.adapters.ingest_rows import Form
from skewless.errors import SkewlessError, Unavailable
from skewless.ingestion.batches import BatchKind
from skewless.timestamps import Micros

CALLER = "stream"
"""Who records are from, in the outbox; beside it stands their place in the stream, which is their key."""


class StreamIntake:
    """Implements `TakeTogether`."""

    def __init__(
        self,
        intake: Intake,
        gate: IngestGate,
        keeper: Keeper,
        *,
        now: Callable[[], Micros],
        wake: Callable[[BatchKind, str], None] = lambda _kind, _name: None,
        on_group: Callable[[GroupDone], None] = lambda _done: None,
        may_give_created_time: bool = False,
    ) -> None:
        """`intake` decodes; gate, outbox (`keeper`) and the rest are those that it has itself."""
        self._intake = intake
        self._gate = gate
        self._keeper = keeper
        self._now = now
        self._wake = wake
        self._on_group = on_group
        self._may_give_created_time = may_give_created_time

    def __call__(self, records: Sequence[StreamRecord]) -> Sequence[SkewlessError | None] | None:
        """See `TakeTogether`."""
        kind, name = records[0].kind, records[0].name
        refusals: list[SkewlessError | None] = [None] * len(records)
        left: list[tuple[int, Decoded]] = []
        for place, record in enumerate(records):
            try:
                left.append((place, self._intake.decode(self._request(record))))
            except Unavailable:
                raise
            except SkewlessError as error:
                if self._takes_none(kind, name):
                    return None
                refusals[place] = error
        while left:
            together = _next_group(left)
            group = Group([decoded for _, decoded in together], now=self._now, in_order=True)
            group.take(self._gate, self._keeper)
            for (place, _), result in zip(together, group.results, strict=True):
                if isinstance(result, SkewlessError):
                    refusals[place] = result
            done = {place for (place, _), result in zip(together, group.results, strict=True) if result is not None}
            if not done:  # a group answers at least one of its requests
                raise Unavailable("ingestion", f"nobody answered for {len(together)} records")
            left = [each for each in left if each[0] not in done]
            self._on_group(GroupDone(kind, name, len(done), dict(group.counts), 0.0))
            self._wake(kind, name)
        return refusals

    def _takes_none(self, kind: BatchKind, name: str) -> bool:
        """Whether the view or stream takes no rows at all, so that no record of it is at fault."""
        try:
            self._intake.target(kind, name)
        except Unavailable:
            raise
        except SkewlessError:
            return True
        return False

    def _request(self, record: StreamRecord) -> IntakeRequest:
        return IntakeRequest(
            kind=record.kind,
            name=record.name,
            caller=CALLER,
            key=record.place,
            body=record.body,
            form=Form(record.form),
            may_give_created_time=self._may_give_created_time,
        )


def _next_group(left: Sequence[tuple[int, Decoded]]) -> list[tuple[int, Decoded]]:
    """The first of some records that may be taken together."""
    group = [left[0]]
    rows = left[0][1].rows
    for each in left[1:]:
        if not may_join(each[1], group[0][1], rows):
            break
        group.append(each)
        rows += each[1].rows
    return group
