"""Settings of what a gateway tells of its requests beside metrics: traces, and lines of its log."""

from enum import StrEnum
from typing import Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings

from skewless.settings import GATEWAY_PREFIX

TRACE_VARIABLE = f"{GATEWAY_PREFIX}TRACE_ENDPOINT"


class LogFormat(StrEnum):
    """How a line of the log is written."""

    JSON = "json"
    TEXT = "text"


class TelemetrySettings(BaseSettings):
    """Part of the gateway's settings; the prefix is theirs."""

    log_format: LogFormat = Field(LogFormat.JSON, description="How log lines are written: `json` or `text`.")
    access_log_one_in: int = Field(
        100, ge=0, le=1_000_000,
        description="One in so many requests gets a line in the log, beside errors and slow ones; 0 for none.",
    )  # fmt: skip
    access_log_slow_ms: int = Field(
        250, ge=1, le=600_000, description="Milliseconds from which on a request is slow, and always gets a line."
    )
    trace_endpoint: str | None = Field(
        None,
        description="URL of a collector that takes OTLP over HTTP, such as http://collector:4318/v1/traces; "
        "no request is traced where not given.",
    )
    trace_ratio: float = Field(
        0.01, ge=0, le=1,
        description="Share of requests that are traced where their caller has no trace; else the caller's decides.",
    )  # fmt: skip

    @model_validator(mode="after")
    def _collector_is_an_address(self) -> Self:
        if self.trace_endpoint is None:
            return self
        parts = urlsplit(self.trace_endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password:
            raise ValueError(
                f"{TRACE_VARIABLE} is no address of a collector. Allowed: an http:// or https:// URL, "
                "without user and password; OTEL_EXPORTER_OTLP_HEADERS has a credential"
            )
        return self
