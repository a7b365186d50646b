"""Settings from environment variables: typed, explained, and refused by name when wrong.

Every settings class of every service is read through `load_settings`, so that a misspelt variable never passes
for a default and a wrong value is reported the same way everywhere.
"""

import difflib
import os
import platform
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from skewless.bundles.serving_profile import Target
from skewless.errors import InvalidSettings
from skewless.limits import LOG_FILE_BYTES_MAX, LOG_ROUND_BYTES_MAX, MIB

STACK_PREFIX = "SKEWLESS_STACK_"
GATEWAY_PREFIX = "SKEWLESS_GATEWAY_"
SHIPPER_PREFIX = "SKEWLESS_SHIPPER_"
MONITOR_PREFIX = "SKEWLESS_MONITOR_"
SCHEDULER_PREFIX = "SKEWLESS_SCHEDULER_"
INGEST_PREFIX = "SKEWLESS_INGEST_"
PREFIXES = ("SKEWLESS_", STACK_PREFIX, GATEWAY_PREFIX, SHIPPER_PREFIX, MONITOR_PREFIX, SCHEDULER_PREFIX, INGEST_PREFIX)
"""Every prefix in use. A variable belongs to the longest prefix it starts with."""
_PASSWORD = re.compile(r"(?<=://)([^:/@\s]*):[^@\s]*@")
_PASSWORD_OPTION = re.compile(r"(,password=)[^,\s]*")

SettingsT = TypeVar("SettingsT", bound=BaseSettings)


@dataclass(frozen=True, slots=True)
class Home:
    """The folder that holds everything Skewless keeps on this machine, and where each thing is in it.

    `root` is made absolute, so that processes started in other folders mean the same place.
    """

    root: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", self.root.absolute())

    @property
    def stack_file(self) -> Path:
        """State of the embedded stack, as JSON."""
        return self.root / "stack.json"

    @property
    def lock_file(self) -> Path:
        """Locked by the one supervisor of this home as long as it lives."""
        return self.root / "stack.lock"

    @property
    def logs(self) -> Path:
        """One log per process."""
        return self.root / "logs"

    @property
    def valkey(self) -> Path:
        """Valkey's append-only file."""
        return self.root / "valkey"

    @property
    def triton(self) -> Path:
        """Triton's model repository and backends."""
        return self.root / "triton"

    @property
    def triton_models(self) -> Path:
        """Triton's model repository."""
        return self.triton / "models"

    @property
    def database(self) -> Path:
        """The registry database where no other is configured."""
        return self.root / "registry.db"

    @property
    def feast_registry(self) -> Path:
        """Feast's own registry."""
        return self.root / "feast_registry.db"

    @property
    def data(self) -> Path:
        """Source tables."""
        return self.root / "data"

    @property
    def artifacts(self) -> Path:
        """Bundles."""
        return self.root / "artifacts"

    @property
    def artifact_cache(self) -> Path:
        """Bundles that were opened from a bucket."""
        return self.root / "artifact_cache"

    @property
    def predictions(self) -> Path:
        """The prediction log."""
        return self.root / "predictions"


def log_store_of(prediction_log: Path) -> Path:
    """The log store of a prediction log's folder where no other is configured."""
    return prediction_log / "store"


STEP_PACKAGES = "Installed packages whose functions transforms may call as `python` steps, separated by commas."


def step_packages(listed: str) -> frozenset[str]:
    """The names in a list that is separated by commas.

    >>> sorted(step_packages("geo-tools, calendars"))
    ['calendars', 'geo-tools']
    """
    return frozenset(name.strip() for name in listed.split(",") if name.strip())


