"""Bundles on disk: a folder whose `manifest.json` names every file with its SHA-256, and whose digest is its name.

    manifest.json         {"format", "name", "files": {path: sha256}}; the bundle digest is the SHA-256 of this file
    contract.json         the feature contract
    transform.json        the fitted transform
    transform/….onnx      the model of each of its `onnx` steps, named by its SHA-256
    model/model.onnx      the model
    model/signature.json  its tensors
    labels.json           post-processing
    golden.json           golden vectors
    provenance.json       where it came from, and its metrics

All JSON is canonical, so one bundle has one digest.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from skewless import canonical_json
from skewless.bundles.golden import GoldenVectors, check_same_bits
from skewless.canonical_json import Digest
from skewless.errors import BundleRefused, InvalidDefinition
from skewless.features.contract import FeatureContract
from skewless.serving.ports import ModelSignature
from skewless.training.definition import BinaryLabels
from skewless.transforms import FittedTransform
from skewless.transforms.step_operations import StepLoader
from skewless.transforms.steps import files_of

FORMAT = 1
MANIFEST = "manifest.json"
CONTRACT = "contract.json"
TRANSFORM = "transform.json"
MODEL = "model/model.onnx"
SIGNATURE = "model/signature.json"
LABELS = "labels.json"
GOLDEN = "golden.json"
PROVENANCE = "provenance.json"
FILES = frozenset({CONTRACT, TRANSFORM, MODEL, SIGNATURE, LABELS, GOLDEN, PROVENANCE})
"""What every bundle has."""

LoadSteps = Callable[[Mapping[Digest, bytes]], StepLoader]
"""Given the files of a transform's `onnx` steps by SHA-256, what makes its steps runnable."""


