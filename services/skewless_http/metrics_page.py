"""One registry's metrics as what Prometheus scrapes; apart, because the parent of several workers loads little else."""

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics import exposition


def page_of(registry: CollectorRegistry, *, open_metrics: bool) -> bytes:
    """Every metric of a registry, as Prometheus' text or as OpenMetrics."""
    if not open_metrics:
        return generate_latest(registry)
    page: bytes = exposition.generate_latest(registry)  # type: ignore[no-untyped-call]  # the library has no types
    return page
