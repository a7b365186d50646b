"""The sink that commits sealed segments to the log store, each exactly once, in rounds that a journal remembers."""

from collections.abc import Sequence
from pathlib import Path

from skewless.adapters.log_files import PART
from skewless.adapters.log_store import LogStore
from skewless.adapters.log_tables import LogTable
from skewless.adapters.segment_sinks import SealedSegment, cut
from skewless.adapters.shipping import (
    SHIPPING,
    STORE_JOURNAL,
    Journal,
    read_journal,
    shipper_id,
    waiting,
    write_journal,
)
from skewless.adapters.spool import SEALED, SPOOL
from skewless.durability import sync
from skewless.errors import Unavailable


class LogStoreSink:
    """Implements `SegmentSink`. Whoever uses it holds the folder's lock (`only_shipper`). Not safe for threads."""

    name = "store"

    def __init__(self, folder: Path, store: LogStore, *, round_bytes: int) -> None:
        """`folder` is the prediction log's; a round takes segments up to so many bytes, or a single larger one.

        Raises InvalidDefinition for a damaged journal, and OSError.
        """
        self._spool = folder / SPOOL
        self._file = folder / SHIPPING / STORE_JOURNAL
        self._store = store
        self._writer = shipper_id(folder)
        self._journal = read_journal(self._file)
        self._round_bytes = round_bytes
        self.rows: dict[str, int] = {}
        """Rows committed since the start, by kind."""

    @property
    def rounds(self) -> int:
        """Rounds that were begun, of all processes that shipped this folder."""
        return self._journal.round

    def take(self, segments: Sequence[SealedSegment]) -> None:
        """See `SegmentSink.take`."""
        try:
            self._finish()
            taken = set(self._journal.taken)
            for some in cut([each for each in segments if each.name not in taken], self._round_bytes):
                names = tuple(each.name for each in some)
                self._write(Journal(self._journal.round + 1, names, self._journal.taken))
                self._commit(some)
        except OSError as error:
            raise Unavailable(
                PART, f"{error.strerror or error}", hint="check the disk of the prediction log"
            ) from error

    def _finish(self) -> None:
        """Do a round again that was not finished, with its very segments and number."""
        if self._journal.committing:
            names = waiting(self._journal.committing, self._spool, SEALED)
            self._commit([SealedSegment(self._spool / f"{name}{SEALED}") for name in names])

    def _commit(self, segments: Sequence[SealedSegment]) -> None:
        tables: list[LogTable] = []
        for segment in segments:
            tables += segment.tables()
        for kind, rows in self._store.append(self._writer, self._journal.round, tables).items():
            self.rows[kind] = self.rows.get(kind, 0) + rows
        for segment in segments:
            segment.forget()
        # What the journal forgets must be gone for good: a deletion that a power cut undoes would be shipped again.
        sync(self._spool)
        still = waiting(self._journal.taken, self._spool, SEALED)
        self._write(Journal(self._journal.round, (), (*still, *(each.name for each in segments))))

    def _write(self, journal: Journal) -> None:
        write_journal(self._file, journal)
        self._journal = journal
