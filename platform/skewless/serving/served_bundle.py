"""A bundle made ready to answer: everything that a request would otherwise look up, resolved once."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from skewless.bundles.bundle import Bundle
from skewless.bundles.golden import GoldenVectors, check_same_bits
from skewless.canonical_json import Digest
from skewless.errors import BundleRefused, DeadlineExceeded
from skewless.features.on_demand import OnDemandPlan
from skewless.features.plan import ReadPlan
from skewless.limits import MODEL_TIMEOUT_S
from skewless.serving.instances import InstanceValidator
from skewless.serving.ports import ModelBackend, ModelSignature
from skewless.training.definition import BinaryLabels
from skewless.transforms import PreparedTransform

PROBABILITIES = "probabilities"
"""The output of a binary classifier: (rows, 2) probabilities of the negative and the positive class."""
POSITIVE = 1


@dataclass(frozen=True, slots=True)
class ServedBundle:
    """A bundle with its validator, read plan and transform compiled. `model` is its name at the model backend."""

    digest: Digest
    name: str
    model: str
    validator: InstanceValidator
    key_names: tuple[str, ...]
    view_of_column: Mapping[str, str]
    """`view__feature` → view, for the age of a value."""
    plan: ReadPlan
    on_demand: OnDemandPlan
    transform: PreparedTransform
    signature: ModelSignature
    labels: BinaryLabels

    def post_process(self, outputs: Mapping[str, NDArray[np.float32]]) -> tuple[list[str], NDArray[np.float32]]:
        """Label and probability of the positive class for every row. Raises BundleRefused for NaN or infinity."""
        probabilities = np.ascontiguousarray(outputs[PROBABILITIES][:, POSITIVE])
        if not np.isfinite(probabilities).all():
            row = int(np.isfinite(probabilities).argmin())
            raise BundleRefused(
                f"the model of bundle {self.digest[:12]} gave {probabilities[row]} for row {row}, not a probability",
                hint="clean and clip the transform's outputs, then train the bundle again",
            )
        labels = self.labels
        is_positive = (probabilities >= labels.threshold).tolist()
        return [labels.positive if each else labels.negative for each in is_positive], probabilities


def prepare_bundle(
    bundle: Bundle, model: str, hash_sizes: Mapping[tuple[str, ...], int] = MappingProxyType({})
) -> ServedBundle:
    """The served form of a verified bundle; `hash_sizes` as for `ReadPlan.compile`.

    Raises BundleRefused where its model is no binary classifier, InvalidDefinition where the function of an on-demand
    view is away or differs.
    """
    if (PROBABILITIES, 2) not in bundle.signature.outputs:
        raise BundleRefused(
            f"bundle {bundle.digest[:12]} has outputs {list(bundle.signature.outputs)}, "
            f"a binary classifier needs `{PROBABILITIES}` with 2 columns"
        )
    return ServedBundle(
        digest=bundle.digest,
        name=bundle.name,
        model=model,
        validator=InstanceValidator.compile(bundle.contract),
        key_names=tuple(key.name for key in bundle.contract.join_keys),
        view_of_column=bundle.contract.view_of_column,
        plan=ReadPlan.compile(bundle.contract, hash_sizes),
        on_demand=OnDemandPlan.compile(bundle.contract, import_module),
        transform=bundle.transform.prepare(),
        signature=bundle.signature,
        labels=bundle.labels,
    )


async def admit_model(served: ServedBundle, golden: GoldenVectors, backend: ModelBackend) -> None:
    """Load the bundle's model and let it reproduce the golden outputs bit for bit, as requests will ask it.

    Raises BundleRefused for a model that cannot load or answers otherwise, Unavailable when the backend is away.
    """
    await backend.load(served.model)
    if not golden.rows:
        return
    try:
        outputs = await backend.infer(served.model, served.signature, golden.tensor, timeout_s=MODEL_TIMEOUT_S)
    except DeadlineExceeded as error:
        raise BundleRefused(
            f"model `{served.model}` did not score {golden.rows} golden rows within {MODEL_TIMEOUT_S:g} s"
        ) from error
    for name, _ in served.signature.outputs:
        check_same_bits(golden.outputs[name], outputs[name], what=f"output `{name}` of model `{served.model}`")
