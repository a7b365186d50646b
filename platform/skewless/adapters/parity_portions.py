"""Compares sampled predictions of the log and counts what was found, by bundle and by sample."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from skewless.adapters.log_reader import LogReader
from skewless.adapters.log_tables import SAMPLED
from skewless.adapters.parity_checker import Checker
from skewless.adapters.parity_log import answered, by_bundle
from skewless.canonical_json import Digest
from skewless.errors import InvalidDefinition, NotFound
from skewless.monitor_limits import PARITY_CHUNK_ROWS
from skewless.parity.equality import Mask
from skewless.parity.report import Findings
from skewless.parity.schedule import STEP_US
from skewless.parity.subset import checked_rows
from skewless.parity.tally import Count, Level, Stratum, TallyKey
from skewless.serving.log_sampling import ENTITY, SAMPLES, UNIFORM

_STRATA = ((Stratum.ENTITY, ENTITY), (Stratum.UNIFORM, UNIFORM))


@dataclass(slots=True)
class Compared:
    """What was found in some sampled predictions. `steps` has how many there were, by step (µs)."""

    steps: dict[int, int] = field(default_factory=dict)
    tally: dict[TallyKey, Count] = field(default_factory=dict)
    examples: list[tuple[Digest, str, str, Mapping[str, Any]]] = field(default_factory=list)
    """(bundle, view, cause, explanation)"""
    unchecked: dict[Digest, str] = field(default_factory=dict)
    """By bundle that cannot be computed again here, why."""

    @property
    def rows(self) -> int:
        """Predictions."""
        return sum(self.steps.values())


def compare_sampled(
    log: LogReader, checker: Checker, endpoint: str, start: int, end: int, *, wanted: Callable[[int], bool]
) -> Compared:
    """Compare an endpoint's sampled predictions with `start` <= as_of < `end` whose step (µs) is `wanted`.

    A bundle that cannot be computed again is told, and its predictions are counted as such. Raises Unavailable.
    """
    compared = Compared()
    findings: dict[tuple[Digest, Stratum], Findings] = {}
    for table in _tables(log, endpoint, start, end, wanted):
        for step, rows in zip(*np.unique(_steps(table), return_counts=True), strict=True):
            compared.steps[int(step)] = compared.steps.get(int(step), 0) + int(rows)
        for digest, part in by_bundle(table):
            try:
                _compare(checker, digest, part, findings, compared)
            except (NotFound, InvalidDefinition) as error:
                compared.unchecked[digest] = error.message
                _count_all(compared, digest, part, Level.UNCHECKED, 1)
    examples = {}
    for (digest, stratum), found in findings.items():
        compared.tally.update(found.tally(digest, stratum))
        for view, cause, told in found.examples():  # one that is in both samples is one example
            same = digest, view, cause, told["prediction_id"], told.get("column")
            examples[same] = digest, view, cause.value, told
    compared.examples = list(examples.values())
    return compared


def _compare(
    checker: Checker,
    digest: Digest,
    part: Any,
    findings: dict[tuple[Digest, Stratum], Findings],
    compared: Compared,
) -> None:
    checked, contract = checker.check(digest, part)
    for stratum, rows in _strata(part):
        if rows.any():
            findings.setdefault((digest, stratum), Findings()).add(checked_rows(checked, rows), contract)
    lost = checker.not_comparable.get(digest, ())
    if lost:
        _count_all(compared, digest, part, Level.NOT_COMPARABLE, len(lost))


def _count_all(compared: Compared, digest: Digest, part: Any, level: Level, units: int) -> None:
    """Count `units` of each prediction that were not compared."""
    for stratum, rows in _strata(part):
        number = int(np.count_nonzero(rows)) * units
        if number:
            key = TallyKey(digest, stratum, level)
            known = compared.tally.get(key, Count(0, 0))
            compared.tally[key] = known.plus(Count(number, number))


def _strata(table: Any) -> Iterator[tuple[Stratum, Mask]]:
    """Which rows (rows,) each sample has."""
    names = pa.array(SAMPLES[1:], pa.string())
    codes = pc.index_in(table.column(SAMPLED).cast(pa.string()), value_set=names).fill_null(-1).to_numpy() + 1
    for stratum, bit in _STRATA:
        yield stratum, np.asarray(codes & int(bit) > 0, dtype=np.bool_)


def _tables(log: LogReader, endpoint: str, start: int, end: int, wanted: Callable[[int], bool]) -> Iterator[Any]:
    batches = log.prediction_batches(endpoint, start, end, rows=PARITY_CHUNK_ROWS, apart=True, sampled=True)
    for table in batches:
        rows = answered(table)
        kept = [wanted(int(step)) for step in _steps(rows).tolist()]
        found = rows.filter(pa.array(kept, pa.bool_()))
        if found.num_rows:
            yield found


def _steps(table: Any) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The step (rows,) of each row, in µs."""
    moments = table.column("as_of").cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()).to_numpy()
    return np.asarray(moments - moments % STEP_US, dtype=np.int64)
