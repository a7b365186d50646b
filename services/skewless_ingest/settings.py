"""The ingestion service's settings, from SKEWLESS_INGEST_… variables."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import SettingsConfigDict

from skewless.ingest_limits import INGEST_WAITING_BATCHES_MAX, INGEST_WAITING_BYTES_MAX
from skewless.settings import INGEST_PREFIX
from skewless_http.security.settings import SecuritySettings, is_loopback


class IngestSettings(SecuritySettings):
    """One ingestion service: what takes rows and events, and delivers them to the stores."""

    model_config = SettingsConfigDict(env_prefix=INGEST_PREFIX, env_ignore_empty=True, frozen=True)

    port: int = Field(8104, ge=1, le=65_535, description="Port to listen on.")
    admin_host: str = Field(
        "127.0.0.1", description="Address of the listener for metrics and health, apart from callers."
    )
    admin_port: int = Field(8105, ge=0, le=65_535, description="Port of that listener; 0 opens none.")
    admin_token: SecretStr | None = Field(
        None, min_length=16, description="What that listener wants as bearer token; nothing where not given."
    )
    public_metrics: bool = Field(False, description="Whether `/metrics` is told to callers too.")
    log_format: Literal["json", "text"] = Field("json", description="How log lines are written: `json` or `text`.")
    drain_delay_s: float = Field(
        0.0, ge=0, le=300,
        description="Seconds for which a service that was told to stop still takes requests while `/readyz` says 503.",
    )  # fmt: skip
    drain_s: int = Field(10, ge=0, le=300, description="Seconds that requests in flight get when the service stops.")
    online_store: str = Field(description="URL of Redis or Valkey, such as redis://127.0.0.1:6379.")
    database_url: str = Field(
        description="SQLAlchemy URL of the registry database, which holds definitions, keys and the outbox."
    )
    repo: Path | None = Field(
        None,
        description="Folder of the feature definitions, whose `quality` suites judge rows and whose feature_store.yaml "
        "says how long rows live online; rows are not judged where not given.",
    )
    project: str | None = Field(
        None, description="Feast project whose views are taken; the one applied last where not given."
    )
    home: Path = Field(
        Path(".skewless"),
        description="Folder of the service's own files and of the quarantine; what SKEWLESS_HOME is for commands.",
    )
    outbox_bytes_max: int = Field(
        INGEST_WAITING_BYTES_MAX, ge=1 << 20,
        description="Bytes of accepted rows that may wait to be delivered or have failed; more is refused with 503.",
    )  # fmt: skip
    outbox_batches_max: int = Field(
        INGEST_WAITING_BATCHES_MAX,
        ge=10,
        description="Batches of accepted rows that may wait to be delivered or have failed.",
    )
    deliver: bool = Field(
        True, description="Whether this process delivers what was accepted; of several, one that does is enough."
    )
    stream: SecretStr | None = Field(
        None,
        description="URL of the server whose streams rows and events are read from as well: redis://…, valkey://… or "
        "kafka://host:port,host:port; none where not given.",
    )
    stream_group: str = Field(
        "skewless-ingest",
        min_length=1,
        description="Group of consumers that reads them; of one group each gets a part.",
    )
    stream_options: Path | None = Field(
        None, description="File of librdkafka properties for kafka://, such as security.protocol and sasl.password."
    )
    stream_created_times: bool = Field(
        False, description="Whether rows of streams may say themselves when they became known."
    )

    @property
    def state_folder(self) -> Path:
        """The folder of the service's own copies: API keys, and how often callers asked."""
        return self.home / "ingest"

    @property
    def quarantine_folder(self) -> Path:
        """Where rows are set aside; the same as for materialization on this machine."""
        return self.home / "quality" / "quarantine"

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.stream is None and self.stream_options is not None:
            raise ValueError(f"{INGEST_PREFIX}STREAM_OPTIONS is given without {INGEST_PREFIX}STREAM")
        if self.admin_port == self.port:
            raise ValueError(
                f"{INGEST_PREFIX}PORT and {INGEST_PREFIX}ADMIN_PORT are both {self.port}; give each its own"
            )
        return self

    @model_validator(mode="after")
    def _metrics_stay_inside(self) -> Self:
        if self.admin_port and not is_loopback(self.admin_host) and self.development:
            raise ValueError(
                f"{INGEST_PREFIX}ADMIN_HOST is `{self.admin_host}`, which others reach, in development mode: "
                "listen on 127.0.0.1"
            )
        if self.admin_port and self.admin_token is None and not is_loopback(self.admin_host):
            raise ValueError(
                f"{INGEST_PREFIX}ADMIN_HOST is `{self.admin_host}`, which others reach: "
                f"set {INGEST_PREFIX}ADMIN_TOKEN, or listen on 127.0.0.1"
            )
        return self
