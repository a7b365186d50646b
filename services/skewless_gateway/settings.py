"""The gateway's settings, from SKEWLESS_GATEWAY_… variables."""

import os
from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import SettingsConfigDict

from skewless.bundles.serving_profile import Target
from skewless.limits import ENDPOINT_IN_FLIGHT_MAX, ENDPOINT_QUEUE_MS, MIB, REQUESTS_IN_FLIGHT_MAX, WORKERS_MAX
from skewless.serving.log_policy import FLUSH_MS, SEGMENT_AGE_S, SPOOL_BYTES_MAX, WhenFull
from skewless.settings import GATEWAY_PREFIX, STEP_PACKAGES, load_settings, variable_name
from skewless_gateway.cores import usable_cores
from skewless_gateway.telemetry_settings import TelemetrySettings
from skewless_http.security.settings import SecuritySettings, is_loopback

VERTEX_VARIABLES = {
    "AIP_HTTP_PORT": "port",
    "AIP_PREDICT_ROUTE": "vertex_predict_route",
    "AIP_HEALTH_ROUTE": "vertex_health_route",
}
"""What Vertex AI calls settings of ours; taken where an endpoint is named for it, and our own variable is not given."""
_TAKEN_PATHS = ("/v1/models", "/v1/outcomes", "/v2", "/healthz", "/readyz", "/metrics", "/docs", "/openapi.json")
_OUR_ENDPOINTS = "/v1/endpoints"
_OUR_ENDPOINTS_PARTS = 5
"""Vertex AI's own default paths lie under the same name as our endpoints, and are longer than any of those."""


