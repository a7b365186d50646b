"""Admission of bundles on disk: files, documents and parts that are wrong are refused, each in words."""

import dataclasses
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness import tampering
from harness.admissions import (
    edit_golden,
    everything,
    first_rows,
    flipped_bit,
    refusal_by,
    told_by,
)
from harness.bundles import build_bundle, content, contract, model, sample_columns
from skewless.adapters.step_loader import TransformSteps
from skewless.bundles.admission import Result, Surroundings, admit
from skewless.bundles.golden import GoldenVectors
from skewless.bundles.manifest import MANIFEST
from skewless.canonical_json import digest_bytes, encode
from skewless.dtypes import Column, Dtype, column_of
from skewless.errors import BundleRefused
from skewless.features.contract import RequestField

ONNX = "model/model.onnx"
CHECKS = (
    "manifest", "files", "parts", "fit", "golden", "functions", "transform", "model", "signature", "outputs",
    "definitions",
)  # fmt: skip


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_bundle(tmp_path_factory.mktemp("artifacts")).folder


@pytest.fixture
def folder(built: Path, tmp_path: Path) -> Path:
    """A copy of the bundle to tamper with."""
    return Path(shutil.copytree(built, tmp_path / "bundle"))


def test_an_untouched_bundle_passes_every_check(built: Path) -> None:
    admission = admit(built, None, everything())
    assert [check.name for check in admission.checks] == list(CHECKS)
    assert {check.name: check.message for check in admission.checks if check.result is not Result.PASSED} == {}
    assert all(check.looked_at and check.seconds >= 0.0 for check in admission.checks)
    assert admission.results == dict.fromkeys(CHECKS, "passed")
    assert admission.admitted
    assert admission.require().digest == admission.digest == built.name
    seen = {check.name: check.looked_at for check in admission.checks}
    assert seen["golden"] == "4 rows of 8 columns"
    assert seen["outputs"] == "4 golden rows, bit for bit"
    assert seen["definitions"] == "3 views, 0 on-demand views of project demo"
    assert seen["transform"].endswith("executions on 32 rows")


def test_the_list_of_checks_is_plain_data(built: Path) -> None:
    told = json.loads(encode(admit(built, None, everything()).to_json()))
    assert told["admitted"] is True
    assert told["digest"] == built.name
    assert [check["name"] for check in told["checks"]] == list(CHECKS)
    assert set(told["checks"][0]) == {"name", "result", "looked_at", "message", "hint", "seconds"}


def test_a_gateway_skips_what_it_has_no_means_for_and_says_so(built: Path) -> None:
    admission = admit(built, None, Surroundings(clock=time.monotonic_ns, steps=TransformSteps))
    skipped = {check.name: check.message for check in admission.checks if check.result is Result.SKIPPED}
    assert list(skipped) == ["functions", "model", "signature", "outputs", "definitions"]
    assert "run elsewhere" in skipped["model"]
    assert "stops no bundle that serves" in skipped["definitions"]
    assert admission.require().name == "late-flights"


def test_several_refusals_are_counted_in_the_error(folder: Path) -> None:
    edit_golden(folder, lambda golden: dataclasses.replace(golden, tensor=flipped_bit(golden.tensor, 0, 0)))
    tampering.replace(folder, ONNX, model(7))
    with pytest.raises(BundleRefused, match=r"by the check `golden`: .*; `signature`, `outputs` refused it too"):
        admit(folder, None, everything()).require()


# Files against the manifest.


def test_a_flipped_bit_is_refused_and_nothing_after_it_is_looked_at(folder: Path) -> None:
    tampering.flip(folder, ONNX, 200, bit=6)
    assert f"`{ONNX}` was changed" in told_by(folder, "files")
    results = admit(folder, None, everything()).results
    assert [name for name, result in results.items() if result == "skipped"] == list(CHECKS[2:])


def test_a_torn_file_is_refused(folder: Path) -> None:
    os.truncate(folder / "golden.json", 100)
    refused = refusal_by(folder, "files")
    assert "`golden.json` is torn: it has 100 of the" in refused.message
    assert "cut short" in refused.hint


