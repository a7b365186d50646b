"""The monitor of the predictions as a process of the embedded stack."""

import http.client
import os
import signal
import sys
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import msgspec

from skewless.errors import Unavailable
from skewless.settings import MONITOR_PREFIX
from skewless.stack.ports import LOOPBACK
from skewless.stack.probes import PROBE_TIMEOUT_S, http_probe
from skewless.stack.process import ProcessSpec
from skewless.stack.shipper import log_hash_key

NAME = "monitor"
_FOR_LITTLE_MEMORY = {
    # One arena for all threads, and Arrow's buffers from it too: jobs take turns, and what one freed the next can use.
    "MALLOC_ARENA_MAX": "1",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    # A thread per core for products of matrices that are tiny here.
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
}


def monitor_spec(
    *, port: int, environment: dict[str, str], logs: Path, depends_on: tuple[str, ...] = ()
) -> ProcessSpec:
    """How to start the monitor; `environment` maps settings (without the monitor's prefix) to values.

    The caller's own monitor variables are handed on, except those that the stack decides. Its death signal is the
    polite one, so that child processes of its jobs end with it.
    """
    given = {name: value for name, value in os.environ.items() if name.startswith(MONITOR_PREFIX)}
    decided = {"HOST": LOOPBACK, "PORT": str(port), **log_hash_key(MONITOR_PREFIX), **environment}
    return ProcessSpec(
        name=NAME,
        command=(sys.executable, "-P", "-m", "skewless_monitor"),
        log_file=logs / f"{NAME}.log",
        probe=http_probe(NAME, port, "/healthz"),
        environment={
            **_FOR_LITTLE_MEMORY,
            **given,
            **{f"{MONITOR_PREFIX}{name}": value for name, value in decided.items()},
        },
        depends_on=depends_on,
        stop_timeout_s=15.0,
        death_signal=signal.SIGTERM,
    )


@dataclass(frozen=True, slots=True)
class ToldJob:
    """What a monitor says about one of its jobs."""

    job: str
    runs: int
    failures_in_a_row: int
    last_success_s: float | None
    """In seconds since 1970; None where no run ended well yet."""
    last_failure: str
    lag_s: float | None
    """By how much what it takes into account is behind the newest record; None where that is not known."""

    def summary(self, now_s: float) -> str:
        """How it is doing, in one line.

        >>> ToldJob("drift", 3, 0, 95.0, "", 12.4).summary(100.0)
        '3 runs, the last 5 s ago, 12 s behind the newest record'
        """
        if self.last_success_s is None:
            return "its first run is under way"
        behind = "" if self.lag_s is None else f", {self.lag_s:.0f} s behind the newest record"
        return f"{self.runs} runs, the last {max(0.0, now_s - self.last_success_s):.0f} s ago{behind}"


@dataclass(frozen=True, slots=True)
class _Told:
    jobs: tuple[ToldJob, ...]


def told_jobs(url: str) -> tuple[ToldJob, ...]:
    """What the monitor at a base URL says about its jobs. Raises Unavailable."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=PROBE_TIMEOUT_S)
    try:
        connection.request("GET", "/jobs")
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != HTTPStatus.OK:
            raise Unavailable(NAME, f"GET {url}/jobs answered {answer.status}, not 200")
        return msgspec.json.decode(body, type=_Told).jobs
    except (OSError, http.client.HTTPException, msgspec.DecodeError) as error:
        raise Unavailable(NAME, f"GET {url}/jobs: {type(error).__name__}: {error}") from error
    finally:
        connection.close()
