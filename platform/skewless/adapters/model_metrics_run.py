"""An endpoint's metrics kept up with one prediction log and one registry: what the monitor and the command line run."""

import json
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace

from skewless.adapters.log_reader import LogReader
from skewless.adapters.model_metrics_log import Counted, LogOutcomes, look_at_outcomes
from skewless.adapters.watched_bundles import WatchedBundles
from skewless.bundles.artifact_store import ArtifactStore
from skewless.bundles.bundle import POST_PROCESSING
from skewless.bundles.post_processing import PostProcessing
from skewless.canonical_json import Digest
from skewless.drift.slicing import slicings_of
from skewless.errors import NotFound
from skewless.model_metrics.compute import Subject, keep_up
from skewless.model_metrics.period_counts import slice_name
from skewless.monitor_limits import MODEL_METRIC_BUNDLES_KNOWN, MODEL_METRIC_PERIODS_AT_ONCE
from skewless.registry.model_metrics import ModelMetrics
from skewless.registry.records import EndpointRecord
from skewless.statistics.variable import Part
from skewless.timestamps import Micros
from skewless.training.definition import BinaryLabels
from skewless.training.slices import NULL, OTHER


class BundleLabels:
    """The labels of bundles, read from their files once; None where an artifact store has no such bundle any more."""

    def __init__(self, artifacts: ArtifactStore) -> None:
        self._artifacts = artifacts
        self._known: dict[Digest, BinaryLabels] = {}

    def __call__(self, bundle: Digest) -> BinaryLabels | None:
        """Raises BundleRefused for files that were changed, Unavailable where the store cannot be read."""
        if bundle not in self._known:
            try:
                folder = self._artifacts.open(bundle)
            except NotFound:
                return None
            post = PostProcessing.from_json(json.loads((folder / POST_PROCESSING).read_bytes()))
            self._known[bundle] = post.labels
        return self._known[bundle]


class ListedSlices:
    """The slices of bundles that training's data names: its listed words and kinds, no matter what callers send."""

    def __init__(self, artifacts: ArtifactStore) -> None:
        self._artifacts = artifacts
        self._known: OrderedDict[tuple[Digest, tuple[str, ...]], frozenset[str]] = OrderedDict()

    def __call__(self, bundle: Digest, columns: tuple[str, ...]) -> frozenset[str]:
        """Names as `model_metrics.period_counts.slice_name` makes them, those of null and of the rest among them.

        None at all where the bundle's files are gone or changed. Raises Unavailable where the store cannot be read.
        """
        key = (bundle, columns)
        if not columns:
            return frozenset()
        if key in self._known:
            self._known.move_to_end(key)
            return self._known[key]
        opened = WatchedBundles(self._artifacts).get(bundle)  # for this once: a baseline is some MiB
        if opened is None:
            return frozenset()
        slicings, _ = slicings_of(opened.of(Part.COLUMN), columns)
        listed = {name for each in slicings for name in each.names}
        listed |= {slice_name(column, part) for column in columns for part in (NULL, OTHER)}
        self._known[key] = frozenset(listed)
        if len(self._known) > MODEL_METRIC_BUNDLES_KNOWN:
            self._known.popitem(last=False)
        return self._known[key]


@dataclass(frozen=True, slots=True)
class Kept:
    """How an endpoint stands after a run: periods computed and still to be computed, when its last prediction was made,
    and when its last outcome was received (µs, None: never). The times are of when something was computed last."""

    computed: int
    waiting: int
    last_prediction: Micros | None
    last_outcome: Micros | None


def keep_endpoint_up(
    record: EndpointRecord,
    log: LogReader,
    store: ModelMetrics,
    labels: BundleLabels,
    *,
    now: Micros,
    periods_max: int = MODEL_METRIC_PERIODS_AT_ONCE,
    rest_us: int = 0,
    before: Kept | None = None,
    counted: Counted | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> Kept:
    """Compute some of the endpoint's periods that have changed; `before` is what was returned last, where known,
    and `counted` what was counted for it.

    Raises as `model_metrics.compute.keep_up`, and BundleRefused for a bundle whose files were changed.
    """
    subject = Subject(record.name, record.monitoring.metrics, record.terms, labels)

    def run(look: LogOutcomes) -> Kept:
        done = keep_up(subject, look, store, now=now, periods_max=periods_max, rest_us=rest_us, stopped=stopped)
        if before is not None and not done.computed:
            return replace(before, computed=0, waiting=done.waiting)
        return Kept(done.computed, done.waiting, look.last_made(subject.policy.period_us), look.last_told())

    return look_at_outcomes(log, record.name, record.terms, run, counted=counted)