def test_a_missing_file_is_refused(folder: Path) -> None:
    (folder / "serving.json").unlink()
    assert "`serving.json` is missing" in told_by(folder, "files")


def test_an_extra_file_is_refused(folder: Path) -> None:
    (folder / "model" / "model.onnx.bak").write_bytes(b"x")
    assert "`model/model.onnx.bak` in bundle folder `bundle` is not named" in told_by(folder, "files")


def test_a_wrong_size_in_the_manifest_is_refused(folder: Path) -> None:
    tampering.edit_manifest(folder, lambda manifest: manifest["files"]["golden.json"].update(bytes=1))
    assert "1 that the manifest says" in told_by(folder, "files")


def test_a_wrong_digest_in_the_manifest_is_refused(folder: Path) -> None:
    tampering.edit_manifest(folder, lambda manifest: manifest["files"]["golden.json"].update(sha256="0" * 64))
    assert "the manifest says 0000" in told_by(folder, "files")


def test_a_path_out_of_the_folder_is_refused(folder: Path) -> None:
    (folder.parent / "outside.json").write_bytes(b"{}")
    entry = {"bytes": 2, "sha256": digest_bytes(b"{}")}
    tampering.edit_manifest(folder, lambda manifest: manifest["files"].update({"../outside.json": entry}))
    assert "'../outside.json', which no file of a bundle may have" in told_by(folder, "manifest")


def test_a_link_is_refused(folder: Path) -> None:
    (folder / ONNX).rename(folder.parent / "model.onnx")
    (folder / ONNX).symlink_to(folder.parent / "model.onnx")
    assert f"`{ONNX}` in bundle folder `bundle` is a link" in told_by(folder, "files")


def test_a_manifest_that_is_not_canonical_is_refused(folder: Path) -> None:
    (folder / MANIFEST).write_text(json.dumps(json.loads((folder / MANIFEST).read_bytes()), indent=2))
    assert "is not canonical JSON" in told_by(folder, "manifest")


def test_another_digest_than_the_one_asked_for_is_refused(folder: Path) -> None:
    admission = admit(folder, digest_bytes(b"another"), everything())
    assert [check.name for check in admission.refusals] == ["manifest"]
    assert "the digest asked for is" in admission.refusals[0].message


def test_a_bundle_of_format_1_is_refused(folder: Path) -> None:
    tampering.edit_manifest(folder, lambda manifest: manifest.update(format=1))
    refused = refusal_by(folder, "manifest")
    assert "has bundle format 1; this version reads format 2" in refused.message
    assert "train the model again" in refused.hint


# Each part by itself, with digests put right.


def test_a_serving_profile_out_of_bounds_is_refused(folder: Path) -> None:
    tampering.edit(folder, "serving.json", lambda profile: profile.update(instances=1_000))
    told = told_by(folder, "parts")
    assert told.startswith("`serving.json`: `instances` of a serving profile is 1000; allowed")


def test_a_calibration_that_is_not_monotone_is_refused(folder: Path) -> None:
    crooked = {"kind": "isotonic", "inputs": [0.1, 0.5, 0.9], "outputs": [0.1, 0.8, 0.4]}
    tampering.edit(folder, "post_processing.json", lambda post: post.update(calibration=crooked))
    assert "outputs that never decrease" in told_by(folder, "parts")


def test_a_threshold_that_no_score_has_is_refused(folder: Path) -> None:
    tampering.edit(folder, "post_processing.json", lambda post: post["labels"].update(threshold=1.5))
    assert "`post_processing.json`: the threshold is 1.5" in told_by(folder, "parts")


def test_two_classes_of_one_name_are_refused(folder: Path) -> None:
    tampering.edit(folder, "post_processing.json", lambda post: post["labels"].update(negative="late"))
    assert "each needs its own name" in told_by(folder, "parts")


def test_a_transform_parameter_changed_without_its_digest_is_refused(folder: Path) -> None:
    def change(transform: Any) -> None:
        learned = next(entry for entry in transform["learned"] if entry)
        learned["value"] += 1.0

    tampering.edit(folder, "transform.json", change)
    assert "`transform.json`: a fitted transform states the digest" in told_by(folder, "parts")


