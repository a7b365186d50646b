"""Bundles on disk: a folder whose `manifest.json` names every file with its size and SHA-256.

    manifest.json           what there is (`manifest.py`); the bundle's digest is the SHA-256 of this file
    contract.json           the feature contract
    transform.json          the fitted transform
    transform/….onnx        the model of each of its `onnx` steps, named by its SHA-256
    model/model.json        the model's format, and which of its files a server is pointed at
    model/signature.json    its tensors
    model/…                 its files
    serving.json            how it is run: batches, instances, timeouts
    post_processing.json    labels, threshold, calibration
    baseline.json           what the training set looked like, column by column
    golden.json             golden vectors
    provenance.json         where it came from, and its metrics

All JSON is canonical, so one bundle has one digest. docs/bundles.md has every file and every refusal.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from skewless import canonical_json
from skewless.bundles.bundle_folder import check_entries, check_file, read_file, read_files, read_manifest
from skewless.bundles.fit import check_fit, check_golden
from skewless.bundles.forms import ContractForm, GoldenForm, PostProcessingForm, SignatureForm, check_form
from skewless.bundles.golden import GoldenVectors
from skewless.bundles.manifest import MANIFEST, FileEntry, Manifest, entry_of
from skewless.bundles.model_files import ModelFiles, ModelFormat, check_model
from skewless.bundles.post_processing import PostProcessing
from skewless.bundles.serving_profile import ServingProfile
from skewless.canonical_json import Digest
from skewless.errors import BundleRefused, InvalidDefinition, SkewlessError
from skewless.features.contract import FeatureContract
from skewless.serving.ports import ModelSignature
from skewless.statistics.baseline import Baseline
from skewless.transforms import FittedTransform
from skewless.transforms.step_operations import StepLoader
from skewless.transforms.steps import files_of

CONTRACT = "contract.json"
TRANSFORM = "transform.json"
MODEL_JSON = "model/model.json"
SIGNATURE = "model/signature.json"
SERVING = "serving.json"
POST_PROCESSING = "post_processing.json"
BASELINE = "baseline.json"
GOLDEN = "golden.json"
PROVENANCE = "provenance.json"
FILES = frozenset({CONTRACT, TRANSFORM, MODEL_JSON, SIGNATURE, SERVING, POST_PROCESSING, BASELINE, GOLDEN, PROVENANCE})
"""What every bundle has, besides its manifest and the model's own files; all of it canonical JSON."""
MODEL_FOLDER = "model/"
"""Where the model's own files lie, beside its description and its signature."""

_P = TypeVar("_P")
_MADE_OTHERWISE = "it was made by another version of Skewless, or changed by hand; build the bundle again"

LoadSteps = Callable[[Mapping[Digest, bytes]], StepLoader]
"""Given the files of a transform's `onnx` steps by SHA-256, what makes its steps runnable."""


@dataclass(frozen=True, slots=True)
class BundleContent:
    """Everything a bundle is made of. `provenance` is plain data; the golden vectors' scores are filled in."""

    name: str
    contract: FeatureContract
    transform: FittedTransform
    model: ModelFiles
    signature: ModelSignature
    serving: ServingProfile
    post: PostProcessing
    baseline: Baseline
    golden: GoldenVectors
    provenance: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class StoredModel:
    """The model of a bundle on disk. Its files, by path as in `ModelFiles`, were verified and are not in memory."""

    format: ModelFormat
    entry: str
    files: Mapping[str, FileEntry]


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified bundle, in memory but for its model; `folder` still holds its files."""

    digest: Digest
    folder: Path
    name: str
    contract: FeatureContract
    transform: FittedTransform
    model: StoredModel
    signature: ModelSignature
    serving: ServingProfile
    post: PostProcessing
    baseline: Baseline
    golden: GoldenVectors
    provenance: Mapping[str, Any]

    def read_model(self) -> ModelFiles:
        """The model's files, read and verified again. Raises BundleRefused where one is not what it was."""
        files = {path: read_file(self.folder, MODEL_FOLDER + path, entry) for path, entry in self.model.files.items()}
        return ModelFiles(self.model.format, files, self.model.entry)


