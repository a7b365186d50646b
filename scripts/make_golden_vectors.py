"""Writes the golden vectors of Feast's Redis layout: keys, hash fields and values, made by the installed Feast itself.

    python scripts/make_golden_vectors.py

Run it after Feast's pin moved, and read the difference: whatever changed in these files changed in every store.
Times, which Feast's own types have no JSON for, are written as RFC 3339 texts and bytes as base64.
"""

import base64
import json
import math
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from feast.infra.online_stores.helpers import _mmh3, _redis_key, compute_versioned_name
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.type_map import python_values_to_proto_values
from feast.types import from_value_type
from feast.value_type import ValueType
from google.protobuf.timestamp_pb2 import Timestamp

FOLDER = Path(__file__).parents[1] / "tests" / "contract" / "golden"
SERIALIZATION_VERSION = 3
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MOMENT = datetime(2013, 5, 1, 12, 30, tzinfo=UTC)
UUID = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"
TEXTS = ("", "plain", "süd \N{CLOUD WITH RAIN}", 'quote " and \\ and \n')

KEYS: list[tuple[str, str, dict[str, tuple[str, object]]]] = [
    ("one integer", "demo", {"driver_id": ("INT64", 1001)}),
    ("a negative integer", "demo", {"driver_id": ("INT64", -(2**63))}),
    ("a small integer is another key", "demo", {"driver_id": ("INT32", 1001)}),
    ("its text is another key", "demo", {"driver_id": ("STRING", "1001")}),
    ("an empty text", "demo", {"station": ("STRING", "")}),
    ("unicode in name, value and project", "projekt", {"bahnhöfe": ("STRING", "süd \N{CLOUD WITH RAIN}")}),
    ("bytes", "demo", {"token": ("BYTES", b"\x00\xff")}),
    ("a moment, of which whole seconds are kept", "demo", {"day": ("UNIX_TIMESTAMP", MOMENT)}),
    (
        "composite, in the order of the names",
        "prod",
        {"zeta": ("STRING", "z"), "alpha": ("INT64", 7), "mid": ("INT32", -1)},
    ),
    ("no entity", "prod", {"__dummy_id": ("STRING", "")}),
]
"""(what it shows, project, join key → (Feast's value type, value))."""

VALUES: dict[ValueType, list[object]] = {
    ValueType.BOOL: [True, False, None],
    ValueType.INT32: [0, 1, -1, 127, 128, 2**31 - 1, -(2**31), None],
    ValueType.INT64: [0, 1, -1, 300, 2**53 + 1, 2**63 - 1, -(2**63), None],
    ValueType.FLOAT: [0.0, -0.0, 1.5, 0.1, 3.4e38, 1e-45, math.inf, -math.inf, math.nan, None],
    ValueType.DOUBLE: [0.0, -0.0, 1.5, 0.1, 1e300, 5e-324, math.inf, -math.inf, math.nan, None],
    ValueType.STRING: [*TEXTS, None],
    ValueType.BYTES: [b"a", b"\x00\xff", bytes(200), None],
    ValueType.UNIX_TIMESTAMP: [
        MOMENT,
        datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC),
        datetime(1970, 1, 1, tzinfo=UTC),
    ],
    ValueType.PDF_BYTES: [b"%PDF", None],
    ValueType.IMAGE_BYTES: [b"\xff\xd8", None],
    ValueType.JSON: ["{}", '{"a": [1, null]}', "null", None],
    ValueType.UUID: [UUID, None],
    ValueType.TIME_UUID: [UUID, None],
    ValueType.DECIMAL: ["1.50", "-0", "1E+3", None],
    ValueType.BOOL_LIST: [[], [True], [False, True], None],
    ValueType.INT32_LIST: [[], [0], [-1, 2**31 - 1, -(2**31)], None],
    ValueType.INT64_LIST: [[], [0], [-1, 2**63 - 1, -(2**63)], None],
    ValueType.FLOAT_LIST: [[], [0.1, -0.0], [math.inf, math.nan], None],
    ValueType.DOUBLE_LIST: [[], [0.1, -0.0], [math.inf, math.nan], None],
    ValueType.STRING_LIST: [[], [""], list(TEXTS), None],
    ValueType.BYTES_LIST: [[], [b""], [b"\x00\xff", b"a"], None],
    ValueType.UNIX_TIMESTAMP_LIST: [[], [MOMENT], [MOMENT, EPOCH], None],
    ValueType.JSON_LIST: [[], ["{}", "[1]"], None],
    ValueType.UUID_LIST: [[], [UUID, UUID], None],
    ValueType.TIME_UUID_LIST: [[], [UUID], None],
    ValueType.DECIMAL_LIST: [[], ["1.50", "0"], None],
}
"""What is given to Feast's writer, by its value type."""

