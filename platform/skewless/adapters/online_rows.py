"""Rows of one view in the online store as a repair needs them: read with their raw bytes, changed only if still so.

A change is one script per entity, which the store runs as a whole: it compares every field of the view with what was
read and does nothing where one is another by now, so that a fresher row is never lost. Whatever happens to the process,
each row is either the old one or the new one. Gateways that keep hashes near are told of it as of any change.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from skewless.adapters.redis_blocking_store import BlockingRedisOnlineStore
from skewless.adapters.redis_replies import packed
from skewless.canonical_json import digest
from skewless.dtypes import Column
from skewless.features.contract import FeatureContract, ViewRead, column_name
from skewless.features.frame import FeatureFrame
from skewless.features.online_store import Reply
from skewless.features.plan import ReadPlan
from skewless.features.row_order import row_time_field
from skewless.features.stored_hashes import Fields
from skewless.features.value_encoding import stored_event_time, stored_values
from skewless.monitor_limits import REPAIR_TIMEOUT_S, REPAIR_WRITE_ROWS
from skewless.parity.evidence import take

# ARGV: fields to compare, fields to set (0: those compared are removed), seconds to live (0: as before), a field to
# forget in any case (empty: none), then per field its name, whether it was there and its value, then name and value of
# each field to set.
_COMPARE_AND_SET = """\
local compared, set, lifetime = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
for at = 5, 2 + 3 * compared, 3 do
  local held = redis.call('HGET', KEYS[1], ARGV[at])
  if ARGV[at + 1] == '0' then
    if held then return {0} end
  elseif held ~= ARGV[at + 2] then
    return {0}
  end
end
if ARGV[4] ~= '' then redis.call('HDEL', KEYS[1], ARGV[4]) end
if set == 0 then
  for at = 5, 2 + 3 * compared, 3 do redis.call('HDEL', KEYS[1], ARGV[at]) end
  return {1}
end
for at = 5 + 3 * compared, 3 + 3 * compared + 2 * set, 2 do redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1]) end
if lifetime > 0 then redis.call('EXPIRE', KEYS[1], lifetime) end
return {1}
"""

Held = Mapping[bytes, bytes | None]
"""Fields of a hash with what each holds, None where there is none."""


@dataclass(frozen=True, slots=True)
class HashChange:
    """Set fields of a hash, or with none to set remove those in `held`, where all of `held` is still so."""

    key: bytes
    held: Held
    set: Mapping[bytes, bytes]
    forget: bytes = b""
    """A field that goes in any case: what it says of the row would not be true any more."""


def change_hashes(store: BlockingRedisOnlineStore, changes: Sequence[HashChange], *, lifetime_s: int = 0) -> list[bool]:
    """Make changes and say of each whether it was made; not made is what somebody else changed meanwhile.

    Raises Unavailable; then some may have been made, each as a whole.
    """
    done: list[bool] = []
    for start in range(0, len(changes), REPAIR_WRITE_ROWS):
        some = changes[start : start + REPAIR_WRITE_ROWS]
        commands = [_command(each, lifetime_s) for each in some]
        replies = store.read([each.key for each in some], commands, timeout_s=REPAIR_TIMEOUT_S)
        # An error is about the key alone: something else than a hash has come to lie there.
        done += [not isinstance(reply, Exception) and bool(reply[0]) for reply in replies]
    return done


def _command(change: HashChange, lifetime_s: int) -> bytes:
    parts: list[str | bytes | int] = ["EVAL", _COMPARE_AND_SET, 1, change.key]
    parts += [len(change.held), len(change.set), lifetime_s, change.forget]
    for field, value in change.held.items():
        parts += [field, 0 if value is None else 1, b"" if value is None else value]
    for field, value in change.set.items():
        parts += [field, value]
    return packed(*parts)


@dataclass(frozen=True, slots=True)
class StoredRows:
    """Rows of some entities as they were read: `keys` and `held` per entity, `frame` (entities,) at a moment.

    `held` is None where something else than a hash lies under the key.
    """

    keys: Sequence[bytes]
    held: Sequence[Held | None]
    frame: FeatureFrame


class OnlineRows:
    """Reads and changes rows of one view, `view` with its own join keys and all of its features."""

    def __init__(self, store: BlockingRedisOnlineStore, project: str, view: ViewRead, *, lifetime_s: int = 0) -> None:
        """`lifetime_s` is how long Feast's writer has a hash live after each write, 0 where for ever."""
        self._store = store
        self._view = view
        self._lifetime_s = lifetime_s
        ageless = replace(view, ttl_us=0)
        self._plan = ReadPlan.compile(FeatureContract(project, (ageless,), (), digest(None)))
        self._fields = Fields.of(view).names
        self._row_time = row_time_field(view.field_name)

    def read(self, keys: Mapping[str, Column], rows: int, as_of: int) -> StoredRows:
        """The rows of distinct entities, of whatever age, and what a reader would see of them at `as_of` (µs).

        Raises Unavailable.
        """
        prepared = self._plan.prepare(keys, rows)
        assert len(prepared.keys) == rows, "entities are distinct and have no null among their keys"
        replies = self._store.read(prepared.keys, prepared.commands, timeout_s=REPAIR_TIMEOUT_S)
        frame = prepared.decode(replies, as_of).frame
        return StoredRows(prepared.keys, [self._held(reply) for reply in replies], frame)

    def changes(self, stored: StoredRows, rows: NDArray[np.int64], offline: FeatureFrame) -> Iterator[HashChange]:
        """What writes the offline rows over what was read of some entities, by number, in their order."""
        name = self._view.name
        columns = [
            stored_values(take(offline.columns[column_name(name, each.name)], rows), each.feast_type)
            for each in self._view.features
        ]
        times = [stored_event_time(each) for each in offline.event_times[name][rows].tolist()]
        for row, *values in zip(rows.tolist(), times, *columns, strict=True):
            written = dict(zip(self._fields, values, strict=True))
            yield HashChange(stored.keys[row], self._known(stored, row), written, self._row_time)

    def removals(self, stored: StoredRows, rows: NDArray[np.int64]) -> Iterator[HashChange]:
        """What removes the view's fields of some entities, by number, in their order."""
        for row in rows.tolist():
            yield HashChange(stored.keys[row], self._known(stored, row), {}, self._row_time)

    def apply(self, changes: Sequence[HashChange]) -> list[bool]:
        """As `change_hashes`."""
        return change_hashes(self._store, changes, lifetime_s=self._lifetime_s)

    def _held(self, reply: Reply) -> Held | None:
        if isinstance(reply, Exception):
            return None
        return dict(zip(self._fields, reply, strict=True))

    @staticmethod
    def _known(stored: StoredRows, row: int) -> Held:
        held = stored.held[row]
        assert held is not None, "what is no hash is left alone"
        return held
