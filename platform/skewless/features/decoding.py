"""Replies of the online store turned into a feature frame, in blocks of one dtype and not value by value.

replies   per group and command, [bytes | None, …] in the order of the command's fields
columns   flat[position::fields] of a group's concatenated replies: one field of every hash it was read from
block     the columns of all features of one stored type, decoded by one call
rows      each group's columns, spread over the rows that share its hashes
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from skewless.column_table import ColumnLayout, ColumnTable
from skewless.dtypes import Dtype, blank, column_of
from skewless.errors import Rejected
from skewless.features.contract import Action, FeatureField
from skewless.features.frame import Fault, FeatureFrame, Lines
from skewless.features.online_store import Reply
from skewless.features.policies import policy_for, stand_in
from skewless.features.redis_layout import HashCommand, KeyTemplate
from skewless.features.value_codec import BlockDecoder, event_times_of
from skewless.features.visibility import STATUS_CODE, STATUS_CODES, Status, row_statuses, value_statuses
from skewless.limits import FAULTS_MAX

_Array = TypeVar("_Array", bound=NDArray[Any])

_OK = STATUS_CODE[Status.OK]
_NULL = STATUS_CODE[Status.NULL]
_INVALID = STATUS_CODE[Status.INVALID]
_POLICY_STATUSES = (Status.MISSING, Status.STALE, Status.INVALID)
_ORDERS_MAX = 256
"""Orders of fields remembered per group. A store written by few writers has few; past it they are found anew."""


@dataclass(frozen=True, slots=True)
class Group:
    """Views that share join keys, so that one hash holds them all."""

    template: KeyTemplate
    command: HashCommand
    times: "Source"
    """The event time of each view."""


@dataclass(frozen=True, slots=True)
class Source:
    """Some fields of one group, by their positions among the command's fields."""

    group: int
    positions: tuple[int, ...]
    pick: Callable[[list[bytes | None]], tuple[bytes | None, ...]]
    """Takes them from one hash, faster than one by one."""

    @classmethod
    def of(cls, group: int, positions: tuple[int, ...]) -> "Source":
        """The fields at some positions, at least one."""
        if len(positions) == 1:
            (position,) = positions
            return cls(group, positions, lambda fields: (fields[position],))
        return cls(group, positions, itemgetter(*positions))


class Span(NamedTuple):
    """A group's commands within a read, and the rows that they answer for."""

    start: int
    hashes: int
    """How many."""
    hash_of_row: NDArray[np.intp] | None
    """(rows,) which of its commands; `hashes` itself where there is no such entity. None: command i is row i."""
    absent: bool
    """Whether some row has no such entity."""


@dataclass(frozen=True, slots=True)
class Block:
    """Features of one stored type, by group. `lines` counts them."""

    dtype: Dtype
    decode: BlockDecoder
    sources: tuple[Source, ...]
    lines: int


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything of a plan is. A feature's line counts through the blocks in order."""

    groups: tuple[Group, ...]
    blocks: tuple[Block, ...]
    columns: ColumnLayout
    feature_line: Mapping[str, int]
    view_line: Mapping[str, int]
    view_of_feature: NDArray[np.intp]
    """(features,) line of each feature's view."""
    ttl_us: NDArray[np.int64]
    """(views,)."""
    group_of_view: tuple[int, ...]
    policies: tuple[tuple[int, FeatureField], ...]
    """(line, feature) of the features with a policy other than null."""
    feature_names: tuple[str, ...]
    """Column name by line."""
    takes_whole_hashes: bool
    pick_all: Callable[[list[bytes | None]], Sequence[bytes | None]]
    """Event times, then the blocks' items, out of the fields of one hash per group."""
    one_row_valid: tuple[NDArray[np.bool_], ...]
    one_row_ok: NDArray[np.uint8]
    """What is told of one row without anything unusual; read-only, as all such rows share it."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """A value that its feature's policy does not let a prediction rest on."""

    row: int
    column: str
    status: Status


