"""What a replay showed: how many were served, how fast, how good, and whether offline scoring gives the same bits."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skewless.parity.compare import Comparison
from skewless.training.evaluation import Evaluation

DIFFERENCES_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Summary:
    """`latency_ms` has percentiles in milliseconds as the caller saw them. `live` is over rows with an outcome."""

    endpoint: str
    bundle: str
    period: str
    predictions: int
    outcomes: int
    refusals: int
    feature_rows: int
    latency_ms: dict[str, float]
    live: Evaluation
    held_out: dict[str, Any]
    comparison: Comparison
    replays_equal: int
    """Predictions that are recomputed bit for bit from their own log records."""
    replay_wall_s: float
    sample: dict[str, Any]
    """The last request of the replay, as a caller would send it, and the id of its prediction."""
    sample_id: str

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        comparison = self.comparison
        return {
            "endpoint": self.endpoint,
            "bundle": self.bundle,
            "period": self.period,
            "predictions": self.predictions,
            "outcomes": self.outcomes,
            "refusals_retried": self.refusals,
            "feature_rows_written": self.feature_rows,
            "latency_ms": self.latency_ms,
            "live": self.live.to_json(),
            "held_out": self.held_out,
            "parity": {
                "rows": comparison.rows,
                "features_bit_equal": comparison.features_equal,
                "tensors_bit_equal": comparison.tensors_equal,
                "predictions_bit_equal": comparison.outputs_equal,
                "causes": dict(Counter(each.cause.value for each in comparison.differences)),
                "differences": [
                    {
                        "prediction_id": each.prediction_id,
                        "cause": each.cause.value,
                        "column": each.column,
                        "served": each.served,
                        "offline": each.offline,
                    }
                    for each in comparison.differences[:DIFFERENCES_SHOWN]
                ],
            },
            "replays_bit_equal": self.replays_equal,
            "replay_wall_s": self.replay_wall_s,
            "sample_request": self.sample,
        }


def latency_percentiles(latency_s: NDArray[np.float64]) -> dict[str, float]:
    """p50, p99 and p99.9 in milliseconds of latencies (rows,) in seconds; empty for no rows."""
    if not len(latency_s):
        return {}
    values = np.percentile(latency_s, [50, 99, 99.9]) * 1_000
    return {name: round(float(value), 3) for name, value in zip(("p50", "p99", "p99.9"), values, strict=True)}
