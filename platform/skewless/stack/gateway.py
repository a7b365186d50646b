"""The gateway as a process of the embedded stack."""

import os
import signal
import sys
from pathlib import Path

from skewless.settings import GATEWAY_PREFIX
from skewless.stack.ports import LOOPBACK
from skewless.stack.probes import http_probe
from skewless.stack.process import ProcessSpec
from skewless.stack.triton import NAME as TRITON
from skewless.stack.valkey import NAME as VALKEY

NAME = "gateway"


def gateway_spec(*, port: int, environment: dict[str, str], logs: Path, admin_port: int = 0) -> ProcessSpec:
    """How to start the gateway; `environment` maps settings (without the gateway's prefix) to values.

    `admin_port` 0 opens no admin listener. The caller's own gateway variables are handed on, except those that the
    stack decides. Its death signal is the polite one, because it holds predictions that are answered but not yet
    flushed to the log.
    """
    given = {name: value for name, value in os.environ.items() if name.startswith(GATEWAY_PREFIX)}
    decided = {"HOST": LOOPBACK, "PORT": str(port), "ADMIN_PORT": str(admin_port), **environment}
    return ProcessSpec(
        name=NAME,
        command=(sys.executable, "-P", "-m", "skewless_gateway"),
        log_file=logs / f"{NAME}.log",
        probe=http_probe(NAME, port, "/healthz"),
        environment={**given, **{f"{GATEWAY_PREFIX}{name}": value for name, value in decided.items()}},
        depends_on=(VALKEY, TRITON),
        stop_timeout_s=30.0,
        death_signal=signal.SIGTERM,
    )
