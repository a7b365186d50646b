"""The gateway's settings, from SKEWLESS_GATEWAY_… variables."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from skewless.bundles.serving_profile import Target
from skewless.settings import GATEWAY_PREFIX, STEP_PACKAGES


class GatewaySettings(BaseSettings):
    """One gateway process."""

    model_config = SettingsConfigDict(env_prefix=GATEWAY_PREFIX, env_ignore_empty=True, frozen=True)

    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 inside a container.")
    port: int = Field(8100, ge=1, le=65_535, description="Port to listen on.")
    online_store: str = Field(description="URL of Redis or Valkey, such as redis://127.0.0.1:6379.")
    triton: str = Field(
        description="Triton's `host:port` (gRPC; also `shm://`, `http://`), replicas with commas; or `in-process`."
    )
    database_url: str = Field(description="SQLAlchemy URL of the registry database.")
    artifacts: str = Field(description="Folder or s3:// URL of the artifact store, with the bundles.")
    prediction_log: Path = Field(description="Folder of the prediction log.")
    state: Path | None = Field(
        None,
        description="Folder of the gateway's own copies of routes, snapshots and bundles, from which it starts while "
        "registry and artifact store are away; the prediction log's where not given.",
    )
    target: Target = Field(
        Target.EMBEDDED_CPU, description="What kind of model server Triton is, as bundles were deployed for it."
    )
    log_flush_ms: int = Field(
        200,
        ge=0,
        le=60_000,
        description="Milliseconds of answered predictions that a kill -9 may lose; 0 flushes before every answer.",
    )
    allow_as_of: bool = Field(
        False, description="Whether requests may carry their own as_of, for back-tests and replays."
    )
    near_cache_mib: int = Field(
        32,
        ge=0,
        le=16_384,
        description="MiB for features kept near, of the views whose definitions ask for it; 0 keeps none.",
    )
    step_packages: str = Field("", description=STEP_PACKAGES)
    drain_s: int = Field(10, ge=0, le=300, description="Seconds that requests in flight get when the gateway stops.")

    @property
    def state_folder(self) -> Path:
        """The folder of the gateway's own copies."""
        return self.state or self.prediction_log