FIELDS: list[tuple[str, bool, int | None, int | None, str]] = [
    ("weather", False, None, None, "temp"),
    ("weather", False, 2, None, "temp"),
    ("weather", True, None, None, "temp"),
    ("weather", True, 0, None, "temp"),
    ("weather", True, 2, None, "temp"),
    ("weather", True, 3, 2, "temp"),
    ("weather", True, 3, 0, "temp"),
    ("ansicht süd", False, None, None, "\N{CLOUD WITH RAIN}"),
]
"""(view, whether the store keeps versions, the view's current version, the pinned version, feature)."""


def golden_keys() -> list[dict[str, Any]]:
    """Keys of entities, each as Feast serializes it."""
    found = []
    for shows, project, values in KEYS:
        protos = [python_values_to_proto_values([value], ValueType[kind])[0] for kind, value in values.values()]
        key = _redis_key(project, EntityKey(join_keys=list(values), entity_values=protos), SERIALIZATION_VERSION)
        join_keys = {
            name: [str(from_value_type(ValueType[kind])), plain(value)] for name, (kind, value) in values.items()
        }
        found.append({"shows": shows, "project": project, "join_keys": join_keys, "key": key.hex()})
    return found


def golden_fields() -> list[dict[str, Any]]:
    """Hash fields of features and event times, by version."""
    found = []
    for view, versioned, current, pinned, feature in FIELDS:
        table = SimpleNamespace(
            name=view, current_version_number=current, projection=SimpleNamespace(version_tag=pinned)
        )
        stored = compute_versioned_name(table, versioned)
        found.append(
            {
                "view": view,
                "store_keeps_versions": versioned,
                "current_version": current,
                "pinned_version": pinned,
                "stored_name": stored,
                "feature": feature,
                "field": _mmh3(f"{stored}:{feature}").hex(),
                "time_field": f"_ts:{stored}".encode().hex(),
            }
        )
    return found


def golden_values() -> list[dict[str, Any]]:
    """Values of every type, each with the bytes that Feast's writer stores for it."""
    found = []
    for kind, values in VALUES.items():
        # All together, as in one write: Feast looks at the first value that is not empty to see their type.
        stored = python_values_to_proto_values(list(values), kind)
        found += [
            {"type": str(from_value_type(kind)), "value": plain(value), "stored": each.SerializeToString().hex()}
            for value, each in zip(values, stored, strict=True)
        ]
    return found


def golden_times() -> list[dict[str, Any]]:
    """Event times with the bytes of their message; microseconds are what a reader makes of it."""
    moments = [(0, 0), (1, 0), (1_367_411_400, 250_001_000), (1_367_411_400, 999_999_999), (-1, 500_000_000)]
    return [
        {
            "stored": Timestamp(seconds=seconds, nanos=nanos).SerializeToString().hex(),
            "micros": seconds * 1_000_000 + nanos // 1_000,
        }
        for seconds, nanos in moments
    ]


def plain(value: object) -> Any:
    """A value as JSON says it; NaN and infinities by their names."""
    if isinstance(value, list):
        return [plain(each) for each in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    return value


def golden_files() -> Mapping[str, str]:
    """Each golden file's name and text."""
    made = {
        "keys.json": golden_keys(),
        "fields.json": golden_fields(),
        "values.json": golden_values(),
        "times.json": golden_times(),
    }
    head = {"feast": version("feast"), "entity_key_serialization_version": SERIALIZATION_VERSION}
    return {
        name: json.dumps({**head, "vectors": vectors}, indent=1, ensure_ascii=False) + "\n"
        for name, vectors in made.items()
    }


def main() -> None:
    """Write the files."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in golden_files().items():
        (FOLDER / name).write_text(text)
        sys.stdout.write(f"{name}\n")


if __name__ == "__main__":
    main()
