"""What batch bodies do, as Prometheus counts it."""

from prometheus_client import CollectorRegistry, Counter, Gauge


class BatchMetrics:
    """Counts bodies and rows of the batch route. Only endpoints in service become labels."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.open = Gauge("skewless_batches_open", "Batch bodies being answered.", registry=registry)
        self.ended = Counter(
            "skewless_batches",
            "Batch bodies by endpoint and how they ended: `complete`, `incomplete` (an error ended it) or `gone` (its "
            "caller did).",
            ("endpoint", "outcome"),
            registry=registry,
        )
        self.failed_rows = Counter(
            "skewless_batch_failed_rows",
            "Rows of batch bodies that were answered by an error record.",
            ("endpoint",),
            registry=registry,
        )
        self.retries = Counter(
            "skewless_batch_retries",
            "Chunks of batch bodies tried again because there was no room for them, or a part was away.",
            ("endpoint",),
            registry=registry,
        )
