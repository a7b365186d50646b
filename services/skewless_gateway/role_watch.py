"""What the gateway learns of its roles: counted in metrics, tallied for the log, and reported where they fail."""

import asyncio
import logging
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from skewless.canonical_json import Digest
from skewless.errors import SkewlessError, Unavailable
from skewless.limits import TALLY_S
from skewless.rollout.routes import Role
from skewless.serving.ports import PredictionLog
from skewless.serving.records import AnsweredBatch
from skewless.serving.tallies import Tallies
from skewless.timestamps import Micros
from skewless_gateway.metrics import RoleMetrics, short

_LOGGER = logging.getLogger(__name__)
_LOG_EVERY_S = 10.0
"""A role that fails at every request is logged this often."""


class RoleWatch:
    """Implements `RoleObserver`. `wake` is called where the model backend may have lost a model."""

    def __init__(
        self,
        metrics: RoleMetrics,
        tallies: Tallies,
        *,
        wake: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._metrics = metrics
        self._tallies = tallies
        self._wake = wake
        self._clock = clock
        self._logged_s: dict[tuple[str, str, str], float] = {}

    def answered(self, batch: AnsweredBatch, *, took_ms: float) -> None:
        """See `RoleObserver.answered`."""
        labels = batch.endpoint, str(batch.role), short(batch.bundle)
        self._metrics.of(self._metrics.rows, *labels).inc(batch.rows)
        self._metrics.of(self._metrics.seconds, *labels).observe(took_ms / 1_000)
        self._tallies.answered(batch, took_ms=took_ms)

    def failed(
        self,
        endpoint: str,
        role: Role,
        arm: str,
        bundle: Digest,
        *,
        rows: int,
        error: Exception,
        beside: Digest | None = None,
    ) -> None:
        """See `RoleObserver.failed`."""
        labels = endpoint, str(role), short(bundle)
        self._metrics.of(self._metrics.errors, *labels).inc()
        self._tallies.failed(endpoint, role, arm, bundle, rows=rows, beside=beside)
        if isinstance(error, Unavailable):
            self._wake()
        now_s = self._clock()
        if now_s - self._logged_s.get(labels, -_LOG_EVERY_S) < _LOG_EVERY_S:
            return
        self._logged_s[labels] = now_s
        text = "endpoint %s: the %s bundle %s could not score %d rows"
        if isinstance(error, SkewlessError):
            _LOGGER.error(f"{text}: %s", endpoint, role, bundle, rows, error.message)
        else:
            _LOGGER.error(text, endpoint, role, bundle, rows, exc_info=error)

    def mirrored(self, shadow: AnsweredBatch, live: AnsweredBatch, rows: NDArray[np.intp]) -> None:
        """See `RoleObserver.mirrored`."""
        self._metrics.compare(shadow, live, rows)
        self._tallies.mirrored(shadow, live, rows)

    def dropped(self, endpoint: str, bundle: Digest, *, rows: int) -> None:
        """See `RoleObserver.dropped`."""
        self._metrics.of(self._metrics.shadow_dropped, endpoint, short(bundle)).inc(rows)
        self._tallies.dropped(endpoint, bundle, rows=rows)


async def keep_tallies(tallies: Tallies, log: PredictionLog, *, now: Callable[[], Micros]) -> None:
    """Write down every TALLY_S seconds what was tallied, until cancelled; the rest is written then."""
    try:
        while True:
            await asyncio.sleep(TALLY_S)
            _keep(tallies, log, now())
    finally:
        _keep(tallies, log, now())


def _keep(tallies: Tallies, log: PredictionLog, moment: Micros) -> None:
    if found := tallies.take(moment):
        log.append_tallies(found)