def test_an_unknown_operation_is_refused(folder: Path) -> None:
    tampering.edit(folder, "transform.json", lambda transform: transform["nodes"][0].update(operation="launch"))
    assert "`transform.json`: $.nodes[0].operation" in told_by(folder, "parts")


def test_an_unknown_dtype_in_the_contract_is_refused(folder: Path) -> None:
    tampering.edit(folder, "contract.json", lambda each: each["request_fields"][0].update(dtype="float16"))
    assert "`contract.json`: Invalid enum value 'float16' - at `$.request_fields[0].dtype`" in told_by(folder, "parts")


def test_an_unknown_model_format_is_refused(folder: Path) -> None:
    tampering.edit(folder, "model/model.json", lambda described: described.update(format="pickle"))
    assert "`model/model.json`: a model has format 'pickle'. Formats: onnx" in told_by(folder, "parts")


def test_an_entry_that_is_no_file_is_refused(folder: Path) -> None:
    tampering.edit(folder, "model/model.json", lambda described: described.update(entry="other.onnx"))
    assert "entry is `other.onnx`, which is none of its files" in told_by(folder, "parts")


def test_a_tensor_without_columns_is_refused(folder: Path) -> None:
    tampering.edit(folder, "model/signature.json", lambda signature: signature["input"].update(columns=0))
    assert "`model/signature.json`: Expected `int` >= 1 - at `$.input.columns`" in told_by(folder, "parts")


@pytest.mark.parametrize("ttl_us", [-1, "4h", 1.5, True, 2**70])
def test_a_ttl_that_is_no_time_is_refused(folder: Path, ttl_us: object) -> None:
    tampering.edit(folder, "contract.json", lambda each: each["views"][0].update(ttl_us=ttl_us))
    assert told_by(folder, "parts").startswith("`contract.json`: ")


def test_a_value_of_another_type_is_refused_with_its_path(folder: Path) -> None:
    tampering.edit(folder, "contract.json", lambda each: each["request_fields"][1].update(name=["distance"]))
    assert told_by(folder, "parts") == "`contract.json`: Expected `str`, got `array` - at `$.request_fields[1].name`"


# Parts against each other.


def test_a_transform_of_other_columns_is_refused(folder: Path) -> None:
    def drop(each: Any) -> None:
        each["request_fields"] = [field for field in each["request_fields"] if field["name"] != "distance"]

    tampering.edit(folder, "contract.json", drop)
    assert "reads `distance` as `float32`, the feature contract offers nothing" in told_by(
        folder, "fit", registered=None
    )


def test_a_transform_that_reads_another_dtype_is_refused(folder: Path) -> None:
    tampering.edit(folder, "contract.json", lambda each: each["views"][0]["features"][0].update(dtype="float64"))
    told = told_by(folder, "fit", registered=None)
    assert told == "the transform reads `weather__temp` as `float32`, the feature contract offers `float64`"


def test_a_null_that_the_transform_cannot_take_is_refused(folder: Path) -> None:
    def loosen(each: Any) -> None:
        (field,) = [field for field in each["request_fields"] if field["name"] == "party"]
        field["nullable"] = True

    tampering.edit(folder, "contract.json", loosen)
    refused = refusal_by(folder, "fit", registered=None)
    assert "takes no null in `party`" in refused.message
    assert "impute" in refused.hint


def test_two_columns_of_one_name_are_refused(folder: Path) -> None:
    tampering.edit(folder, "contract.json", lambda each: each["request_fields"].append(each["request_fields"][1]))
    assert told_by(folder, "fit") == "the feature contract has two columns called `distance`"


def test_a_join_key_of_two_dtypes_is_refused(folder: Path) -> None:
    def add(each: Any) -> None:
        key = {"name": "origin", "dtype": "int64", "nullable": False}
        each["views"].append({"view": "runways", "ttl_us": 0, "join_keys": [key], "features": []})

    tampering.edit(folder, "contract.json", add)
    told = told_by(folder, "fit", registered=None)
    assert told == "join key `origin` of the feature contract is string in view `weather` and int64 in another"


