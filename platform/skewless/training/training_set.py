"""The rows that a model is taught and judged by: examples of the training period with the features of their moments.

examples    questions of the training period with their answers           (rows)
features    every stored feature as it was visible at each question       (rows, contract columns)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from skewless.dtypes import Column, Dtype
from skewless.errors import InvalidDefinition
from skewless.features.contract import FeatureContract
from skewless.features.frame import FeatureFrame
from skewless.training.dataset import Dataset, holdout_digest, training_digest
from skewless.training.definition import ExampleTable, ModelDefinition, Period
from skewless.training.examples import Examples, select
from skewless.training.learner import Progress, TrainingData
from skewless.transforms import FittedTransform, out_of_fold


class OfflineFeatures(Protocol):
    """The offline store as training needs it."""

    def examples(self, table: ExampleTable, contract: FeatureContract, period: Period) -> Examples:
        """Example rows asked in a period, ordered by `as_of`."""
        ...

    def features_at(
        self, contract: FeatureContract, keys: Mapping[str, Column], as_of: NDArray[np.int64]
    ) -> FeatureFrame:
        """Every stored feature for each row at its `as_of`, by the visibility rule."""
        ...


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """See the module. `columns` has keys, request fields and features, each (rows,)."""

    definition: ModelDefinition
    contract: FeatureContract
    examples: Examples
    frame: FeatureFrame
    columns: Mapping[str, Column]

    @property
    def known(self) -> NDArray[np.bool_]:
        """Rows (rows,) whose label had arrived by the end of the training period. Raises InvalidDefinition for none."""
        return self._of_both_classes(self.examples.known_by(self.definition.training.end))

    @property
    def before_holdout(self) -> NDArray[np.bool_]:
        """Rows (rows,) whose label had arrived when the hold-out began. Raises InvalidDefinition for none."""
        return self._of_both_classes(self.examples.known_by(self.definition.holdout.start))

    @property
    def held_out(self) -> NDArray[np.bool_]:
        """Labelled rows (rows,) asked within the hold-out. Raises InvalidDefinition for none."""
        return self._of_both_classes(held_out_rows(self.definition, self.examples))

    def prepared(
        self, chosen: NDArray[np.bool_], progress: Progress
    ) -> tuple[FittedTransform, TrainingData, dict[str, Column]]:
        """The transform fitted on some rows, what a learner is given of them, and their columns."""
        columns = select(self.columns, chosen)
        labels, as_of = self.examples.labels[chosen], self.examples.as_of[chosen]
        target = Column(Dtype.BOOL, labels, np.ones(len(labels), dtype=np.bool_))
        transform, tensor = out_of_fold(self.definition.transform, columns, len(labels), target)
        data = TrainingData(
            tensor=tensor,
            labels=labels,
            weights=self.definition.weights.of(columns, as_of, labels),
            as_of=as_of,
            output_names=transform.output_names,
            seed=self.definition.seed,
            progress=progress,
        )
        return transform, data, columns

    def dataset(self, data: TrainingData, columns: Mapping[str, Column]) -> Dataset:
        """What identifies the rows of `known`, given as they were prepared."""
        return Dataset(
            digest=training_digest(columns, data.as_of, data.labels),
            name=self.definition.name,
            source=self.definition.examples.path,
            period=self.definition.training,
            rows=data.rows,
        )

    def _of_both_classes(self, rows: NDArray[np.bool_]) -> NDArray[np.bool_]:
        positives = int(np.count_nonzero(self.examples.labels[rows]))
        count = int(np.count_nonzero(rows))
        if not 0 < positives < count:
            raise InvalidDefinition(
                f"model `{self.definition.name}`: {count} labelled rows, {positives} of them positive, cannot teach or"
                " test a classifier",
                hint="check the example table's label and the model's periods",
            )
        return rows


def read_training_set(
    definition: ModelDefinition, contract: FeatureContract, offline: OfflineFeatures, period: Period | None = None
) -> TrainingSet:
    """The examples of a period, the whole training period where None, with their features."""
    examples = offline.examples(definition.examples, contract, period or definition.training)
    frame = offline.features_at(contract, examples.keys, examples.as_of)
    return TrainingSet(definition, contract, examples, frame, {**examples.keys, **frame.columns})


def held_out_rows(definition: ModelDefinition, examples: Examples) -> NDArray[np.bool_]:
    """Which examples (rows,) a model is judged on: labelled, and asked within the hold-out."""
    held: NDArray[np.bool_] = (
        examples.labelled & (examples.as_of >= definition.holdout.start) & (examples.as_of < definition.holdout.end)
    )
    return held


def holdout_dataset(rows: TrainingSet) -> Dataset:
    """What identifies the hold-out of a model."""
    held = rows.held_out
    return Dataset(
        digest=holdout_digest(rows.examples.as_of[held], rows.examples.labels[held]),
        name=f"{rows.definition.name} hold-out",
        source=rows.definition.examples.path,
        period=rows.definition.holdout,
        rows=int(np.count_nonzero(held)),
    )
