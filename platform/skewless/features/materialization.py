"""Which rows of a view a materialization takes, and why; and the questions about them, in SQL.

A run takes what may have become visible since the last one. A row becomes visible when it has happened and is known:

    rows known since     created_time > the newest created time of the last run, less an overlap       late and restated
    rows begun since     event_time > the moment of the last run                                       dated ahead

The overlap is there for rows that come into the source after others with a later created time. Of what is taken each
entity's newest row is written, and the store keeps what is newer by the same order, so taking a row twice does nothing.
"""

from dataclasses import dataclass
from enum import StrEnum

from skewless.canonical_json import Digest
from skewless.features.contract import ViewRead
from skewless.features.point_in_time import AVAILABLE_US, CREATED_US, EVENT_US, OfflineSource, identifier, rows_sql
from skewless.features.row_order import newest_first_sql
from skewless.timestamps import format_timestamp

FIRST_RUN = "nothing of this view has been materialized yet"
ASKED_FOR = "a full run was asked for"
OTHER_DEFINITION = "the view's definition has changed since the last run"
OTHER_STORE = "the online store does not hold the last run: it was emptied, went back in time, or is another one"
EARLIER = "the moment is before that of the last run"
SINCE = "rows known since the last run"
BACKFILL = "rows of a span of time"
_SAMPLE_SPARE = 4
"""How many times as many entities as are wanted are drawn before the limit, because their number is an estimate."""


class Kind(StrEnum):
    """How much of a source a run takes."""

    FULL = "full"
    INCREMENTAL = "incremental"
    BACKFILL = "backfill"
    """Rows whose event time lies in a span; how far the view has got stays as it is."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a row must be to be taken, in microseconds; None does not bound.

    Where either `since` is given a row needs one of them: a created time after the one, or an event time after the
    other. `from_time` is inclusive, `to_time` is not. A row without a created time is known at its event time.
    """

    since_created_time: int | None = None
    since_event_time: int | None = None
    from_time: int | None = None
    to_time: int | None = None


EVERYTHING = Bounds()
"""No bounds at all."""


@dataclass(frozen=True, slots=True)
class Watermark:
    """How far a view has got: the run that was last, its moment, and the newest times of all rows that were taken."""

    view: str
    run_id: str
    as_of: int
    created_time: int
    event_time: int
    definition: Digest
    changed_time: int = 0


@dataclass(frozen=True, slots=True)
class Asked:
    """What somebody asks for: a moment (µs), a full run, or a span of event times to fill."""

    as_of: int
    full: bool = False
    from_time: int | None = None
    to_time: int | None = None

    @property
    def is_backfill(self) -> bool:
        """Whether a span is asked for."""
        return self.from_time is not None or self.to_time is not None


@dataclass(frozen=True, slots=True)
class Taking:
    """Which rows a run takes: those visible at `as_of` (µs) within bounds; `reason` is for people."""

    kind: Kind
    reason: str
    as_of: int
    bounds: Bounds = EVERYTHING

    @property
    def told(self) -> str:
        """Kind and reason in a few words."""
        since = self.bounds.since_created_time
        bound = "" if since is None else f", created after {format_timestamp(since)}"
        return f"{self.kind}: {self.reason}{bound}"


def taking(
    asked: Asked, watermark: Watermark | None, *, definition: Digest, stored_run: str | None, overlap_us: int
) -> Taking:
    """Which rows a run takes. `stored_run` is the run that the online store itself says it holds, None for none.

    Raises nothing: where an incremental run would not be right the run is a full one, and says why.
    """
    if asked.is_backfill:
        return Taking(Kind.BACKFILL, BACKFILL, asked.as_of, Bounds(from_time=asked.from_time, to_time=asked.to_time))
    if asked.full:
        return Taking(Kind.FULL, ASKED_FOR, asked.as_of)
    if watermark is None:
        return Taking(Kind.FULL, FIRST_RUN, asked.as_of)
    if watermark.definition != definition:
        return Taking(Kind.FULL, OTHER_DEFINITION, asked.as_of)
    if watermark.run_id != stored_run:
        return Taking(Kind.FULL, OTHER_STORE, asked.as_of)
    if asked.as_of < watermark.as_of:
        return Taking(Kind.FULL, EARLIER, asked.as_of)
    since = Bounds(since_created_time=watermark.created_time - overlap_us, since_event_time=watermark.as_of)
    return Taking(Kind.INCREMENTAL, SINCE, asked.as_of, since)


