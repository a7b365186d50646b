"""Metrics of what is away, and of what was answered all the same."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from skewless.serving.circuit import CircuitState
from skewless.serving.records import AnsweredBatch
from skewless.serving.replicas import PoolCounts, ReplicaState

_STORE = "online_store"


class RungMetrics(Collector):
    """On which rung of its ladder each endpoint answers, in plain numbers: every request counts here."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._answers: dict[tuple[str, str], int] = {}
        self._rows: dict[tuple[str, str], int] = {}
        registry.register(self)

    def answered(self, batches: Iterable[AnsweredBatch]) -> None:
        """Count what the bundles of one request answered."""
        for batch in batches:
            key = batch.endpoint, batch.rung
            self._answers[key] = self._answers.get(key, 0) + 1
            self._rows[key] = self._rows.get(key, 0) + len(batch.prediction_ids)

    def collect(self) -> Iterator[Metric]:
        """Both counters, with a series for each endpoint and rung that has answered."""
        for name, help_text, counts in (
            (
                "skewless_rungs",
                "Answers by endpoint and rung of the degrade ladder; a bundle's part of a split request is one.",
                self._answers,
            ),
            ("skewless_rung_rows", "Answered instances by endpoint and rung.", self._rows),
        ):
            family = CounterMetricFamily(name, help_text, labels=("endpoint", "rung"))
            for labels, count in counts.items():
                family.add_metric(labels, count)
            yield family


@dataclass(frozen=True, slots=True)
class Watched:
    """What is read when the metrics are; each is asked anew every time."""

    store: Callable[[], tuple[CircuitState, int]]
    """State of the online store's circuit, and how often it has opened."""
    replicas: Callable[[], Sequence[ReplicaState]]
    pool: Callable[[], PoolCounts]
    models_here: Callable[[], int]


class PartMetrics(Collector):
    """Reads circuits and replicas when it is scraped, so that counting costs a request nothing."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._watched: Watched | None = None
        registry.register(self)

    def watch(self, watched: Watched) -> None:
        """Tell these parts from now on."""
        self._watched = watched

    def collect(self) -> Iterator[Metric]:
        """Every metric, with the values of now; without parts, their names alone."""
        watched = self._watched
        replicas = watched.replicas() if watched is not None else ()
        circuits = [(each.name, each.circuit, each.openings) for each in replicas]
        if watched is not None:
            circuits.insert(0, (_STORE, *watched.store()))
        yield _family(
            GaugeMetricFamily(
                "skewless_circuit_open", "Whether a part is left alone because it did not answer.", labels=("part",)
            ),
            {part: state is not CircuitState.CLOSED for part, state, _ in circuits},
        )
        yield _family(
            CounterMetricFamily(
                "skewless_circuit_openings", "How often a part was given up after failures in a row.", labels=("part",)
            ),
            {part: openings for part, _, openings in circuits},
        )
        yield from _replica_metrics(replicas)
        yield from _pool_metrics(watched.pool() if watched is not None else PoolCounts())
        yield GaugeMetricFamily(
            "skewless_models_in_process",
            "Models that this process can run itself.",
            value=watched.models_here() if watched is not None else 0,
        )


def _replica_metrics(replicas: Sequence[ReplicaState]) -> Iterator[Metric]:
    label = ("replica",)
    yield _family(
        GaugeMetricFamily(
            "skewless_replica_up",
            "Whether a model server is asked in its turn: it answers, and does well.",
            labels=label,
        ),
        {each.name: each.answers for each in replicas},
    )
    yield _family(
        GaugeMetricFamily("skewless_replica_rows_in_flight", "Rows that a model server computes now.", labels=label),
        {each.name: each.rows for each in replicas},
    )
    yield _family(
        GaugeMetricFamily("skewless_replica_models", "Models that a model server has ready.", labels=label),
        {each.name: len(each.models) for each in replicas},
    )


def _pool_metrics(counts: PoolCounts) -> Iterator[Metric]:
    for name, help_text, value in (
        ("skewless_model_retries", "Model calls asked of another server after one that failed.", counts.retries),
        ("skewless_model_hedges", "Model calls doubled because they took unusually long.", counts.hedges),
        ("skewless_model_hedges_won", "Doubled model calls that the second server answered first.", counts.hedges_won),
        (
            "skewless_model_reloads",
            "How often a server loaded a model anew because it refused every call of it.",
            counts.reloads,
        ),
        ("skewless_replica_ejections", "How often a server was left alone for doing worse.", counts.ejections),
    ):
        yield CounterMetricFamily(name, help_text, value=value)


def _family(
    family: GaugeMetricFamily | CounterMetricFamily, values: dict[str, bool | int]
) -> GaugeMetricFamily | CounterMetricFamily:
    for label, value in values.items():
        family.add_metric((label,), value)
    return family
