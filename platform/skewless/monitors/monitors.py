"""What the monitors found, as programs ask it."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Self

from skewless.adapters.artifact_opening import open_artifact_store
from skewless.adapters.monitor_rows import MonitorRows
from skewless.adapters.step_loader import TransformSteps
from skewless.bundles.artifact_store import ArtifactStore
from skewless.bundles.bundle import Bundle, LoadSteps, load_bundle
from skewless.canonical_json import Digest
from skewless.errors import InvalidRequest
from skewless.monitors.counted import CountedTraffic
from skewless.monitors.drift_rows import (
    DriftAlarmRow,
    DriftFeature,
    DriftReading,
    UnseenWord,
    alarm_row,
    features_of,
    reading_row,
    word_row,
)
from skewless.monitors.result_rows import ModelMetric, ParityResult, metric_row, parity_row
from skewless.monitors.window_report import Window
from skewless.parity.schedule import Pass
from skewless.registry.database import engine
from skewless.registry.drift_records import DriftKey, DriftRecords
from skewless.registry.model_metrics import ModelMetrics
from skewless.registry.parity_history import ParityHistory
from skewless.settings import Settings, load_settings
from skewless.timestamps import DAY_US, SECOND_US, given_moment

Moment = datetime | str
"""A datetime with a time zone, or RFC 3339 text; a date alone is its UTC midnight."""


def open_monitors(database: str | None = None, *, artifacts: str | None = None) -> "Monitors":
    """The monitors that keep what they find in a registry database (its URL).

    `artifacts` is the address of the artifact store, where the bundles' baselines are. What is not given is that of
    this home, as SKEWLESS_HOME, SKEWLESS_DATABASE_URL and SKEWLESS_ARTIFACTS say. Nothing is read yet. Raises
    InvalidSettings for an address that cannot be used.
    """
    settings = load_settings(Settings)
    store = open_artifact_store(artifacts or settings.artifacts_address, cache=settings.folders.artifact_cache)
    steps = partial(TransformSteps, packages=settings.allowed_step_packages)
    connections = engine(database or settings.registry_url)
    kept = DriftRecords(connections), ModelMetrics(connections), ParityHistory(connections)
    return Monitors(*kept, artifacts=store, steps=steps)


class Monitors:
    """Asks what the monitors found. To be closed, or used as a context; every method raises Unavailable.

    `since` and `until` are moments of the event, the first included and the last not; None: open. `bundle` is a digest
    or its first characters, `role` such as `live`; None: all.
    """

    def __init__(
        self,
        records: DriftRecords,
        metrics: ModelMetrics,
        parity: ParityHistory,
        *,
        artifacts: ArtifactStore,
        steps: LoadSteps,
    ) -> None:
        """All three are of one engine, which is closed with the first."""
        self._records, self._metrics, self._parity = records, metrics, parity
        self._artifacts = artifacts
        self._steps = steps
        self._bundles: dict[Digest, Bundle] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the database."""
        self._records.close()

    @property
    def records(self) -> DriftRecords:
        """What the drift monitor keeps, for programs of this project."""
        return self._records

    def keys(
        self, endpoint: str | None = None, *, bundle: str | None = None, role: str | None = None
    ) -> tuple[DriftKey, ...]:
        """Endpoint, bundle and role of everything that is counted."""
        return tuple(
            each
            for each in self._records.keys(endpoint)
            if role in (None, each.role) and each.bundle.startswith(bundle or "")
        )

    def drift(
        self,
        endpoint: str,
        *,
        since: Moment | None = None,
        until: Moment | None = None,
        slice: str | None = "",  # noqa: A002  # the word that the log, the tables and the metrics have for it
        bundle: str | None = None,
        role: str | None = None,
        every: timedelta = timedelta(hours=1),
    ) -> MonitorRows[DriftFeature]:
        """Each variable beside training, in spans of `every` (1 min to 1 day), of one slice ('': all rows; None: each).

        Takes about 0.3 ms for each row. Raises InvalidRequest for an `every` that does not divide a day.
        """
        length_us = _length_us(every)
        rows: list[DriftFeature] = []
        for key in self.keys(endpoint, bundle=bundle, role=role):
            counted = self.counted(key)
            found = counted.windows(_micros(since), _micros(until), of_slice=slice, own_only=True)
            for name, windows in found.items():
                for together in _spans(windows, length_us):
                    rows += features_of(key, counted.baseline, counted.layout, name, together)
        return MonitorRows(DriftFeature, rows)

    def readings(
        self,
        endpoint: str,
        *,
        since: Moment | None = None,
        until: Moment | None = None,
        bundle: str | None = None,
        role: str | None = None,
    ) -> MonitorRows[DriftReading]:
        """What the detector said of each sealed window, in order of time for each bundle and role."""
        windows = self._records.windows(endpoint, role=role, start=_micros(since), end=_micros(until))
        found = [reading_row(each) for each in windows if each.key.bundle.startswith(bundle or "")]
        return MonitorRows(DriftReading, found)

    def alarms(
        self,
        endpoint: str | None = None,
        *,
        since: Moment | None = None,
        until: Moment | None = None,
        open_only: bool = False,
    ) -> MonitorRows[DriftAlarmRow]:
        """Alarms that were raised within the time, the newest first; of every endpoint for None."""
        found = self._records.alarms(endpoint, start=_micros(since), end=_micros(until), open_only=open_only)
        return MonitorRows(DriftAlarmRow, [alarm_row(each) for each in found])

    def unseen_words(self, endpoint: str, *, bundle: str | None = None) -> MonitorRows[UnseenWord]:
        """Words that training never saw, by feature, the most frequent first."""
        bundles = {each.bundle for each in self.keys(endpoint, bundle=bundle)}
        found = [
            word_row(endpoint, each) for digest in sorted(bundles) for each in self._records.words(endpoint, digest)
        ]
        return MonitorRows(UnseenWord, found)

    def model_metrics(
        self,
        endpoint: str,
        *,
        since: Moment | None = None,
        until: Moment | None = None,
        slice: str | None = "",  # noqa: A002  # as above
        bundle: str = "",
    ) -> MonitorRows[ModelMetric]:
        """What outcomes say about an endpoint's bundles, by period of prediction time; estimates among them.

        `slice` is '' for all rows, `name=value` for one of them, None for each.
        """
        found = self._metrics.metrics(
            endpoint, start=_micros(since), end=_micros(until), slice_called=slice, bundle=bundle
        )
        return MonitorRows(ModelMetric, [metric_row(each) for each in found])

    def parity(
        self,
        endpoint: str,
        *,
        since: Moment | None = None,
        until: Moment | None = None,
        finally_known: bool = False,
    ) -> MonitorRows[ParityResult]:
        """Sampled predictions beside the offline store, by hour, level, view and cause: as known then, or finally."""
        pass_ = Pass.FINALLY if finally_known else Pass.THEN
        found = self._parity.results(endpoint, _micros(since), _micros(until), pass_)
        return MonitorRows(ParityResult, [parity_row(each) for each in found])

    def counted(self, key: DriftKey) -> CountedTraffic:
        """The counts of one bundle in one role. Raises BundleRefused and NotFound where its files are not there."""
        return CountedTraffic(self._records, key, self.bundle(key.bundle).baseline)

    def bundle(self, digest: Digest) -> Bundle:
        """A bundle of the artifact store, loaded and verified once."""
        if digest not in self._bundles:
            self._bundles[digest] = load_bundle(self._artifacts.open(digest), digest, steps=self._steps)
        return self._bundles[digest]


def _spans(windows: Sequence[Window], length_us: int) -> list[list[Window]]:
    """Windows that begin in the same span of a length, in order of time."""
    found: dict[int, list[Window]] = {}
    for each in windows:
        found.setdefault(each.start_us // length_us, []).append(each)
    return [found[place] for place in sorted(found)]


def _length_us(every: timedelta) -> int:
    length_us = every // timedelta(microseconds=1)
    if not 60 * SECOND_US <= length_us <= DAY_US or DAY_US % length_us:
        raise InvalidRequest(
            f"{every} is no length of a span",
            path="every",
            allowed="from 1 minute to 1 day, such that days divide by it",
        )
    return length_us


def _micros(moment: Moment | None) -> int | None:
    return given_moment(moment, path="since, until")
