"""The model that the gateway benchmark serves: 40 stored features and a request field, boosted trees, in a bundle.

What is stored is `bench.read_store.spread(40)`: six views over three entities. The transform imputes, standardises and
one-hot encodes; the label of the training rows is drawn from all of its outputs, so that the trees have something to
find. Columns are grouped by what is done with them, so that the textbook's scikit-learn pipeline can do the same.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bench.textbook.transform import CATEGORIES, Groups
from skewless.adapters.onnx_runtime import OnnxModel
from skewless.adapters.redis_blocking_store import BlockingRedisOnlineStore
from skewless.adapters.sklearn_trainer import train
from skewless.bundles.bundle import Bundle, BundleContent, load_bundle, write_bundle
from skewless.bundles.golden import GoldenVectors
from skewless.bundles.post_processing import PROBABILITIES, PostProcessing
from skewless.bundles.serving_profile import ServingProfile
from skewless.dtypes import Column, Dtype, column_of
from skewless.features.contract import FeatureContract, RequestField
from skewless.features.frame import FeatureFrame
from skewless.features.plan import ReadPlan
from skewless.stack.ports import LOOPBACK
from skewless.statistics.baseline import baseline_of
from skewless.training.definition import BinaryLabels, BoostedTrees
from skewless.training.learner import TrainingData
from skewless.transforms import FittedTransform, Transform, column

if TYPE_CHECKING:  # it imports Feast, which the transform alone does not need
    from bench.read_store import ReadStore

QUANTITY = RequestField("quantity", Dtype.FLOAT32, nullable=True)
ZONE = "UTC"
LABELS = BinaryLabels("no", "yes")
DRAWS, DRAW_ROWS = 4, 1_000
GOLDEN_ROWS = 64
TIMEOUT_S = 30.0
_SEED = 20_24
_NUMBERS = (Dtype.FLOAT32, Dtype.FLOAT64)


@dataclass(frozen=True, slots=True)
class Trained:
    """A bundle on disk, and the rows that it was trained on."""

    bundle: Bundle
    groups: Groups
    columns: Mapping[str, Column]
    """Of every column of the contract, for the textbook's own fit."""
    rows: int

    def tensor(self, columns: Mapping[str, Column], rows: int) -> NDArray[np.float32]:
        """What the model is given for rows of columns."""
        return self.bundle.transform.prepare().apply(columns, rows)


def groups_of(contract: FeatureContract) -> Groups:
    """The columns of a contract by group; join keys are in none."""
    keys = {key.name for key in contract.join_keys}
    features = [(name, dtype) for name, dtype in contract.columns if name not in keys]

    def of(*dtypes: Dtype) -> tuple[str, ...]:
        return tuple(name for name, dtype in features if dtype in dtypes)

    return Groups(of(*_NUMBERS), of(Dtype.INT64), of(Dtype.BOOL), of(Dtype.STRING), of(Dtype.TIMESTAMP))


def with_request_field(contract: FeatureContract) -> FeatureContract:
    """The stored features of a contract, and a field that callers give."""
    return replace(contract, request_fields=(QUANTITY,))


def entities_of(store: "ReadStore", rows: int, draw: int) -> dict[str, list[object]]:
    """What callers give for `rows` rows, by name: join keys, and quantities of which one in twenty is null."""
    rng = np.random.default_rng((_SEED, rows, draw))
    quantities = rng.gamma(2.0, 3.0, rows).astype(np.float32).tolist()
    unknown = rng.random(rows) < 0.05
    given = [None if null else quantity for quantity, null in zip(quantities, unknown.tolist(), strict=True)]
    return {**store.entity_rows(rows, draw), QUANTITY.name: given}


def given_columns(contract: FeatureContract, entities: Mapping[str, list[object]]) -> dict[str, Column]:
    """What callers give, as columns."""
    dtypes = {key.name: key.dtype for key in contract.join_keys} | {QUANTITY.name: QUANTITY.dtype}
    return {name: column_of(dtype, entities[name]) for name, dtype in dtypes.items()}


def read_columns(
    plan: ReadPlan, store: BlockingRedisOnlineStore, given: Mapping[str, Column], rows: int, as_of: int
) -> FeatureFrame:
    """The stored features of rows."""
    prepared = plan.prepare(given, rows)
    replies = store.read(prepared.keys, prepared.commands, timeout_s=TIMEOUT_S)
    return prepared.decode(replies, as_of).frame