class Settings(BaseSettings):
    """What every command shares."""

    model_config = SettingsConfigDict(env_prefix="SKEWLESS_", env_ignore_empty=True, frozen=True)

    home: Path = Field(default=Path(".skewless"), description="Folder of everything kept on this machine.")
    repo: Path = Field(default=Path("feature_repo"), description="Folder of the feature and model definitions.")
    database_url: str | None = Field(
        default=None, description="SQLAlchemy URL of the registry database; a SQLite file in the home where not given."
    )
    data: Path | None = Field(
        default=None, description="Folder of the source tables; `data` in the home where not given."
    )
    online_store: str | None = Field(
        default=None,
        description="`host:port` of the Redis that features go to, then Feast's options (`,password=…,ssl=true,db=1`); "
        "the running stack's Valkey where not given.",
    )
    feast_registry: str | None = Field(
        default=None, description="SQLAlchemy URL of Feast's registry; a SQLite file in the home where not given."
    )
    artifacts: str | None = Field(
        default=None,
        description="Where bundles are kept: a folder, or `s3://bucket/prefix`; a folder in the home where not given.",
    )
    log_store: str | None = Field(
        default=None,
        description="Where the prediction log is kept for good: a folder, or `s3://bucket/prefix`; `store` in the "
        "prediction log's folder where not given.",
    )
    target: Target = Field(
        default=Target.EMBEDDED_CPU, description="What kind of model server bundles are deployed for."
    )
    step_packages: str = Field(default="", description=STEP_PACKAGES)
    openlineage_url: str | None = Field(
        default=None,
        description="URL that commands post OpenLineage events to, such as http://marquez:5000/api/v1/lineage; a "
        "password in it is sent as bearer token. Nothing is sent where not given.",
    )

    @property
    def artifacts_address(self) -> str:
        """Where bundles are kept, configured or under the home."""
        return self.artifacts or str(self.folders.artifacts)

    @property
    def log_store_address(self) -> str:
        """Where the prediction log is kept for good, configured or under the home."""
        return self.log_store or str(log_store_of(self.folders.predictions))

    @property
    def allowed_step_packages(self) -> frozenset[str]:
        """`step_packages` as names."""
        return step_packages(self.step_packages)

    @property
    def folders(self) -> Home:
        """Where each thing is under `home`."""
        return Home(self.home)

    @property
    def registry_url(self) -> str:
        """The registry database's URL, configured or under the home."""
        return self.database_url or f"sqlite:///{self.folders.database}"

    @property
    def data_folder(self) -> Path:
        """The folder of the source tables, absolute."""
        return (self.data or self.folders.data).absolute()

    @property
    def feast_registry_url(self) -> str:
        """The URL of Feast's registry, configured or under the home."""
        return self.feast_registry or f"sqlite:///{self.folders.feast_registry}"


class ModelServer(StrEnum):
    """What runs the models of an embedded stack."""

    AUTO = "auto"
    """Triton where its wheel exists, which is on Linux; the gateway itself elsewhere."""
    TRITON = "triton"
    IN_PROCESS = "in-process"
    """The gateway itself, with ONNX Runtime: ONNX models only."""