@dataclass(slots=True)
class DecodedRead:
    """A frame of all rows that were read together, with all their faults, before anyone takes theirs."""

    whole: FeatureFrame
    rejections: tuple[Rejection, ...]
    """In order of row."""

    @property
    def frame(self) -> FeatureFrame:
        """All rows. Raises Rejected where a policy is `reject`."""
        self._refuse(0, self.whole.rows)
        return self.whole if len(self.whole.faults) <= FAULTS_MAX else self.whole.slice(0, self.whole.rows)

    def cut(self, start: int, stop: int) -> FeatureFrame:
        """Rows `start` to `stop` over the same memory. Raises Rejected for one of these, numbered from `start`."""
        self._refuse(start, stop)
        return self.whole.slice(start, stop)

    def _refuse(self, start: int, stop: int) -> None:
        for rejection in self.rejections:
            if start <= rejection.row < stop:
                raise Rejected(
                    f"feature `{rejection.column}` is {rejection.status} and its policy is `reject`",
                    path=f"$.instances[{rejection.row - start}]",
                    hint="ask for an entity the feature store knows, or ship a bundle whose policy allows it",
                )


@dataclass(frozen=True, slots=True)
class _Answers:
    """Replies of one group, as one list."""

    flat: list[bytes | None]
    """The fields of one hash after those of another."""
    width: int
    """Fields of a hash."""
    hashes: int
    hash_of_row: NDArray[np.intp] | None
    """None where row and hash have the same number."""
    errors: Mapping[int, str]
    """Hashes the store gave an error for."""

    def take(self, source: Source, items: list[bytes | None]) -> None:
        """Add each of the source's fields, of all hashes, to `items`."""
        if self.hashes == 1:
            items += source.pick(self.flat)
        else:
            for position in source.positions:
                items += self.flat[position :: self.width]


def decode_replies(
    layout: Layout,
    rows: int,
    spans: Sequence[Span],
    replies: Sequence[Reply],
    as_of: int | NDArray[np.int64],
    near: Sequence[bool] | None,
) -> DecodedRead:
    """See `PreparedRead.decode`, whose fields these are."""
    if rows == 1 and near is None and (alone := _one_plain_row(layout, replies, as_of)) is not None:
        return alone
    answers = [_gather(group, span, replies) for group, span in zip(layout.groups, spans, strict=True)]
    faults: list[Fault] = []
    event_times, untimed = _event_times(layout, answers, rows, faults)
    row_codes = row_statuses(event_times, as_of, layout.ttl_us)
    if untimed is not None:
        row_codes[untimed] = _INVALID
    values, stored = _values(layout, answers, rows, faults)
    table, statuses, rejections = _settle(layout, rows, values, stored, row_codes)
    whole = FeatureFrame(
        rows,
        table,
        Lines(layout.feature_line, statuses),
        Lines(layout.view_line, event_times),
        tuple(faults),
        _near_rows(layout, rows, spans, near) if near is not None and True in near else {},
    )
    return DecodedRead(whole, rejections)


def _one_plain_row(layout: Layout, replies: Sequence[Reply], as_of: int | NDArray[np.int64]) -> DecodedRead | None:
    """One row of which everything is stored, fresh and as declared or null; None where anything is not.

    Most requests are this. It takes a third of the time of what follows, which gives the same frame.
    """
    if len(replies) != len(layout.groups) or layout.takes_whole_hashes:
        return None
    try:
        items = layout.pick_all(list(chain.from_iterable(replies)))  # type: ignore[arg-type]  # see the except
    except TypeError:  # an error in place of a reply
        return None
    views = len(layout.view_line)
    times, unread = event_times_of(items[:views])
    if unread or row_statuses(times[:, np.newaxis], as_of, layout.ttl_us).any():
        return None
    values = []
    valid: Sequence[NDArray[np.bool_]] = layout.one_row_valid
    statuses = layout.one_row_ok
    start = views
    for number, block in enumerate(layout.blocks):
        stop = start + block.lines
        found, codes, _ = block.decode(items[start:stop])
        values.append(found.reshape(block.lines, 1))
        if codes is not None:
            if codes.max() > _NULL:
                return None
            if statuses is layout.one_row_ok:
                statuses, valid = statuses.copy(), list(valid)
            codes = codes.reshape(block.lines, 1)
            statuses[start - views : stop - views] = codes
            valid[number] = codes == _OK  # type: ignore[index]  # a list since just now
        start = stop
    whole = FeatureFrame(
        1,
        ColumnTable(layout.columns, values, valid, 1),
        Lines(layout.feature_line, statuses),
        Lines(layout.view_line, times.reshape(views, 1)),
    )
    return DecodedRead(whole, ())


