"""The published JSON Schema of a route, for readers in other languages and for review of a change.

It says what a document must look like. Whether its parts fit together (shares that sum to 1, a layout that gives each
arm its share, a canary that is not the live bundle) only `Route.from_json` says.
"""

from typing import Any

from skewless.rollout.routes import (
    ARMS_MAX,
    ARMS_MIN,
    DIGEST_PATTERN,
    ENDPOINT_NAME_PATTERN,
    TEXT_MAX,
    ExperimentKind,
)
from skewless.rollout.slots import SLOTS
from skewless.serving.monitoring_policy import MonitoringPolicy

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_DIGEST = {"type": "string", "pattern": f"^{DIGEST_PATTERN}$"}
_NAME = {"type": "string", "pattern": f"^{ENDPOINT_NAME_PATTERN}$"}
_SHARE = {"type": "number", "minimum": 0, "maximum": 1}


def route_schema() -> dict[str, Any]:
    """The schema of one route of a routing table of format 2, as plain data."""
    parts = {
        "endpoint": _NAME,
        "description": {"type": "string"},
        "live": _described(_DIGEST, "answers what nothing else answers"),
        "previous": _nullable(_described(_DIGEST, "what a rollback makes live again; not the live bundle")),
        "canary": _nullable(_canary()),
        "shadow": _nullable(_shadow()),
        "experiment": _nullable(_experiment()),
        "version": {"type": "integer", "minimum": 1, "description": "one more with every change"},
        "sticky_by": {
            "type": "array",
            "items": {"type": "string", "minLength": 1},
            "uniqueItems": True,
            "description": "join keys by which traffic is split; none: all join keys of the row",
        },
        "monitoring": _nullable(_monitoring()),
    }
    return {
        "$schema": DIALECT,
        "title": "Skewless route",
        "description": (
            "Which bundle answers which share of an endpoint's traffic. The canary's share and the experiment's traffic"
            " are shares of the endpoint's traffic and sum to 1 at most; what is left is answered by the live bundle."
        ),
        **_object(parts, required=("endpoint", "description", "live")),
    }


def _canary() -> dict[str, Any]:
    share = _described(_SHARE, "share of the endpoint's traffic that it answers")
    return _object({"bundle": _DIGEST, "share": share}, required=("bundle", "share"))


def _shadow() -> dict[str, Any]:
    share = _described(_SHARE, "share of the live answers of which it sees the features; 1 where left out")
    return _object({"bundle": _DIGEST, "share": share}, required=("bundle",))


def _experiment() -> dict[str, Any]:
    arm = _object(
        {
            "name": _NAME,
            "bundle": _DIGEST,
            "share": _described(_SHARE, "share of the traffic that takes part; all arms' shares sum to 1"),
        },
        required=("name", "bundle", "share"),
    )
    parts = {
        "name": _NAME,
        "kind": {"enum": [kind.value for kind in ExperimentKind]},
        "arms": {"type": "array", "items": arm, "minItems": ARMS_MIN, "maxItems": ARMS_MAX},
        "traffic": _described(_SHARE, "share of the endpoint's traffic that takes part"),
        "success": _described(
            {"type": "string", "minLength": 1, "maxLength": TEXT_MAX}, "the outcome that counts as a success"
        ),
        "maximise": _described({"type": "boolean"}, "whether successes are wanted; true where left out"),
        "exploration_min": _described(_SHARE, "least share of each arm of a bandit; 0 for other experiments"),
        "salt": _described(
            {"type": "string", "maxLength": TEXT_MAX},
            "decides which entities fall to which arm; the experiment's name where empty",
        ),
        "half_life_s": _nullable(
            {"type": "number", "exclusiveMinimum": 0, "description": "outcomes count half for a bandit after this"}
        ),
        "layout": {
            "type": "array",
            "items": {
                "type": "array",
                "prefixItems": [
                    {"type": "integer", "minimum": 0, "maximum": ARMS_MAX - 1},
                    {"type": "integer", "minimum": 1, "maximum": SLOTS},
                ],
                "minItems": 2,
                "maxItems": 2,
            },
            "description": f"runs of the {SLOTS} slots, each [index of the arm, slots]; made from shares if left out",
        },
    }
    return _object(parts, required=("name", "kind", "arms", "traffic", "success"))


def _monitoring() -> dict[str, Any]:
    """The parts of a policy; what their fields may be, `serving/monitoring_policy.py` says."""
    parts = {
        name: _object({field: {} for field in fields}, required=())
        for name, fields in MonitoringPolicy().to_json().items()
    }
    return _described(_object(parts, required=()), "what the monitor is asked for; null: the defaults")


def _object(properties: dict[str, Any], *, required: tuple[str, ...]) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "required": list(required), "properties": properties}


def _described(schema: dict[str, Any], description: str) -> dict[str, Any]:
    return {**schema, "description": description}


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    return {"oneOf": [schema, {"type": "null"}]}
