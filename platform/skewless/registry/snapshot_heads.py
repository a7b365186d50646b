"""Which registry snapshot each project has, without reading any: all that a watcher needs, and it loads no NumPy."""

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Engine, select, update

from skewless.canonical_json import Digest
from skewless.registry.tables import FeatureSnapshotRow
from skewless.registry.transactions import Transactions, system_clock
from skewless.timestamps import Micros

_CONFLICT_HINT = "someone else compiled the definitions at the same moment; run `skewless features compile` again"


@dataclass(frozen=True, slots=True)
class SnapshotHead:
    """Which snapshot a project has, without its content.

    `version` grows by one with every change of the content. `source` is the fingerprint of the Feast registry that
    it was compiled from. `checked_at` is when the snapshot was last known to say what the Feast registry says.
    """

    project: str
    version: int
    digest: Digest
    source: Digest
    compiled_at: Micros
    checked_at: Micros


class SnapshotHeads:
    """The heads on one engine. Threads may share it.

    Every method raises Unavailable when the database does not answer, and Conflict when another writer was first.
    """

    def __init__(self, engine: Engine, *, clock: Callable[[], Micros] = system_clock) -> None:
        self.transactions = Transactions(engine, conflict_hint=_CONFLICT_HINT)
        self.clock = clock

    def projects(self) -> tuple[str, ...]:
        """Every project that has a snapshot, by name."""
        return tuple(head.project for head in self.heads())

    def heads(self) -> tuple[SnapshotHead, ...]:
        """Which snapshot each project has, by project; reads no content."""
        with self.transactions.read() as session:
            rows = session.scalars(select(FeatureSnapshotRow).order_by(FeatureSnapshotRow.project))
            return tuple(head_of(row) for row in rows)

    def checked(self, head: SnapshotHead) -> bool:
        """Note that the snapshot was just seen to say what Feast's registry says; False where it has changed since."""
        noted = (
            update(FeatureSnapshotRow)
            .where(
                FeatureSnapshotRow.project == head.project,
                FeatureSnapshotRow.version == head.version,
                FeatureSnapshotRow.source == head.source,
            )
            .values(checked_at=self.clock())
        )
        with self.transactions.write() as session:
            return session.connection().execute(noted).rowcount == 1

    def close(self) -> None:
        """Close the engine's pooled connections."""
        self.transactions.close()


def head_of(row: FeatureSnapshotRow) -> SnapshotHead:
    """The head of a snapshot's row."""
    return SnapshotHead(
        row.project,
        row.version,
        Digest(row.digest),
        Digest(row.source),
        Micros(row.compiled_at),
        Micros(row.checked_at),
    )
