"""Outcomes as callers report them, by the prediction's id or by the entity and the moment that was asked about.

    {"prediction_id": …, "label": …, "outcome_time"?: …}
    {"endpoint": …, "entity": {join key: value, …}, "at": …, "label": …, "outcome_time"?: …}

A body is one of them, `{"outcomes": [{…}, …]}`, or NDJSON with one on each line (`outcome_lines.py`).
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from skewless.errors import InvalidRequest, LimitExceeded
from skewless.limits import OUTCOME_AHEAD_S, OUTCOMES_MAX, STRING_BYTES_MAX
from skewless.serving.field_types import Mismatch, json_kind, read_timestamp, shown
from skewless.serving.instances import unknown_name
from skewless.serving.records import Outcome
from skewless.timestamps import SECOND_US

_BY_ID = ("prediction_id", "label", "outcome_time")
_BY_ENTITY = ("endpoint", "entity", "at", "label", "outcome_time")
_TELLS = ("label", "outcome_time")
_UUID = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")

KeptEntity = Callable[[str, object, str], str]
"""(endpoint, entity as it was given, its path) → the entity as the log keeps it. Raises SkewlessError."""


class OutcomeReader:
    """Reads the outcomes of one body. `received_time` in µs; `new_id` makes an id greater than all before."""

    def __init__(self, kept_entity: KeptEntity, *, caller: str, received_time: int, new_id: Callable[[], str]) -> None:
        self._kept_entity = kept_entity
        self._caller = caller
        self._received_time = received_time
        self._new_id = new_id

    def read(self, given: object, path: str) -> Outcome:
        """One outcome. Raises InvalidRequest at the first wrong place, and what `kept_entity` raises."""
        if type(given) is not dict:
            raise InvalidRequest(f"{path} is {json_kind(given)}", path=path, allowed="an object")
        by_entity = "prediction_id" not in given and any(name in given for name in _BY_ENTITY if name not in _TELLS)
        names = _BY_ENTITY if by_entity else _BY_ID
        for name in given:
            if name not in names:
                raise _unknown(name, names, path)
        for name in names:
            if name != "outcome_time" and name not in given:
                raise InvalidRequest(
                    f"{path} has no `{name}`", path=f"{path}.{name}", allowed=f"`{name}`", code="missing_field"
                )
        about = self._about_entity(given, path) if by_entity else _about_id(given, path)
        return Outcome(
            outcome_id=self._new_id(),
            label=_label(given["label"], path),
            outcome_time=_moment(given.get("outcome_time"), "outcome_time", path),
            received_time=self._received_time,
            caller=self._caller,
            **about,
        )

    def _about_entity(self, given: Mapping[str, object], path: str) -> dict[str, Any]:
        endpoint = given["endpoint"]
        if type(endpoint) is not str:
            raise _mistyped("endpoint", endpoint, path, allowed="the name of an endpoint")
        at = _moment(given["at"], "at", path)
        if at is None:
            raise _mistyped("at", None, path, allowed="an RFC 3339 timestamp with a time zone")
        if at > self._received_time + OUTCOME_AHEAD_S * SECOND_US:
            raise InvalidRequest(
                f"`at` is {shown(given['at'])}, which has not come yet",
                path=f"{path}.at",
                allowed="the moment that was asked about, which is not in the future",
                hint="check the time zone",
            )
        kept = self._kept_entity(endpoint, given["entity"], f"{path}.entity")
        return {"prediction_id": None, "endpoint": endpoint, "entity": kept, "at": at}


def told_outcomes(body: object) -> list[tuple[str, object]]:
    """(path, outcome as it was given) of each outcome in a decoded JSON body. Raises InvalidRequest, LimitExceeded."""
    if type(body) is dict and "outcomes" not in body and any(name in body for name in (*_BY_ID, *_BY_ENTITY)):
        return [("$", body)]
    if type(body) is not dict or set(body) != {"outcomes"}:
        raise InvalidRequest(
            "the body must have `outcomes` and nothing else, or be one outcome",
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
        raise LimitExceeded(
            f"`outcomes` has {len(given)} elements",
            path="$.outcomes",
            allowed=allowed,
            hint="send any number as application/x-ndjson, one on each line",
        )
    return [(f"$.outcomes[{index}]", each) for index, each in enumerate(given)]


def _unknown(name: str, names: tuple[str, ...], path: str) -> InvalidRequest:
    if name in (*_BY_ID, *_BY_ENTITY):
        return InvalidRequest(
            f"{path} has both `prediction_id` and `{name}`",
            path=f"{path}.{name}",
            allowed="`prediction_id`, or `endpoint`, `entity` and `at`",
            hint="an outcome is told by the id of its prediction, or by the entity and the moment asked about",
            code="unknown_field",
        )
    return unknown_name(name, names, path=path, what="field")


def _about_id(given: Mapping[str, object], path: str) -> dict[str, Any]:
    prediction_id = given["prediction_id"]
    if type(prediction_id) is not str or not _UUID.fullmatch(prediction_id):
        raise _mistyped(
            "prediction_id", prediction_id, path, allowed="a prediction id as the predict route returned it"
        )
    return {"prediction_id": prediction_id, "endpoint": None, "entity": None, "at": None}


def _label(value: object, path: str) -> str:
    """A label as text: strings as they are, booleans and numbers as JSON writes them."""
    if type(value) is str and 0 < len(value.encode()) <= STRING_BYTES_MAX:
        return value
    if type(value) in (bool, int, float):
        return msgspec.json.encode(value).decode()
    raise _mistyped(
        "label", value, path, allowed=f"a boolean, a number, or a string of 1 to {STRING_BYTES_MAX} UTF-8 bytes"
    )


def _moment(value: object, name: str, path: str) -> int | None:
    if value is None:
        return None
    try:
        return read_timestamp(value)
    except Mismatch as mismatch:
        raise InvalidRequest(
            f"`{name}` {mismatch.reason}", path=f"{path}.{name}", allowed=mismatch.allowed, code="mistyped_field"
        ) from mismatch


def _mistyped(name: str, value: object, path: str, *, allowed: str) -> InvalidRequest:
    return InvalidRequest(f"`{name}` is {shown(value)}", path=f"{path}.{name}", allowed=allowed, code="mistyped_field")
