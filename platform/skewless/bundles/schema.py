"""The published JSON Schema of a bundle's documents, for readers in other languages and for review.

It says what each file must look like. Whether the parts fit together, and whether digests and golden vectors hold,
only admission says. Transforms and baselines have schemas of their own.
"""

from typing import Any

from skewless.bundles.bundle import (
    BASELINE,
    CONTRACT,
    GOLDEN,
    MODEL_JSON,
    POST_PROCESSING,
    PROVENANCE,
    SERVING,
    SIGNATURE,
    TRANSFORM,
)
from skewless.bundles.manifest import FORMAT, MANIFEST, NAME_PATTERN, PATH_CHARACTERS_MAX, SEGMENT
from skewless.bundles.model_files import ModelFormat
from skewless.bundles.serving_profile import Place, Precision, Target, TimeoutAction, VersionPolicy
from skewless.dtypes import Dtype
from skewless.features.contract import Action, LogMark, Mode
from skewless.limits import LAST_KNOWN_S_MAX
from skewless.training.calibration import KNOTS_MAX, CalibrationKind

_TEXT: dict[str, Any] = {"type": "string"}
_NAME: dict[str, Any] = {"type": "string", "minLength": 1}
_FLAG: dict[str, Any] = {"type": "boolean"}
_COUNT: dict[str, Any] = {"type": "integer", "minimum": 0}
_SHA256: dict[str, Any] = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_DTYPE: dict[str, Any] = {"enum": [dtype.value for dtype in Dtype]}
_MARK: dict[str, Any] = {
    "enum": [mark.value for mark in LogMark if mark is not LogMark.KEEP],
    "description": "what the prediction log keeps in place of the value; the value itself where absent",
}
_SHARE: dict[str, Any] = {"type": "number", "minimum": 0, "maximum": 1}


