"""Rows out of quarantine once more through the gate: those that pass go on, those that do not stay held.

First they are written to the online store, then one transaction closes their batch. Writing them again is harmless (a
stored row is replaced only by one that is not older), so a replay that is killed is run again, and loses nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds

from skewless.adapters.quality_gate import (
    Batch,
    Judgement,
    SuiteRunner,
    judge,
    refuse_stopped,
    rows_only,
    run_record,
    set_aside,
)
from skewless.adapters.quarantine import Quarantine
from skewless.errors import BatchRefused, InvalidDefinition
from skewless.quality.suite import Suite
from skewless.quality.view_schema import Role, ViewSchema
from skewless.registry.quality_results import REPLAY, QualityResults, QuarantineRecord

_WRITE_ROWS = 10_000
WriteRows = Callable[[pa.RecordBatch], None]
"""Writes rows of a view to the online store; see `FeatureRepository.writer`."""


@dataclass(frozen=True, slots=True, eq=False)
class Replayed:
    """How many rows of a batch went on, and those that are held anew (None: none)."""

    judgement: Judgement
    released: int
    held: QuarantineRecord | None


@dataclass(frozen=True, slots=True)
class Replay:
    """What a replay works with."""

    suite: Suite
    schema: ViewSchema
    runner: SuiteRunner
    results: QualityResults
    quarantine: Quarantine
    write: WriteRows

    def run(self, batch: QuarantineRecord, as_of: int, *, mended: Path | None, actor: str) -> Replayed:
        """Judge a batch's rows as they are, or as the Parquet file `mended` has them, and let on what passes.

        Raises BatchRefused where nothing passes; then the batch stays held as it was.
        """
        rows = self.quarantine.read(batch.file) if mended is None else _read(mended)
        given = set(rows.column_names)
        source = f"quarantine {batch.id}" + ("" if mended is None else f", mended as {mended.name}")
        asked = Batch(as_of, REPLAY, source)
        # Extra columns of a mended file would reach the writer.
        wanted = [each for each in self.schema.names() if each in given]
        judgement = judge(rows_only(self.suite), self.schema, rows.select(wanted), asked, self.runner)
        refuse_stopped(judgement)
        if not judgement.accepted.num_rows:
            raise BatchRefused(
                "\n".join(["none of the rows passes; the batch stays in quarantine", *judgement.lines()]),
                hint="correct the rows and give the file with --from, or correct the suite and have it reviewed",
            )
        with self.quarantine.locked(batch.view):
            for part in self._ordered(judgement.accepted):
                self.write(part)
            run = run_record(judgement)
            others = [each.file for each in self.results.quarantined(batch.view) if each.id != batch.id]
            held = set_aside(self.quarantine, judgement, run, others) if judgement.failing.num_rows else None
            self.results.add(run, held, replaces=batch.id, actor=actor)
            self.quarantine.remove(batch.file)
        return Replayed(judgement, judgement.accepted.num_rows, held)

    def _ordered(self, rows: pa.Table) -> list[pa.RecordBatch]:
        """Rows as the online store's writer takes them: in the order in which they became known, by their own names."""
        times = self.schema.names(Role.EVENT_TIME, Role.CREATED_TIME)
        ordered = rows.sort_by([(each, "ascending") for each in times])
        names = [self.schema.by_name[each].served_name for each in ordered.column_names]
        batches: list[pa.RecordBatch] = (
            ordered.rename_columns(names).combine_chunks().to_batches(max_chunksize=_WRITE_ROWS)
        )
        return batches


def _read(path: Path) -> pa.Table:
    try:
        return ds.dataset(str(path), format="parquet").to_table()
    except (pa.ArrowInvalid, OSError) as error:
        raise InvalidDefinition(f"`{path}` cannot be read as Parquet: {error}"[:500]) from error
