"""The checks of admission, in their order; `admission.py` says what each is for.

A check returns what it looked at, and raises what refuses the bundle, or `NotHere` with the reason why it cannot be
made.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from skewless.bundles.bundle import FILES, Bundle, read_parts, verified_documents
from skewless.bundles.bundle_folder import check_entries, read_manifest
from skewless.bundles.fit import check_fit, check_golden
from skewless.bundles.golden import check_near
from skewless.bundles.manifest import Manifest
from skewless.bundles.model_files import ModelFiles, check_model
from skewless.bundles.pickle_scan import refuse_pickles
from skewless.bundles.surroundings import Surroundings
from skewless.canonical_json import Digest
from skewless.errors import BundleRefused, InvalidDefinition
from skewless.features.contract_changes import Definitions, compare_contract
from skewless.features.on_demand import OnDemandPlan
from skewless.serving.ports import ModelSignature
from skewless.transforms import FittedTransform
from skewless.transforms.differential import verify
from skewless.transforms.executions import Execution

_FIRST_ROWS, _GROWTH = 16, 4
"""Rows that the differential check begins with, and by how much it goes on while there is time."""
NANOSECONDS = 1_000_000_000


class NotHere(Exception):
    """A check cannot be made here; its text says why."""


@dataclass(slots=True)
class Subject:
    """The bundle as far as it has been read."""

    folder: Path
    expected: Digest | None
    surroundings: Surroundings
    digest: Digest | None = None
    manifest: Manifest | None = None
    documents: Mapping[str, bytes] = field(default_factory=dict)
    bundle: Bundle | None = None
    model: ModelFiles | None = None

    @property
    def read(self) -> Bundle:
        """The bundle, for checks that come after `parts`."""
        assert self.bundle is not None, "`parts` passed"
        return self.bundle


@dataclass(frozen=True, slots=True)
class Step:
    """One check, and the checks before it that must have passed, or it says nothing."""

    name: str
    look: Callable[[Subject], str]
    after: tuple[str, ...]


def _manifest(subject: Subject) -> str:
    subject.digest, subject.manifest = read_manifest(subject.folder, subject.expected)
    expected = "the digest asked for" if subject.expected else "no digest asked for"
    return f"{len(subject.manifest.files)} files named, {expected}"


def _files(subject: Subject) -> str:
    assert subject.manifest is not None, "`manifest` passed"
    check_entries(subject.folder, subject.manifest)
    subject.documents = verified_documents(subject.folder, subject.manifest)
    return f"{len(subject.manifest.files)} files, {subject.manifest.bytes_total:,} bytes"


def _parts(subject: Subject) -> str:
    assert subject.manifest is not None, "`manifest` passed"
    assert subject.digest is not None, "`manifest` passed"
    for path, data in subject.documents.items():
        if path not in FILES:
            refuse_pickles(path, data)
    subject.bundle = read_parts(
        subject.folder, subject.digest, subject.manifest, subject.documents, steps=subject.surroundings.steps
    )
    return f"{len(subject.documents)} documents"


def _fit(subject: Subject) -> str:
    bundle = subject.read
    check_fit(bundle)
    return (
        f"{len(bundle.contract.columns)} contract columns, {len(bundle.transform.output_names)} transformed,"
        f" {len(bundle.signature.outputs)} outputs"
    )


def _golden(subject: Subject) -> str:
    check_golden(subject.read)
    golden = subject.read.golden
    return f"{golden.rows} rows of {golden.tensor.shape[1]} columns"


def _functions(subject: Subject) -> str:
    contract, load = subject.read.contract, subject.surroundings.import_module
    if load is None:
        raise NotHere("on-demand functions are loaded when the bundle is prepared to serve")
    plan = OnDemandPlan.compile(contract, load)
    return f"{len(plan.functions)} on-demand functions"


def _transform(subject: Subject) -> str:
    fitted, surroundings = subject.read.transform, subject.surroundings
    exported, reason = _exported(fitted, surroundings)
    samples = subject.read.golden.samples

    def compare(rows: int) -> str:
        report = verify(fitted, rows=rows, samples=samples, onnx=exported)
        if not report.equal:
            raise BundleRefused(
                "; ".join(each.text() for each in report.differences),
                hint="`skewless transform verify` shows the same; until it agrees the bundle would not serve what it"
                " was trained on",
            )
        return f"{len(report.executions)} executions on {rows} rows{reason}"

    # A transform may hold a step that is slow: few rows say what more of them would take.
    rows = min(_FIRST_ROWS, surroundings.differential_rows)
    while True:
        begun = surroundings.clock()
        looked_at = compare(rows)
        spent_s = (surroundings.clock() - begun) / NANOSECONDS
        more = min(_GROWTH * rows, surroundings.differential_rows)
        if more == rows or spent_s * more / rows > surroundings.differential_s:
            return looked_at
        rows = more


def _exported(fitted: FittedTransform, surroundings: Surroundings) -> tuple[Execution | None, str]:
    """The ONNX export, and what to say where there is none."""
    if surroundings.export is None:
        return None, "; ONNX is not compared here"
    try:
        return surroundings.export(fitted), ""
    except InvalidDefinition as error:
        return None, f"; not compared with ONNX: {error.message}"


def _model(subject: Subject) -> str:
    bundle, tools = subject.read, subject.surroundings.model
    if tools is None:
        raise NotHere("the model's bytes are those that were verified when it was registered; they are run elsewhere")
    subject.model = bundle.read_model()
    check_model(subject.model, bundle.signature)
    size = sum(len(data) for data in subject.model.files.values())
    return f"{len(subject.model.files)} files of format {subject.model.format}, {size:,} bytes"


def _signature(subject: Subject) -> str:
    model, tools = subject.model, subject.surroundings.model
    assert model is not None, "`model` passed"
    assert tools is not None, "`model` passed"
    if model.format not in tools.signature:
        raise NotHere(f"nothing here reads the tensors of a model of format {model.format}; the model server does")
    declared = subject.read.signature
    found = tools.signature[model.format](model, declared)
    if found != declared:
        raise BundleRefused(
            f"the model has {_tensors(found)}; the bundle declares {_tensors(declared)}",
            hint="declare the tensors that the model file has, in its order, when the bundle is built",
        )
    return _tensors(found)


def _tensors(signature: ModelSignature) -> str:
    outputs = ", ".join(f"`{name}` of {columns} columns" for name, columns in signature.outputs)
    return f"input `{signature.input_name}` of {signature.input_columns} columns and output {outputs or 'none'}"


def _outputs(subject: Subject) -> str:
    model, tools, bundle = subject.model, subject.surroundings.model, subject.read
    assert model is not None, "`model` passed"
    assert tools is not None, "`model` passed"
    if model.format not in tools.run:
        raise NotHere(
            f"nothing here runs a model of format {model.format}; the model server has to reproduce the golden outputs"
            " before it serves"
        )
    outputs = tools.run[model.format](model, bundle.signature)(bundle.golden.tensor)
    tolerance = bundle.serving.on(tools.target).output_tolerance
    for name, _ in bundle.signature.outputs:
        if name not in outputs:
            raise BundleRefused(f"the model gave no output `{name}`")
        check_near(bundle.golden.outputs[name], outputs[name], tolerance=tolerance, what=f"model output `{name}`")
    bound = f"within {tolerance:g}" if tolerance else "bit for bit"
    return f"{bundle.golden.rows} golden rows, {bound}"


def _definitions(subject: Subject) -> str:
    contract, registered = subject.read.contract, subject.surroundings.registered
    if registered is None:
        raise NotHere("a changed definition is told by a metric here, and stops no bundle that serves")
    state = compare_contract(contract, registered(contract.project))
    if state.definitions is Definitions.UNKNOWN:
        raise NotHere(state.detail)
    if state.definitions is Definitions.CHANGED:
        raise BundleRefused(
            f"the Feast definitions that the bundle was built from are not those that are registered: {state.detail}",
            hint="train the model on today's definitions, or register those that it was trained on with `skewless"
            " apply`; after a plain `feast apply` run `skewless features compile` first",
        )
    return f"{len(contract.views)} views, {len(contract.on_demand)} on-demand views of project {contract.project}"


_READ = ("manifest", "files", "parts")
STEPS = (
    Step("manifest", _manifest, ()),
    Step("files", _files, _READ[:1]),
    Step("parts", _parts, _READ[:2]),
    Step("fit", _fit, _READ),
    Step("golden", _golden, (*_READ, "fit")),
    Step("functions", _functions, _READ),
    Step("transform", _transform, (*_READ, "golden")),
    Step("model", _model, _READ),
    Step("signature", _signature, (*_READ, "model")),
    Step("outputs", _outputs, (*_READ, "fit", "model")),
    Step("definitions", _definitions, _READ),
)
