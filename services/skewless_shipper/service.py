"""The loop of the shipper: look for segments, do what was asked for, keep the store up, wait."""

import logging
import threading
import time
from collections.abc import Callable

from skewless.adapters.log_shipping import LogShipping, log_shipping
from skewless.errors import SkewlessError
from skewless.limits import SHIPPER_LAST_LOOK_S, SHIPPER_STUCK_S
from skewless.settings import ShipperSettings
from skewless_shipper.listener import listening
from skewless_shipper.metrics import ShipperMetrics

_LOGGER = logging.getLogger(__name__)


class ShippingService:
    """Ships until `stop` is called, and then once more what is sealed by then."""

    def __init__(self, settings: ShipperSettings) -> None:
        self._settings = settings
        self._stopped = threading.Event()
        self._last_look_until_s: float | None = None
        self._alive_at_s = time.monotonic()
        self._metrics = ShipperMetrics()

    def stop(self) -> None:
        """End after what is under way. For any thread, and for no signal's handler: see `adapters.stop_signals`."""
        self._stopped.set()

    def run(self) -> None:
        """Ship. Raises Conflict, InvalidSettings, InvalidDefinition and Unavailable where it cannot begin."""
        with log_shipping(self._settings, stop=self._is_over) as shipping:
            if not self._settings.port:
                self._ship(shipping)
                return
            with listening(
                self._settings.host, self._settings.port, page=self._metrics.page, health=self._problem
            ) as port:
                _LOGGER.info("metrics are on %s:%d", self._settings.host, port)
                self._ship(shipping)

    def _ship(self, shipping: LogShipping) -> None:
        while not self._stopped.is_set():
            self._look(shipping, at_once=False)
            self._alive_at_s = time.monotonic()
            if not (self._attempt("upkeep", shipping.keep_up) or self._stopped.is_set()):
                self._stopped.wait(self._settings.look_s)
        self._last_look_until_s = time.monotonic() + SHIPPER_LAST_LOOK_S
        self._look(shipping, at_once=True)
        _LOGGER.info("ended; %d segments wait for the next shipper", shipping.shipper.waiting().segments)

    def _look(self, shipping: LogShipping, *, at_once: bool) -> None:
        def work() -> bool:
            shipping.look(at_once=at_once)
            shipping.serve()
            self._metrics.observe(shipping)
            return True

        self._attempt("shipping", work)

    def _attempt(self, what: str, work: Callable[[], bool]) -> bool:
        """Whether the work was done and said so. A failure is told, and it is tried again after the usual wait."""
        try:
            return work()
        except (SkewlessError, OSError) as error:
            _LOGGER.error("%s failed, and is tried again: %s", what, error)  # noqa: TRY400  # expected kinds, in words
        except Exception:  # a task's boundary: segments are safe in the spool, and the next look may do
            _LOGGER.exception("%s failed, and is tried again", what)
        return False

    def _is_over(self) -> bool:
        """Whether a look is to end between two batches."""
        if self._last_look_until_s is not None:
            return time.monotonic() > self._last_look_until_s
        return self._stopped.is_set()

    def _problem(self) -> str:
        silent_s = time.monotonic() - self._alive_at_s
        return f"no look for segments has ended for {silent_s:.0f} s" if silent_s > SHIPPER_STUCK_S else ""