def train_bundle(store: "ReadStore", folder: Path, progress: Callable[[str], None]) -> Trained:
    """Read training rows from the online store, fit transform and trees, and write the bundle into a new folder."""
    contract = with_request_field(store.contract)
    columns, event_times, rows = _training_rows(store, contract)
    groups = groups_of(contract)
    fitted = transform_of(contract, groups).fit(columns, rows)
    tensor = fitted.prepare().apply(columns, rows)
    model = train(_training_data(tensor, fitted, progress), BoostedTrees(max_iter=100))
    probabilities = OnnxModel(model.files.files[model.files.entry]).run(tensor)
    post = PostProcessing(LABELS)
    content = BundleContent(
        name="bench",
        contract=contract,
        transform=fitted,
        model=model.files,
        signature=model.signature,
        serving=ServingProfile(),
        post=post,
        baseline=baseline_of(
            contract,
            fitted,
            columns,
            tensor,
            {"score": post.scores({PROBABILITIES: probabilities})},
            {view: store.as_of - times for view, times in event_times.items()},
            rows,
        ),
        golden=GoldenVectors(
            {name: _head(columns[name]) for name, _ in fitted.inputs},
            tensor[:GOLDEN_ROWS],
            {PROBABILITIES: probabilities[:GOLDEN_ROWS]},
        ),
        provenance={"trained": "for a benchmark"},
    )
    digest = write_bundle(content, folder)
    return Trained(load_bundle(folder, digest), groups, columns, rows)


def variant_of(bundle: Bundle, number: int, folder: Path) -> Bundle:
    """A bundle with another digest, and everything else the same."""
    content = BundleContent(
        name=bundle.name,
        contract=bundle.contract,
        transform=bundle.transform,
        model=bundle.read_model(),
        signature=bundle.signature,
        serving=bundle.serving,
        post=bundle.post,
        baseline=bundle.baseline,
        golden=bundle.golden,
        provenance={**bundle.provenance, "variant": number},
    )
    return load_bundle(folder, write_bundle(content, folder))


def _training_rows(
    store: "ReadStore", contract: FeatureContract
) -> tuple[dict[str, Column], dict[str, NDArray[np.int64]], int]:
    """Every column of the contract and the event times of every view, of all draws one after another."""
    source = BlockingRedisOnlineStore(f"redis://{LOOPBACK}:{store.port}")
    plan = ReadPlan.compile(contract)
    columns: dict[str, list[Column]] = {}
    times: dict[str, list[NDArray[np.int64]]] = {}
    try:
        for draw in range(DRAWS):
            given = given_columns(contract, entities_of(store, DRAW_ROWS, draw))
            frame = read_columns(plan, source, given, DRAW_ROWS, store.as_of)
            for name, each in {**given, **frame.columns}.items():
                columns.setdefault(name, []).append(each)
            for view, moments in frame.event_times.items():
                times.setdefault(view, []).append(moments)
    finally:
        source.close()
    return (
        {name: _joined(parts) for name, parts in columns.items()},
        {view: np.concatenate(parts) for view, parts in times.items()},
        DRAWS * DRAW_ROWS,
    )


def transform_of(contract: FeatureContract, groups: Groups) -> Transform:
    """What is made of the columns of a contract, group by group."""
    dtypes = dict(contract.columns)
    outputs = {name: column(name, dtypes[name]).impute_median().standardise() for name in groups.numbers}
    outputs |= {name: column(name, Dtype.INT64).impute(0).standardise() for name in groups.counts}
    outputs |= {name: column(name, Dtype.BOOL).impute(0.0) for name in groups.flags}
    outputs |= {
        name: column(name, Dtype.STRING).one_hot(categories=list(CATEGORIES), oov=False) for name in groups.words
    }
    outputs |= {name: column(name, Dtype.TIMESTAMP).hour(ZONE).impute(-1.0) for name in groups.moments}
    return Transform(outputs)


def _training_data(
    tensor: NDArray[np.float32], fitted: FittedTransform, progress: Callable[[str], None]
) -> TrainingData:
    rng = np.random.default_rng(_SEED)
    rows, outputs = tensor.shape
    weights = rng.normal(0, 1, outputs)
    logit = np.tanh(tensor) @ weights
    labels = logit + rng.normal(0, logit.std() / 2, rows) > np.median(logit)
    return TrainingData(
        tensor, labels, np.ones(rows), np.arange(rows, dtype=np.int64), fitted.output_names, progress=progress
    )


def _joined(parts: list[Column]) -> Column:
    return Column(
        parts[0].dtype, np.concatenate([each.values for each in parts]), np.concatenate([each.valid for each in parts])
    )


def _head(whole: Column) -> Column:
    return Column(whole.dtype, whole.values[:GOLDEN_ROWS], whole.valid[:GOLDEN_ROWS])
