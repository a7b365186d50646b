"""Bundles on disk: one content has one digest, and nothing that was changed is loaded."""

import dataclasses
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import tampering
from harness.bundles import BuiltBundle, build_bundle, content, model
from harness.examples import examples
from skewless import canonical_json
from skewless.bundles.bundle import FILES, MODEL_FOLDER, load_bundle, write_bundle
from skewless.bundles.golden import check_same_bits
from skewless.bundles.manifest import MANIFEST
from skewless.bundles.model_files import ModelFiles, ModelFormat
from skewless.bundles.post_processing import PostProcessing
from skewless.bundles.serving_profile import ServingProfile
from skewless.canonical_json import Digest
from skewless.errors import BundleRefused
from skewless.training.calibration import Calibration, CalibrationKind
from skewless.training.definition import BinaryLabels

ONNX = "model/model.onnx"
EVERY_FILE = sorted([*FILES, ONNX])


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> BuiltBundle:
    return build_bundle(tmp_path_factory.mktemp("artifacts"))


@pytest.fixture
def folder(built: BuiltBundle, tmp_path: Path) -> Path:
    """A copy of the bundle to tamper with."""
    return Path(shutil.copytree(built.folder, tmp_path / "bundle"))


def test_the_same_content_gives_the_same_digest_and_bytes(tmp_path: Path) -> None:
    provenance = {"b": 1, "a": [1.5, None]}
    first = write_bundle(dataclasses.replace(content(), provenance=provenance), tmp_path / "a")
    turned = dict(reversed(provenance.items()))
    assert write_bundle(dataclasses.replace(content(), provenance=turned), tmp_path / "b") == first
    for path in [*EVERY_FILE, MANIFEST]:
        assert (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes()


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"provenance": {"trained": "2014-01-01"}},
        {"serving": ServingProfile(instances=2)},
        {"post": PostProcessing(BinaryLabels("n", "p", 0.25))},
        {"model": ModelFiles(ModelFormat.ONNX, {"net.onnx": model(8)}, "net.onnx")},
    ],
)
def test_any_other_content_gives_another_digest(change: dict[str, Any], tmp_path: Path) -> None:
    other = dataclasses.replace(content(), **change)
    assert write_bundle(content(), tmp_path / "a") != write_bundle(other, tmp_path / "b")


def test_what_was_written_is_loaded(tmp_path: Path) -> None:
    calibration = Calibration(CalibrationKind.ISOTONIC, inputs=(0.0, 0.5, 1.0), outputs=(0.1, 0.1, 0.75))
    post = PostProcessing(BinaryLabels("on_time", "late", 0.3), calibration)
    made = dataclasses.replace(content(), post=post, serving=ServingProfile(warm_up_rows=(1, 8)))
    digest = write_bundle(made, tmp_path / "bundle")
    loaded = load_bundle(tmp_path / "bundle", digest)
    assert (loaded.digest, loaded.name, loaded.signature) == (digest, made.name, made.signature)
    assert (loaded.contract, loaded.post, loaded.serving) == (made.contract, post, made.serving)
    assert loaded.transform.digest == made.transform.digest
    assert (loaded.provenance, loaded.baseline) == (made.provenance, made.baseline)
    assert loaded.read_model() == made.model
    assert loaded.golden.scores is not None
    check_same_bits(loaded.golden.scores, post.scores(made.golden.outputs), what="scores")


def test_a_model_of_several_files_is_kept_as_it_is(tmp_path: Path) -> None:
    files = {"model.onnx": content().model.files["model.onnx"], "weights/part-1.bin": b"\x00" * 64}
    made = dataclasses.replace(content(), model=ModelFiles(ModelFormat.ONNX, files, "model.onnx"))
    write_bundle(made, tmp_path / "bundle")
    loaded = load_bundle(tmp_path / "bundle")
    assert (tmp_path / "bundle" / MODEL_FOLDER / "weights" / "part-1.bin").read_bytes() == files["weights/part-1.bin"]
    assert loaded.read_model().files == files


