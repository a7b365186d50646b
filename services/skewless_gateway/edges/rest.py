"""The REST API's predict route: JSON in, JSON out."""

from typing import Any

import msgspec

from skewless.serving.receipt import receipt
from skewless.serving.request import PredictRequest
from skewless.serving.served_bundle import ServedBundle
from skewless_gateway.gateway import Gateway
from skewless_gateway.predictions import Answered, RequestHead
from skewless_http.bodies import check_json
from skewless_http.http_message import JSON, HttpRequest, Reply
from skewless_http.problems import problem_of

NAME = "rest"


class PredictEdge:
    """POST /v1/endpoints/{endpoint}/predict."""

    name = NAME
    refusal = staticmethod(problem_of)

    def __init__(self, gateway: Gateway) -> None:
        self._predictions = gateway.predictions
        self._allow_as_of = gateway.allow_as_of

    async def handle(self, request: HttpRequest, head: RequestHead) -> Reply:
        """Answer predictions for the instances in the body."""
        endpoint = request.endpoint
        self._predictions.refuse_early(endpoint, head)
        check_json(request)
        body = await request.body()

        def read(served: ServedBundle) -> PredictRequest:
            return served.requests.read(body, as_of_allowed=self._allow_as_of)

        return Reply(200, JSON, rendered(await self._predictions.answer(endpoint, read, head)))


def rendered(answered: Answered) -> bytes:
    """The JSON of an answer."""
    answer = answered.answer
    predictions = [
        {"label": label, "probability": probability}
        for label, probability in zip(answer.labels, answer.probabilities.tolist(), strict=True)
    ]
    body: dict[str, Any] = {"predictions": predictions, "prediction_ids": list(answer.prediction_ids)}
    told = receipt(answered.request.options.receipt, answer.parts)
    if told is not None:
        deadline = answer.deadline
        told["timings_ms"] = {stage: round(taken, 3) for stage, taken in deadline.laps_ms.items()} | {
            "total": round(deadline.total_ms(), 3)
        }
        body["receipt"] = told
    return msgspec.json.encode(body)
