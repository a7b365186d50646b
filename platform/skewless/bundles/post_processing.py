"""Post-processing: from what a model gives to what a caller is told.

outputs   float32 (rows, 2), of the negative and the positive class, or (rows, 1), of the positive one
scores    float32 (rows,)   the positive class's, calibrated
labels    str (rows,)       the positive class's name from the threshold on, which is compared with calibrated scores
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from skewless.errors import BundleRefused, InvalidDefinition
from skewless.serving.ports import ModelSignature
from skewless.training.calibration import NO_CALIBRATION, Calibration
from skewless.training.definition import BinaryLabels

PROBABILITIES = "probabilities"
"""What the output of a binary classifier is called where its format leaves the choice."""
_COLUMNS = (1, 2)
"""Of the output: the positive class alone, or both."""
_FIELDS = frozenset({"calibration", "labels", "output"})


@dataclass(frozen=True, slots=True)
class PostProcessing:
    """Names of the two classes, the threshold between them, how scores are calibrated before it, and what is read."""

    labels: BinaryLabels
    calibration: Calibration = NO_CALIBRATION
    output: str = PROBABILITIES
    """The model's output that holds the probabilities; the positive class is its last column."""

    def __post_init__(self) -> None:
        negative, positive, threshold = self.labels.negative, self.labels.positive, self.labels.threshold
        if not negative or not positive or negative == positive:
            raise InvalidDefinition(f"the classes are called {negative!r} and {positive!r}; each needs its own name")
        if not 0.0 <= threshold <= 1.0:  # NaN is refused too
            raise InvalidDefinition(f"the threshold is {threshold!r}; allowed: a number from 0.0 to 1.0")

    def apply(self, outputs: Mapping[str, NDArray[np.float32]]) -> tuple[list[str], NDArray[np.float32]]:
        """Label and calibrated score of every row. Raises BundleRefused where the model gave NaN or infinity."""
        scores = self.scores(outputs)
        return self.label_of(scores), scores

    def scores(self, outputs: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
        """The calibrated probability (rows,) of the positive class, C-contiguous. Raises as `apply`."""
        probabilities = np.ascontiguousarray(outputs[self.output][:, -1])
        finite = np.isfinite(probabilities)
        if not finite.all():
            row = int(finite.argmin())
            raise BundleRefused(
                f"the model gave {probabilities[row]} for row {row}, which is no probability",
                hint="clean and clip the transform's outputs, then train the bundle again",
            )
        return self.calibration.apply(probabilities)

    def label_of(self, scores: NDArray[np.float32]) -> list[str]:
        """The name of each row's class, from calibrated scores (rows,)."""
        labels = self.labels
        return [labels.positive if each else labels.negative for each in (scores >= labels.threshold).tolist()]

    def to_json(self) -> dict[str, Any]:
        """Plain data, as in post_processing.json."""
        return {"labels": asdict(self.labels), "calibration": self.calibration.to_json(), "output": self.output}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`. Raises InvalidDefinition for anything else."""
        try:
            if data.keys() != _FIELDS:
                raise InvalidDefinition(f"post-processing must have the fields {sorted(_FIELDS)}, got {sorted(data)}")
            calibration = Calibration.from_json(data["calibration"])
            return cls(BinaryLabels(**data["labels"]), calibration, data["output"])
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InvalidDefinition(f"this is not post-processing: {error!r}") from error


def check_output(post: PostProcessing, signature: ModelSignature) -> None:
    """Raise BundleRefused unless the model gives what post-processing reads."""
    if dict(signature.outputs).get(post.output) not in _COLUMNS:
        listed = ", ".join(f"`{name}` with {columns} columns" for name, columns in signature.outputs) or "none"
        raise BundleRefused(
            f"the model has the outputs {listed}; post-processing reads `{post.output}` with one column (the positive"
            " class) or two",
            hint="name the output so when the model is exported, or name the model's output in the post-processing",
        )
