"""Bundles on disk: one content has one digest, and nothing that was changed is loaded."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.bundles import BuiltBundle, build_bundle, contract, sample_columns, transform
from skewless import canonical_json
from skewless.bundles.bundle import FILES, FORMAT, MANIFEST, Bundle, BundleContent, load_bundle, write_bundle
from skewless.bundles.golden import GoldenVectors
from skewless.canonical_json import Digest
from skewless.dtypes import Dtype
from skewless.errors import BundleRefused
from skewless.features.contract import FeatureContract, FeatureField, RequestField
from skewless.serving.ports import ModelSignature
from skewless.training.definition import BinaryLabels


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> BuiltBundle:
    return build_bundle(tmp_path_factory.mktemp("artifacts"))


@pytest.fixture
def folder(built: BuiltBundle, tmp_path: Path) -> Path:
    """A copy of the bundle to tamper with."""
    return Path(shutil.copytree(built.folder, tmp_path / "bundle"))


def _content(**changes: Any) -> BundleContent:
    fitted = transform()
    tensor = fitted.prepare().apply(sample_columns(), 4)
    content = BundleContent(
        name="late-flights",
        contract=contract(),
        transform=fitted,
        model=b"any bytes",
        signature=ModelSignature("features", len(fitted.output_names), (("probabilities", 2),)),
        labels=BinaryLabels("on_time", "late"),
        golden=GoldenVectors(sample_columns(), tensor, {"probabilities": np.ones((4, 2), np.float32)}),
        provenance={"b": 1, "a": [1.5, None]},
    )
    return dataclasses.replace(content, **changes)


def _rewrite_manifest(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((folder / MANIFEST).read_bytes())
    change(manifest)
    (folder / MANIFEST).write_bytes(canonical_json.encode(manifest))


def test_the_same_content_gives_the_same_digest_and_bytes(tmp_path: Path) -> None:
    first = write_bundle(_content(), tmp_path / "a")
    second = write_bundle(_content(provenance={"a": [1.5, None], "b": 1}), tmp_path / "b")
    assert first == second
    for path in [*FILES, MANIFEST]:
        assert (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes()


@pytest.mark.parametrize("change", [{"name": "other"}, {"model": b"others"}, {"labels": BinaryLabels("n", "p", 0.25)}])
def test_any_other_content_gives_another_digest(change: dict[str, Any], tmp_path: Path) -> None:
    assert write_bundle(_content(), tmp_path / "a") != write_bundle(_content(**change), tmp_path / "b")


def test_what_was_written_is_loaded(tmp_path: Path) -> None:
    content = _content()
    digest = write_bundle(content, tmp_path)
    loaded: Bundle = load_bundle(tmp_path, digest)
    assert (loaded.digest, loaded.name, loaded.signature) == (digest, content.name, content.signature)
    assert (loaded.contract, loaded.labels) == (content.contract, content.labels)
    assert loaded.transform.digest == content.transform.digest
    assert loaded.provenance == content.provenance


@pytest.mark.parametrize("path", sorted(FILES))
@pytest.mark.parametrize("position", [0, -1])
def test_one_byte_changed_in_any_file_is_refused_by_name(folder: Path, path: str, position: int) -> None:
    data = bytearray((folder / path).read_bytes())
    data[position] ^= 1
    (folder / path).write_bytes(data)
    with pytest.raises(BundleRefused, match=rf"`{path}` .*SHA-256"):
        load_bundle(folder)


@pytest.mark.parametrize("path", sorted([*FILES, MANIFEST]))
def test_a_lost_file_is_refused_by_name(folder: Path, path: str) -> None:
    (folder / path).unlink()
    with pytest.raises(BundleRefused, match=rf"`{path}` .*cannot be read"):
        load_bundle(folder)


def test_a_changed_manifest_is_another_bundle(built: BuiltBundle, folder: Path) -> None:
    _rewrite_manifest(folder, lambda manifest: manifest.update(name="other"))
    with pytest.raises(BundleRefused, match=f"expected {built.digest}"):
        load_bundle(folder, built.digest)


@pytest.mark.parametrize("other", [2, "1", None])
def test_another_format_is_refused(folder: Path, other: object) -> None:
    assert other != FORMAT
    _rewrite_manifest(folder, lambda manifest: manifest.update(format=other))
    with pytest.raises(BundleRefused, match=f"format {other}, this version reads {FORMAT}"):
        load_bundle(folder)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda manifest: manifest["files"].pop("labels.json"), "labels.json"),
        (lambda manifest: manifest["files"].update({"../../outside": "0" * 64}), "../../outside"),
    ],
)
def test_a_manifest_with_other_files_is_refused(folder: Path, change: Callable[[Any], object], named: str) -> None:
    _rewrite_manifest(folder, change)
    with pytest.raises(BundleRefused, match=rf"names other files.*`{named}`"):
        load_bundle(folder)


@pytest.mark.parametrize("text", [b"", b"not json", b"[]", b"{}", b'{"format":1,"name":"a","files":3}', b"\xff"])
def test_a_torn_manifest_is_refused(folder: Path, text: bytes) -> None:
    (folder / MANIFEST).write_bytes(text)
    with pytest.raises(BundleRefused, match=f"`{MANIFEST}` is not a bundle manifest"):
        load_bundle(folder)


@pytest.mark.parametrize("text", [b"[]", b'{"views":3}', b"3"])
@pytest.mark.parametrize("path", ["contract.json", "transform.json", "labels.json", "golden.json"])
def test_a_file_of_another_shape_is_refused_even_where_its_digest_fits(folder: Path, path: str, text: bytes) -> None:
    (folder / path).write_bytes(text)
    _rewrite_manifest(folder, lambda manifest: manifest["files"].update({path: canonical_json.digest_bytes(text)}))
    with pytest.raises(BundleRefused):
        load_bundle(folder)


def _without(name: str) -> FeatureContract:
    whole = contract()
    return dataclasses.replace(whole, request_fields=tuple(each for each in whole.request_fields if each.name != name))


def test_a_transform_that_reads_an_unknown_column_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleRefused, match=r"reads `distance` as `float32`.*nothing of that name"):
        write_bundle(_content(contract=_without("distance")), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_transform_that_reads_a_column_as_another_dtype_is_refused(tmp_path: Path) -> None:
    first, *others = contract().views
    changed = dataclasses.replace(first, features=(FeatureField("temp", Dtype.FLOAT64), *first.features[1:]))
    odd = dataclasses.replace(contract(), views=(changed, *others))
    with pytest.raises(BundleRefused, match=r"reads `weather__temp` as `float32`.*offers `float64`"):
        write_bundle(_content(contract=odd), tmp_path)


def test_a_null_that_the_transform_cannot_take_is_refused(tmp_path: Path) -> None:
    fields = (*_without("party").request_fields, RequestField("party", Dtype.INT32, nullable=True))
    with pytest.raises(BundleRefused, match="takes no null in `party`"):
        write_bundle(_content(contract=dataclasses.replace(contract(), request_fields=fields)), tmp_path)


def test_a_model_of_another_width_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleRefused, match="gives 8 columns, the model takes 9"):
        write_bundle(_content(signature=ModelSignature("features", 9, (("probabilities", 2),))), tmp_path)


def test_a_golden_row_that_is_not_reproduced_is_named(tmp_path: Path) -> None:
    content = _content()
    tensor = content.golden.tensor.copy()
    tensor[2, 3] += 1
    with pytest.raises(BundleRefused, match="row 2, column 3"):
        write_bundle(_content(golden=dataclasses.replace(content.golden, tensor=tensor)), tmp_path)


def test_any_digest_is_accepted_where_none_is_expected(built: BuiltBundle, folder: Path) -> None:
    assert load_bundle(folder).digest == built.digest
    with pytest.raises(BundleRefused, match="expected 0000"):
        load_bundle(folder, Digest("0" * 64))
