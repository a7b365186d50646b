"""Counts that the drift monitor keeps, read back in the bins of their bundle."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from skewless.adapters.drift_log_counts import count_log
from skewless.adapters.log_reader import LogReader
from skewless.bundles.bundle import Bundle
from skewless.drift.tally_form import unpacked
from skewless.drift.traffic import ALL
from skewless.drift.watched_bundle import WatchedBundle
from skewless.errors import InvalidDefinition
from skewless.monitors.window_report import Window
from skewless.registry.drift_records import DriftKey, DriftRecords, StoredTally
from skewless.statistics.baseline import Baseline
from skewless.statistics.tally import TallyLayout
from skewless.timestamps import HOUR_US

Spans = Sequence[tuple[int, int]]


class Counts(Protocol):
    """Counts of one bundle in one role, wherever they come from."""

    key: DriftKey
    baseline: Baseline
    layout: TallyLayout

    def own(self, start_us: int, end_us: int) -> Mapping[str, Sequence[Window]]:
        """By slice, the windows of what the bundle itself answered."""

    def within(self, spans: Spans) -> Mapping[str, Sequence[Window]]:
        """By slice, the windows of several spans, with rows of other bundles that were counted for its history."""

    def late_rows(self, start_us: int, end_us: int) -> int:
        """Rows that came when their window was sealed."""


class CountedTraffic:
    """What was counted of one bundle in one role."""

    def __init__(self, records: DriftRecords, key: DriftKey, baseline: Baseline) -> None:
        self.key = key
        self.baseline = baseline
        self.layout = baseline.counter().layout
        self._records = records

    def windows(
        self, start_us: int | None, end_us: int | None, *, of_slice: str | None = None, own_only: bool = False
    ) -> Mapping[str, Sequence[Window]]:
        """By slice (None: every one), windows that begin in the time, in its order.

        `own_only` leaves rows of other bundles out, which were counted in this one's bins for its history. Raises
        InvalidDefinition for counts in other bins.
        """
        found: dict[str, list[Window]] = {}
        for stored in self.stored(start_us, end_us, of_slice=of_slice):
            if not (own_only and stored.recounted):
                tally = unpacked(self.layout, stored.counts)
                found.setdefault(stored.slice, []).append(Window(stored.start_us, stored.window_us, tally))
        return found

    def own(self, start_us: int, end_us: int) -> Mapping[str, Sequence[Window]]:
        """By slice, the windows of what the bundle itself answered."""
        return self.windows(start_us, end_us, own_only=True)

    def within(self, spans: Spans) -> Mapping[str, Sequence[Window]]:
        """As `windows`, of several spans of time, rows of other bundles included."""
        found: dict[str, list[Window]] = {}
        for start_us, end_us in spans:
            for name, windows in self.windows(start_us, end_us).items():
                found.setdefault(name, []).extend(windows)
        return found

    def late_rows(self, start_us: int, end_us: int) -> int:
        """Rows that came when their window was sealed."""
        return sum(each.late_rows for each in self.stored(start_us, end_us, of_slice=""))

    def stored(self, start_us: int | None, end_us: int | None, *, of_slice: str | None) -> Sequence[StoredTally]:
        """The counts as they are kept. Raises InvalidDefinition for those of other bins."""
        stored = self._records.tallies(self.key, of_slice=of_slice, start=start_us, end=end_us)
        if other := next((each for each in stored if each.layout != self.layout.digest), None):
            raise InvalidDefinition(
                f"window {other.start_us} of bundle {self.key.bundle[:12]} was counted in bins {other.layout[:12]}, and"
                f" its baseline has {self.layout.digest[:12]}",
                hint="it was counted by another version; `skewless drift backfill` counts it anew",
            )
        return stored


class LoggedTraffic:
    """The same counts made of the log's own rows, by the hour and without slices, where the monitor keeps none."""

    def __init__(self, log: LogReader, key: DriftKey, bundle: Bundle) -> None:
        self.key = key
        self.baseline = bundle.baseline
        self._watched = WatchedBundle(bundle.digest, bundle.contract, bundle.baseline, tuple(bundle.signature.outputs))
        self.layout = self._watched.layout
        self._log = log

    def own(self, start_us: int, end_us: int) -> Mapping[str, Sequence[Window]]:
        """By slice, the windows of what the bundle itself answered. Raises InvalidRequest for too many rows."""
        return self.within([(start_us, end_us)])

    def within(self, spans: Spans) -> Mapping[str, Sequence[Window]]:
        """The windows of several spans. Raises InvalidRequest for too many rows."""
        found = count_log(self._log, self.key.endpoint, self._watched, self.key.role, spans, window_us=HOUR_US)
        return {ALL: [Window(start_us, HOUR_US, tally) for _, start_us, tally in found]}

    def late_rows(self, _start_us: int, _end_us: int) -> int:
        """Nothing is late here."""
        return 0