def write_bundle(content: BundleContent, folder: Path) -> Digest:
    """Write a bundle into an empty or new folder and return its digest. The same content gives the same digest.

    Raises BundleRefused where the parts do not fit together or the folder holds something; then nothing is written.
    """
    golden = replace(content.golden, scores=content.post.scores(content.golden.outputs))
    content = replace(content, golden=golden)
    check_fit(content)
    check_golden(content)
    check_model(content.model, content.signature)
    files = {**_documents(content), **{MODEL_FOLDER + path: data for path, data in content.model.files.items()}}
    manifest = Manifest(content.name, {path: entry_of(data) for path, data in files.items()}).encode()
    if folder.exists() and any(folder.iterdir()):
        raise BundleRefused(
            f"folder `{folder.name}` is not empty, and a bundle's folder holds nothing else",
            hint="write the bundle into a new folder",
        )
    for path, data in {**files, MANIFEST: manifest}.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    return canonical_json.digest_bytes(manifest)


def _documents(content: BundleContent) -> dict[str, bytes]:
    """Every file but the model's own and the manifest, by path."""
    steps = {step_path(digest): data for digest, data in files_of(content.transform.graph).items()}
    plain = {
        CONTRACT: content.contract.to_json(),
        TRANSFORM: content.transform.to_json(),
        MODEL_JSON: content.model.to_json(),
        SIGNATURE: signature_json(content.signature),
        SERVING: content.serving.to_json(),
        POST_PROCESSING: content.post.to_json(),
        BASELINE: content.baseline.to_json(),
        GOLDEN: content.golden.to_json(),
        PROVENANCE: dict(content.provenance),
    }
    return {**steps, **{path: canonical_json.encode(data) for path, data in plain.items()}}


def step_path(digest: str) -> str:
    """Where a bundle keeps the model of an `onnx` step."""
    return f"transform/{digest}.onnx"


def load_bundle(folder: Path, expected: Digest | None = None, *, steps: LoadSteps | None = None) -> Bundle:
    """A bundle whose files were verified, whose parts fit, and which reproduces its golden vectors up to the model.

    `expected` None accepts whatever digest it has. Without `steps` a bundle whose transform has steps of its own is
    refused. The model is hashed and not run: `admission.admit` runs it, where there is something to run it with.
    Raises BundleRefused naming the file that is missing, unknown, torn or changed, the parts that do not fit, or the
    golden row that is not reproduced bit for bit.
    """
    digest, manifest = read_manifest(folder, expected)
    check_entries(folder, manifest)
    bundle = read_parts(folder, digest, manifest, verified_documents(folder, manifest), steps=steps)
    check_fit(bundle)
    check_golden(bundle)
    return bundle


def verified_documents(folder: Path, manifest: Manifest) -> dict[str, bytes]:
    """Every file of the manifest verified; those of them that are not the model's own, by path.

    Raises BundleRefused for a file that is torn or changed, and for a manifest that names other files than a bundle
    has.
    """
    own = set(model_paths(manifest))
    steps = {path for path, entry in manifest.files.items() if path == step_path(entry.sha256)}
    odd = (manifest.files.keys() - own - steps) ^ FILES
    if odd:
        listed = ", ".join(f"`{path}`" for path in sorted(odd))
        raise BundleRefused(
            f"`{MANIFEST}` names other files than a bundle has: {listed} {'is' if len(odd) == 1 else 'are'} lacking or"
            " unknown",
            hint="it was made by another version of Skewless, or by hand; build it with this one",
        )
    for path in model_paths(manifest):
        check_file(folder, path, manifest.files[path])
    return read_files(folder, manifest, sorted(manifest.files.keys() - own))


def model_paths(manifest: Manifest) -> list[str]:
    """The model's own files, in order, as paths of the bundle."""
    return sorted(path for path in manifest.files if path.startswith(MODEL_FOLDER) and path not in FILES)


