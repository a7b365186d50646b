"""The bench model as a LitServe server, with batching. `python -m bench.peers.litserve_server PORT`."""

import sys
from typing import Any

import litserve

from bench.peers.predictor import Predictor


class Peer(litserve.LitAPI):
    """One worker; a batch is the instances of several requests."""

    def setup(self, device: str) -> None:  # noqa: ARG002  # the framework hands it over
        """Load everything once."""
        self._predictor = Predictor()

    def decode_request(self, request: dict[str, Any]) -> list[dict[str, Any]]:
        """The instances of one request."""
        instances: list[dict[str, Any]] = request["instances"]
        return instances

    def batch(self, inputs: list[list[dict[str, Any]]]) -> list[list[dict[str, Any]]]:
        """Requests as they are; they have different numbers of instances."""
        return inputs

    def predict(self, requests: list[list[dict[str, Any]]]) -> list[list[dict[str, Any]]]:
        """Answer the instances of all requests at once."""
        answers = iter(self._predictor.predict([instance for request in requests for instance in request]))
        return [[next(answers) for _ in request] for request in requests]

    def unbatch(self, output: list[list[dict[str, Any]]]) -> list[list[dict[str, Any]]]:
        """An answer per request."""
        return output

    def encode_response(self, output: list[dict[str, Any]]) -> dict[str, Any]:
        """The body of one answer."""
        return {"predictions": output}


if __name__ == "__main__":
    server = litserve.LitServer(Peer(max_batch_size=32, batch_timeout=0.001), accelerator="cpu", timeout=60)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", generate_client_file=False)