class StackSettings(BaseSettings):
    """The embedded stack. Ports are on loopback; 0 lets the stack choose a free one."""

    model_config = SettingsConfigDict(env_prefix=STACK_PREFIX, env_ignore_empty=True, frozen=True)

    gateway_port: int = Field(
        default=8100,
        ge=0,
        le=65_535,
        description="Preferred port of the gateway; where it is taken, a free one.",
    )
    gateway_admin_port: int = Field(
        default=8101,
        ge=0,
        le=65_535,
        description="Preferred port of the gateway's admin listener; where it is taken, a free one.",
    )
    shipper_port: int = Field(
        default=8102,
        ge=0,
        le=65_535,
        description="Preferred port of the shipper's metrics; where it is taken, a free one.",
    )
    monitor: bool = Field(default=True, description="Whether the stack runs a monitor of its predictions.")
    monitor_port: int = Field(
        default=8103,
        ge=0,
        le=65_535,
        description="Preferred port of the monitor's metrics; where it is taken, a free one.",
    )
    scheduler: bool = Field(
        default=False, description="Whether the stack materializes views when their schedules say so."
    )
    scheduler_port: int = Field(
        default=8106,
        ge=0,
        le=65_535,
        description="Preferred port of the scheduler's metrics; where it is taken, a free one.",
    )
    ingest: bool = Field(default=False, description="Whether the stack runs the ingestion service.")
    ingest_port: int = Field(
        default=8104,
        ge=0,
        le=65_535,
        description="Preferred port of the ingestion service; where it is taken, a free one.",
    )
    ingest_admin_port: int = Field(
        default=8105,
        ge=0,
        le=65_535,
        description="Preferred port of the ingestion service's metrics; where it is taken, a free one.",
    )
    stream: bool = Field(
        default=False,
        description="Whether segments of the prediction log go to a stream in the stack's Valkey as well.",
    )
    valkey_port: int = Field(default=0, ge=0, le=65_535, description="Port of Valkey.")
    model_server: ModelServer = Field(
        default=ModelServer.AUTO,
        description="What runs models: `triton`, `in-process` (the gateway itself; ONNX models only), or `auto`, which "
        "is Triton where its wheel exists, on Linux.",
    )
    triton_http_port: int = Field(default=0, ge=0, le=65_535, description="Port of Triton's HTTP API.")
    triton_grpc_port: int = Field(default=0, ge=0, le=65_535, description="Port of Triton's gRPC API.")
    triton_metrics_port: int = Field(default=0, ge=0, le=65_535, description="Port of Triton's metrics.")
    allow_as_of: bool = Field(
        default=False, description="Whether requests may carry their own as_of, for back-tests and replays."
    )
    start_timeout_s: float = Field(
        default=90.0, gt=0, le=3600, description="Seconds a started process may take until it is healthy."
    )
    probe_interval_s: float = Field(
        default=1.0, ge=0.1, le=60, description="Seconds between health checks of a process."
    )
    probe_failures_max: int = Field(
        default=5, ge=1, le=100, description="Failed health checks in a row after which a process counts as hung."
    )
    restart_delay_s: float = Field(
        default=0.5,
        gt=0,
        le=60,
        description="Seconds before a first restart; doubles with each failure.",
    )
    restart_delay_max_s: float = Field(
        default=15.0, gt=0, le=3600, description="Longest wait before a restart, in seconds."
    )
    restarts_max: int = Field(
        default=6, ge=0, le=1000, description="Restarts in a row after which a process is given up."
    )
    stable_s: float = Field(
        default=30.0, gt=0, le=86_400, description="Seconds of good health after which earlier failures are forgotten."
    )

    @model_validator(mode="after")
    def _delays_must_be_in_order(self) -> "StackSettings":
        if self.restart_delay_s > self.restart_delay_max_s:
            raise ValueError(
                f"{STACK_PREFIX}RESTART_DELAY_S ({self.restart_delay_s:g}) must not exceed "
                f"{STACK_PREFIX}RESTART_DELAY_MAX_S ({self.restart_delay_max_s:g})"
            )
        return self

    @model_validator(mode="after")
    def _ports_must_differ(self) -> "StackSettings":
        names = [name for name in type(self).model_fields if name.endswith("_port") and getattr(self, name)]
        for index, name in enumerate(names):
            for other in names[:index]:
                if getattr(self, name) == getattr(self, other):
                    both = f"{variable_name(type(self), other)} and {variable_name(type(self), name)}"
                    raise ValueError(f"{both} are both {getattr(self, name)}; give each its own port, or 0")
        return self

    @property
    def runs_triton(self) -> bool:
        """Whether the stack starts a Triton; where not, the gateway runs the models."""
        if self.model_server is ModelServer.AUTO:
            return platform.system() == "Linux"
        return self.model_server is ModelServer.TRITON


