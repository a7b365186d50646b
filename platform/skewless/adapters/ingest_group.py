"""One group of requests for a view or stream, from decoded rows to answers.

requests ─▶ used keys answered again ─▶ one table ─▶ event times ─▶ gate ─▶ outbox ─▶ an answer for each
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from skewless.adapters.ingest_gate import Gated, IngestGate, Span, TimeAside
from skewless.adapters.ingest_requests import Decoded, Keeper, TakenRows, told_reasons
from skewless.adapters.ingest_rows import table_of
from skewless.adapters.ingest_views import IngestView
from skewless.errors import Conflict, InvalidRequest, SkewlessError
from skewless.ingest_limits import INGEST_AHEAD_S, INGEST_ALONE_ROWS
from skewless.ingestion.batches import BatchKind, IncomingBatch, IncomingRequest, StoredKey
from skewless.ingestion.event_times import TimeVerdict, Treatment, judge
from skewless.timestamps import SECOND_US, Micros, format_timestamp

EVENT_TIME_AHEAD, CREATED_TIME_AHEAD = "event_time_ahead", "created_time_ahead"


class Group:
    """Requests of one target that are taken together. `results` has an answer or a refusal for each, in order.

    None where it is to be taken with another group.
    """

    def __init__(self, requests: Sequence[Decoded], *, now: Callable[[], Micros], in_order: bool = False) -> None:
        """`in_order`: none is taken before one that stands before it, so that those left over are the last ones."""
        self._requests = requests
        self._in_order = in_order
        self._target = requests[0].target
        self._kind = requests[0].kind
        self._now = now
        self.results: list[TakenRows | SkewlessError | None] = [None] * len(requests)
        self.counts: Counter[str] = Counter()
        """Rows by what became of them."""
        self.is_kept = False
        """Whether the outbox has a new batch."""

    def take(self, gate: IngestGate, keeper: Keeper) -> None:
        """Fill `results`. Raises Unavailable and Overloaded, which then hold for all of the group."""
        places = self._unused(keeper)
        if not places:
            return
        part = _Part(self._target, [self._requests[place] for place in places], self._now())
        gated = part.gated(gate, in_order=self._in_order)
        self._settle(places, part, gated, keeper)

    def _unused(self, keeper: Keeper) -> list[int]:
        """Requests that were not taken before; of several with one key the first."""
        keyed = [(each.caller, each.key) for each in self._requests if each.key]
        known = keeper.known_keys(self._kind, self._target.name, sorted(set(keyed))) if keyed else {}
        places, seen = [], set[tuple[str, str]]()
        for place, each in enumerate(self._requests):
            pair = each.caller, each.key
            if each.key and pair in known:
                self._answer(place, _again(known[pair], each))
            elif not each.key or pair not in seen:
                seen.add(pair)
                places.append(place)
        return places

    def _answer(self, place: int, result: TakenRows | SkewlessError) -> None:
        self.results[place] = result
        if isinstance(result, SkewlessError):
            self.counts["refused"] += self._requests[place].rows
        elif result.repeated:
            self.counts["repeated"] += result.rows
        else:
            for name in ("accepted", "dropped", "quarantined"):
                self.counts[name] += getattr(result, name)

    def _settle(self, places: list[int], part: "_Part", gated: Gated, keeper: Keeper) -> None:
        taken: dict[int, TakenRows] = {}
        aside = sorted(gated.reasons)
        for number, place in enumerate(places):
            refusal = part.refused.get(number) or gated.refused.get(number)
            if refusal is not None:
                self._answer(place, refusal)
            elif number not in gated.deferred:
                taken[place] = part.taken(number, gated, aside)
        if not taken:
            return
        rows = {place: part.spans[number] for number, place in enumerate(places) if place in taken}
        while taken and (again := self._kept_or_used(taken, rows, part, gated, keeper)):
            for place, result in again.items():
                self._answer(place, result)
                del taken[place], rows[place]

    def _kept_or_used(
        self, taken: Mapping[int, TakenRows], spans: Mapping[int, Span], part: "_Part", gated: Gated, keeper: Keeper
    ) -> Mapping[int, TakenRows | SkewlessError]:
        """Nothing once all are kept; else those whose key another process used since we looked."""
        try:
            self._keep(taken, spans, part, gated, keeper)
        except Conflict:
            if again := self._used_meanwhile(taken, keeper):
                return again
            raise
        return {}

    def _keep(
        self, taken: Mapping[int, TakenRows], spans: Mapping[int, Span], part: "_Part", gated: Gated, keeper: Keeper
    ) -> None:
        mask = np.zeros(len(gated.goes_on), dtype=np.bool_)
        for span in spans.values():
            mask[slice(*span)] = gated.goes_on[slice(*span)]
        requests = tuple(
            IncomingRequest(each.caller, each.key, each.digest, taken[place].accepted, _kept_answer(taken[place]))
            for place, each in enumerate(self._requests)
            if place in taken
        )
        batch_id = None
        if mask.any() or any(each.key for each in requests):
            rows = part.table if mask.all() else part.table.filter(pa.array(mask))
            batch_id = keeper.accept(part.incoming(rows, requests, gated)).id
            self.is_kept = True
        for place, answer in taken.items():
            self._answer(place, answer if batch_id is None else answer.within(batch_id))

    def _used_meanwhile(self, taken: Mapping[int, TakenRows], keeper: Keeper) -> dict[int, TakenRows | SkewlessError]:
        pairs = {(each.caller, each.key): place for place, each in enumerate(self._requests) if each.key}
        wanted = [pair for pair, place in pairs.items() if place in taken]
        known = keeper.known_keys(self._kind, self._target.name, wanted) if wanted else {}
        return {pairs[pair]: _again(stored, self._requests[pairs[pair]]) for pair, stored in known.items()}


class _Part:
    """The requests of a group that are new, as one table. Those that are refused are told by their number."""

    def __init__(self, target: Any, requests: Sequence[Decoded], received: Micros) -> None:
        self._target = target
        self._requests = requests
        self._received = received
        self._schema = target.rows
        self.refused: dict[int, SkewlessError] = {}
        ends = np.cumsum([each.rows for each in requests]).tolist()
        self.spans: list[Span] = list(zip([0, *ends[:-1]], ends, strict=True))
        self.table = table_of([each.block for each in requests])
        self._eligible: NDArray[np.bool_] = np.ones(self.table.num_rows, dtype=np.bool_)
        self._fill_created()
        self._verdict = self._judge_times()

    @property
    def _event_column(self) -> str:
        target = self._target
        return str(target.source.event_time if isinstance(target, IngestView) else target.declaration.event_time)

    def _fill_created(self) -> None:
        """When rows became known, where they do not say: now. Refuses what was known only in a while."""
        name = self._schema.created
        if not name:
            return
        column = self.table.column(name)
        if any(each.block.has_created for each in self._requests):
            ahead = _micros(column, 0) > self._received + int(INGEST_AHEAD_S * SECOND_US)
            self._refuse(ahead, name, _micros(column, 0), CREATED_TIME_AHEAD, f"{INGEST_AHEAD_S:g} s ahead of now")
        filled = pc.fill_null(column, pa.scalar(self._received, pa.int64()).cast(column.type))
        self.table = self.table.set_column(self.table.column_names.index(name), name, filled)

    def _judge_times(self) -> TimeVerdict:
        times = _micros(self.table.column(self._event_column), 0)
        verdict = judge(self._target.times, times, self._received)
        if self._future_refused:
            allowed = f"{self._target.times.future.tolerance_us / SECOND_US:g} s ahead of now"
            self._refuse(verdict.future, self._event_column, times, EVENT_TIME_AHEAD, allowed)
        return verdict

    @property
    def _future_refused(self) -> bool:
        """Whether a row of the future refuses its request. Events have no quarantine."""
        return self._target.times.future.treatment is Treatment.REFUSE or not isinstance(self._target, IngestView)

    def _refuse(self, wrong: NDArray[np.bool_], column: str, times: NDArray[np.int64], code: str, allowed: str) -> None:
        if not wrong.any():
            return
        name = next(each.name for each in self._schema.fields if each.column == column)
        for number, (start, stop) in enumerate(self.spans):
            if number in self.refused or not wrong[start:stop].any():
                continue
            row = int(np.argmax(wrong[start:stop]))
            self.refused[number] = InvalidRequest(
                f"row {row} of `{self._target.name}` has the {name} {_shown(int(times[start + row]))}, and it is "
                f"{format_timestamp(self._received)} now",
                path=f"$.rows[{row}].{name}",
                allowed=f"at most {allowed}",
                hint="see that times are UTC and in the right unit, and that the clock of who sends them is right",
                code=code,
            )
            self._eligible[start:stop] = False

    def gated(self, gate: IngestGate, *, in_order: bool) -> Gated:
        """What goes on of the rows; of events all do that are eligible."""
        target, verdict = self._target, self._verdict
        if not isinstance(target, IngestView):
            return Gated(self._eligible.copy())
        late, future = verdict.late & self._eligible, verdict.future & self._eligible
        if target.times.late.treatment is Treatment.DROP:
            self._eligible &= ~late
            late = np.zeros_like(late)
        is_batch = len(self._requests) == 1 and self._requests[0].rows >= INGEST_ALONE_ROWS
        told = (
            f"the event time is older than the view takes ({target.times.late})",
            f"the event time is later than the view takes ({target.times.future})",
        )
        aside = TimeAside(late, future, told=told)
        return gate.judge(
            target,
            self.table,
            self.spans,
            eligible=self._eligible,
            aside=aside,
            is_batch=is_batch,
            now=self._received,
            in_order=in_order,
        )

    def taken(self, number: int, gated: Gated, aside_rows: Sequence[int]) -> TakenRows:
        """What the request of that number is told, but for its batch; `aside_rows` are all that were set aside."""
        start, stop = self.spans[number]
        aside, reasons = told_reasons(gated.reasons, aside_rows, start, stop)
        accepted = int(gated.goes_on[start:stop].sum())
        return TakenRows(
            None,
            self._requests[number].kind,
            self._target.name,
            stop - start,
            accepted,
            late=int(self._verdict.late[start:stop].sum()),
            dropped=stop - start - accepted - aside,
            quarantined=aside,
            reasons=reasons,
            quarantine=gated.quarantine if aside else "",
        )

    def incoming(self, rows: Any, requests: tuple[IncomingRequest, ...], gated: Gated) -> IncomingBatch:
        """The batch to be kept."""
        schema = self._schema
        is_view = isinstance(self._target, IngestView)
        return IncomingBatch(
            BatchKind.ROWS if is_view else BatchKind.EVENTS,
            self._target.name,
            rows,
            requests,
            self._received,
            quality_run=gated.run,
            event_time=self._event_column,
            created_time=schema.created,
            keys=tuple(each.column for each in schema.fields if each.name in schema.keys) if is_view else (),
        )


def _again(stored: StoredKey, decoded: Decoded) -> TakenRows | SkewlessError:
    """The answer to a request whose key was used before."""
    if stored.digest == decoded.digest:
        return TakenRows.again(stored, decoded)
    return Conflict(
        f"the Idempotency-Key `{decoded.key[:100]}` was used for other rows of `{decoded.target.name}`",
        hint="repeat a request byte for byte, and give every new one a key of its own",
    )


def _kept_answer(answer: TakenRows) -> dict[str, Any]:
    told = answer.to_json()
    del told["batch_id"], told["repeated"]
    return told


def _micros(column: Any, zero: int) -> NDArray[np.int64]:
    """Times (rows,) in µs, `zero` where they are null."""
    filled = pc.fill_null(column.cast(pa.int64()), zero)
    return np.asarray(filled.to_numpy(), dtype=np.int64)


def _shown(moment: int) -> str:
    try:
        return format_timestamp(moment)
    except OverflowError:
        return f"{moment} µs"
