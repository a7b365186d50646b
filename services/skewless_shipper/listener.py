"""The shipper's own small HTTP server: `/metrics` and `/healthz`."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from http import HTTPStatus

from skewless.adapters import status_listener
from skewless.adapters.status_listener import Answer, health_answer
from skewless.limits import SHIPPER_REQUEST_S
from skewless.settings import ShipperSettings, variable_name
from skewless_shipper.metrics import CONTENT_TYPE


def listening(
    host: str, port: int, *, page: Callable[[], bytes], health: Callable[[], str]
) -> AbstractContextManager[int]:
    """Answers inside, on the port given, or a free one where it is 0; the port in use is what the block gets.

    `health` says what is wrong, nothing where all is well. Raises InvalidSettings where the port cannot be used.
    """
    answers: dict[str, Answer] = {
        "/metrics": lambda: (HTTPStatus.OK, CONTENT_TYPE, page()),
        "/healthz": lambda: health_answer(health()),
    }
    setting = variable_name(ShipperSettings, "port")
    return status_listener.listening(host, port, answers, setting=setting, request_s=SHIPPER_REQUEST_S)
