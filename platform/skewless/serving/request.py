"""A prediction request once it is checked: columns, and the options that steer how it is answered."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from skewless.dtypes import Column
from skewless.errors import InvalidRequest
from skewless.limits import DEADLINE_MS_MAX
from skewless.serving.field_types import Mismatch, json_kind, read_timestamp, shown
from skewless.serving.instances import InstanceValidator, unknown_name


class ReceiptLevel(StrEnum):
    """How much the caller wants to know about its prediction."""

    NONE = "none"
    SUMMARY = "summary"
    FULL = "full"


@dataclass(frozen=True, slots=True)
class PredictOptions:
    """Options of one request. `as_of` (µs) is None where the gateway's clock decides, `deadline_ms` where not given."""

    deadline_ms: int | None = None
    receipt: ReceiptLevel = ReceiptLevel.SUMMARY
    as_of: int | None = None


@dataclass(slots=True)
class PredictRequest:
    """A checked request: a Column (rows,) per join key and request field.

    Not frozen, because making it would take three times as long, and one is made for every request.
    """

    columns: Mapping[str, Column]
    rows: int
    options: PredictOptions


_BODY_NAMES = ("instances", "options")
_OPTION_NAMES = ("deadline_ms", "receipt", "as_of")
DEFAULT_OPTIONS = PredictOptions()


def read_request(body: object, validator: InstanceValidator, *, as_of_allowed: bool) -> PredictRequest:
    """The request in a decoded JSON body. Raises InvalidRequest with the path of the first wrong thing."""
    if type(body) is not dict:
        raise InvalidRequest(
            f"the body is {json_kind(body)}", path="$", allowed='an object {"instances": […], "options": {…}}'
        )
    for name in body:
        if name not in _BODY_NAMES:
            raise unknown_name(name, _BODY_NAMES, path="$", what="field")
    if "instances" not in body:
        raise InvalidRequest(
            "the body has no `instances`",
            path="$.instances",
            allowed="an array of objects",
            hint='send {"instances": [{…}]}',
            code="missing_field",
        )
    options = read_options(body["options"], as_of_allowed=as_of_allowed) if "options" in body else DEFAULT_OPTIONS
    columns, rows = validator.columns(body["instances"])
    return PredictRequest(columns, rows, options)


def read_options(options: object, *, as_of_allowed: bool, path: str = "$.options") -> PredictOptions:
    """The options in a decoded JSON object at `path`. Raises InvalidRequest with the path of the first wrong one."""
    if type(options) is not dict:
        raise InvalidRequest(f"`{path[2:]}` is {json_kind(options)}", path=path, allowed="an object")
    for name in options:
        if name not in _OPTION_NAMES:
            raise unknown_name(name, _OPTION_NAMES, path=path, what="option")
    deadline_ms, level, as_of = DEFAULT_OPTIONS.deadline_ms, DEFAULT_OPTIONS.receipt, None
    if "deadline_ms" in options:
        deadline_ms = _read_deadline(options["deadline_ms"], f"{path}.deadline_ms")
    if "receipt" in options:
        level = _read_receipt(options["receipt"], f"{path}.receipt")
    if "as_of" in options:
        as_of = _read_as_of(options["as_of"], f"{path}.as_of", allowed=as_of_allowed)
    return PredictOptions(deadline_ms, level, as_of)


def _read_deadline(value: object, path: str) -> int:
    if type(value) is int and 1 <= value <= DEADLINE_MS_MAX:
        return value
    raise InvalidRequest(
        f"option `deadline_ms` is {shown(value)}",
        path=path,
        allowed=f"an integer number of milliseconds from 1 to {DEADLINE_MS_MAX}",
        code="invalid_option",
    )


def _read_receipt(value: object, path: str) -> ReceiptLevel:
    levels = {str(level): level for level in ReceiptLevel}
    if type(value) is str and value in levels:
        return levels[value]
    raise InvalidRequest(
        f"option `receipt` is {shown(value)}",
        path=path,
        allowed=", ".join(f"`{level}`" for level in levels),
        code="invalid_option",
    )


def _read_as_of(value: object, path: str, *, allowed: bool) -> int:
    if not allowed:
        raise InvalidRequest(
            "this server does not let a request choose its own `as_of`",
            path=path,
            allowed="requests without `as_of`; the server's clock decides",
            hint="start the gateway with SKEWLESS_GATEWAY_ALLOW_AS_OF=true for back-tests and replays",
            code="as_of_not_allowed",
        )
    try:
        moment = read_timestamp(value)
    except Mismatch as mismatch:
        raise InvalidRequest(
            f"option `as_of` {mismatch.reason}", path=path, allowed=mismatch.allowed, code="invalid_option"
        ) from mismatch
    if moment < 0:
        raise InvalidRequest(
            f"option `as_of` is {shown(value)}", path=path, allowed="a moment from 1970 on", code="invalid_option"
        )
    return moment
