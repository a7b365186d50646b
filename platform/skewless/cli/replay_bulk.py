"""Recomputing many logged predictions: chunk by chunk, those of one bundle at once, in several processes."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from skewless.adapters.recorded_rows import bundles_of, by_bundle, from_bytes, recorded_rows, to_bytes
from skewless.bundles.serving_profile import Target
from skewless.canonical_json import Digest
from skewless.cli.replay_bundles import ReplayBundles, opened_bundle, rechecker
from skewless.cli.replay_processes import in_order
from skewless.replays.recheck import Difference, Recheck, Rechecker, Verdict


@dataclass(frozen=True, slots=True)
class CheckChunk:
    """Rows of the log as an Arrow stream, and where the bundles of them lie, or why one is gone."""

    data: bytes
    folders: Mapping[Digest, Path]
    gone: Mapping[Digest, str]


@dataclass(slots=True)
class BulkCheck:
    """What recomputing many predictions came to. Adding two up gives what all of their rows came to."""

    verdicts: Counter[Verdict] = field(default_factory=Counter)
    bundles: Counter[str] = field(default_factory=Counter)
    not_decided: Counter[str] = field(default_factory=Counter)
    differences: list[Difference] = field(default_factory=list)
    """The first ones, in order of the log."""

    @property
    def rows(self) -> int:
        """Predictions looked at."""
        return self.verdicts.total()

    def add(self, other: "BulkCheck", *, told_max: int) -> None:
        """Take another's counts, and of its differences as many as are told."""
        self.verdicts += other.verdicts
        self.bundles += other.bundles
        self.not_decided += other.not_decided
        self.differences += other.differences[: max(0, told_max - len(self.differences))]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "rows": self.rows,
            "verdicts": {str(each): self.verdicts[each] for each in Verdict},
            "bundles": dict(sorted(self.bundles.items())),
            "not_decided": dict(self.not_decided.most_common()),
            "differences": [each.to_json() for each in self.differences],
        }


class CheckWorker:
    """Recomputes chunks; keeps the bundles that it has opened."""

    def __init__(self, *, target: Target, packages: frozenset[str], told_max: int) -> None:
        self._target = target
        self._packages = packages
        self._told_max = told_max
        self._recheckers: dict[Digest, Rechecker] = {}

    def __call__(self, chunk: CheckChunk) -> BulkCheck:
        """What the rows of a chunk come to."""
        table = from_bytes(chunk.data)
        found = BulkCheck()
        told: list[tuple[int, Difference]] = []
        for digest, places, rows in by_bundle(table):
            found.bundles[digest] += len(places)
            if digest in chunk.gone:
                found.verdicts[Verdict.NOT_DECIDED] += len(places)
                found.not_decided[chunk.gone[digest]] += len(places)
                continue
            result, differing = self._recheck(chunk.folders[digest], digest, rows)
            found.verdicts += result.counts
            if undecided := result.counts[Verdict.NOT_DECIDED]:
                found.not_decided[result.not_decided] += undecided
            told += zip(places[differing].tolist(), result.differences, strict=False)
        found.differences = [difference for _, difference in sorted(told, key=lambda each: each[0])][: self._told_max]
        return found

    def _recheck(self, folder: Path, digest: Digest, rows: Any) -> tuple[Recheck, list[int]]:
        """The result, and the places of the rows that differ."""
        if digest not in self._recheckers:
            self._recheckers[digest] = rechecker(opened_bundle(folder, digest, self._packages), self._target)
        own = self._recheckers[digest]
        inputs = (name for name, _ in own.bundle.transform.inputs)
        result = own.recheck(recorded_rows(rows, own.bundle, inputs), told_max=self._told_max)
        return result, [row for row, verdict in enumerate(result.verdicts) if verdict is Verdict.DIFFERENT]


def chunks_of(tables: Iterable[Any], bundles: ReplayBundles) -> Iterator[CheckChunk]:
    """Tables of the log as chunks of work."""
    for table in tables:
        digests = bundles_of(table)
        found = {digest: bundles.folder(digest) for digest in digests}
        yield CheckChunk(
            to_bytes(table),
            {digest: folder for digest, folder in found.items() if folder is not None},
            {digest: bundles.gone[digest] for digest, folder in found.items() if folder is None},
        )


def check_all(
    tables: Iterable[Any],
    bundles: ReplayBundles,
    *,
    target: Target,
    packages: frozenset[str],
    processes: int,
    told_max: int,
) -> Iterator[BulkCheck]:
    """What each table of the log comes to, in order; their sum, by `BulkCheck.add`, is the result."""
    make = partial(CheckWorker, target=target, packages=packages, told_max=told_max)
    return in_order(make, chunks_of(tables, bundles), processes=processes)
