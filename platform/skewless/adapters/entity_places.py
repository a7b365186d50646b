"""The places of a deletion that keep feature rows: sources, batches on their way in, quarantine, the online store."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

import pyarrow.compute as pc

from skewless.adapters.aggregate_state import AggregateStates
from skewless.adapters.entity_rows import EntityRows
from skewless.adapters.ingest_outbox import Outbox
from skewless.adapters.offline_erasure import OfflineErasure
from skewless.adapters.online_erasure import OnlineErasure, are_told
from skewless.adapters.quarantine import Quarantine
from skewless.features.chosen_entities import ChosenEntities
from skewless.features.redis_layout import stored_key
from skewless.registry.entity_copies import CopiesOf, EntityCopies
from skewless.registry.quality_results import QualityResults, QuarantineState


@dataclass(frozen=True, slots=True)
class SourcePlace:
    """A source of one or more views."""

    name: str
    erasure: OfflineErasure

    def look(self) -> dict[str, int]:
        """Rows of it."""
        return _known(self.name, self.erasure.look())

    def erase(self) -> None:
        """Rewrite what has such rows."""
        self.erasure.erase()


@dataclass(frozen=True, slots=True)
class OutboxPlace:
    """Batches of views and streams that were accepted and are not delivered, or cannot be: `rows` by their name."""

    outbox: Outbox
    rows: Mapping[str, EntityRows]
    name: str = "batches on their way in"

    def look(self) -> dict[str, int]:
        """Rows by view or stream."""
        return self._done(dry_run=True)

    def erase(self) -> None:
        """Take them out of what is kept of the batches."""
        self._done(dry_run=False)

    def _done(self, *, dry_run: bool) -> dict[str, int]:
        found = {name: self.outbox.erase(name, each.matching, dry_run=dry_run) for name, each in self.rows.items()}
        return {name: count for name, count in found.items() if count}


@dataclass(frozen=True, slots=True)
class QuarantinePlace:
    """Rows that gates set aside, of views by their name in the quarantine; `rows` has what is meant of each."""

    quarantine: Quarantine
    results: QualityResults
    rows: Mapping[str, EntityRows]
    name: str = "quarantine"

    def look(self) -> dict[str, int]:
        """Rows by view."""
        found: dict[str, int] = {}
        for view, rows in self.rows.items():
            for file in self.quarantine.files(view):
                found[view] = found.get(view, 0) + (pc.sum(rows.matching(self.quarantine.read(file))).as_py() or 0)
        return {view: count for view, count in found.items() if count}

    def erase(self) -> None:
        """Rewrite what has such rows; also notes what a deletion that was cut off has left of a batch."""
        for view, rows in self.rows.items():
            if not self.quarantine.files(view):
                continue
            with self.quarantine.locked(view):
                self.quarantine.clear_partial(view)
                held = {each.file: each for each in self.results.quarantined(view, state=QuarantineState.HELD)}
                for file in self.quarantine.files(view):
                    kept = self.quarantine.erase(file, rows.matching)
                    if file in held and kept.digest != held[file].digest:
                        self.results.shrunk(held[file].id, kept.rows, kept.digest)
                    if not kept.rows:
                        self.quarantine.remove(file)


@dataclass(frozen=True, slots=True)
class OnlinePlace:
    """The online store."""

    erasure: OnlineErasure
    name: str = "online store"

    def look(self) -> dict[str, int]:
        """Rows by view."""
        return self.erasure.look()

    def erase(self) -> None:
        """Take them out."""
        self.erasure.erase()


@dataclass(frozen=True, slots=True)
class StatePlace:
    """What streaming aggregates remember of each entity, by stream; it goes whole, and windows begin anew."""

    states: Mapping[str, AggregateStates]
    entities: ChosenEntities
    name: str = "state of aggregates"

    def look(self) -> dict[str, int]:
        """Entities by stream."""
        # A state that changes meanwhile may come more than once.
        found = {
            stream: len({key for part in self._keys(states) for key in part}) for stream, states in self.states.items()
        }
        return {stream: count for stream, count in found.items() if count}

    def erase(self) -> None:
        """Forget them."""
        for states in self.states.values():
            for keys in self._keys(states):
                states.forget(keys)

    def _keys(self, states: AggregateStates) -> Iterator[list[bytes]]:
        for part in states.stored_keys():
            told = ((key, stored_key(key)) for key in part)
            yield [key for key, each in told if each is not None and are_told(self.entities, each)]


@dataclass(frozen=True, slots=True)
class CopiesPlace:
    """What the registry's database has copied; `wanted` is asked once it is this place's turn."""

    copies: EntityCopies
    wanted: Callable[[], CopiesOf]
    name: str = "copies in the registry database"

    def look(self) -> dict[str, int]:
        """Copies by kind."""
        return self.copies.look(self.wanted())

    def erase(self) -> None:
        """Take them out."""
        self.copies.erase(self.wanted())


def sources_named(views: Collection[str]) -> str:
    """What a source is called in a receipt: by its views, as paths may be anything."""
    return f"source of {', '.join(sorted(views))}"


def _known(name: str, count: int) -> dict[str, int]:
    return {name: count} if count else {}