class ShipperSettings(BaseSettings):
    """The shipper of a prediction log's folder."""

    model_config = SettingsConfigDict(env_prefix=SHIPPER_PREFIX, env_ignore_empty=True, frozen=True)

    prediction_log: Path = Field(description="Folder of the prediction log whose segments are shipped.")
    log_store: str | None = Field(
        default=None,
        description="Where they are kept for good: a folder, or `s3://bucket/prefix`; `store` in that folder where not "
        "given.",
    )
    host: str = Field(default="127.0.0.1", description="Address of the shipper's own listener, for its metrics.")
    port: int = Field(
        default=8102, ge=0, le=65_535, description="Port of `/metrics` and `/healthz`; 0 opens no listener."
    )
    look_s: float = Field(
        default=1.0,
        ge=0.05,
        le=60,
        description="Seconds between two looks for sealed segments; the stream gets them then.",
    )
    round_s: float = Field(
        default=30.0,
        ge=0,
        le=3600,
        description="Seconds that segments wait for others before they are committed to the log store together.",
    )
    round_bytes: int = Field(
        default=32 * MIB,
        ge=MIB,
        le=LOG_ROUND_BYTES_MAX,
        description="Bytes of segments that are committed without waiting, and at most at once.",
    )
    file_bytes: int = Field(
        default=64 * MIB,
        ge=MIB,
        le=LOG_FILE_BYTES_MAX,
        description="Size of the files that small ones are put together into.",
    )
    upkeep_s: float = Field(
        default=60.0, ge=0.1, le=86_400, description="Seconds between two looks for files to put together."
    )
    retention_days: int | None = Field(
        default=None,
        ge=1,
        le=36_500,
        description="Days that records are kept in the log store; for ever where not given.",
    )
    retention_by_endpoint: str = Field(
        default="",
        description="Other numbers of days for the predictions of single endpoints, such as `search=30,fraud=400`.",
    )
    log_hash_key: SecretStr | None = Field(
        default=None,
        description="The gateways' SKEWLESS_GATEWAY_LOG_HASH_KEY, so that hashed join keys are found to be deleted.",
    )
    stream: SecretStr | None = Field(
        default=None,
        description="URL of the stream that sealed segments go to: redis://…, rediss://…, redis+sentinel://…, "
        "redis+cluster://…, valkey://…, unix://… or kafka://host:port,host:port/topic; none where not given.",
    )
    stream_name: str = Field(
        default="skewless.log", description="Key of the stream in Valkey; Kafka's topic is in the URL."
    )
    stream_bytes_max: int = Field(
        default=64 * MIB,
        ge=16 * MIB,
        description="Memory that the stream may take in Valkey, in bytes; Kafka keeps its own retention.",
    )
    stream_when_full: Literal["wait", "trim"] = Field(
        default="wait",
        description="`wait`: segments stay in the spool until slow groups have read; `trim`: the oldest go, and groups "
        "are told of the gap.",
    )
    stream_options: Path | None = Field(
        default=None,
        description="File of librdkafka properties for kafka://, such as security.protocol and sasl.password.",
    )

    @field_validator("retention_by_endpoint")
    @classmethod
    def _must_name_days(cls, value: str) -> str:
        days_by_endpoint(value)
        return value

    @property
    def log_store_address(self) -> str:
        """Where segments are kept for good, configured or in the log's folder."""
        return self.log_store or str(log_store_of(self.prediction_log))

    @property
    def days_by_endpoint(self) -> dict[str, int]:
        """`retention_by_endpoint` as numbers."""
        return days_by_endpoint(self.retention_by_endpoint)


def days_by_endpoint(listed: str) -> dict[str, int]:
    """Days by endpoint from a list such as `search=30,fraud=400`. Raises ValueError.

    >>> days_by_endpoint("search=30, fraud=400")
    {'search': 30, 'fraud': 400}
    """
    found: dict[str, int] = {}
    for part in filter(None, (each.strip() for each in listed.split(","))):
        name, separator, days = part.partition("=")
        if not separator or not name or not days.isdecimal() or int(days) < 1 or name in found:
            raise ValueError(f"`{part}` is not an endpoint with a number of days, such as `search=30`")
        found[name] = int(days)
    return found