def test_a_default_of_another_dtype_is_refused(folder: Path) -> None:
    policy = {"action": "default", "value": "north"}
    tampering.edit(folder, "contract.json", lambda each: each["views"][0]["features"][1].update(on_missing=policy))
    assert "`wind_dir` of view `weather` is int64, and its default where it is missing is 'north'" in told_by(
        folder, "fit"
    )


def test_a_model_of_another_width_is_refused(folder: Path) -> None:
    tampering.edit(folder, "model/signature.json", lambda signature: signature["input"].update(columns=9))
    admission = admit(folder, None, everything())
    assert [check.name for check in admission.refusals] == ["fit", "signature"]
    assert admission.refusals[0].message == "the transform gives 8 columns, the model takes 9"


def test_an_output_that_post_processing_does_not_read_is_refused(folder: Path) -> None:
    tampering.edit(folder, "model/signature.json", lambda signature: signature["outputs"][0].update(name="score"))
    admission = admit(folder, None, everything())
    assert [check.name for check in admission.refusals] == ["fit", "signature"]
    assert "post-processing reads `probabilities`" in admission.refusals[0].message
    assert "the bundle declares input `features` of 8 columns and output `score`" in admission.refusals[1].message


def test_a_baseline_of_other_columns_is_refused(folder: Path) -> None:
    fields = (*contract().request_fields, RequestField("night", Dtype.BOOL))
    columns = {**sample_columns(), "night": column_of(Dtype.BOOL, [True, False, True, False])}
    other = content(given=dataclasses.replace(contract(), request_fields=fields), columns=columns)
    tampering.replace(folder, "baseline.json", encode(other.baseline.to_json()))
    assert "the baseline's columns are others than the bundle's: at place 7 it has `night`" in told_by(folder, "fit")


def test_golden_vectors_without_a_row_are_refused(folder: Path) -> None:
    edit_golden(folder, lambda golden: first_rows(golden, 0))
    assert "hold no row" in told_by(folder, "fit")


def test_golden_vectors_of_other_columns_are_refused(folder: Path) -> None:
    def rename(golden: GoldenVectors) -> GoldenVectors:
        columns = dict(golden.columns)
        columns["fog"] = columns.pop("distance")
        return dataclasses.replace(golden, columns=columns)

    edit_golden(folder, rename)
    assert "the golden vectors lack the column `distance`" in told_by(folder, "fit")


@pytest.mark.parametrize(
    ("column", "told"),
    [
        (column_of(Dtype.FLOAT64, [1.0, 2.0, 3.0, 4.0]), "has 4 values of float64"),
        (column_of(Dtype.FLOAT32, [1.0]), "has 1 values of float32"),
    ],
)
def test_a_golden_column_of_another_dtype_or_length_is_refused(folder: Path, column: Column, told: str) -> None:
    def exchange(golden: GoldenVectors) -> GoldenVectors:
        return dataclasses.replace(golden, columns={**golden.columns, "distance": column})

    edit_golden(folder, exchange)
    assert f"{told}; the transform reads 4 rows of float32" in told_by(folder, "fit")


def test_golden_outputs_of_another_shape_are_refused(folder: Path) -> None:
    edit_golden(
        folder,
        lambda golden: dataclasses.replace(golden, outputs={"probabilities": golden.outputs["probabilities"][:, :1]}),
    )
    assert "has shape (4, 1); the model's signature says (4, 2)" in told_by(folder, "fit")


def test_golden_outputs_that_are_no_numbers_are_refused(folder: Path) -> None:
    def spoil(golden: GoldenVectors) -> GoldenVectors:
        outputs = golden.outputs["probabilities"].copy()
        outputs[3, 0] = np.nan
        return dataclasses.replace(golden, outputs={"probabilities": outputs})

    edit_golden(folder, spoil)
    assert "output `probabilities` of the golden vectors is not finite in row 3" in told_by(folder, "fit")


def test_golden_outputs_that_the_model_does_not_have_are_refused(folder: Path) -> None:
    edit_golden(folder, lambda golden: dataclasses.replace(golden, outputs={**golden.outputs, "logits": golden.tensor}))
    assert "have the outputs ['logits', 'probabilities'], the model's signature ['probabilities']" in told_by(
        folder, "fit"
    )
