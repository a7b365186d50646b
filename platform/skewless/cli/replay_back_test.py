"""Recorded traffic scored by another bundle, in several processes, and compared with what was answered."""

import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from skewless.adapters.recorded_rows import by_bundle, from_bytes, not_kept, recorded_rows
from skewless.adapters.recorded_traffic import OUTCOME
from skewless.bundles.bundle import Bundle
from skewless.canonical_json import Digest
from skewless.cli.replay_bulk import CheckChunk, chunks_of
from skewless.cli.replay_bundles import ReplayBundles, model_of, opened_bundle
from skewless.cli.replay_processes import in_order
from skewless.dtypes import TABLE, Column, Dtype
from skewless.errors import InvalidRequest
from skewless.features.contract import FeatureContract
from skewless.features.frame import FeatureFrame
from skewless.replays.back_test import (
    NEGATIVE,
    NO_OUTCOME,
    OTHER_OUTCOME,
    POSITIVE,
    BackTest,
    BackTestResult,
    ScoredRows,
)
from skewless.replays.other_bundle import OtherBundle
from skewless.replays.slice_codes import SliceCodes

if TYPE_CHECKING:
    from skewless.adapters.duckdb_point_in_time import DuckDBOffline, OfflineSession

Progress = Callable[[int], None]
"""Told how many predictions have been scored so far."""


@dataclass(frozen=True, slots=True)
class OtherSource:
    """What every process of a back-test opens: the other bundle, and the offline store where it may fill."""

    digest: Digest
    folder: Path
    packages: frozenset[str]
    offline: "DuckDBOffline | None" = None

    def open(self) -> OtherBundle:
        """The bundle, ready to score. Raises InvalidDefinition where its model cannot be run here."""
        bundle = opened_bundle(self.folder, self.digest, self.packages)
        offline = None if self.offline is None else _KeptSessions(self.offline)
        return OtherBundle(bundle, model_of(bundle), load=importlib.import_module, offline=offline)


@dataclass(slots=True)
class _KeptSessions:
    """The offline store by sessions, one per contract, which make a view's timeline once and not for every chunk."""

    offline: "DuckDBOffline"
    sessions: "dict[Digest, OfflineSession]" = field(default_factory=dict)
    kept: ExitStack = field(default_factory=ExitStack)

    def features_at(
        self, contract: FeatureContract, keys: Mapping[str, Column], as_of: NDArray[np.int64]
    ) -> FeatureFrame:
        """See `parity.recompute.PointInTime`."""
        from skewless.adapters.duckdb_point_in_time import OfflineSession

        if contract.digest not in self.sessions:
            session = OfflineSession(contract, self.offline.sources)
            self.sessions[contract.digest] = self.kept.enter_context(session)
        return self.sessions[contract.digest].features_at(keys, as_of)


class BackTestWorker:
    """Scores chunks; keeps the bundles that it has opened."""

    def __init__(self, source: OtherSource, slices: Sequence[str]) -> None:
        self._packages = source.packages
        self._slices = slices
        self._other = source.open()
        self._answered_by: dict[Digest, Bundle] = {}

    def __call__(self, chunk: CheckChunk) -> ScoredRows:
        """The rows of a chunk, in its order, as they were answered and as the other bundle scores them."""
        table = from_bytes(chunk.data)
        rows = table.num_rows
        other, positive = np.full(rows, np.nan, dtype=np.float32), np.zeros(rows, dtype=np.bool_)
        left_out: list[str] = [""] * rows
        slices: dict[str, Column] = {}
        for digest, places, own in by_bundle(table):
            if digest in chunk.gone:
                for place in places.tolist():
                    left_out[place] = chunk.gone[digest]
                continue
            bundle = self._bundle(chunk.folders[digest], digest)
            plan = self._other.plan(digest, bundle.contract, not_kept(bundle.contract))
            recorded = recorded_rows(own, bundle, {name for name, _ in bundle.contract.columns})
            found = self._other.score(plan, recorded)
            other[places], positive[places] = found.scores, found.positive
            for place, reason in zip(places.tolist(), found.left_out, strict=True):
                left_out[place] = reason
            for name in self._slices:
                _put(slices, name, recorded.columns[name], places, rows)
        labels = self._other.bundle.post.labels
        codes = {None: NO_OUTCOME, labels.negative: NEGATIVE, labels.positive: POSITIVE}
        return ScoredRows(
            prediction_ids=table.column("prediction_id").to_pylist(),
            as_of=table.column("as_of").cast("int64").to_numpy(),
            bundles=table.column("bundle_digest").to_pylist(),
            roles=table.column("role").to_pylist(),
            rungs=table.column("rung").to_pylist(),
            recorded=table.column("probability").to_numpy().astype(np.float32),
            recorded_positive=np.array(
                [each == labels.positive for each in table.column("label").to_pylist()], dtype=np.bool_
            ),
            other=other,
            other_positive=positive,
            outcomes=np.array(
                [codes.get(each, OTHER_OUTCOME) for each in table.column(OUTCOME).to_pylist()], dtype=np.int8
            ),
            left_out=left_out,
            slices={name: slices.get(name, _nothing(rows)) for name in self._slices},
        )

    def _bundle(self, folder: Path, digest: Digest) -> Bundle:
        if digest not in self._answered_by:
            self._answered_by[digest] = opened_bundle(folder, digest, self._packages)
        return self._answered_by[digest]


