"""Where a bundle came from, as plain data: everything that shaped it, and how good it was on the hold-out.

Nothing in it differs between two trainings of the same thing by the same code: times and latencies are of a run, not of
a model, and are kept beside the bundle (in the registry), not in it.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from skewless import __version__
from skewless.timestamps import format_timestamp
from skewless.training.dataset import Dataset
from skewless.training.definition import ModelDefinition, Period
from skewless.training.gates import gate_json
from skewless.training.judgement import Judgement
from skewless.training.learner import TrainedModel

METRICS_NOTE = "metrics are of a fit on the rows known before the hold-out; the shipped model is fitted on all"
IMPORTED_NOTE = "the model was fitted elsewhere; whether it has seen the held-out rows is not known here"
GOLDEN_NOTE = "rows made of extreme values for which the model gives no probability; clean() columns to serve such"
CALIBRATION_NOTE = (
    "fitted on the hold-out's scores; the metrics are of scores calibrated by other parts of the hold-out"
)


def provenance_of(
    definition: ModelDefinition,
    dataset: Dataset,
    judgement: Judgement,
    *,
    learner: Mapping[str, Any],
    model: TrainedModel,
    code: Mapping[str, Any],
    batch_difference: float,
    golden_left_out: int,
) -> dict[str, Any]:
    """The provenance of a trained bundle; see docs/training.md for its fields."""
    return {
        "model": definition.name,
        "training": _period(definition.training),
        "rows": dataset.rows,
        "dataset_digest": dataset.digest,
        "examples": dataset.source,
        "holdout": _holdout(judgement),
        "learner": dict(learner),
        "weights": asdict(definition.weights),
        "conversion": {**model.notes, "row_and_batch_differ_by": batch_difference},
        "versions": {"skewless": __version__, **model.versions},
        "code": dict(code),
        "golden": {"left_out": golden_left_out, "note": GOLDEN_NOTE},
        "gates": [gate_json(gate) for gate in definition.gates],
    }


def _holdout(judgement: Judgement) -> dict[str, Any]:
    found = {
        **_period(judgement.dataset.period),
        "dataset": judgement.dataset.digest,
        "rows_fitted": judgement.fitted_rows,
        "note": IMPORTED_NOTE if judgement.fitted_rows is None else METRICS_NOTE,
        **judgement.evaluation.to_json(),
    }
    if judgement.uncalibrated is not None:
        found["calibration"] = {
            "kind": judgement.calibration.kind.value,
            "note": CALIBRATION_NOTE,
            "uncalibrated": judgement.uncalibrated.to_json(),
        }
    return found


def _period(period: Period) -> dict[str, str]:
    return {"start": format_timestamp(period.start), "end": format_timestamp(period.end)}
