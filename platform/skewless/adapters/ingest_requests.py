"""What callers ask of ingestion and what they are told: requests, their rows once decoded, and answers."""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from skewless.adapters.ingest_rows import Form, RowBlock
from skewless.adapters.ingest_views import IngestStream, IngestView
from skewless.canonical_json import Digest
from skewless.dtypes import Column
from skewless.ingest_limits import INGEST_ALONE_ROWS, INGEST_GROUP_ROWS_MAX, INGEST_QUARANTINED_TOLD_MAX
from skewless.ingestion.batches import Accepted, BatchKind, IncomingBatch, StoredKey

KeyCheck = Callable[[Mapping[str, Column], int, bool], None]
"""Raises Forbidden where rows of an entity, given by its join keys, may not be brought.

It is told how many rows there are, and whether any says itself when it became known.
"""


class Keeper(Protocol):
    """Where rows are kept for good; `ingest_outbox.Outbox` is one."""

    def accept(self, batch: IncomingBatch) -> Accepted:
        """Keep a batch. Raises Conflict where one of its keys is used, Overloaded, Unavailable."""
        ...

    def known_keys(
        self, kind: BatchKind, name: str, pairs: Sequence[tuple[str, str]]
    ) -> Mapping[tuple[str, str], StoredKey]:
        """Those of some (caller, key) that were used."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class IntakeRequest:
    """A body of rows. `key` is the caller's idempotency key, empty where it gave none.

    `check_keys` None: rows of any entity may be brought.
    """

    kind: BatchKind
    name: str
    caller: str
    key: str
    body: bytes
    form: Form
    may_give_created_time: bool = False
    check_keys: KeyCheck | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """A request whose rows are of their declared types."""

    kind: BatchKind
    target: IngestView | IngestStream
    caller: str
    key: str
    digest: Digest
    block: RowBlock

    @property
    def rows(self) -> int:
        """How many rows it brings."""
        return self.block.rows


@dataclass(frozen=True, slots=True)
class TakenRows:
    """What a caller is told. `reasons` has, for the first rows that were set aside, their number and why."""

    batch_id: str | None
    """The batch that its rows are kept in, with those of others; None where no row is."""
    kind: BatchKind
    name: str
    rows: int
    accepted: int
    late: int = 0
    dropped: int = 0
    quarantined: int = 0
    reasons: tuple[tuple[int, tuple[str, ...]], ...] = ()
    quarantine: str = ""
    repeated: bool = False
    """Whether the same request was taken before, and this is its answer once more."""

    def to_json(self) -> dict[str, Any]:
        """The answer; everything but the batch and that it was repeated is kept for repeats."""
        told: dict[str, Any] = {
            "batch_id": self.batch_id,
            "view" if self.kind is BatchKind.ROWS else "stream": self.name,
            "rows": self.rows,
            "accepted": self.accepted,
            "late": self.late,
            "dropped": self.dropped,
            "quarantined": self.quarantined,
            "repeated": self.repeated,
        }
        if self.quarantined:
            rows = [{"row": row, "reasons": list(reasons)} for row, reasons in self.reasons]
            told["set_aside"] = {"quarantine": self.quarantine or None, "rows": rows}
        return told

    @classmethod
    def again(cls, stored: StoredKey, decoded: Decoded) -> "TakenRows":
        """The answer that was given to the same request before."""
        told = stored.answer
        aside = told.get("set_aside") or {}
        reasons = tuple((each["row"], tuple(each["reasons"])) for each in aside.get("rows", ()))
        counts = {name: int(told[name]) for name in ("rows", "accepted", "late", "dropped", "quarantined")}
        return cls(
            stored.batch_id or None,
            decoded.kind,
            decoded.target.name,
            **counts,
            reasons=reasons,
            quarantine=aside.get("quarantine") or "",
            repeated=True,
        )

    def within(self, batch_id: str) -> "TakenRows":
        """The same, once its rows are kept in a batch."""
        return replace(self, batch_id=batch_id)


def told_reasons(
    reasons: Mapping[int, tuple[str, ...]], rows: Sequence[int], start: int, stop: int
) -> tuple[int, tuple[tuple[int, tuple[str, ...]], ...]]:
    """How many rows from `start` to `stop` of a group were set aside, and the first of them by number in the request.

    `rows` are those that `reasons` has, ascending.
    """
    own = rows[bisect_left(rows, start) : bisect_left(rows, stop)]
    return len(own), tuple((row - start, reasons[row]) for row in own[:INGEST_QUARANTINED_TOLD_MAX])


@dataclass(frozen=True, slots=True)
class GroupDone:
    """One group that was taken, for whoever counts."""

    kind: BatchKind
    name: str
    requests: int
    rows: Mapping[str, int]
    """By outcome: accepted, dropped, quarantined, refused, repeated."""
    took_s: float


def may_join(head: Decoded, first: Decoded, rows: int) -> bool:
    """Whether a request may be of one group with those before it: `first` is their first, `rows` are all of theirs.

    One of many rows is a group of its own, which is then judged as a batch.
    """
    if max(head.rows, first.rows) >= INGEST_ALONE_ROWS or rows + head.rows > INGEST_GROUP_ROWS_MAX:
        return False
    return head.target is first.target  # rows of before and after a definition changed have different columns