def bundle_schema() -> dict[str, Any]:
    """The schema as plain data: `$defs` has one for each document, by its path in the bundle."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"Skewless bundle, format {FORMAT}",
        "description": (
            "A bundle is a folder. `$defs` has the schema of each JSON file in it, by path. All of them are canonical:"
            " keys sorted, no white space, UTF-8, numbers in their shortest form. The bundle's digest is the SHA-256 of"
            f" `{MANIFEST}`."
        ),
        "$defs": {
            MANIFEST: _manifest(),
            CONTRACT: _contract(),
            TRANSFORM: {"$ref": "transform.schema.json"},
            MODEL_JSON: _object({"entry": _NAME, "format": {"enum": [each.value for each in ModelFormat]}}),
            SIGNATURE: _object({"input": _tensor(), "outputs": _list(_tensor(), least=1)}),
            SERVING: _serving(),
            POST_PROCESSING: _post_processing(),
            BASELINE: {"$ref": "baseline-1.json"},
            GOLDEN: _golden(),
            PROVENANCE: {"type": "object", "description": "where the bundle came from, and its metrics"},
        },
    }


def _manifest() -> dict[str, Any]:
    path = {"pattern": f"^{SEGMENT}(/{SEGMENT})*$", "maxLength": PATH_CHARACTERS_MAX, "not": {"const": MANIFEST}}
    entry = _object({"bytes": _COUNT, "sha256": _SHA256})
    return _object(
        {
            "format": {"const": FORMAT},
            "name": {**_TEXT, "pattern": f"^{NAME_PATTERN}$"},
            "files": {"type": "object", "propertyNames": path, "additionalProperties": entry},
        }
    )


def _contract() -> dict[str, Any]:
    policy = _object({"action": {"enum": [each.value for each in Action]}, "value": {}})
    feature = _object(
        {"name": _NAME, "dtype": _DTYPE, "on_missing": policy, "on_stale": policy},
        optional={"feast_type": _NAME, "log": _MARK},
    )
    request_field = {"name": _NAME, "dtype": _DTYPE, "nullable": _FLAG}
    view = _object(
        {
            "view": _NAME,
            "ttl_us": {**_COUNT, "description": "µs; 0 is unlimited"},
            "join_keys": _list(_object(request_field, optional={"stored_name": _NAME, "log": _MARK})),
            "features": _list(feature),
        },
        optional={"alias": _NAME, "stored_name": _NAME, "near_cache": {"const": True}},
    )
    on_demand = _object(
        {
            "name": _NAME,
            "mode": {"enum": [each.value for each in Mode]},
            "function": {"type": "string", "pattern": "^[^:]+:[^:]+$"},
            "source_digest": _SHA256,
            "inputs": _list({"type": "array", "prefixItems": [_NAME, _NAME], "minItems": 2, "maxItems": 2}),
            "features": _list(feature),
        }
    )
    return _object(
        {
            "project": _NAME,
            "definitions_digest": _SHA256,
            "request_fields": _list(_object(request_field, optional={"log": _MARK})),
            "views": _list(view),
        },
        optional={"on_demand": _list(on_demand, least=1)},
    )


def _tensor() -> dict[str, Any]:
    return _object({"name": _NAME, "columns": {"type": "integer", "minimum": 1}})


def _serving() -> dict[str, Any]:
    queue = _object(
        {
            "timeout_us": _COUNT,
            "on_timeout": {"enum": [each.value for each in TimeoutAction]},
            "allow_override": _FLAG,
            "requests_max": _COUNT,
        }
    )
    rows = _list({"type": "integer", "minimum": 1})
    fields: dict[str, Any] = {
        "batch_rows_max": {"type": "integer", "minimum": 1},
        "preferred_batch_rows": rows,
        "max_queue_delay_us": _COUNT,
        "instances": {"type": "integer", "minimum": 1},
        "queue": {"anyOf": [{"type": "null"}, queue]},
        "call_timeout_ms": {"type": "integer", "minimum": 1},
        "version_policy": {"enum": [each.value for each in VersionPolicy]},
        "warm_up_rows": rows,
        "output_tolerance": {"type": "number", "minimum": 0},
        "precision": {"enum": [each.value for each in Precision]},
    }
    later = {"place": {"enum": [each.value for each in Place]}, "degrade": _degrade_ladder()}
    override = _object({**fields, "overrides": {"type": "object", "maxProperties": 0}}, optional=later)
    targets = {
        "type": "object",
        "propertyNames": {"enum": [each.value for each in Target]},
        "additionalProperties": override,
    }
    return _object({**fields, "overrides": targets}, optional=later)


def _degrade_ladder() -> dict[str, Any]:
    return _object(
        {
            "last_known_s": {"type": "integer", "minimum": 0, "maximum": LAST_KNOWN_S_MAX},
            "defaults": _FLAG,
            "in_process": _FLAG,
            "fallback": {"anyOf": [{"type": "null"}, _SHA256]},
            "constant": {"anyOf": [{"type": "null"}, _SHARE]},
        }
    )


def _post_processing() -> dict[str, Any]:
    knots = {"type": "array", "items": _SHARE, "minItems": 1, "maxItems": KNOTS_MAX}
    slope = {"type": "number", "exclusiveMinimum": 0}
    calibration = {
        "oneOf": [
            _object({"kind": {"const": CalibrationKind.NONE.value}}),
            _object(
                {"kind": {"const": CalibrationKind.SIGMOID.value}, "slope": slope, "intercept": {"type": "number"}}
            ),
            _object({"kind": {"const": CalibrationKind.ISOTONIC.value}, "inputs": knots, "outputs": knots}),
        ]
    }
    labels = _object({"negative": _NAME, "positive": _NAME, "threshold": _SHARE})
    return _object({"labels": labels, "calibration": calibration, "output": _NAME})


def _golden() -> dict[str, Any]:
    values = {"description": "one per row, null where there is none; bytes are base64, NaN and infinities are text"}
    column = _object({"dtype": _DTYPE, "values": {"type": "array", **values}})
    array = _object(
        {"shape": _list(_COUNT, least=1), "float32": {**_TEXT, "contentEncoding": "base64"}},
        description="float32, little-endian, row after row",
    )
    return _object(
        {
            "columns": {"type": "object", "additionalProperties": column},
            "tensor": array,
            "outputs": {"type": "object", "additionalProperties": array},
            "scores": array,
        },
        optional={"reasons": _list(_TEXT)},
    )


def _list(items: dict[str, Any], *, least: int = 0) -> dict[str, Any]:
    return {"type": "array", "items": items, **({"minItems": least} if least else {})}


def _object(
    properties: dict[str, Any], *, optional: dict[str, Any] | None = None, description: str = ""
) -> dict[str, Any]:
    return {
        **({"description": description} if description else {}),
        "type": "object",
        "additionalProperties": False,
        "required": list(properties),
        "properties": {**properties, **(optional or {})},
    }