def test_a_folder_that_holds_something_is_not_written_into(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(BundleRefused, match="is not empty"):
        write_bundle(content(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("path", EVERY_FILE)
@pytest.mark.parametrize("position", [0, -1])
def test_one_byte_changed_in_any_file_is_refused_by_name(folder: Path, path: str, position: int) -> None:
    tampering.flip(folder, path, position)
    with pytest.raises(BundleRefused, match=rf"`{path}` was changed: it has SHA-256"):
        load_bundle(folder)


@pytest.mark.parametrize("path", EVERY_FILE)
def test_a_file_cut_short_is_called_torn(folder: Path, path: str) -> None:
    os.truncate(folder / path, 7)
    with pytest.raises(BundleRefused, match=rf"`{path}` is torn: it has 7 of the [\d,]+ bytes"):
        load_bundle(folder)


@pytest.mark.parametrize("path", [ONNX, "golden.json"])
def test_a_file_that_grew_is_refused(folder: Path, path: str) -> None:
    with (folder / path).open("ab") as file:
        file.write(b"\n")
    with pytest.raises(BundleRefused, match=rf"`{path}` has [\d,]+ bytes, 1 more than"):
        load_bundle(folder)


@pytest.mark.parametrize("path", EVERY_FILE)
def test_a_lost_file_is_refused_by_name(folder: Path, path: str) -> None:
    (folder / path).unlink()
    with pytest.raises(BundleRefused, match=rf"`{path}` is missing from bundle folder"):
        load_bundle(folder)


def test_a_lost_manifest_or_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / MANIFEST).unlink()
    with pytest.raises(BundleRefused, match=rf"`{MANIFEST}` of bundle folder `bundle` cannot be read: No such file"):
        load_bundle(folder)
    with pytest.raises(BundleRefused, match="cannot be read"):
        load_bundle(tmp_path / "nowhere")


@pytest.mark.parametrize("path", ["notes.txt", "model/.DS_Store", "model/model.onnx~", "transform/step.onnx", "a/b"])
def test_a_file_that_the_manifest_does_not_name_is_refused(folder: Path, path: str) -> None:
    (folder / path).parent.mkdir(exist_ok=True)
    (folder / path).write_bytes(b"x")
    named = path if (folder / path).parent in (folder, folder / "model") else path.partition("/")[0]
    with pytest.raises(BundleRefused, match=rf"`{named}` in bundle folder `bundle` is (not named|a folder)"):
        load_bundle(folder)


def test_an_empty_folder_is_refused_too(folder: Path) -> None:
    (folder / "model" / "assets").mkdir()
    with pytest.raises(BundleRefused, match=r"`model/assets` in bundle folder `bundle` is a folder that holds no file"):
        load_bundle(folder)


def test_a_link_is_refused_though_its_target_is_right(folder: Path, tmp_path: Path) -> None:
    (folder / ONNX).rename(tmp_path / "elsewhere.onnx")
    (folder / ONNX).symlink_to(tmp_path / "elsewhere.onnx")
    with pytest.raises(BundleRefused, match=rf"`{ONNX}` in bundle folder `bundle` is a link"):
        load_bundle(folder)


def test_a_linked_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "model").rename(tmp_path / "elsewhere")
    (folder / "model").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleRefused, match="`model` in bundle folder `bundle` is a link"):
        load_bundle(folder)


def test_a_linked_manifest_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / MANIFEST).rename(tmp_path / "elsewhere")
    (folder / MANIFEST).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleRefused, match="cannot be read"):
        load_bundle(folder)


@pytest.mark.parametrize("path", [ONNX, MANIFEST])
def test_a_pipe_is_refused_and_not_waited_for(folder: Path, path: str) -> None:
    (folder / path).unlink()
    os.mkfifo(folder / path)
    with pytest.raises(BundleRefused, match=rf"`{path}` in bundle folder `bundle` is a pipe"):
        load_bundle(folder)


def test_a_changed_manifest_is_another_bundle(built: BuiltBundle, folder: Path) -> None:
    tampering.edit_manifest(folder, lambda manifest: manifest.update(name="other"))
    with pytest.raises(BundleRefused, match=f"the digest asked for is {built.digest}"):
        load_bundle(folder, built.digest)


def test_any_digest_is_accepted_where_none_is_expected(built: BuiltBundle, folder: Path) -> None:
    assert load_bundle(folder).digest == built.digest
    with pytest.raises(BundleRefused, match="asked for is 0000"):
        load_bundle(folder, Digest("0" * 64))


