"""The bench model as a BentoML service, with adaptive batching."""

from typing import Any

import bentoml

from bench.peers.predictor import Predictor


@bentoml.service(name="peer", workers=1, traffic={"timeout": 60, "max_concurrency": 1_000})
class Peer:
    """One worker."""

    def __init__(self) -> None:
        self._predictor = Predictor()

    @bentoml.api(batchable=True, max_batch_size=1_000, max_latency_ms=10_000)
    def predict(self, instances: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Instances of several requests at once; BentoML puts them together and takes them apart."""
        return self._predictor.predict(instances)
