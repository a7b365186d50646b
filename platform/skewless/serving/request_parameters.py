"""Parameters of an Open Inference Protocol request → the options of a prediction request.

Parameters that would change what is computed are refused, never ignored.
"""

from collections.abc import Mapping

from skewless.errors import InvalidRequest
from skewless.serving.field_types import shown
from skewless.serving.instances import unknown_name
from skewless.serving.request import PredictOptions, ReceiptLevel, read_options

TIMEOUT = "timeout"
"""Microseconds, as Triton's clients send it."""
_OPTIONS = ("deadline_ms", "as_of")
_REQUEST_PARAMETERS = (TIMEOUT, *_OPTIONS)
_CONTENT_TYPES = ("np", "pd", "str")
"""What MLServer's clients call tensors that hold what their datatype says, which is how every tensor is read here."""


def read_parameters(parameters: Mapping[str, object], *, as_of_allowed: bool) -> PredictOptions:
    """Options of a request, by `timeout` (µs), `deadline_ms` and `as_of`, of which the first two are one and the same.

    Without a receipt, which the protocol has no place for. Raises InvalidRequest with the path of a parameter.
    """
    options: dict[str, object] = {"receipt": str(ReceiptLevel.NONE)}
    for name, value in parameters.items():
        if name == TIMEOUT:
            options["deadline_ms"] = _milliseconds(value, parameters)
        elif name in _OPTIONS:
            options[name] = value
        else:
            check_parameter(name, value, path="$.parameters", allowed=_REQUEST_PARAMETERS)
    return read_options(options, as_of_allowed=as_of_allowed, path="$.parameters")


def check_parameter(name: str, value: object, *, path: str, allowed: tuple[str, ...]) -> None:
    """Return where a parameter says what is done anyway. Raises InvalidRequest."""
    if name == "content_type" and value in _CONTENT_TYPES:
        return
    raise unknown_name(name, allowed, path=path, what="parameter")


def _milliseconds(value: object, parameters: Mapping[str, object]) -> int:
    if "deadline_ms" in parameters:
        raise InvalidRequest(
            "the request has both `timeout` and `deadline_ms`",
            path=f"$.parameters.{TIMEOUT}",
            allowed="one of the two: `timeout` in microseconds or `deadline_ms`",
            code="invalid_option",
        )
    if type(value) is not int or value < 1_000:
        raise InvalidRequest(
            f"parameter `{TIMEOUT}` is {shown(value)}",
            path=f"$.parameters.{TIMEOUT}",
            allowed="an integer number of microseconds, at least 1000",
            code="invalid_option",
        )
    return value // 1_000