def test_a_manifest_that_names_other_files_is_refused(folder: Path) -> None:
    tampering.edit_manifest(folder, lambda manifest: manifest["files"].pop("serving.json"))
    (folder / "serving.json").unlink()
    with pytest.raises(BundleRefused, match=r"names other files than a bundle has: `serving.json`"):
        load_bundle(folder)
    tampering.replace(folder, "readme.md", b"# mine")
    with pytest.raises(BundleRefused, match=r"names other files than a bundle has: `readme.md`, `serving.json`"):
        load_bundle(folder)


def test_a_step_file_of_another_name_than_its_digest_is_refused(folder: Path) -> None:
    tampering.replace(folder, f"transform/{'0' * 64}.onnx", b"not of this digest")
    with pytest.raises(BundleRefused, match=r"names other files than a bundle has: `transform/0000"):
        load_bundle(folder)


@pytest.mark.parametrize("text", [b"[]", b'{"views":3}', b"3", b"null", b'"text"', b"{}"])
@pytest.mark.parametrize("path", sorted(FILES - {"provenance.json"}))
def test_a_file_of_another_shape_is_refused_even_where_its_digest_fits(folder: Path, path: str, text: bytes) -> None:
    tampering.replace(folder, path, text)
    with pytest.raises(BundleRefused, match=rf"`{path}`") as refused:
        load_bundle(folder)
    assert refused.value.hint


@pytest.mark.parametrize("text", [b"[1]", b"3", b"null", b'"text"'])
def test_a_provenance_that_is_no_object_is_refused(folder: Path, text: bytes) -> None:
    tampering.replace(folder, "provenance.json", text)
    with pytest.raises(BundleRefused, match=r"`provenance.json`"):
        load_bundle(folder)


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"\xff", b'{"a":NaN}', b'{"a":1,"a":2}', b'{ "a":1}', b'{"a":1.50}', b"[" * 50_000, b'"\\ud800"'],
)
@pytest.mark.parametrize("path", ["provenance.json", "contract.json"])
def test_a_file_whose_json_is_not_canonical_is_refused(folder: Path, path: str, text: bytes) -> None:
    tampering.replace(folder, path, text)
    with pytest.raises(BundleRefused, match=rf"`{path}` is (not canonical JSON|JSON, and not canonical)"):
        load_bundle(folder)


@pytest.mark.parametrize("path", sorted(FILES - {"provenance.json", "transform.json"}))
def test_a_field_that_nobody_reads_is_refused(folder: Path, path: str) -> None:
    tampering.edit(folder, path, lambda document: document.update(comment="mine"))
    with pytest.raises(BundleRefused, match=rf"`{path}`"):
        load_bundle(folder)


def test_a_model_that_changes_after_it_was_loaded_is_not_read(folder: Path) -> None:
    bundle = load_bundle(folder)
    tampering.flip(folder, ONNX, 100)
    with pytest.raises(BundleRefused, match=rf"`{ONNX}` was changed"):
        bundle.read_model()


@pytest.fixture(scope="module")
def copy(built: BuiltBundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy that every example tampers with and puts right again."""
    return Path(shutil.copytree(built.folder, tmp_path_factory.mktemp("copies") / "bundle"))


@settings(max_examples=examples(200), deadline=None)
@given(data=st.data())
def test_any_single_byte_changed_in_any_file_is_refused(built: BuiltBundle, copy: Path, data: st.DataObject) -> None:
    path = copy / data.draw(st.sampled_from([*EVERY_FILE, MANIFEST]), label="file")
    whole = path.read_bytes()
    position = data.draw(st.integers(0, len(whole) - 1), label="position")
    byte = data.draw(st.integers(0, 255).filter(lambda byte: byte != whole[position]), label="byte")
    path.write_bytes(whole[:position] + bytes([byte]) + whole[position + 1 :])
    try:
        with pytest.raises(BundleRefused):
            load_bundle(copy, built.digest)
    finally:
        path.write_bytes(whole)


@settings(max_examples=examples(100), deadline=None)
@given(data=st.data())
def test_any_file_cut_anywhere_is_refused_as_torn(built: BuiltBundle, copy: Path, data: st.DataObject) -> None:
    path = copy / data.draw(st.sampled_from([*EVERY_FILE, MANIFEST]), label="file")
    whole = path.read_bytes()
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1), label="bytes")])
    try:
        with pytest.raises(BundleRefused, match=r"is torn|the digest asked for"):
            load_bundle(copy, built.digest)
    finally:
        path.write_bytes(whole)
    assert canonical_json.digest_bytes((copy / MANIFEST).read_bytes()) == built.digest
