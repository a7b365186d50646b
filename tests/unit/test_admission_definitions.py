"""Admission against what is registered and installed: definitions, on-demand functions and steps that differ."""

import dataclasses
import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from harness import tampering
from harness.admissions import (
    everything,
    refusal_by,
    registry_of,
    told_by,
    transform_with_step,
)
from harness.bundles import build_bundle, content, contract, sample_columns
from skewless.bundles.admission import Result, admit
from skewless.bundles.bundle import write_bundle
from skewless.canonical_json import digest_bytes
from skewless.dtypes import Dtype, column_of
from skewless.errors import Unavailable
from skewless.features.compiled_registry import CompiledRegistry
from skewless.features.contract import FeatureContract, FeatureField, Mode, OnDemandView
from skewless.features.function_source import digest_of
from skewless.timestamps import HOUR_US

COMPUTED = "shop_admission_computed"
FUNCTION = """
def compute(inputs):
    return {"warm": [None if temp is None else temp * 2.0 for temp in inputs["temp"]]}
"""
Load = Callable[[str], ModuleType]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_bundle(tmp_path_factory.mktemp("artifacts")).folder


@pytest.fixture
def folder(built: Path, tmp_path: Path) -> Path:
    """A copy of the bundle to tamper with."""
    return Path(shutil.copytree(built, tmp_path / "bundle"))


# Definitions.


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda views: (dataclasses.replace(views[0], ttl_us=HOUR_US), *views[1:]), "ttl of view `weather`"),
        (lambda views: views[1:], "view `weather` is gone"),
        (
            lambda views: (
                views[0],
                dataclasses.replace(views[1], features=(FeatureField("seats", Dtype.INT32),)),
                views[2],
            ),
            "feature `seats` of view `aircraft` was int64, is int32",
        ),
    ],
)
@pytest.mark.parametrize("same_digest", [False, True])
def test_a_contract_that_is_not_what_is_registered_is_refused(
    built: Path, change: Callable[[Any], Any], told: str, same_digest: bool
) -> None:
    now = dataclasses.replace(contract(), views=change(contract().views))
    if not same_digest:
        now = dataclasses.replace(now, definitions_digest=digest_bytes(b"others"))
    refused = refusal_by(built, "definitions", registered=lambda _: registry_of(now))
    assert told in refused.message
    assert "`skewless apply`" in refused.hint
    assert ("states the definitions of feature service `service-0` and reads others" in refused.message) == same_digest


def test_without_a_snapshot_the_definitions_are_not_looked_at(built: Path) -> None:
    admission = admit(built, None, everything(registered=lambda _: None))
    check = admission.checks[-1]
    assert (check.name, check.result) == ("definitions", Result.SKIPPED)
    assert "there is no registry snapshot of project `demo`" in check.message
    assert admission.admitted


def test_a_registry_that_does_not_answer_is_no_refusal(built: Path) -> None:
    def away(project: str) -> CompiledRegistry:
        raise Unavailable("registry database", f"no snapshot of {project}")

    with pytest.raises(Unavailable):
        admit(built, None, everything(registered=away))


# On-demand functions and steps.


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Load]:
    """Writes a module's source and gives what imports it."""

    def make(source: str) -> Load:
        path = tmp_path / f"computed_{len(list(tmp_path.glob('computed_*.py')))}.py"
        path.write_text(source)
        spec = importlib.util.spec_from_file_location(COMPUTED, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)

        def load(name: str) -> ModuleType:
            if name != COMPUTED:
                raise ModuleNotFoundError(f"No module named {name!r}")
            return module

        return load

    return make


@pytest.fixture
def computed(tmp_path: Path, write: Callable[[str], Load]) -> tuple[Path, Load]:
    """A bundle with an on-demand view, and what imports its function."""
    load = write(FUNCTION)
    name = f"{COMPUTED}:compute"
    view = OnDemandView(
        "made", Mode.PYTHON, name, digest_of(name, load), (("temp", "weather__temp"),),
        (FeatureField("warm", Dtype.FLOAT32),),
    )  # fmt: skip
    columns = {**sample_columns(), "made__warm": column_of(Dtype.FLOAT32, [3.0, None, 5.0, 16.0])}
    write_bundle(
        content(given=dataclasses.replace(contract(), on_demand=(view,)), columns=columns), tmp_path / "computed"
    )
    return tmp_path / "computed", load


def _live(folder: Path) -> FeatureContract:
    return FeatureContract.from_json(json.loads((folder / "contract.json").read_bytes()))


def test_an_on_demand_function_that_is_what_it_was_passes(computed: tuple[Path, Load]) -> None:
    folder, load = computed
    live = _live(folder)
    admission = admit(folder, None, everything(import_module=load, registered=lambda _: registry_of(live)))
    assert admission.refusals == ()
    assert {check.name: check.looked_at for check in admission.checks}["functions"] == "1 on-demand functions"


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (FUNCTION.replace("2.0", "3.0"), "is not the one that was registered: the digest of its source is"),
        ("def other(inputs):\n    return inputs\n", "is nothing, not a function"),
    ],
)
def test_an_on_demand_function_that_differs_is_refused(
    computed: tuple[Path, Load], write: Callable[[str], Load], source: str, told: str
) -> None:
    folder, _ = computed
    assert told in told_by(folder, "functions", import_module=write(source), registered=None)


def test_an_on_demand_function_that_is_away_is_refused(computed: tuple[Path, Load]) -> None:
    told = told_by(computed[0], "functions", registered=None)
    assert f"module `{COMPUTED}` of function `{COMPUTED}:compute` cannot be imported" in told


def test_an_on_demand_function_that_is_registered_otherwise_is_refused(computed: tuple[Path, Load]) -> None:
    folder, load = computed
    (view,) = _live(folder).on_demand
    other = dataclasses.replace(view, source_digest=digest_bytes(b"another source"))
    now = dataclasses.replace(_live(folder), on_demand=(other,), definitions_digest=digest_bytes(b"others"))
    told = told_by(folder, "definitions", import_module=load, registered=lambda _: registry_of(now))
    assert "on-demand view `made` is changed: its function has another source" in told


def test_a_transform_with_steps_is_refused_where_nothing_makes_them_run(tmp_path: Path) -> None:
    write_bundle(content(fitted=transform_with_step()), tmp_path / "bundle")
    told = told_by(tmp_path / "bundle", "golden", steps=None)
    assert "the transform cannot run on the golden rows: the `onnx` step" in told


def test_a_step_whose_file_is_away_is_refused(tmp_path: Path) -> None:
    write_bundle(content(fitted=transform_with_step()), tmp_path / "bundle")
    (step,) = (tmp_path / "bundle" / "transform").iterdir()
    step.unlink()
    step.parent.rmdir()
    tampering.edit_manifest(tmp_path / "bundle", lambda manifest: manifest["files"].pop(f"transform/{step.name}"))
    assert "the transform has an `onnx` step whose file" in told_by(tmp_path / "bundle", "parts")
