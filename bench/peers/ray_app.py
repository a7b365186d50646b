"""The bench model as a Ray Serve application, with batching. `python -m bench.peers.ray_app PORT`."""

import sys
from typing import Any

import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import JSONResponse

from bench.peers.predictor import Predictor


@serve.deployment(num_replicas=1, max_ongoing_requests=1_000)
class Peer:
    """One replica."""

    def __init__(self) -> None:
        self._predictor = Predictor()

    @serve.batch(max_batch_size=32, batch_wait_timeout_s=0.001)
    async def predict(self, requests: list[list[dict[str, Any]]]) -> list[list[dict[str, Any]]]:
        """Answer the instances of all requests at once."""
        answers = iter(self._predictor.predict([instance for request in requests for instance in request]))
        return [[next(answers) for _ in request] for request in requests]

    async def __call__(self, request: Request) -> JSONResponse:
        """Answer one request."""
        body = await request.json()
        return JSONResponse({"predictions": await self.predict(body["instances"])})


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1]), "request_timeout_s": 60})
    application = Peer.bind()  # type: ignore[attr-defined]  # the decorator made a deployment of it
    serve.run(application, route_prefix="/predict", blocking=True)
