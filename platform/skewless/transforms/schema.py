"""The published JSON Schema of stored transforms, made from the catalogue of operations.

It says what a file must look like, for readers in other languages and for review. Whether the parts fit together
(kinds of operands, nulls, edges that ascend, the digest) only the loader says.
"""

from typing import Any

from skewless.transforms import checks
from skewless.transforms.catalogue import CATALOGUE
from skewless.transforms.checks import Check, CountUpTo, FixedList, ListOf, OneOf, Optional
from skewless.transforms.operation import Operation
from skewless.transforms.semantics import SEMANTICS_VERSION, version_of
from skewless.transforms.timezones import check_zone

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_NUMBER = {"type": "number"}
_TEXT = {"type": "string"}
_NAME = {"type": "string", "minLength": 1}
_SHA256 = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_PLAIN: dict[Check, dict[str, Any]] = {
    checks.finite: _NUMBER,
    checks.finite_or_none: {"type": ["number", "null"]},
    checks.positive: {"type": "number", "exclusiveMinimum": 0},
    checks.not_negative: {"type": "number", "minimum": 0},
    checks.share: {"type": "number", "minimum": 0, "maximum": 1},
    checks.count_from_zero: {"type": "integer", "minimum": 0},
    checks.text: _TEXT,
    checks.name: _NAME,
    checks.sha256: _SHA256,
    checks.flag: {"type": "boolean"},
    checks.column_dtype: {"enum": [str(dtype) for dtype in checks.COLUMN_DTYPES]},
    checks.edges: {"type": "array", "items": _NUMBER, "minItems": 1, "maxItems": checks.OUTPUTS_MAX - 1},
    checks.numbers: {"type": "array", "items": _NUMBER},
    checks.names: {
        "type": "array", "items": _NAME, "minItems": 1, "maxItems": checks.OUTPUTS_MAX, "uniqueItems": True,
    },
    checks.vocabulary: {"type": "array", "items": _TEXT, "maxItems": checks.VOCABULARY_MAX, "uniqueItems": True},
    checks.seconds: {"type": "array", "items": {"type": "integer"}},
    check_zone: {**_NAME, "description": "name of an IANA time zone"},
}  # fmt: skip


def transform_schema() -> dict[str, Any]:
    """The schema of a fitted transform, `transform.json` of a bundle, as plain data."""
    return {
        "$schema": DIALECT,
        "title": "Skewless fitted transform",
        "description": (
            "Named outputs as a graph of operations over columns, with everything that was learned. Operands are"
            " indexes of earlier nodes; `learned` has an entry per node, null for one that learns nothing; `digest` is"
            " the SHA-256 of the canonical JSON (keys sorted, no white space, UTF-8) of all other fields."
        ),
        "type": "object",
        "additionalProperties": False,
        "required": ["semantics_version", "nodes", "outputs", "learned", "digest"],
        "properties": {
            "semantics_version": {"type": "integer", "minimum": 1, "maximum": SEMANTICS_VERSION},
            "nodes": {"type": "array", "minItems": 1, "items": {"oneOf": [_node(each) for each in _operations()]}},
            "outputs": {"type": "array", "minItems": 1, "items": _output()},
            "learned": {"type": "array", "items": {"anyOf": [{"type": "null"}, *_learned()]}},
            "digest": _SHA256,
        },
    }


def check_schema(check: Check) -> dict[str, Any]:
    """The JSON Schema of what a check accepts in stored form."""
    match check:
        case CountUpTo(most):
            return {"type": "integer", "minimum": 1, "maximum": most}
        case OneOf(allowed):
            return {"enum": list(allowed)}
        case Optional(inner):
            return {"anyOf": [{"type": "null"}, check_schema(inner)]}
        case FixedList(items):
            each = [check_schema(item) for _, item in items]
            return {"type": "array", "prefixItems": each, "minItems": len(each), "maxItems": len(each)}
        case ListOf(inner, most):
            return {"type": "array", "items": check_schema(inner), "minItems": 1, "maxItems": most}
    assert check in _PLAIN, f"add {check!r} to the table of schemas"
    return _PLAIN[check]


def _operations() -> list[Operation]:
    return [CATALOGUE[name] for name in sorted(CATALOGUE)]


def _node(operation: Operation) -> dict[str, Any]:
    meaning = (type(operation).__doc__ or "").partition("\n\n")[0]
    return {
        "description": f"{' '.join(meaning.split())} Since semantics version {version_of([operation.name])}.",
        **_object(
            {
                "operation": {"const": operation.name},
                "operands": {"type": "array", "items": {"type": "integer", "minimum": 0}},
                "settings": _parameters(operation.settings),
            }
        ),
    }


def _learned() -> list[dict[str, Any]]:
    """One schema for each distinct set of learned parameters; which node has which is for the loader to say."""
    distinct = {tuple(operation.learned.items()): operation.learned for operation in _operations() if operation.learned}
    return [_parameters(learned) for learned in distinct.values()]


def _output() -> dict[str, Any]:
    return _object({"name": _NAME, "node": {"type": "integer", "minimum": 0}})


def _parameters(parameters: checks.Checks) -> dict[str, Any]:
    return _object({name: check_schema(check) for name, check in parameters.items()})


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": list(properties),
        "properties": properties,
    }
