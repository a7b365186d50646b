"""Opens what a gateway tells of its requests beside metrics: traces, and lines of its log."""

import os
import socket
import time
from importlib.metadata import version
from importlib.util import find_spec

from prometheus_client import CollectorRegistry

from skewless.errors import InvalidSettings
from skewless_gateway.access_log import AccessLog
from skewless_gateway.telemetry_settings import TRACE_VARIABLE, TelemetrySettings
from skewless_gateway.tracing import Tracing

SERVICE = "skewless-gateway"


def open_tracing(settings: TelemetrySettings, registry: CollectorRegistry) -> Tracing | None:
    """What traces requests, or None where no collector is named; then nothing of OpenTelemetry is loaded.

    Raises InvalidSettings where it is not installed.
    """
    if settings.trace_endpoint is None:
        return None
    if find_spec("opentelemetry") is None or find_spec("opentelemetry.sdk") is None:
        raise InvalidSettings(
            f"{TRACE_VARIABLE} is set, and OpenTelemetry is not installed", hint="install `skewless[gateway,tracing]`"
        )
    from skewless.adapters.otlp_exporter import OtlpExporter

    exporter = OtlpExporter(
        settings.trace_endpoint,
        service=SERVICE,
        instance=f"{socket.gethostname()}:{os.getpid()}",
        version=version("skewless"),
    )
    return Tracing(exporter, ratio=settings.trace_ratio, clock=time.monotonic_ns, registry=registry)


def open_access_log(settings: TelemetrySettings, registry: CollectorRegistry) -> AccessLog:
    """The access log of one process."""
    return AccessLog(
        one_in=settings.access_log_one_in,
        slow_ms=settings.access_log_slow_ms,
        clock=time.monotonic_ns,
        registry=registry,
    )
