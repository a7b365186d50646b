"""The bench model as a custom runtime of MLServer, in the Open Inference Protocol."""

from typing import Any

import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.types import InferenceRequest, InferenceResponse

from bench.peers.predictor import Predictor


class Peer(MLModel):
    """Columns of numbers, and of strings for words; a quantity that is unknown says so beside it."""

    async def load(self) -> bool:
        """Load everything once."""
        self._predictor = Predictor()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer one request, or several that MLServer put together."""
        given: dict[str, list[Any]] = {}
        for each in payload.inputs:
            codec = StringCodec if each.datatype == "BYTES" else NumpyCodec
            given[each.name] = [value.item() if hasattr(value, "item") else value for value in _flat(codec, each)]
        known = given.pop("quantity_known")
        given["quantity"] = [
            value if is_known else None for value, is_known in zip(given["quantity"], known, strict=True)
        ]
        instances = [dict(zip(given, row, strict=True)) for row in zip(*given.values(), strict=True)]
        answers = self._predictor.predict(instances)
        return InferenceResponse(
            model_name=self.name,
            outputs=[
                StringCodec.encode_output("label", [each["label"] for each in answers]),
                NumpyCodec.encode_output("probability", np.array([each["probability"] for each in answers])),
            ],
        )


def _flat(codec: Any, given: Any) -> list[Any]:
    decoded = codec.decode_input(given)
    return list(decoded.ravel()) if hasattr(decoded, "ravel") else list(decoded)
