"""Settings of the monitor, read through `settings.load_settings` as all are."""

from pathlib import Path

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from skewless.settings import MONITOR_PREFIX, STEP_PACKAGES, Home, log_store_of

MONITOR_JOBS = ("drift", "freshness", "metrics", "parity", "quality")
"""What a monitor can do; each in a thread of its own, and in a process of its own where that is wanted."""


class MonitorSettings(BaseSettings):
    """The monitor of a registry's endpoints."""

    model_config = SettingsConfigDict(env_prefix=MONITOR_PREFIX, env_ignore_empty=True, frozen=True)

    database_url: str = Field(description="SQLAlchemy URL of the registry database, where results are kept too.")
    artifacts: str = Field(description="Folder or s3:// URL of the artifact store, with the bundles.")
    prediction_log: Path | None = Field(
        default=None, description="Folder of the prediction log, where it is on this machine."
    )
    log_store: str | None = Field(
        default=None,
        description="Where the log is kept for good: a folder, or `s3://bucket/prefix`; `store` in that folder where "
        "not given. One of both is needed.",
    )
    stream: SecretStr | None = Field(
        default=None,
        description="URL of the stream of segments, as the shipper has it; the log store is followed where not given.",
    )
    stream_name: str = Field(
        default="skewless.log", description="Key of the stream in Valkey; Kafka's topic is in the URL."
    )
    stream_options: Path | None = Field(
        default=None,
        description="File of librdkafka properties for kafka://, such as security.protocol and sasl.password.",
    )
    online_store: SecretStr | None = Field(
        default=None,
        description="URL of Redis or Valkey, such as redis://127.0.0.1:6379; parity and freshness ask it where given.",
    )
    repo: Path | None = Field(
        default=None, description="Folder of the feature and model definitions, whose sources parity reads."
    )
    data: Path | None = Field(
        default=None, description="Folder of the source tables; `data` in the home where not given."
    )
    feast_registry: str | None = Field(
        default=None, description="SQLAlchemy URL of Feast's registry; a SQLite file in the home where not given."
    )
    step_packages: str = Field(default="", description=STEP_PACKAGES)
    log_hash_key: SecretStr | None = Field(
        default=None,
        description="The gateways' SKEWLESS_GATEWAY_LOG_HASH_KEY, so that parity compares hashed columns too.",
    )
    home: Path = Field(
        default=Path(".skewless"),
        description="Folder of what the monitor writes, such as reports; what SKEWLESS_HOME is for commands.",
    )
    host: str = Field(default="127.0.0.1", description="Address of the monitor's own listener, for its metrics.")
    port: int = Field(
        default=8103, ge=0, le=65_535, description="Port of `/metrics` and `/healthz`; 0 opens no listener."
    )
    jobs: str = Field(
        default=",".join(MONITOR_JOBS),
        description="What this process does, with commas; the others are left to other processes.",
    )

    @field_validator("jobs")
    @classmethod
    def _must_name_jobs(cls, value: str) -> str:
        monitor_jobs(value)
        return value

    @model_validator(mode="after")
    def _must_know_the_log(self) -> "MonitorSettings":
        if self.prediction_log is None and self.log_store is None:
            raise ValueError(
                f"{MONITOR_PREFIX}LOG_STORE or {MONITOR_PREFIX}PREDICTION_LOG must be given: the log is what is watched"
            )
        return self

    @property
    def log_store_address(self) -> str:
        """Where the log is kept for good, configured or in the log's folder."""
        if self.log_store is not None:
            return self.log_store
        assert self.prediction_log is not None, "validated above"
        return str(log_store_of(self.prediction_log))

    @property
    def job_names(self) -> tuple[str, ...]:
        """`jobs` as names, in the order in which they start."""
        return monitor_jobs(self.jobs)

    @property
    def folders(self) -> Home:
        """Where each thing is under `home`."""
        return Home(self.home)


def monitor_jobs(listed: str) -> tuple[str, ...]:
    """Jobs of a monitor from a list such as `drift,parity`, each once. Raises ValueError.

    >>> monitor_jobs("parity, drift")
    ('drift', 'parity')
    """
    named = [name.strip() for name in listed.split(",") if name.strip()]
    unknown = sorted(set(named) - set(MONITOR_JOBS))
    if unknown or not named:
        raise ValueError(f"a monitor has no job `{', '.join(unknown) or listed}`; it has {', '.join(MONITOR_JOBS)}")
    return tuple(name for name in MONITOR_JOBS if name in named)
