"""Deletes chosen entities from every place that is given, in a way that a kill anywhere leaves repeatable.

    begun in the database ─▶ each place: counted, noted, deleted ─▶ every place looked at again ─▶ receipt

From the moment that it is begun, old rows are kept out by whoever writes (`Deletions.kept_out`), so nothing that a
place has lost comes back from one whose turn comes later. A place that is away leaves the deletion `partly` done, which
the receipt says, and no other place waits for it.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

from skewless.errors import SkewlessError
from skewless.registry.entity_deletions import DeletionRecord, DeletionRequest, Deletions, DeletionState
from skewless.timestamps import Micros


class Place(Protocol):
    """Somewhere that rows of entities lie."""

    @property
    def name(self) -> str:
        """What people call it; one place of a deletion has it."""
        ...

    def look(self) -> Mapping[str, int]:
        """How many rows there are, by whatever tells them apart there. Raises SkewlessError."""
        ...

    def erase(self) -> object:
        """Take them out; doing it again is harmless. Raises SkewlessError; then some may be out."""
        ...


@dataclass(frozen=True, slots=True)
class Unreached:
    """Somewhere that rows may be and are not deleted: why, and what to do. `found` None: nobody has looked."""

    place: str
    why: str
    hint: str
    found: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"place": self.place, "why": self.why, "hint": self.hint, "found": self.found}


@dataclass(frozen=True, slots=True)
class Surroundings:
    """All there is to a deletion but its record.

    `rows` are places that feature rows lie in, deleted while `waiting` has their writers wait; it gives whoever could
    not be had to. `rest` comes after them. `cleaning` is done once rows are out: each names files that still hold their
    bytes, and returns why that did not work, or nothing: no row is left then, and the receipt says what is.
    """

    rows: Sequence[Place]
    rest: Sequence[Place] = ()
    waiting: Callable[[], AbstractContextManager[Sequence[str]]] = lambda: nullcontext(())
    unreached: Sequence[Unreached] = ()
    cleaning: Mapping[str, Callable[[], str]] = field(default_factory=dict)

    @property
    def places(self) -> tuple[Place, ...]:
        """All of them, in the order in which they are deleted from."""
        return (*self.rows, *self.rest)


@dataclass(frozen=True, slots=True)
class Looked:
    """What lies where. `rows` by place and by what tells rows apart in it; `failures` by place that cannot be asked."""

    rows: Mapping[str, Mapping[str, int]]
    failures: Mapping[str, str]

    @property
    def count(self) -> int:
        """All rows."""
        return sum(sum(each.values()) for each in self.rows.values())


def look(places: Sequence[Place]) -> Looked:
    """What a deletion would take out of some places; changes nothing."""
    rows: dict[str, Mapping[str, int]] = {}
    failures: dict[str, str] = {}
    for place in places:
        try:
            rows[place.name] = dict(place.look())
        except SkewlessError as error:
            failures[place.name] = error.message
    return Looked(rows, failures)


def erase(
    deletions: Deletions,
    request: DeletionRequest,
    surroundings: Callable[[Micros], Surroundings],
    *,
    progress: Callable[[str], None] = lambda _: None,
) -> DeletionRecord:
    """Delete, and return the record with its receipt. `surroundings` is given the moment that rows were known until.

    The same deletion that was cut off goes on. Raises what the database does; it is begun then, and asking again goes
    on with it.
    """
    record = deletions.begin(request)
    around = surroundings(record.before)
    with around.waiting() as not_waiting:
        failures = _taken_out(deletions, record.id, around.rows, progress)
    failures |= _taken_out(deletions, record.id, around.rest, progress)
    progress("looking again")
    left = look(around.places)
    cleaned = {name: clean() for name, clean in around.cleaning.items()}
    is_whole = not (failures or left.failures or left.count)
    receipt = _told(deletions.deletion(record.id), around, {**left.failures, **failures}, left, cleaned)
    receipt["not_waiting"] = list(not_waiting)
    return deletions.finish(record, DeletionState.DONE if is_whole else DeletionState.PARTLY, receipt)


def _taken_out(
    deletions: Deletions, deletion: str, places: Sequence[Place], progress: Callable[[str], None]
) -> dict[str, str]:
    """Delete from some places, each counted before; returns why some could not be, by name."""
    failures: dict[str, str] = {}
    for place in places:
        progress(place.name)
        try:
            found = place.look()
            deletions.note(deletion, {place.name: sum(found.values())})
            place.erase()
        except SkewlessError as error:
            failures[place.name] = error.message
    return failures


def _told(
    record: DeletionRecord,
    around: Surroundings,
    failures: Mapping[str, str],
    left: Looked,
    cleaned: Mapping[str, str],
) -> dict[str, Any]:
    """What the receipt says of each place. Names and counts, never a value."""
    places = [
        {
            "place": place.name,
            "found": record.found.get(place.name, 0),
            "left": sum(left.rows.get(place.name, {}).values()),
            "problem": failures.get(place.name),
        }
        for place in around.places
    ]
    files = [{"files": name, "problem": problem or None} for name, problem in cleaned.items()]
    return {"places": places, "cleaned": files, "not_reached": [each.to_json() for each in around.unreached]}
