"""Which of two rows of one entity and view counts: the later event time wins, then the later created time.

Written once, for everything that puts rows into the online store, and for what asks which row should lie there. Of rows
equal in both there is nothing to choose: writing one of them again changes nothing.

Feast keeps a row's event time beside its values (`_ts:<view>`), and not when it became known. So beside it lies a field
of ours, for views whose source says when rows became known:

    _rt:<view>   int64 event time | int64 created time | 4 bytes of the view's layout        little-endian, microseconds

It speaks of the stored row only while its event time is that of `_ts:<view>`: whoever writes a row without it, as Feast
does, leaves one behind that is about another row, or none, and the created time is then not known. The layout says for
which features the row was written, so that a row of an older definition is written again at equal times.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skewless.canonical_json import digest
from skewless.features.contract import ViewRead

NO_CREATED_TIME = -(1 << 63)
"""Stands in an array of created times where none is known; every known time is later."""

ROW_TIME_PREFIX = b"_rt:"
"""What the field of a stored row's times begins with."""

_LAYOUT_BYTES = 4
_STORED = np.dtype([("event", "<i8"), ("created", "<i8"), ("layout", "<u4")])

Times = NDArray[np.int64]
Mask = NDArray[np.bool_]


def newer(event_time: Times, created_time: Times, than_event_time: Times, than_created_time: Times) -> Mask:
    """Which rows (rows,) win over others of the same entities; all in microseconds.

    >>> newer(np.array([5, 5]), np.array([7, 9]), np.array([5, 5]), np.array([7, 8])).tolist()
    [False, True]
    """
    tied_and_later: Mask = (event_time == than_event_time) & (created_time > than_created_time)
    return (event_time > than_event_time) | tied_and_later


def newest_first_sql(*, event_time: str, created_time: str) -> str:
    """The same as an SQL order of two microsecond expressions; a created time that is not known is the earliest."""
    return f"{event_time} DESC, {created_time} DESC NULLS LAST"


def winners(entities: Sequence[Hashable], event_times: Times, created_times: Times) -> NDArray[np.int64]:
    """The places of the rows that win among rows of their entities, ascending; of exact equals the last one.

    >>> winners(["a", "b", "a"], np.array([5, 1, 4]), np.array([0, 0, 9])).tolist()
    [0, 1]
    """
    numbers: dict[Hashable, int] = {}
    group = np.array([numbers.setdefault(each, len(numbers)) for each in entities], dtype=np.int64)
    if len(numbers) == len(entities):
        return np.arange(len(entities), dtype=np.int64)
    order = np.lexsort((np.arange(len(group)), created_times, event_times, group))
    last = np.flatnonzero(np.append(np.diff(group[order]) != 0, True))
    return np.sort(order[last])


@dataclass(frozen=True, slots=True, eq=False)
class Standing:
    """What is to be done about rows (rows,) given what is stored of their entities; each row has exactly one."""

    new: Mask
    """Nothing is stored of the entity."""
    replaced: Mask
    """The stored row gives way."""
    older: Mask
    """The stored row stays, because it is newer."""
    same: Mask
    """The stored row is this one."""

    @property
    def written(self) -> Mask:
        """Which rows are to be written."""
        return self.new | self.replaced


def standing(rows: tuple[Times, Times], stored: tuple[Times, Times], *, absent: Mask, equal: Mask) -> Standing:
    """How rows stand against stored ones; both are given by their event and created times (rows,).

    `absent` says of which entities nothing is stored. `equal` says where a stored row of the same times holds all that
    this one would: where it does not, the one that comes last stays, which is this one.
    """
    wins = newer(*rows, *stored)
    tied = (rows[0] == stored[0]) & (rows[1] == stored[1])
    replaced = ~absent & (wins | (tied & ~equal))
    same = ~absent & tied & equal
    return Standing(absent, replaced, ~(absent | replaced | same), same)


def row_time_field(view: str) -> bytes:
    """The hash field of a stored row's times; `view` is the view's name in the store."""
    return ROW_TIME_PREFIX + view.encode()


def layout_of(view: ViewRead) -> bytes:
    """Four bytes that differ where a view has other features, or the same with other types."""
    features = sorted([each.name, each.dtype.value, each.feast_type] for each in view.features)
    return bytes.fromhex(digest(features))[:_LAYOUT_BYTES]


def stored_row_times(event_times: Times, created_times: Times, layout: bytes) -> list[bytes]:
    """What the field of each row (rows,) holds.

    >>> stored_row_times(np.array([1]), np.array([2]), b"abcd")[0].hex()
    '0100000000000000020000000000000061626364'
    """
    times = np.empty(len(event_times), dtype=_STORED)
    times["event"], times["created"], times["layout"] = event_times, created_times, int.from_bytes(layout, "little")
    data, size = times.tobytes(), _STORED.itemsize
    return [data[at : at + size] for at in range(0, len(data), size)]


def created_times_of(items: Sequence[bytes | None], event_times: Times, layout: bytes) -> tuple[Times, Mask]:
    """Created times (rows,) of stored rows, and which of them were written for this layout.

    `items` are the fields as the store gave them, `event_times` those of `_ts:`; where a field is absent, unreadable or
    about another row, the created time is NO_CREATED_TIME and the layout another.
    """
    size = _STORED.itemsize
    blank = bytes(size)
    whole = [item if item is not None and len(item) == size else blank for item in items]
    found = np.frombuffer(b"".join(whole), dtype=_STORED)
    readable = np.fromiter((item is not blank for item in whole), dtype=np.bool_, count=len(whole))
    about = readable & (found["event"] == event_times)
    return np.where(about, found["created"], NO_CREATED_TIME), about & (
        found["layout"] == int.from_bytes(layout, "little")
    )
