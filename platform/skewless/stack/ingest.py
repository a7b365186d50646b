"""The ingestion service as a process of the embedded stack."""

import os
import signal
import sys
from pathlib import Path

from skewless.settings import INGEST_PREFIX
from skewless.stack.ports import LOOPBACK
from skewless.stack.probes import http_probe
from skewless.stack.process import ProcessSpec
from skewless.stack.valkey import NAME as VALKEY

NAME = "ingest"
_FOR_LITTLE_MEMORY = {
    # One arena for all threads, and Arrow's buffers from it too: bodies come and go by the thousand.
    "MALLOC_ARENA_MAX": "1",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "OMP_NUM_THREADS": "1",
}


def ingest_spec(*, port: int, environment: dict[str, str], logs: Path, admin_port: int = 0) -> ProcessSpec:
    """How to start the ingestion service; `environment` maps settings (without their prefix) to values.

    `admin_port` 0 opens no listener for metrics. The caller's own ingestion variables are handed on, except those that
    the stack decides. Its death signal is the polite one, so that requests in flight are answered.
    """
    given = {name: value for name, value in os.environ.items() if name.startswith(INGEST_PREFIX)}
    decided = {"HOST": LOOPBACK, "PORT": str(port), "ADMIN_PORT": str(admin_port), **environment}
    return ProcessSpec(
        name=NAME,
        command=(sys.executable, "-P", "-m", "skewless_ingest"),
        log_file=logs / f"{NAME}.log",
        probe=http_probe(NAME, port, "/healthz"),
        environment={
            **_FOR_LITTLE_MEMORY,
            **given,
            **{f"{INGEST_PREFIX}{name}": value for name, value in decided.items()},
        },
        depends_on=(VALKEY,),
        stop_timeout_s=45.0,
        death_signal=signal.SIGTERM,
    )
