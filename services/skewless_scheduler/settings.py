"""The scheduler's own settings, from SKEWLESS_SCHEDULER_… variables. What its runs do is set as for commands."""

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from skewless.ingest_limits import SCHEDULE_RUNS_MAX
from skewless.settings import SCHEDULER_PREFIX


class SchedulerSettings(BaseSettings):
    """One scheduler. Its runs are commands, and take the same SKEWLESS_… variables as any command."""

    model_config = SettingsConfigDict(env_prefix=SCHEDULER_PREFIX, env_ignore_empty=True, frozen=True)

    host: str = Field(default="127.0.0.1", description="Address of the scheduler's own listener, for its metrics.")
    port: int = Field(
        default=8106, ge=0, le=65_535, description="Port of `/metrics` and `/healthz`; 0 opens no listener."
    )
    runs_max: int = Field(
        default=2,
        ge=1,
        le=SCHEDULE_RUNS_MAX,
        description="Views that this scheduler materializes at once, each in a process of its own.",
    )
    run_s_max: float = Field(
        default=21_600.0,
        gt=0,
        le=7 * 86_400,
        description="Seconds after which a run is ended; the next one goes on where it was.",
    )
    look_s: float = Field(default=1.0, ge=0.05, le=60, description="Seconds between two looks at what is due.")
