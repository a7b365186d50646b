"""What gRPC calls do, as Prometheus counts it."""

from prometheus_client import CollectorRegistry, Counter


class GrpcMetrics:
    """Counts calls. Methods and codes are few, and only endpoints in service become labels."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.calls = Counter(
            "skewless_grpc_calls",
            "gRPC calls by method, endpoint (empty where the call named none that is known) and status code; each "
            "request of a stream counts.",
            ("method", "endpoint", "code"),
            registry=registry,
        )