def read_only(array: _Array) -> _Array:
    """The array, which from now on nobody can write to."""
    array.flags.writeable = False
    return array


def _gather(group: Group, span: Span, replies: Sequence[Reply]) -> _Answers:
    own = replies[span.start : span.start + span.hashes]
    width = len(group.command.fields)
    errors: dict[int, str] = {}
    if group.command.whole:
        own = _picked(group.command, own, errors)
    try:
        flat = list(chain.from_iterable(own))  # type: ignore[arg-type]  # an error among them is what the except is for
    except TypeError:
        flat = list(chain.from_iterable(_picked(group.command, own, errors)))
    assert len(flat) == width * span.hashes, "the store answered with another number of fields than it was asked for"
    if span.absent:
        flat += [None] * width  # the hash of rows that have no such entity
    return _Answers(flat, width, span.hashes + span.absent, span.hash_of_row, errors)


def _picked(command: HashCommand, replies: Sequence[Reply], errors: dict[int, str]) -> list[list[bytes | None]]:
    """The wanted fields of whole hashes, in the command's order; a hash that is an error has none of them."""
    picked: list[list[bytes | None]] = []
    pickers: dict[tuple[bytes | None, ...], itemgetter[Any]] = {}
    for number, reply in enumerate(replies):
        if isinstance(reply, Exception):
            errors[number] = str(reply)
            picked.append([None] * len(command.fields))
        elif not command.whole:
            picked.append(reply)
        else:
            order = tuple(reply[::2])
            picker = pickers.get(order)
            if picker is None:
                place = {field: position for position, field in enumerate(order)}
                # One more position than needed, so that the getter always returns a tuple; absent ones find the None.
                picker = itemgetter(*(place.get(field, len(order)) for field in command.fields), len(order))
                if len(pickers) < _ORDERS_MAX:
                    pickers[order] = picker
            picked.append(list(picker([*reply[1::2], None])[:-1]))
    return picked


def _event_times(
    layout: Layout, answers: Sequence[_Answers], rows: int, faults: list[Fault]
) -> tuple[NDArray[np.int64], NDArray[np.bool_] | None]:
    """Event times (views, rows), and where one is stored that cannot be read (None where all can)."""
    items: list[bytes | None] = []
    for group, answer in zip(layout.groups, answers, strict=True):
        answer.take(group.times, items)
    times, unread = event_times_of(items)
    parts = [(answer, len(group.times.positions)) for group, answer in zip(layout.groups, answers, strict=True)]
    spread = _spread(times, parts, rows)
    if not unread and not any(answer.errors for answer in answers):
        return spread, None
    reasons = dict(unread)
    start = 0
    for answer, count in parts:
        for line in range(count):
            for number, error in answer.errors.items():
                reasons[start + line * answer.hashes + number] = f"cannot be read: the store says `{error}`"
        start += count * answer.hashes
    reason_of = _spread(_numbered(reasons, len(items)), parts, rows)
    untimed = reason_of >= 0
    for line, name in enumerate(layout.feature_names):
        view = int(layout.view_of_feature[line])
        faults += [
            Fault(row, name, reasons[int(reason_of[view, row])]) for row in np.flatnonzero(untimed[view]).tolist()
        ]
    return spread, untimed


def _values(
    layout: Layout, answers: Sequence[_Answers], rows: int, faults: list[Fault]
) -> tuple[list[NDArray[Any]], list[NDArray[np.uint8] | None]]:
    """Per block, values (lines, rows) and what the store holds of each, None where all of it is `ok`."""
    values = []
    stored: list[NDArray[np.uint8] | None] = []
    line = 0
    for block in layout.blocks:
        items: list[bytes | None] = []
        parts = []
        for source in block.sources:
            answer = answers[source.group]
            parts.append((answer, len(source.positions)))
            answer.take(source, items)
        decoded = block.decode(items)
        values.append(_spread(decoded.values, parts, rows))
        stored.append(None if decoded.codes is None else _spread(decoded.codes, parts, rows))
        if decoded.reasons:
            reasons = dict(decoded.reasons)
            places = _spread(_numbered(reasons, len(items)), parts, rows)
            for at, row in np.argwhere(places >= 0).tolist():
                faults.append(Fault(row, layout.feature_names[line + at], reasons[int(places[at, row])]))
        line += block.lines
    return values, stored


