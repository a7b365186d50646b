"""What every peer serves: features by Feast's SDK, a scikit-learn transform, the model in ONNX Runtime.

Runs in the peer's own environment, so it imports nothing of Skewless.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import joblib  # type: ignore[import-untyped]  # it ships no types
import numpy as np
import onnxruntime
from feast import FeatureStore

from bench.textbook.transform import typed

POSITIVE_FROM = 0.5


class Predictor:
    """Loads everything once, from the folder and the feature repository that the environment names."""

    def __init__(self) -> None:
        artifacts = Path(os.environ["PEER_ARTIFACTS"])
        self._store = FeatureStore(repo_path=os.environ["PEER_FEATURE_REPOSITORY"])
        self._service = self._store.get_feature_service(os.environ["PEER_FEATURE_SERVICE"])
        self._groups, self._transform = joblib.load(artifacts / "pipeline.joblib")
        self._model = onnxruntime.InferenceSession(str(artifacts / "model.onnx"), providers=["CPUExecutionProvider"])
        self._input = self._model.get_inputs()[0].name

    def predict(self, instances: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """A label and a probability for each instance: join keys, and a quantity that may be None."""
        entities = [{name: value for name, value in each.items() if name != "quantity"} for each in instances]
        features = self._store.get_online_features(
            features=self._service, entity_rows=entities, full_feature_names=True
        ).to_df()
        features["quantity"] = np.array([each.get("quantity") for each in instances], dtype=np.float64)
        tensor = self._transform.transform(typed(features, self._groups)).astype(np.float32)
        (probabilities,) = self._model.run(["probabilities"], {self._input: tensor})
        return [
            {"label": "yes" if probability >= POSITIVE_FROM else "no", "probability": probability}
            for probability in probabilities[:, 1].tolist()
        ]