def load_settings(settings_class: type[SettingsT], given: Mapping[str, str] | None = None) -> SettingsT:
    """Settings of a class from the environment; `given` has values by field that are taken before it.

    Raises InvalidSettings for a variable with the class's prefix that the class does not know, and for a value
    that is not allowed; the message names the variable, the value (secrets masked) and what is allowed.
    """
    _refuse_unknown(settings_class)
    try:
        # Its own options have types of their own; fields may have any, and are validated here.
        return settings_class(**dict[str, Any](given or {}))
    except ValidationError as error:
        problems = "\n".join(_describe_problem(settings_class, each) for each in error.errors())
        raise InvalidSettings(problems, hint="correct or unset the variable; unset, its default holds") from error
    except SettingsError as error:
        raise InvalidSettings(f"a {prefix_of(settings_class)} variable cannot be read: {error}") from error


def variable_name(settings_class: type[BaseSettings], field: str) -> str:
    """The environment variable of a field."""
    return f"{prefix_of(settings_class)}{field.upper()}"


def prefix_of(settings_class: type[BaseSettings]) -> str:
    """What the variables of a class start with."""
    return settings_class.model_config.get("env_prefix") or ""


def as_environment(settings: BaseSettings) -> dict[str, str]:
    """Variables from which `load_settings` makes equal settings in another process; None is left out."""
    values = settings.model_dump(mode="json")
    return {variable_name(type(settings), name): str(value) for name, value in values.items() if value is not None}


def describe(settings: BaseSettings) -> str:
    """One line per variable with its value in force, secrets and passwords in URLs masked."""
    return "\n".join(
        f"{variable_name(type(settings), name)}={mask(getattr(settings, name))}" for name in type(settings).model_fields
    )


def mask(value: object) -> str:
    """A value as text without its secret part.

    >>> mask("redis://me:secret@127.0.0.1:6379")
    'redis://me:***@127.0.0.1:6379'
    >>> mask("127.0.0.1:6379,password=secret,db=1")
    '127.0.0.1:6379,password=***,db=1'
    """
    if isinstance(value, SecretStr):
        return "***"
    shown = _PASSWORD.sub(r"\1:***@", "" if value is None else str(value))
    return _PASSWORD_OPTION.sub(r"\1***", shown)


def _refuse_unknown(settings_class: type[BaseSettings]) -> None:
    allowed = [variable_name(settings_class, field) for field in settings_class.model_fields]
    for name in _variables_of(prefix_of(settings_class)):
        if name.upper() in allowed:
            continue
        close = difflib.get_close_matches(name.upper(), allowed, n=2, cutoff=0.6)
        meant = f"did you mean {' or '.join(close)}? Otherwise unset it" if close else "unset it"
        raise InvalidSettings(
            f"the environment variable {name} is not a setting. Allowed: {', '.join(allowed)}", hint=meant
        )


def _variables_of(prefix: str) -> Iterator[str]:
    """Variables of the environment that belong to a prefix and to no longer one."""
    longer = tuple(each for each in PREFIXES if each.startswith(prefix) and each != prefix)
    for name in sorted(os.environ):
        if name.upper().startswith(prefix) and not name.upper().startswith(longer):
            yield name


def _describe_problem(settings_class: type[BaseSettings], problem: ErrorDetails) -> str:
    if not problem["loc"]:
        return problem["msg"].removeprefix("Value error, ")
    field = str(problem["loc"][0])
    known = settings_class.model_fields.get(field)
    secret = known is not None and SecretStr in (known.annotation, *get_args(known.annotation))
    seen = "***" if secret else mask(problem["input"])
    about = f" ({known.description})" if known is not None and known.description else ""
    return f"{variable_name(settings_class, field)} is `{seen}`: {problem['msg']}{about}"