class GatewaySettings(SecuritySettings, TelemetrySettings):
    """One gateway: a process, or a parent with several workers."""

    model_config = SettingsConfigDict(env_prefix=GATEWAY_PREFIX, env_ignore_empty=True, frozen=True)

    port: int = Field(8100, ge=1, le=65_535, description="Port to listen on.")
    grpc_port: int = Field(
        0, ge=0, le=65_535, description="Port of the Open Inference Protocol over gRPC; 0 opens none."
    )
    admin_host: str = Field("127.0.0.1", description="Address of the admin listener: metrics, workers, stacks.")
    admin_port: int = Field(8101, ge=0, le=65_535, description="Port of the admin listener; 0 opens none.")
    admin_token: SecretStr | None = Field(
        None, min_length=16, description="What the admin listener wants as bearer token; nothing where not given."
    )
    public_metrics: bool = Field(False, description="Whether `/metrics` is told to callers of the API too.")
    workers: int = Field(
        1,
        ge=0,
        le=WORKERS_MAX,
        description="Processes that answer on the port; 0 for one per core, and 1 has no parent.",
    )
    worker_silence_s: float = Field(
        10.0, ge=2, le=600, description="Seconds without a sign of life after which a worker counts as hung."
    )
    drain_delay_s: float = Field(
        0.0, ge=0, le=300,
        description="Seconds for which a gateway that was told to stop still takes requests while `/readyz` says 503.",
    )  # fmt: skip
    drain_s: int = Field(10, ge=0, le=300, description="Seconds that requests in flight get when the gateway stops.")
    online_store: str = Field(description="URL of Redis or Valkey, such as redis://127.0.0.1:6379.")
    triton: str = Field(
        description="Triton's `host:port` (gRPC; also `shm://`, or `http://host:port?grpc=host:port`), replicas with "
        "commas; or `in-process`."
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
        FLUSH_MS,
        ge=0,
        le=60_000,
        description="Milliseconds of answered predictions that a kill -9 may lose; 0 flushes before every answer.",
    )
    log_fsync: bool = Field(
        False,
        description="Whether each flush of the prediction log is synced to the disk, so that a power cut loses no more "
        "than a kill -9.",
    )
    log_segment_age_s: float = Field(
        SEGMENT_AGE_S, gt=0, le=3_600,
        description="Seconds after which a segment of the prediction log is sealed, for the shipper to take.",
    )  # fmt: skip
    log_spool_bytes_max: int = Field(
        SPOOL_BYTES_MAX, ge=MIB,
        description="Bytes of segments, of all processes that write there, that may wait in the spool folder to be "
        "shipped.",
    )  # fmt: skip
    log_when_full: WhenFull = Field(
        WhenFull.REFUSE,
        description="What becomes of predictions that the log has no room for: `refuse` answers 503, `drop` answers "
        "them and counts what is not kept.",
    )
    log_hash_key: SecretStr | None = Field(
        None, min_length=16,
        description="Key under which values are hashed that the feature definitions mark so; the same for all gateways "
        "of one log.",
    )  # fmt: skip
    allow_as_of: bool = Field(
        False, description="Whether requests may carry their own as_of, for back-tests and replays."
    )
    in_flight_max: int = Field(
        ENDPOINT_IN_FLIGHT_MAX, ge=1, le=REQUESTS_IN_FLIGHT_MAX,
        description="Most predictions of one endpoint that one worker computes at once; "
        "it finds by itself how many fewer do as well.",
    )  # fmt: skip
    queue_ms: int = Field(
        ENDPOINT_QUEUE_MS, ge=0, le=10_000,
        description="Milliseconds a prediction may wait for its turn; what would wait longer is refused at once.",
    )  # fmt: skip
    standby: bool = Field(
        True,
        description="Whether models that allow it are kept ready in the gateway too, for when their servers are away; "
        "each takes its file's size and more of memory.",
    )
    near_cache_mib: int = Field(
        32,
        ge=0,
        le=16_384,
        description="MiB for features kept near, of the views whose definitions ask for it; 0 keeps none.",
    )
    raw_models: bool = Field(
        False,
        description="Whether the models behind endpoints can be asked with their own tensors, as `<endpoint>.raw`; "
        "such calls are not logged as predictions.",
    )
    vertex_endpoint: str = Field(
        "",
        description="Endpoint that the Vertex AI routes answer, without a credential: "
        "only where nothing but Vertex AI reaches the port.",
    )
    vertex_predict_route: str = Field("/predict", description="Path that Vertex AI sends predictions to.")
    vertex_health_route: str = Field("/health", description="Path that Vertex AI asks for health.")
    step_packages: str = Field("", description=STEP_PACKAGES)

    @property
    def state_folder(self) -> Path:
        """The folder of the gateway's own copies."""
        return self.state or self.prediction_log

    @property
    def worker_count(self) -> int:
        """How many processes answer."""
        return self.workers or min(usable_cores(), WORKERS_MAX)

    @model_validator(mode="after")
    def _ports_differ(self) -> Self:
        given = [(name, getattr(self, name)) for name in ("port", "grpc_port", "admin_port") if getattr(self, name)]
        for place, (name, port) in enumerate(given):
            for other, taken in given[:place]:
                if port == taken:
                    both = f"{GATEWAY_PREFIX}{other.upper()} and {GATEWAY_PREFIX}{name.upper()}"
                    raise ValueError(f"{both} are both {port}; give each a port of its own")
        return self

    @model_validator(mode="after")
    def _operators_are_known(self) -> Self:
        if self.admin_port and self.admin_token is None and not is_loopback(self.admin_host):
            raise ValueError(
                f"{GATEWAY_PREFIX}ADMIN_HOST is `{self.admin_host}`, which others reach: "
                f"set {GATEWAY_PREFIX}ADMIN_TOKEN, or listen on 127.0.0.1"
            )
        return self

    @model_validator(mode="after")
    def _vertex_routes_are_free(self) -> Self:
        routes = {
            f"{GATEWAY_PREFIX}VERTEX_PREDICT_ROUTE": self.vertex_predict_route,
            f"{GATEWAY_PREFIX}VERTEX_HEALTH_ROUTE": self.vertex_health_route,
        }
        for variable, path in routes.items():
            ours = path.startswith(_OUR_ENDPOINTS) and path.count("/") < _OUR_ENDPOINTS_PARTS
            if not path.startswith("/") or path.startswith(_TAKEN_PATHS) or ours or set(path) & set("{}?#"):
                taken = ", ".join((*_TAKEN_PATHS, f"{_OUR_ENDPOINTS}/{{endpoint}}"))
                raise ValueError(
                    f"{variable} is `{path}`; allowed: a path that begins with `/` and not with {taken}, "
                    "without { } ? and #"
                )
        if self.vertex_predict_route == self.vertex_health_route:
            raise ValueError(f"{' and '.join(routes)} are both `{self.vertex_health_route}`; they must differ")
        return self


def load_gateway_settings() -> GatewaySettings:
    """The settings of this process. Raises InvalidSettings, see `skewless.settings.load_settings`."""
    given: dict[str, str] = {}
    if os.environ.get(f"{GATEWAY_PREFIX}VERTEX_ENDPOINT"):
        for theirs, field in VERTEX_VARIABLES.items():
            if os.environ.get(theirs) and not os.environ.get(variable_name(GatewaySettings, field)):
                given[field] = os.environ[theirs]
    return load_settings(GatewaySettings, given)
