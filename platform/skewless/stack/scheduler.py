"""The scheduler of materializations as a process of the embedded stack."""

import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from skewless.settings import SCHEDULER_PREFIX, Settings, as_environment
from skewless.stack.ports import LOOPBACK
from skewless.stack.probes import http_probe
from skewless.stack.process import ProcessSpec

NAME = "scheduler"


def scheduler_spec(
    *, port: int, environment: Mapping[str, str], logs: Path, depends_on: tuple[str, ...] = ()
) -> ProcessSpec:
    """How to start the scheduler; `environment` has the variables of its runs, which are commands.

    The caller's own scheduler variables are handed on, except those that the stack decides. Its death signal is the
    polite one, so that its runs end with it.
    """
    given = {name: value for name, value in os.environ.items() if name.startswith(SCHEDULER_PREFIX)}
    decided = {"HOST": LOOPBACK, "PORT": str(port)}
    return ProcessSpec(
        name=NAME,
        command=(sys.executable, "-P", "-m", "skewless_scheduler"),
        log_file=logs / f"{NAME}.log",
        probe=http_probe(NAME, port, "/healthz"),
        environment={
            **given,
            **environment,
            **{f"{SCHEDULER_PREFIX}{name}": value for name, value in decided.items()},
        },
        depends_on=depends_on,
        stop_timeout_s=30.0,
        death_signal=signal.SIGTERM,
    )


def run_environment(settings: Settings, *, online_store: str) -> dict[str, str]:
    """The variables of runs, wherever they are started: those of `settings`, with addresses and folders as they are.

    `online_store` is the `host:port` of the stack's own.
    """
    found = as_environment(settings)
    found |= {
        "SKEWLESS_HOME": str(settings.folders.root),
        "SKEWLESS_REPO": str(settings.repo.absolute()),
        "SKEWLESS_DATA": str(settings.data_folder),
        "SKEWLESS_DATABASE_URL": settings.registry_url,
        "SKEWLESS_FEAST_REGISTRY": settings.feast_registry_url,
        "SKEWLESS_ONLINE_STORE": online_store,
    }
    return found
