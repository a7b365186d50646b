"""Calls a gateway's REST API with httpx: one prediction at a time, and outcomes."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import httpx
import msgspec

from skewless.errors import InvalidRequest, SkewlessError, Unavailable
from skewless.simulation.replay import Answer, Instance
from skewless.timestamps import format_timestamp

TIMEOUT_S = 15.0
"""Longer than any deadline the gateway grants, so that its own answer is what ends a request."""
CONNECTIONS_MAX = 32
_RETRY_AFTER_S = 0.5
_RETRIED = frozenset({httpx.codes.SERVICE_UNAVAILABLE, httpx.codes.GATEWAY_TIMEOUT, httpx.codes.TOO_MANY_REQUESTS})


class GatewayClient:
    """Implements `simulation.replay.PredictionClient` for one endpoint; also an async context manager."""

    def __init__(
        self,
        base_url: str,
        endpoint: str,
        *,
        timestamp_fields: frozenset[str],
        label_names: tuple[str, str],
        api_key: str = "",
    ) -> None:
        """`timestamp_fields` are given in microseconds and sent as RFC 3339; `label_names` are (negative, positive)."""
        credentials = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        limits = httpx.Limits(max_connections=CONNECTIONS_MAX, max_keepalive_connections=CONNECTIONS_MAX)
        self._client = httpx.AsyncClient(
            base_url=base_url, timeout=TIMEOUT_S, limits=limits, trust_env=False, headers=credentials
        )
        self._path = f"/v1/endpoints/{endpoint}/predict"
        self._timestamp_fields = timestamp_fields
        self._label_names = label_names
        self._encoder = msgspec.json.Encoder()

    async def __aenter__(self) -> "GatewayClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def predict(self, instance: Instance, *, as_of: int | None, receipt: str = "summary") -> Answer:
        """Ask for one prediction, at `as_of` (µs) where the gateway allows it; None leaves it to its clock."""
        started = time.perf_counter()
        body = await self.ask([instance], as_of=as_of, receipt=receipt)
        latency_s = time.perf_counter() - started
        return Answer(body["prediction_ids"][0], body["predictions"][0]["probability"], latency_s)

    async def ask(self, instances: list[Instance], *, as_of: int | None, receipt: str) -> dict[str, Any]:
        """The gateway's whole answer. Raises Unavailable to be tried again, InvalidRequest for a refusal."""
        options: dict[str, object] = {"receipt": receipt}
        if as_of is not None:
            options["as_of"] = format_timestamp(as_of)
        return await self._post(self._path, {"instances": [self._wire(each) for each in instances], "options": options})

    async def report(self, outcomes: Sequence[tuple[str, bool, int]]) -> None:
        """Report (prediction id, label, outcome time in µs)."""
        rows = [
            {
                "prediction_id": prediction_id,
                "label": self._label_names[int(label)],
                "outcome_time": format_timestamp(outcome_time),
            }
            for prediction_id, label, outcome_time in outcomes
        ]
        await self._post("/v1/outcomes", {"outcomes": rows})

    async def describe(self) -> dict[str, Any]:
        """What the gateway says about the endpoint, its live bundle among it. Raises as `predict`."""
        return await self._answer("GET", self._path.removesuffix("/predict"), None)

    def _wire(self, instance: Instance) -> Instance:
        return {
            name: format_timestamp(value) if name in self._timestamp_fields and isinstance(value, int) else value
            for name, value in instance.items()
        }

    async def _post(self, path: str, body: Mapping[str, object]) -> dict[str, Any]:
        return await self._answer("POST", path, self._encoder.encode(body))

    async def _answer(self, method: str, path: str, content: bytes | None) -> dict[str, Any]:
        headers = {} if content is None else {"Content-Type": "application/json"}
        try:
            response = await self._client.request(method, path, content=content, headers=headers)
        except httpx.TransportError as error:
            raise Unavailable(
                "gateway", f"{type(error).__name__} {error}".strip(), retry_after_s=_RETRY_AFTER_S
            ) from error
        answer = _object(response.content) if response.status_code == httpx.codes.OK else None
        if answer is not None:
            return answer
        raise refusal(response.status_code, response.headers.get("Retry-After", ""), response.content)


def refusal(status: int, retry_after: str, body: bytes) -> SkewlessError:
    """What an answer that is none means: Unavailable to be tried again, InvalidRequest for everything else."""
    problem = _object(body) or {"detail": body[:200].decode("utf-8", "replace")}
    detail, hint = str(problem.get("detail", "")), str(problem.get("hint", ""))
    if status in _RETRIED:
        return Unavailable("gateway", detail, retry_after_s=_retry_after_s(retry_after), hint=hint)
    return InvalidRequest(
        f"the gateway answered {status}: {detail}",
        path=str(problem.get("path", "$")),
        allowed=str(problem.get("allowed", "")),
        hint=hint,
    )


def _object(body: bytes) -> dict[str, Any] | None:
    """The JSON object of a body; None for anything else, such as a proxy's page."""
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except msgspec.DecodeError:
        return None


def _retry_after_s(retry_after: str) -> float:
    """Seconds to wait; a proxy may send a date instead, which is not worth a parser here."""
    try:
        return float(retry_after)
    except ValueError:
        return _RETRY_AFTER_S
