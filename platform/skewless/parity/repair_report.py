"""What a repair of the online store found and did, added up by view and reason, with examples; told as plain data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from skewless.dtypes import Column, to_python
from skewless.features.contract import ViewRead
from skewless.features.frame import NO_EVENT_TIME, STATUS_CODES, FeatureFrame
from skewless.monitor_limits import REPAIR_EXAMPLES_MAX
from skewless.parity.compare import shown
from skewless.parity.repair_plan import PENDING_REASON, REASONS, REMEDIES, Action, Difference
from skewless.timestamps import format_timestamp

FORMAT = 1
WHOLE_STORE = "(hashes)"
"""Where a reason stands that is about hashes and no view."""


@dataclass(slots=True)
class _Found:
    """What is added up of one reason of one view."""

    rows: int = 0
    written: int = 0
    removed: int = 0
    overtaken: int = 0
    left: int = 0
    examples: list[dict[str, Any]] = field(default_factory=list)

    def count(self, action: Action, done: bool | None) -> None:
        """Count a row; `done` is None where nothing was tried."""
        self.rows += 1
        if action is Action.LEAVE or done is None:
            self.left += 1
        elif not done:
            self.overtaken += 1
        elif action is Action.WRITE:
            self.written += 1
        else:
            self.removed += 1


class RepairFindings:
    """Adds up what a repair looked at. Memory does not grow with the number of entities."""

    def __init__(self) -> None:
        self._looked: dict[str, int] = {}
        self._no_hash: dict[str, int] = {}
        self._found: dict[tuple[str, str], _Found] = {}

    @property
    def entities(self) -> int:
        """Rows of views that were looked at."""
        return sum(self._looked.values())

    @property
    def differing(self) -> int:
        """Rows, fields and hashes that are not as they should be, those that are only on their way included."""
        return sum(each.rows for each in self._found.values())

    @property
    def changed(self) -> int:
        """Rows, fields and hashes that were written or removed."""
        return sum(each.written + each.removed for each in self._found.values())

    def look(self, view: str, rows: int, no_hash: int = 0) -> None:
        """Count entities of a view that were compared, and those under whose key something else than a hash lies."""
        self._looked[view] = self._looked.get(view, 0) + rows
        if no_hash:
            self._no_hash[view] = self._no_hash.get(view, 0) + no_hash

    def add(
        self,
        view: ViewRead,
        difference: Difference,
        actions: Sequence[Action],
        done: Sequence[bool | None],
        keys: Mapping[str, Column],
        sides: tuple[FeatureFrame, FeatureFrame],
    ) -> None:
        """Count rows that differ; `done` says of each whether it was changed, None where nothing was tried.

        `keys` and `sides`, online and offline, are of all entities that were looked at.
        """
        for place, (row, code) in enumerate(zip(difference.rows.tolist(), difference.reasons.tolist(), strict=True)):
            found = self._found.setdefault((view.field_name, REASONS[code]), _Found())
            found.count(actions[place], done[place])
            if len(found.examples) < REPAIR_EXAMPLES_MAX:
                columns = [name for name, mask in difference.columns.items() if mask[place]]
                found.examples.append(_example(view, row, columns, keys, sides, actions[place]))

    def add_leftover(self, reason: str, entity: Mapping[str, str], fields: Sequence[bytes], done: bool | None) -> None:
        """Count fields of a hash that nobody reads, which are one finding."""
        found = self._found.setdefault((WHOLE_STORE, reason), _Found())
        found.count(Action.REMOVE if done is not None else Action.LEAVE, done)
        if len(found.examples) < REPAIR_EXAMPLES_MAX:
            found.examples.append({"entity": dict(entity), "fields": [_field_told(each) for each in fields]})

    def report(self, about: Mapping[str, Any]) -> dict[str, Any]:
        """Plain data for JSON: `about` (what was repaired), then what was found and done."""
        order = {reason: place for place, reason in enumerate(REASONS)}
        return {
            "format": FORMAT,
            **about,
            "entities": self.entities,
            "differing": self.differing,
            "changed": self.changed,
            "views": [
                {"view": view, "entities": rows, "not_a_hash": self._no_hash.get(view, 0)}
                for view, rows in self._looked.items()
            ],
            "reasons": [
                _reason_json(*key, self._found[key])
                for key in sorted(self._found, key=lambda key: (order[key[1]], key))
            ],
        }


def _reason_json(view: str, reason: str, found: _Found) -> dict[str, Any]:
    remedy = REMEDIES.get(reason)
    assert remedy is not None or reason == PENDING_REASON, "what is found has a remedy, or is waited for"
    return {
        "view": view,
        "reason": reason,
        "found": found.rows,
        "written": found.written,
        "removed": found.removed,
        "changed_meanwhile": found.overtaken,
        "left": found.left,
        "repair": remedy.does
        if remedy
        else "none: its source has not got so far yet, or it came while the repair went on",
        "lasting": remedy is None or remedy.lasting,
        "examples": found.examples,
    }


def _example(
    view: ViewRead,
    row: int,
    columns: Sequence[str],
    keys: Mapping[str, Column],
    sides: tuple[FeatureFrame, FeatureFrame],
    action: Action,
) -> dict[str, Any]:
    online, offline = sides
    return {
        "entity": {name: _key_told(column, row) for name, column in keys.items()},
        "action": action.value,
        "online_event_time": _when(int(online.event_times[view.name][row])),
        "offline_event_time": _when(int(offline.event_times[view.name][row])),
        "columns": [
            {"column": name, "online": _value_told(online, name, row), "offline": _value_told(offline, name, row)}
            for name in columns
        ],
    }


def _value_told(frame: FeatureFrame, name: str, row: int) -> str:
    status = STATUS_CODES[frame.statuses[name][row]]
    value = shown(frame.columns[name], row)
    return value if frame.columns[name].valid[row] else status.value


def _key_told(column: Column, row: int) -> Any:
    (value,) = to_python(Column(column.dtype, column.values[row : row + 1], column.valid[row : row + 1]))
    return value.hex() if isinstance(value, bytes) else value


def _when(moment: int) -> str | None:
    return None if moment == NO_EVENT_TIME else format_timestamp(moment)


def _field_told(field: bytes) -> str:
    text = field.decode("ascii", errors="replace")
    return text if text.isprintable() and text.startswith("_ts:") else field.hex()
