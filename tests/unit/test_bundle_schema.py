"""The published JSON Schema of bundles: current, right for every document of a real bundle, and strict."""

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from harness.bundles import content
from skewless.bundles.bundle import (
    BASELINE,
    CONTRACT,
    FILES,
    POST_PROCESSING,
    PROVENANCE,
    SERVING,
    TRANSFORM,
    write_bundle,
)
from skewless.bundles.degrade_ladder import DegradeLadder
from skewless.bundles.manifest import MANIFEST
from skewless.bundles.post_processing import PostProcessing
from skewless.bundles.schema import bundle_schema
from skewless.bundles.serving_profile import Place, QueuePolicy, ServingProfile, Target
from skewless.canonical_json import digest
from skewless.dtypes import Dtype
from skewless.features.contract import FeatureField, Mode, OnDemandView
from skewless.training.calibration import Calibration, CalibrationKind

PUBLISHED = Path(__file__).parents[2] / "docs" / "schemas" / "bundle-2.json"
ELSEWHERE = {TRANSFORM, BASELINE}
"""Documents with a schema of their own."""


def errors(path: str, data: object) -> list[str]:
    return [error.json_path for error in Draft202012Validator(bundle_schema()["$defs"][path]).iter_errors(data)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("built") / "bundle"
    write_bundle(content(), folder)
    return folder


def _documents(folder: Path) -> dict[str, Any]:
    return {path: json.loads((folder / path).read_bytes()) for path in [*FILES, MANIFEST] if path not in ELSEWHERE}


def test_the_published_schema_is_current() -> None:
    assert json.loads(PUBLISHED.read_text()) == bundle_schema(), (
        "write it again: .venv/bin/skewless bundle schema > docs/schemas/bundle-2.json"
    )


def test_the_schema_is_a_schema_of_every_document() -> None:
    schema = bundle_schema()
    Draft202012Validator.check_schema(schema)
    assert set(schema["$defs"]) == {*FILES, MANIFEST}
    for path in ELSEWHERE:
        assert (PUBLISHED.parent / schema["$defs"][path]["$ref"]).is_file()


def test_every_document_of_a_bundle_is_valid(folder: Path) -> None:
    assert {path: errors(path, data) for path, data in _documents(folder).items()} == {
        path: [] for path in _documents(folder)
    }


@pytest.mark.parametrize(
    "calibration",
    [
        Calibration(CalibrationKind.SIGMOID, slope=1.5, intercept=-0.25),
        Calibration(CalibrationKind.ISOTONIC, inputs=(0.25, 0.75), outputs=(0.0, 1.0)),
    ],
)
def test_other_calibrations_profiles_and_contracts_are_valid(calibration: Calibration) -> None:
    whole = content()
    assert errors(POST_PROCESSING, PostProcessing(whole.post.labels, calibration).to_json()) == []
    gpu = ServingProfile(queue=QueuePolicy(timeout_us=1_000), preferred_batch_rows=(64,), output_tolerance=0.01)
    ladder = DegradeLadder(defaults=True, fallback=digest("another"), constant=0.25)
    declared = ServingProfile(place=Place.GATEWAY, degrade=ladder, overrides={Target.GPU_TENSORRT: gpu})
    profile = json.loads(json.dumps(declared.to_json()))
    assert errors(SERVING, profile) == []
    weather, *views = whole.contract.views
    renamed = dataclasses.replace(weather, alias="sky", stored_name="weather_v2", near_cache=True)
    made = OnDemandView("made", Mode.PANDAS, "a.b:c", digest("a"), (("x", "party"),), (FeatureField("y", Dtype.BOOL),))
    contract = dataclasses.replace(whole.contract, views=(renamed, *views), on_demand=(made,))
    assert errors(CONTRACT, contract.to_json()) == []


def _places(data: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Every place of the JSON below the top, long lists by their first items."""
    items = data.items() if isinstance(data, dict) else enumerate(data[:2]) if isinstance(data, list) else ()
    return [place for key, value in items for place in ((*path, key), *_places(value, (*path, key)))]


def _changed(data: Any, place: tuple[str | int, ...], value: object) -> Any:
    copied = copy.deepcopy(data)
    target: Any = copied
    for step in place[:-1]:
        target = target[step]
    target[place[-1]] = value
    return copied


def test_a_value_of_another_type_is_refused_wherever_it_stands(folder: Path) -> None:
    for path, data in _documents(folder).items():
        for place in _places(data) if path != PROVENANCE else []:
            if place[-2:-1] == ("values",) or place[-1] == "value":
                continue  # a value of any dtype may stand there; the loader knows which
            assert errors(path, _changed(data, place, {"another": "type"})), (path, place)


def test_missing_and_unknown_fields_are_refused(folder: Path) -> None:
    for path, data in _documents(folder).items():
        if path != PROVENANCE:
            assert errors(path, {**data, "comment": "mine"}), path
            for name in data:
                assert errors(path, {key: value for key, value in data.items() if key != name}), (path, name)


@pytest.mark.parametrize("path", ["../a", "/a", "a//b", "a/../b", "manifest.json", ".a", ""])
def test_a_path_out_of_the_folder_is_refused(folder: Path, path: str) -> None:
    manifest = _documents(folder)[MANIFEST]
    entry = next(iter(manifest["files"].values()))
    assert errors(MANIFEST, {**manifest, "files": {**manifest["files"], path: entry}})