@dataclass(frozen=True, slots=True)
class BundleContent:
    """Everything a bundle is made of. `model` is the ONNX file; `provenance` is plain data."""

    name: str
    contract: FeatureContract
    transform: FittedTransform
    model: bytes
    signature: ModelSignature
    labels: BinaryLabels
    golden: GoldenVectors
    provenance: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified bundle, in memory; `folder` still holds its files."""

    digest: Digest
    folder: Path
    name: str
    contract: FeatureContract
    transform: FittedTransform
    signature: ModelSignature
    labels: BinaryLabels
    golden: GoldenVectors
    provenance: Mapping[str, Any]


def write_bundle(content: BundleContent, folder: Path) -> Digest:
    """Write a bundle into an empty or new folder and return its digest. The same content gives the same digest.

    Raises BundleRefused where the parts do not fit together.
    """
    _check_fit(content.contract, content.transform, content.signature, content.golden)
    files = {
        **{step_path(digest): data for digest, data in files_of(content.transform.graph).items()},
        CONTRACT: canonical_json.encode(content.contract.to_json()),
        TRANSFORM: canonical_json.encode(content.transform.to_json()),
        MODEL: content.model,
        SIGNATURE: canonical_json.encode(signature_json(content.signature)),
        LABELS: canonical_json.encode(asdict(content.labels)),
        GOLDEN: canonical_json.encode(content.golden.to_json()),
        PROVENANCE: canonical_json.encode(content.provenance),
    }
    manifest = canonical_json.encode(
        {
            "format": FORMAT,
            "name": content.name,
            "files": {path: canonical_json.digest_bytes(data) for path, data in files.items()},
        }
    )
    for path, data in {**files, MANIFEST: manifest}.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    return canonical_json.digest_bytes(manifest)


def step_path(digest: str) -> str:
    """Where a bundle keeps the model of an `onnx` step."""
    return f"transform/{digest}.onnx"


def load_bundle(folder: Path, expected: Digest | None = None, *, steps: LoadSteps | None = None) -> Bundle:
    """A bundle whose files, digests and transform have been verified; `expected` None accepts whatever digest it has.

    Without `steps` a bundle whose transform has steps of its own is refused. Raises BundleRefused naming the file that
    is missing, unknown, torn or tampered with, or the golden row that the transform does not reproduce bit for bit.
    """
    manifest = _read(folder, MANIFEST)
    digest = canonical_json.digest_bytes(manifest)
    if expected is not None and digest != expected:
        raise BundleRefused(f"`{folder.name}/{MANIFEST}` has digest {digest}, expected {expected}")
    name, hashes = _manifest(manifest)
    files = {path: _verified(folder, path, sha256) for path, sha256 in hashes.items()}
    try:
        bundle = Bundle(
            digest=digest,
            folder=folder,
            name=name,
            contract=FeatureContract.from_json(json.loads(files[CONTRACT])),
            transform=_transform(files, steps),
            signature=signature_from_json(json.loads(files[SIGNATURE])),
            labels=BinaryLabels(**json.loads(files[LABELS])),
            golden=GoldenVectors.from_json(json.loads(files[GOLDEN])),
            provenance=json.loads(files[PROVENANCE]),
        )
        _check_fit(bundle.contract, bundle.transform, bundle.signature, bundle.golden)
    except (InvalidDefinition, KeyError, TypeError, ValueError) as error:
        raise BundleRefused(f"bundle {digest[:12]} cannot be read: {error}") from error
    return bundle


def _transform(files: Mapping[str, bytes], steps: LoadSteps | None) -> FittedTransform:
    own = {Digest(Path(path).stem): data for path, data in files.items() if path not in FILES}
    return FittedTransform.from_bytes(files[TRANSFORM], None if steps is None else steps(own))


def signature_json(signature: ModelSignature) -> dict[str, Any]:
    """Plain data of a signature, as in model/signature.json."""
    return {
        "input": {"name": signature.input_name, "columns": signature.input_columns},
        "outputs": [{"name": name, "columns": columns} for name, columns in signature.outputs],
    }


def signature_from_json(data: Mapping[str, Any]) -> ModelSignature:
    """The inverse of `signature_json`."""
    return ModelSignature(
        input_name=data["input"]["name"],
        input_columns=data["input"]["columns"],
        outputs=tuple((output["name"], output["columns"]) for output in data["outputs"]),
    )


def _check_fit(
    contract: FeatureContract, transform: FittedTransform, signature: ModelSignature, golden: GoldenVectors
) -> None:
    """The transform reads only what the contract offers, fills the model's input, and reproduces its golden rows."""
    offered = dict(contract.columns)
    for name, dtype in transform.inputs:
        if offered.get(name) is not dtype:
            seen = f"`{offered[name]}`" if name in offered else "nothing of that name"
            raise BundleRefused(
                f"the transform reads `{name}` as `{dtype}`, the feature contract offers {seen}",
                hint="declare the column in the transform with the dtype of the feature view",
            )
    may_be_null = sorted(transform.not_null_inputs - contract.not_null_columns)
    if may_be_null:
        raise BundleRefused(
            f"the transform takes no null in `{may_be_null[0]}`, but the feature contract can deliver one",
            hint="impute the column in the transform, or make the key or field not nullable",
        )
    if len(transform.output_names) != signature.input_columns:
        raise BundleRefused(
            f"the transform gives {len(transform.output_names)} columns, the model takes {signature.input_columns}"
        )
    tensor = transform.prepare().apply(golden.columns, golden.rows)
    check_same_bits(golden.tensor, tensor, what="the transform's tensor")


def _read(folder: Path, path: str) -> bytes:
    try:
        return (folder / path).read_bytes()
    except OSError as error:
        raise BundleRefused(f"`{path}` of bundle folder `{folder.name}` cannot be read: {error.strerror}") from error


def _manifest(data: bytes) -> tuple[str, dict[str, str]]:
    try:
        manifest = json.loads(data)
        form, name, hashes = manifest["format"], str(manifest["name"]), dict(manifest["files"])
    except (KeyError, TypeError, ValueError) as error:
        raise BundleRefused(f"`{MANIFEST}` is not a bundle manifest: {error!r}") from error
    if form != FORMAT:
        raise BundleRefused(f"`{MANIFEST}` has format {form}, this version reads {FORMAT}")
    models = {path for path, sha256 in hashes.items() if path == step_path(sha256)}
    if hashes.keys() - models != FILES:
        odd = ", ".join(f"`{path}`" for path in sorted((hashes.keys() - models) ^ FILES))
        raise BundleRefused(f"`{MANIFEST}` names other files than a bundle has: {odd}")
    return name, hashes


def _verified(folder: Path, path: str, sha256: str) -> bytes:
    data = _read(folder, path)
    actual = canonical_json.digest_bytes(data)
    if actual != sha256:
        raise BundleRefused(
            f"`{path}` of bundle folder `{folder.name}` has SHA-256 {actual}, its manifest says {sha256}",
            hint="the file is torn or was changed; fetch or build the bundle again",
        )
    return data
