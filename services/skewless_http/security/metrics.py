"""What the door counts. No label names a caller that the operator did not name: subjects of tokens are without end."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge

from skewless_http.security.callers import Caller


class SecurityMetrics:
    """Metrics of authentication. Known credentials are not counted here: requests are, elsewhere."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._authenticated = Counter(
            "skewless_authentications_total",
            "Callers that had to be looked up or verified, by kind of credential",
            ["kind"],
            registry=registry,
        )
        self._refused = Counter(
            "skewless_refused_callers_total",
            "Requests refused for who asks, what they ask or how often, by error code",
            ["code"],
            registry=registry,
        )
        self._registry = registry

    def authenticated(self, caller: Caller) -> None:
        """Count a caller that was not known before."""
        self._authenticated.labels(caller.id.partition(":")[0]).inc()

    def refused(self, code: str) -> None:
        """Count a refusal."""
        self._refused.labels(code).inc()

    def watch_keys(self, age_s: Callable[[], float]) -> None:
        """Show how old what is known of the API keys is, whenever metrics are read."""
        self._show("skewless_api_keys_age_seconds", "Seconds since the registry last told the API keys", age_s)

    def watch_provider(self, age_s: Callable[[], float]) -> None:
        """The same of the identity provider's keys."""
        name = "skewless_identity_provider_keys_age_seconds"
        self._show(name, "Seconds since the identity provider last told its keys", age_s)

    def watch_certificate(self, left_s: Callable[[], float]) -> None:
        """Show how long the gateway's own certificate is still valid."""
        name = "skewless_certificate_expiry_seconds"
        self._show(name, "Seconds until the gateway's certificate expires", left_s)

    def _show(self, name: str, what: str, ask: Callable[[], float]) -> None:
        Gauge(name, what, registry=self._registry).set_function(ask)
