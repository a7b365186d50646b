"""The published JSON Schema of a baseline, `baseline.json` of a bundle.

It says what a file must look like. Whether its parts fit together (as many counts as bins, edges that ascend, counts
that add up to the rows) only the loader says.
"""

from typing import Any

from skewless.dtypes import Dtype
from skewless.features.visibility import Status
from skewless.statistics.edges import EDGES_MAX
from skewless.statistics.stored_form import COUNT_MAX, FORMAT, MOMENT_FIELDS, NUMBER_FIELDS, STATUSES, WORD_FIELDS
from skewless.statistics.variable import NUMBER_PLACES, Measure, measure_of
from skewless.statistics.words import LISTED_MAX

_COUNT: dict[str, Any] = {"type": "integer", "minimum": 0, "maximum": COUNT_MAX}
_NUMBER = {"type": "number"}
_NAME = {"type": "string"}
_WORD_DTYPES = [dtype.value for dtype in Dtype if measure_of(dtype) is Measure.WORD]
_NUMBER_DTYPES = [dtype.value for dtype in Dtype if measure_of(dtype) is not Measure.WORD]
_COUNTS_DESCRIPTION = {
    "numbers": "null, NaN, -infinity, below edges[0], edges[0] to edges[1], …, edges[-1] and above, +infinity",
    "words": "null, unseen, other, then one for each of `words`",
}


def baseline_schema() -> dict[str, Any]:
    """The schema as plain data."""
    statuses = {
        "description": "how often each status occurred; present for stored features, empty where it is not known",
        **_object({status.value: _COUNT for status in Status}, required=()),
    }
    column = [{**each, "properties": {**each["properties"], STATUSES: statuses}} for each in (_numbers(), _words())]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Skewless baseline",
        "description": (
            "What the rows that a model was trained on looked like, in the bins in which traffic is counted. A bin of"
            " numbers holds edges[i] <= value < edges[i + 1]."
        ),
        **_object(
            {
                "format": {"const": FORMAT},
                "rows": _COUNT,
                "columns": _list({"oneOf": column}, "columns of the feature contract, after policies"),
                "outputs": _list(_numbers("float32"), "outputs of the transform"),
                "scores": _list(_numbers("float32"), "what the model gave, which may be of other rows"),
                "ages": _list(_numbers("int64"), "ages in µs of the rows that features came from, by view"),
            }
        ),
    }


def _numbers(*dtypes: str) -> dict[str, Any]:
    moments = {
        "count": {**_COUNT, "minimum": 1},
        "mean": _NUMBER,
        "deviation": {**_NUMBER, "minimum": 0},
        "minimum": _NUMBER,
        "maximum": _NUMBER,
    }
    assert tuple(moments) == MOMENT_FIELDS
    fields: dict[str, Any] = {
        "name": _NAME,
        "dtype": {"enum": list(dtypes or _NUMBER_DTYPES)},
        "edges": {"type": "array", "items": _NUMBER, "maxItems": EDGES_MAX},
        "counts": _counts("numbers", NUMBER_PLACES, NUMBER_PLACES + EDGES_MAX),
        "moments": {"oneOf": [{"type": "null"}, _object(moments)]},
    }
    assert tuple(fields) == NUMBER_FIELDS
    return _object(fields)


def _words() -> dict[str, Any]:
    fields: dict[str, Any] = {
        "name": _NAME,
        "dtype": {"enum": _WORD_DTYPES},
        "words": {"type": "array", "items": {"type": "string"}, "uniqueItems": True, "maxItems": LISTED_MAX},
        "rest": {
            "description": "CRC-32 of the UTF-8 of each other known word, ascending, as little-endian uint32",
            "type": "string",
            "contentEncoding": "base64",
        },
        "closed": {"description": "whether training saw no other words", "type": "boolean"},
        "counts": _counts("words", 3, 3 + LISTED_MAX),
    }
    assert {*fields} == {*WORD_FIELDS}
    return _object(fields)


def _counts(kind: str, least: int, most: int) -> dict[str, Any]:
    described = {"description": _COUNTS_DESCRIPTION[kind]}
    return {**described, "type": "array", "items": _COUNT, "minItems": least, "maxItems": most}


def _list(items: dict[str, Any], description: str) -> dict[str, Any]:
    return {"description": description, "type": "array", "items": items}


def _object(properties: dict[str, Any], *, required: tuple[str, ...] | None = None) -> dict[str, Any]:
    wanted = list(properties) if required is None else list(required)
    return {"type": "object", "additionalProperties": False, "required": wanted, "properties": properties}