def _spread(values: NDArray[Any], parts: Sequence[tuple[_Answers, int]], rows: int) -> NDArray[Any]:
    """Items in order of part, line and hash as a matrix (lines of all parts, rows)."""
    lines_of_all = sum([lines for _, lines in parts])
    for answer, _ in parts:
        if answer.hash_of_row is not None:
            break
    else:
        return values.reshape(lines_of_all, rows)
    spread = np.empty((lines_of_all, rows), dtype=values.dtype)
    start = line = 0
    for answer, lines in parts:
        stop = start + lines * answer.hashes
        shaped = values[start:stop].reshape(lines, answer.hashes)
        spread[line : line + lines] = shaped if answer.hash_of_row is None else shaped[:, answer.hash_of_row]
        start, line = stop, line + lines
    return spread


def _numbered(reasons: Mapping[int, str], count: int) -> NDArray[np.intp]:
    """Each item's own number where there is a reason, -1 elsewhere."""
    numbers = np.full(count, -1, dtype=np.intp)
    for index in reasons:
        numbers[index] = index
    return numbers


def _settle(
    layout: Layout,
    rows: int,
    values: list[NDArray[Any]],
    stored: list[NDArray[np.uint8] | None],
    row_codes: NDArray[np.uint8],
) -> tuple[ColumnTable, NDArray[np.uint8], tuple[Rejection, ...]]:
    """Columns and statuses (features, rows) after the visibility rule and the policies."""
    if not row_codes.any() and all(codes is None for codes in stored):
        statuses = np.zeros((len(layout.feature_names), rows), dtype=np.uint8)
        known = np.ones((len(layout.feature_names), rows), dtype=np.bool_)
        return ColumnTable(layout.columns, values, _blocks_of(layout, known), rows), statuses, ()
    held = [
        np.zeros((block.lines, rows), dtype=np.uint8) if codes is None else codes
        for block, codes in zip(layout.blocks, stored, strict=True)
    ]
    statuses = value_statuses(np.concatenate(held), row_codes[layout.view_of_feature])
    known = statuses == STATUS_CODE[Status.OK]
    valid = _blocks_of(layout, known)
    for number, block in enumerate(layout.blocks):
        if not valid[number].all():
            blank(values[number], ~valid[number], block.dtype)
    table = ColumnTable(layout.columns, values, valid, rows)
    return table, statuses, _apply_policies(layout, table, statuses)


def _blocks_of(layout: Layout, matrix: NDArray[Any]) -> list[NDArray[Any]]:
    blocks = []
    start = 0
    for block in layout.blocks:
        blocks.append(matrix[start : start + block.lines])
        start += block.lines
    return blocks


def _apply_policies(layout: Layout, table: ColumnTable, statuses: NDArray[np.uint8]) -> tuple[Rejection, ...]:
    """Fill what policies fill, in place; what they reject is returned."""
    rejections: list[Rejection] = []
    for line, feature in layout.policies:
        name = layout.feature_names[line]
        codes = statuses[line].copy()
        for status in _POLICY_STATUSES:
            rows = np.flatnonzero(codes == STATUS_CODE[status])
            if not len(rows):
                continue
            if policy_for(feature, status).action is Action.REJECT:
                rejections += [Rejection(row, name, status) for row in rows.tolist()]
                continue
            value, told = stand_in(feature, status)
            if value is not None:
                column = table[name]
                column.values[rows] = column_of(feature.dtype, [value]).values[0]
                column.valid[rows] = True
            statuses[line, rows] = STATUS_CODE[told]
    return tuple(sorted(rejections, key=lambda rejection: rejection.row))


def _near_rows(layout: Layout, rows: int, spans: Sequence[Span], near: Sequence[bool]) -> dict[str, NDArray[np.bool_]]:
    by_group = []
    for span in spans:
        own = np.array([*near[span.start : span.start + span.hashes], False], dtype=np.bool_)
        by_group.append(own[:rows] if span.hash_of_row is None else own[span.hash_of_row])
    return {view: by_group[layout.group_of_view[line]] for view, line in layout.view_line.items()}


assert STATUS_CODES[:2] == (Status.OK, Status.NULL), "a row of these alone is plain"