def taken_sql(view: ViewRead, source: OfflineSource, taking: Taking) -> str:
    """The rows that a run takes, as `rows_sql` has them: each has an entity and an event time."""
    # Of a null and a number `greatest` is the number, so a row without event time would count as available.
    conditions = [f"{EVENT_US} IS NOT NULL", f"{AVAILABLE_US} <= {taking.as_of}", *_within(taking.bounds)]
    conditions += [f"{identifier(key.name)} IS NOT NULL" for key in view.join_keys]
    return f"SELECT * FROM ({rows_sql(view, source)}) WHERE {' AND '.join(conditions)}"


def taken_summary_sql(view: ViewRead, source: OfflineSource, taking: Taking) -> str:
    """One row: how many rows a run takes, of about how many entities, and their newest event and created time (µs).

    Times are NULL where there are no rows.
    """
    entities = f"approx_count_distinct(({_keys(view)}))" if view.join_keys else "least(count(*), 1)"
    rows = taken_sql(view, source, taking)
    return f"SELECT count(*), {entities}, max({EVENT_US}), max({CREATED_US}) FROM ({rows})"


def sample_sql(
    view: ViewRead, source: OfflineSource, taking: Taking, *, sampled: int, entities: int, parts: range, seed: int
) -> str:
    """The newest taken row of at most `sampled` entities of some parts, chosen by a hash of keys and seed.

    A run takes about `entities` entities; `parts` goes up to the number of parts that they are dealt out to.
    """
    keys, rows = _keys(view), taken_sql(view, source, taking)
    if not keys:
        return _newest_of(view, rows)
    chance = max(entities * len(parts) // (parts.stop * _SAMPLE_SPARE * sampled), 1)
    chosen = f"hash({keys}, {seed})"
    entities_sql = (
        f"SELECT DISTINCT {keys}, {chosen} AS skewless_order FROM ({rows}) "
        f"WHERE {chosen} % {chance} = 0 AND hash({keys}) % {parts.stop} >= {parts.start} "
        f"ORDER BY skewless_order, {keys} LIMIT {sampled}"
    )
    return _newest_of(view, f"SELECT * FROM ({rows}) SEMI JOIN ({entities_sql}) USING ({keys})")


def newest_sql(view: ViewRead, source: OfflineSource, taking: Taking, *, part: int, parts: int) -> str:
    """The newest taken row of each entity of one part of the entities, numbered from 0; exact ties by the values.

    Entities are dealt out by a hash of their keys, so that a part needs a part of the memory. Ties are settled as
    `point_in_time.timeline_sql` settles them.
    """
    rows = taken_sql(view, source, taking)
    keys = _keys(view)
    if parts > 1 and keys:
        rows = f"SELECT * FROM ({rows}) WHERE hash({keys}) % {parts} = {part}"
    return _newest_of(view, rows)


def _newest_of(view: ViewRead, rows: str) -> str:
    order = ", ".join(
        [
            newest_first_sql(event_time=EVENT_US, created_time=CREATED_US),
            *(identifier(feature.name) for feature in view.features),
        ]
    )
    return f"SELECT * FROM ({rows}) QUALIFY row_number() OVER (PARTITION BY {_keys(view) or '1'} ORDER BY {order}) = 1"


def _keys(view: ViewRead) -> str:
    return ", ".join(identifier(key.name) for key in view.join_keys)


def _within(bounds: Bounds) -> list[str]:
    since = []
    if bounds.since_created_time is not None:
        since.append(f"coalesce({CREATED_US}, {EVENT_US}) > {bounds.since_created_time}")
    if bounds.since_event_time is not None:
        since.append(f"{EVENT_US} > {bounds.since_event_time}")
    conditions = [f"({' OR '.join(since)})"] if since else []
    if bounds.from_time is not None:
        conditions.append(f"{EVENT_US} >= {bounds.from_time}")
    if bounds.to_time is not None:
        conditions.append(f"{EVENT_US} < {bounds.to_time}")
    return conditions