def read_parts(
    folder: Path, digest: Digest, manifest: Manifest, files: Mapping[str, bytes], *, steps: LoadSteps | None
) -> Bundle:
    """A bundle from its verified files, each part by itself. Raises BundleRefused naming what is no such part."""
    own = {Digest(PurePosixPath(path).stem): data for path, data in files.items() if path not in FILES}
    loader = None if steps is None else steps(own)
    return Bundle(
        digest=digest,
        folder=folder,
        name=manifest.name,
        contract=_part(files, CONTRACT, FeatureContract.from_json, FeatureContract.to_json, form=ContractForm),
        transform=_part(files, TRANSFORM, lambda data: FittedTransform.from_json(data, loader)),
        model=_part(files, MODEL_JSON, lambda data: _stored_model(data, manifest)),
        signature=_part(files, SIGNATURE, signature_from_json, signature_json, form=SignatureForm),
        serving=_part(files, SERVING, ServingProfile.from_json, ServingProfile.to_json),
        post=_part(files, POST_PROCESSING, PostProcessing.from_json, PostProcessing.to_json, form=PostProcessingForm),
        baseline=_part(files, BASELINE, Baseline.from_json, Baseline.to_json),
        golden=_part(files, GOLDEN, GoldenVectors.from_json, GoldenVectors.to_json, form=GoldenForm),
        provenance=_part(files, PROVENANCE, dict, dict, form=dict),
    )


def _part(
    files: Mapping[str, bytes],
    path: str,
    read: Callable[[Any], _P],
    write: Callable[[_P], object] | None = None,
    *,
    form: Any = None,
) -> _P:
    """One part from its file. With `write`, the inverse of `read`, what the file says beyond the part is refused.

    A part whose reader takes any types for granted has a `form` that is checked first.
    """
    document = _document(path, files[path])
    try:
        if form is not None:
            check_form(document, form)
        part = read(document)
        understood = write is None or write(part) == document
    except SkewlessError as error:
        raise BundleRefused(f"`{path}`: {error.message}", hint=error.hint or _MADE_OTHERWISE) from error
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise BundleRefused(f"`{path}` is not what it should be: {error!r}", hint=_MADE_OTHERWISE) from error
    if not understood:
        raise BundleRefused(f"`{path}` says more than, or other than, this version reads", hint=_MADE_OTHERWISE)
    return part


def _document(path: str, data: bytes) -> Any:
    """The plain data of canonical JSON."""
    try:
        document = json.loads(data)
        canonical = canonical_json.encode(document) == data
    except (ValueError, RecursionError) as error:
        # RecursionError: lists in lists, thousands deep. ValueError: also NaN, and half of a surrogate pair.
        reason = str(error) if isinstance(error, ValueError) else "it is nested too deeply"
        raise BundleRefused(f"`{path}` is not canonical JSON: {reason}", hint=_MADE_OTHERWISE) from error
    if not canonical:
        raise BundleRefused(
            f"`{path}` is JSON, and not canonical (keys sorted, none twice, no white space, numbers in their shortest"
            " form)",
            hint=_MADE_OTHERWISE,
        )
    return document


def _stored_model(data: object, manifest: Manifest) -> StoredModel:
    files = {path.removeprefix(MODEL_FOLDER): manifest.files[path] for path in model_paths(manifest)}
    described = ModelFiles.from_json(data, dict.fromkeys(files, b""))
    return StoredModel(described.format, described.entry, files)


def signature_json(signature: ModelSignature) -> dict[str, Any]:
    """Plain data of a signature, as in model/signature.json."""
    return {
        "input": {"name": signature.input_name, "columns": signature.input_columns},
        "outputs": [{"name": name, "columns": columns} for name, columns in signature.outputs],
    }


def signature_from_json(data: Mapping[str, Any]) -> ModelSignature:
    """The inverse of `signature_json`. Raises InvalidDefinition for two outputs of one name."""
    names = [output["name"] for output in data["outputs"]]
    if len(set(names)) < len(names):
        raise InvalidDefinition(f"each output needs a name of its own, got {names!r}")
    return ModelSignature(
        input_name=data["input"]["name"],
        input_columns=data["input"]["columns"],
        outputs=tuple((output["name"], output["columns"]) for output in data["outputs"]),
    )
