"""The shipper of the prediction log as a process of the embedded stack."""

import os
import signal
import sys
from pathlib import Path

from skewless.settings import GATEWAY_PREFIX, SHIPPER_PREFIX
from skewless.stack.ports import LOOPBACK
from skewless.stack.probes import http_probe
from skewless.stack.process import ProcessSpec

NAME = "shipper"


def shipper_spec(
    *, port: int, environment: dict[str, str], logs: Path, depends_on: tuple[str, ...] = ()
) -> ProcessSpec:
    """How to start the shipper; `environment` maps settings (without the shipper's prefix) to values.

    The caller's own shipper variables are handed on, except those that the stack decides. Its death signal is the
    polite one, so that what is sealed is shipped.
    """
    given = {name: value for name, value in os.environ.items() if name.startswith(SHIPPER_PREFIX)}
    decided = {"HOST": LOOPBACK, "PORT": str(port), **log_hash_key(), **environment}
    return ProcessSpec(
        name=NAME,
        command=(sys.executable, "-P", "-m", "skewless_shipper"),
        log_file=logs / f"{NAME}.log",
        probe=http_probe(NAME, port, "/healthz"),
        environment={**given, **{f"{SHIPPER_PREFIX}{name}": value for name, value in decided.items()}},
        depends_on=depends_on,
        stop_timeout_s=30.0,
        death_signal=signal.SIGTERM,
    )


def log_hash_key(prefix: str = SHIPPER_PREFIX) -> dict[str, str]:
    """The gateways' key as a setting of another process, the shipper's by default, where only theirs is set.

    What they hash is deleted by it, and compared by the monitor.
    """
    name = "LOG_HASH_KEY"
    key = os.environ.get(f"{GATEWAY_PREFIX}{name}")
    return {name: key} if key and f"{prefix}{name}" not in os.environ else {}
