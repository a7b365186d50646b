"""Outcomes as a caller reports them: `{"outcomes": [{"prediction_id", "label", "outcome_time"?}, …]}`."""

import re

import msgspec

from skewless.errors import InvalidRequest, LimitExceeded
from skewless.limits import OUTCOMES_MAX, STRING_BYTES_MAX
from skewless.serving.field_types import Mismatch, json_kind, read_timestamp, shown
from skewless.serving.instances import unknown_name
from skewless.serving.records import Outcome

_NAMES = ("prediction_id", "label", "outcome_time")
_UUID = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def read_outcomes(body: object, *, received_time: int) -> tuple[Outcome, ...]:
    """The outcomes in a decoded JSON body, all or none. Raises InvalidRequest at the first wrong place."""
    if type(body) is not dict or set(body) != {"outcomes"}:
        raise InvalidRequest(
            "the body must have `outcomes` and nothing else",
            path="$",
            allowed='{"outcomes": [{"prediction_id": …, "label": …}]}',
        )
    given = body["outcomes"]
    allowed = f"an array of 1 to {OUTCOMES_MAX} objects"
    if type(given) is not list or not given:
        raise InvalidRequest(
            f"`outcomes` is {json_kind(given) if given != [] else 'empty'}", path="$.outcomes", allowed=allowed
        )
    if len(given) > OUTCOMES_MAX:
        raise LimitExceeded(f"`outcomes` has {len(given)} elements", path="$.outcomes", allowed=allowed)
    return tuple(_outcome(each, f"$.outcomes[{index}]", received_time) for index, each in enumerate(given))


def _outcome(given: object, path: str, received_time: int) -> Outcome:
    if type(given) is not dict:
        raise InvalidRequest(f"{path} is {json_kind(given)}", path=path, allowed="an object")
    for name in given:
        if name not in _NAMES:
            raise unknown_name(name, _NAMES, path=path, what="field")
    for name in ("prediction_id", "label"):
        if name not in given:
            raise InvalidRequest(
                f"{path} has no `{name}`", path=f"{path}.{name}", allowed=f"`{name}`", code="missing_field"
            )
    prediction_id = given["prediction_id"]
    if type(prediction_id) is not str or not _UUID.fullmatch(prediction_id):
        raise InvalidRequest(
            f"`prediction_id` is {shown(prediction_id)}",
            path=f"{path}.prediction_id",
            allowed="a prediction id as the predict route returned it",
            code="mistyped_field",
        )
    return Outcome(
        prediction_id, _label(given["label"], path), _outcome_time(given.get("outcome_time"), path), received_time
    )


def _label(value: object, path: str) -> str:
    """A label as text: strings as they are, booleans and numbers as JSON writes them."""
    if type(value) is str and 0 < len(value.encode()) <= STRING_BYTES_MAX:
        return value
    if type(value) in (bool, int, float):
        return msgspec.json.encode(value).decode()
    raise InvalidRequest(
        f"`label` is {shown(value)}",
        path=f"{path}.label",
        allowed=f"a boolean, a number, or a string of 1 to {STRING_BYTES_MAX} UTF-8 bytes",
        code="mistyped_field",
    )


def _outcome_time(value: object, path: str) -> int | None:
    if value is None:
        return None
    try:
        return read_timestamp(value)
    except Mismatch as mismatch:
        raise InvalidRequest(
            f"`outcome_time` {mismatch.reason}",
            path=f"{path}.outcome_time",
            allowed=mismatch.allowed,
            code="mistyped_field",
        ) from mismatch