def run_back_test(
    tables: Iterable[Any],
    bundles: ReplayBundles,
    source: OtherSource,
    slices: Sequence[SliceCodes],
    *,
    processes: int,
    each: Callable[[ScoredRows], None],
) -> BackTestResult:
    """Score tables of the log with another bundle. `each` is given the rows of every chunk, in order.

    Raises InvalidRequest where the bundle reads what nobody can tell, or answers another question.
    """
    found = BackTest(slices)
    names = tuple(one.name for one in slices)
    chunks = _checked(chunks_of(tables, bundles), source, names)
    for rows in in_order(partial(BackTestWorker, source, names), chunks, processes=processes):
        found.add(rows)
        each(rows)
    return found.result()


def _checked(chunks: Iterable[CheckChunk], source: OtherSource, slices: Sequence[str]) -> Iterator[CheckChunk]:
    """The chunks, each bundle of which was looked at here first: what refuses a back-test is told at once, once."""
    other = source.open()
    seen: set[Digest] = set()
    for chunk in chunks:
        for digest in chunk.folders.keys() - seen:
            seen.add(digest)
            bundle = opened_bundle(chunk.folders[digest], digest, source.packages)
            lost = not_kept(bundle.contract)
            _require_same_question(other.bundle, bundle)
            _require_slices(bundle, slices, lost)
            other.plan(digest, bundle.contract, lost)
        yield chunk


def _require_same_question(other: Bundle, recorded: Bundle) -> None:
    ours, theirs = other.post.labels, recorded.post.labels
    if (ours.negative, ours.positive) != (theirs.negative, theirs.positive):
        raise InvalidRequest(
            f"bundle {other.digest[:12]} answers `{ours.negative}` or `{ours.positive}`, bundle {recorded.digest[:12]}"
            f" answered `{theirs.negative}` or `{theirs.positive}`: they answer different questions",
            path="--bundle",
            allowed="a bundle with the same two labels",
        )


def _require_slices(recorded: Bundle, slices: Sequence[str], lost: Mapping[str, str]) -> None:
    known = dict(recorded.contract.columns)
    for name in slices:
        if name not in known or name in lost:
            raise InvalidRequest(
                f"the records of bundle {recorded.digest[:12]} have no column `{name}`"
                + (f": {lost[name]}" if name in lost else ""),
                path="--slice",
                allowed=", ".join(f"`{each}`" for each in known if each not in lost),
            )


def _put(slices: dict[str, Column], name: str, column: Column, places: NDArray[np.intp], rows: int) -> None:
    """Put a bundle's values of a slice's column where its rows are."""
    if name not in slices:
        values = np.full(rows, TABLE[column.dtype].zero, dtype=TABLE[column.dtype].numpy)
        slices[name] = Column(column.dtype, values, np.zeros(rows, dtype=np.bool_))
    whole = slices[name]
    whole.values[places], whole.valid[places] = column.values, column.valid


def _nothing(rows: int) -> Column:
    """A column of a chunk whose bundles are all gone; none of its rows is looked at."""
    return Column(Dtype.BOOL, np.zeros(rows, dtype=np.bool_), np.zeros(rows, dtype=np.bool_))
