"""What the prediction log says about a rollout: tallies of roles, and outcomes beside the predictions they are about.

Files are chosen by name before they are opened. A segment's name begins with the moment at which it was begun, and it
is sealed a minute later or when it is full; outcomes and predictions are joined by id, whose time says in which files
the prediction can be.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from operator import itemgetter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from skewless.adapters.prediction_log import SPOOL
from skewless.adapters.prediction_parquet import OUTCOMES, PREDICTIONS, TALLIES, read_table
from skewless.adapters.spool import SUFFIX, read_frames
from skewless.canonical_json import Digest
from skewless.errors import InvalidDefinition
from skewless.rollout.routes import Role
from skewless.serving.records import AnsweredBatch, LogEntry, TallyBatch, decode
from skewless.serving.role_tally import RoleTally
from skewless.serving.scored_outcome import ScoredOutcome, prediction_time
from skewless.timestamps import HOUR_US, SECOND_US, Micros

_SEGMENT_SPAN_US = HOUR_US
"""More than the time from a segment's first record to its last, also where sealing was late."""
_CLOCKS_APART_US = 60 * SECOND_US
"""Gateways on several machines."""
_PREDICTION_COLUMNS = ("prediction_id", "label", "role", "bundle_digest", "experiment", "arm")


class LogEvidence:
    """Implements `Evidence` on the folder of a prediction log."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def tallies(self, endpoint: str, start: Micros, end: Micros) -> list[RoleTally]:
        """See `Evidence.tallies`."""
        entries, spooled = self._spooled()
        documents = [each for entry in entries if isinstance(entry, TallyBatch) for each in entry.documents]
        for path in self._files(f"{TALLIES}/day=*/*.parquet", start, end):
            if path.stem not in spooled:
                table = read_table(path)
                own = table.filter(pc.equal(table.column("endpoint"), endpoint))
                documents += map(json.loads, own.column("tally").to_pylist())
        wanted = (each for each in documents if each["endpoint"] == endpoint)
        within = (each for each in wanted if start <= each["start"] and each["end"] <= end)
        return sorted(_tallies(within), key=lambda each: each.end)

    def outcomes(self, endpoint: str, start: Micros, end: Micros) -> list[ScoredOutcome]:
        """See `Evidence.outcomes`."""
        entries, spooled = self._spooled()
        received: list[tuple[Micros, str, str]] = []
        for entry in entries:
            if isinstance(entry, tuple):
                received += [(Micros(each.received_time), each.prediction_id, each.label) for each in entry]
        for path in self._files(f"{OUTCOMES}/day=*/*.parquet", start, end):
            if path.stem not in spooled:
                received += _received(read_table(path))
        labels = _last_labels(each for each in received if start <= each[0] < end)
        return self._scored(endpoint, labels, entries, spooled)

    def outcome_segments(
        self, endpoint: str, *, since: Micros, known: frozenset[str]
    ) -> Iterator[tuple[str, list[ScoredOutcome]]]:
        """See `Evidence.outcome_segments`."""
        paths: dict[str, list[Path]] = {}
        for path in self._files(f"{OUTCOMES}/day=*/*.parquet", since, None):
            paths.setdefault(path.stem, []).append(path)
        entries, spooled = self._spooled()
        earlier = [each for segment in sorted(paths.keys() & known) for each in paths[segment]]
        for segment in sorted(paths.keys() - known - spooled):
            labels = _last_labels(each for path in paths[segment] for each in _received(read_table(path)))
            for prediction_id in _mentioned(earlier, labels):
                del labels[prediction_id]
            earlier += paths[segment]
            yield segment, self._scored(endpoint, labels, entries, spooled)

    def _spooled(self) -> tuple[list[LogEntry], frozenset[str]]:
        """Entries that are not sealed yet, and their segments; these count in place of any Parquet files of theirs."""
        entries: list[LogEntry] = []
        segments: set[str] = set()
        for path in sorted((self._folder / SPOOL).glob(f"*{SUFFIX}")):
            try:
                frames = read_frames(path)
            except FileNotFoundError:
                continue
            segments.add(path.stem)
            entries += map(decode, frames)
        return entries, frozenset(segments)

    def _files(self, pattern: str, start: Micros, end: Micros | None) -> list[Path]:
        """Files of segments that can hold records from `start` to `end`, in order of their beginning."""
        first = start - _SEGMENT_SPAN_US
        paths = [path for path in self._folder.glob(pattern) if _begun(path) >= first]
        if end is not None:
            paths = [path for path in paths if _begun(path) <= end + _CLOCKS_APART_US]
        return sorted(paths, key=lambda path: path.name)

    def _scored(
        self, endpoint: str, labels: dict[str, str], entries: Sequence[LogEntry], spooled: frozenset[str]
    ) -> list[ScoredOutcome]:
        """Outcomes (label by prediction id) beside their predictions; those of other endpoints are left out."""
        if not labels:
            return []
        found: dict[str, ScoredOutcome] = {}
        for entry in entries:
            if isinstance(entry, AnsweredBatch) and entry.endpoint == endpoint:
                for prediction_id, predicted in zip(entry.prediction_ids, entry.labels, strict=True):
                    if prediction_id in labels:
                        found[prediction_id] = _of_batch(entry, prediction_id, predicted, labels[prediction_id])
        made = [prediction_time(each) for each in labels]
        wanted = pa.array(labels, pa.string())
        pattern = f"{PREDICTIONS}/day=*/endpoint={endpoint}/*.parquet"
        for path in self._files(pattern, Micros(min(made) - _CLOCKS_APART_US), Micros(max(made))):
            if path.stem.split("-", 1)[0] in spooled:
                continue
            table = read_table(path, columns=_PREDICTION_COLUMNS)
            rows = table.filter(pc.is_in(table.column("prediction_id"), value_set=wanted)).to_pylist()
            found |= {row["prediction_id"]: _of_row(row, labels[row["prediction_id"]]) for row in rows}
        return list(found.values())


def _tallies(documents: Iterable[Mapping[str, Any]]) -> Iterator[RoleTally]:
    """The tallies that this version understands; what a gateway of another version counts is not mixed in."""
    for document in documents:
        with suppress(InvalidDefinition, KeyError, TypeError, ValueError):
            yield RoleTally.from_json(document)


def _begun(path: Path) -> int:
    """When a segment was begun (µs), which its name begins with."""
    try:
        return int(path.name[:14], 16)
    except ValueError:
        return 0


def _received(table: Any) -> Iterable[tuple[Micros, str, str]]:
    times = table.column("received_time").cast(pa.int64()).to_pylist()
    return zip(times, table.column("prediction_id").to_pylist(), table.column("label").to_pylist(), strict=True)


def _last_labels(received: Iterable[tuple[Micros, str, str]]) -> dict[str, str]:
    """Label by prediction; of two outcomes of one prediction the later received, or the later written, stays."""
    return {prediction_id: label for _, prediction_id, label in sorted(received, key=itemgetter(0))}


def _mentioned(paths: Iterable[Path], labels: dict[str, str]) -> set[str]:
    """Those predictions that one of the files has an outcome for."""
    wanted = pa.array(labels, pa.string())
    found: set[str] = set()
    for path in paths:
        ids = read_table(path, columns=["prediction_id"]).column("prediction_id")
        found.update(ids.filter(pc.is_in(ids, value_set=wanted)).to_pylist())
    return found


def _of_batch(batch: AnsweredBatch, prediction_id: str, predicted: str, outcome: str) -> ScoredOutcome:
    return ScoredOutcome(
        prediction_id,
        outcome,
        predicted,
        Role(batch.role),
        batch.bundle,
        batch.experiment,
        batch.arm,
        prediction_time(prediction_id),
    )


def _of_row(row: dict[str, Any], outcome: str) -> ScoredOutcome:
    return ScoredOutcome(
        row["prediction_id"],
        outcome,
        row["label"],
        Role(row["role"]),
        Digest(row["bundle_digest"]),
        row.get("experiment") or "",
        row.get("arm") or "",
        prediction_time(row["prediction_id"]),
    )
