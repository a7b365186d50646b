"""Whether a bundle's parts, each of them well-formed, belong together.

contract ──columns──▶ transform ──width──▶ signature ──outputs──▶ post-processing
    └──────────────────── baseline, golden vectors: of exactly these ────────┘
"""

from typing import Protocol

import numpy as np

from skewless.bundles.golden import GoldenVectors, check_same_bits
from skewless.bundles.post_processing import PostProcessing, check_output
from skewless.dtypes import Dtype
from skewless.errors import BundleRefused, InvalidDefinition
from skewless.features.contract import FeatureContract, FeatureField
from skewless.serving.ports import ModelSignature
from skewless.statistics.baseline import Baseline
from skewless.transforms import FittedTransform

_DEFAULTS: dict[Dtype, tuple[type, ...]] = {
    Dtype.BOOL: (bool,),
    Dtype.INT32: (int,),
    Dtype.INT64: (int,),
    Dtype.FLOAT32: (int, float),
    Dtype.FLOAT64: (int, float),
    Dtype.STRING: (str,),
}
"""What a default of a feature may be, where JSON says it."""
_DEFINE_OTHERWISE = "correct the feature definitions, run `skewless apply`, and train the model again"
_TRAIN_AGAIN = "the parts of a bundle are made together: train the model again"


class Parts(Protocol):
    """What fits or does not: content about to be written, or a bundle that was read."""

    @property
    def contract(self) -> FeatureContract: ...
    @property
    def transform(self) -> FittedTransform: ...
    @property
    def signature(self) -> ModelSignature: ...
    @property
    def post(self) -> PostProcessing: ...
    @property
    def baseline(self) -> Baseline: ...
    @property
    def golden(self) -> GoldenVectors: ...


def check_fit(parts: Parts) -> None:
    """Raise BundleRefused naming the first two parts that do not fit. Computes nothing with rows."""
    check_contract(parts.contract)
    _check_reads(parts.contract, parts.transform)
    if len(parts.transform.output_names) != parts.signature.input_columns:
        raise BundleRefused(
            f"the transform gives {len(parts.transform.output_names)} columns, the model takes"
            f" {parts.signature.input_columns}",
            hint="the model was fitted on another transform's outputs; " + _TRAIN_AGAIN,
        )
    check_output(parts.post, parts.signature)
    _check_golden_shapes(parts.golden, parts.transform, parts.signature)
    try:
        parts.baseline.check_fits(parts.contract, parts.transform)
    except InvalidDefinition as error:
        raise BundleRefused(error.message, hint=error.hint or _TRAIN_AGAIN) from error


def check_golden(parts: Parts) -> None:
    """Raise BundleRefused unless transform and post-processing reproduce the golden vectors bit for bit."""
    golden = parts.golden
    try:
        tensor = parts.transform.prepare().apply(golden.columns, golden.rows)
    except InvalidDefinition as error:
        raise BundleRefused(f"the transform cannot run on the golden rows: {error.message}", hint=error.hint) from error
    check_same_bits(golden.tensor, tensor, what="the transform's tensor")
    if golden.scores is None:
        raise BundleRefused("the golden vectors lack the scores that post-processing gives", hint=_TRAIN_AGAIN)
    check_same_bits(golden.scores, parts.post.scores(golden.outputs), what="the post-processing's score")


def check_contract(contract: FeatureContract) -> None:
    """Raise BundleRefused for a contract that could not be read by anyone: what its types alone do not say."""
    names = [name for name, _ in contract.columns]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise BundleRefused(f"the feature contract has two columns called `{twice}`", hint=_DEFINE_OTHERWISE)
    keys = {key.name: key.dtype for view in contract.views for key in view.join_keys}
    for view in contract.views:
        for key in view.join_keys:
            if keys[key.name] is not key.dtype:
                raise BundleRefused(
                    f"join key `{key.name}` of the feature contract is {key.dtype} in view `{view.name}` and"
                    f" {keys[key.name]} in another",
                    hint=_DEFINE_OTHERWISE,
                )
        for feature in view.features:
            _check_policies(view.name, feature)


def _check_policies(view: str, feature: FeatureField) -> None:
    """A default must be a value that the feature could hold."""
    allowed = _DEFAULTS.get(feature.dtype)
    for situation, policy in (("missing", feature.on_missing), ("stale", feature.on_stale)):
        if allowed is not None and policy.value is not None and type(policy.value) not in allowed:
            raise BundleRefused(
                f"feature `{feature.name}` of view `{view}` is {feature.dtype}, and its default where it is {situation}"
                f" is {policy.value!r}",
                hint="declare a default of the feature's dtype, and train the model again",
            )


def _check_reads(contract: FeatureContract, transform: FittedTransform) -> None:
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


def _check_golden_shapes(golden: GoldenVectors, transform: FittedTransform, signature: ModelSignature) -> None:
    if not golden.rows:
        raise BundleRefused(
            "the golden vectors hold no row, so nothing would show that the bundle computes what it should",
            hint="train the model on one row or more",
        )
    read = dict(transform.inputs)
    if golden.columns.keys() != read.keys():
        odd = min(golden.columns.keys() ^ read.keys())
        told = f"lack the column `{odd}`, which" if odd in read else f"hold the column `{odd}`, none that"
        raise BundleRefused(
            f"the golden vectors {told} the transform reads",
            hint=_TRAIN_AGAIN,
        )
    for name, column in golden.columns.items():
        if column.dtype is not read[name] or len(column) != golden.rows:
            raise BundleRefused(
                f"column `{name}` of the golden vectors has {len(column)} values of {column.dtype}; the transform reads"
                f" {golden.rows} rows of {read[name]}",
                hint=_TRAIN_AGAIN,
            )
    _check_outputs(golden, signature)


def _check_outputs(golden: GoldenVectors, signature: ModelSignature) -> None:
    expected = dict(signature.outputs)
    if golden.outputs.keys() != expected.keys():
        raise BundleRefused(
            f"the golden vectors have the outputs {sorted(golden.outputs)}, the model's signature {sorted(expected)}",
            hint=_TRAIN_AGAIN,
        )
    for name, output in golden.outputs.items():
        if output.shape != (golden.rows, expected[name]):
            raise BundleRefused(
                f"output `{name}` of the golden vectors has shape {output.shape}; the model's signature says"
                f" ({golden.rows}, {expected[name]})",
                hint=_TRAIN_AGAIN,
            )
        if not np.isfinite(output).all():
            row = int((~np.isfinite(output)).any(axis=1).argmax())
            raise BundleRefused(
                f"output `{name}` of the golden vectors is not finite in row {row}",
                hint="clean and clip the transform's outputs, then train the model again",
            )
