"""What each route does. Handlers translate between HTTP and the data plane and decide nothing else."""

from typing import Any

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from skewless.errors import Unavailable
from skewless.serving.data_plane import MODEL_BACKEND
from skewless.serving.deadline import Deadline
from skewless.serving.outcomes import read_outcomes
from skewless.serving.receipt import status_counts
from skewless.serving.request import read_request
from skewless_gateway.bodies import read_json
from skewless_gateway.gateway import Gateway
from skewless_gateway.problems import problem
from skewless_gateway.route_follower import ServedEndpoint

_JSON = "application/json"
_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


async def predict(request: Request) -> Response:
    """Answer predictions for the instances in the body."""
    gateway = _gateway(request)
    started_ns = gateway.clock()
    name = request.path_params["endpoint"]
    endpoint = gateway.follower.endpoint(name)
    request.state.endpoint = name
    with gateway.admission.admitted():
        body = await read_json(request)
        checked = read_request(body, endpoint.served.validator, as_of_allowed=gateway.allow_as_of)
        deadline = Deadline(gateway.clock, started_ns=started_ns, deadline_ms=checked.options.deadline_ms)
        try:
            answer = await gateway.plane.predict(
                endpoint.serving, checked, deadline=deadline, request_id=request.state.request_id
            )
        except Unavailable as error:
            if error.part == MODEL_BACKEND:
                gateway.follower.wake()
            raise
    gateway.metrics.answered(
        name,
        rows=checked.rows,
        statuses=status_counts(answer.batches),
        stage_ms=deadline.laps_ms,
        total_ms=deadline.total_ms(),
    )
    return _json(answer.body)


async def list_endpoints(request: Request) -> Response:
    """Every endpoint of the routing table, and the bundle that answers it."""
    state = _gateway(request).follower.state
    if state.table is None:
        raise Unavailable("routing table", state.registry_error or "it has not been read yet")
    return _json(
        {
            "endpoints": [
                {
                    "endpoint": route.endpoint,
                    "description": route.description,
                    "bundle": _bundle_in_service(state.endpoints.get(route.endpoint)),
                }
                for route in state.table.routes
            ]
        }
    )


async def show_endpoint(request: Request) -> Response:
    """What an endpoint takes, what it answers, and the bundle behind it."""
    name = request.path_params["endpoint"]
    gateway = _gateway(request)
    endpoint = gateway.follower.endpoint(name)
    request.state.endpoint = name
    served = endpoint.served
    state = gateway.snapshots.contract_state(endpoint.contract)
    return _json(
        {
            "endpoint": name,
            "description": endpoint.route.description,
            "bundle": served.digest,
            "bundle_name": served.name,
            "roles": _roles(endpoint),
            "route_version": endpoint.route.version,
            "instance_schema": served.validator.json_schema(),
            "prediction_schema": _prediction_schema(endpoint),
            "features": list(served.view_of_column),
            "definitions": {"state": state.definitions, "detail": state.detail},
        }
    )


async def take_outcomes(request: Request) -> Response:
    """Keep what turned out for earlier predictions; all of the body or nothing of it."""
    gateway = _gateway(request)
    outcomes = read_outcomes(await read_json(request), received_time=gateway.now())
    gateway.log.append_outcomes(outcomes)
    await gateway.log.commit()
    gateway.metrics.outcomes.inc(len(outcomes))
    return _json({"accepted": len(outcomes)})


async def health(_request: Request) -> Response:
    """200 as long as the process answers; says nothing about the parts it needs."""
    return _json({"status": "ok"})


async def ready(request: Request) -> Response:
    """200 when predictions can be answered, else 503 with what is missing."""
    parts = await _gateway(request).parts()
    told = {name: {"ok": part.ok, "detail": part.detail} for name, part in parts.items()}
    missing = [f"{name}: {part.detail}" for name, part in parts.items() if not part.ok]
    if not missing:
        return _json({"ready": True, "parts": told})
    return problem(
        503,
        "not_ready",
        "; ".join(missing),
        request_id=request.state.request_id,
        headers={"Retry-After": "1"},
        hint="`skewless doctor` says what to do about each part",
        parts=told,
    )


async def metrics(request: Request) -> Response:
    """Prometheus metrics."""
    gateway = _gateway(request)
    gateway.metrics.log_buffered_rows.set(gateway.buffered_rows())
    gateway.metrics.show_snapshot_ages(gateway.snapshots.ages_s(gateway.now()))
    return Response(gateway.metrics.exposition(), headers={"Content-Type": _METRICS_TYPE})


async def client_gone(_request: Request, _error: Exception) -> Response:
    """Nobody reads this: the caller hung up while its body was being read."""
    assert isinstance(_error, ClientDisconnect), "registered for nothing else"
    return Response(status_code=499)


def _gateway(request: Request) -> Gateway:
    gateway: Gateway = request.app.state.gateway
    return gateway


def _json(body: dict[str, Any]) -> Response:
    return Response(msgspec.json.encode(body), media_type=_JSON)


def _roles(endpoint: ServedEndpoint) -> dict[str, Any]:
    """Who scores beside live, as far as it is in service; nothing for an endpoint with a live bundle alone."""
    route, ready = endpoint.route, endpoint.serving.bundles
    roles: dict[str, Any] = {}
    if route.canary is not None and route.canary.bundle in ready:
        roles["canary"] = {"bundle": route.canary.bundle, "share": route.canary.share}
    if route.experiment is not None:
        arms = [each for each in route.experiment.arms if each.bundle in ready]
        roles["experiment"] = {
            "name": route.experiment.name,
            "traffic": route.experiment.traffic,
            "arms": [{"name": each.name, "bundle": each.bundle, "share": each.share} for each in arms],
        }
    if route.shadow is not None and route.shadow.bundle in ready:
        roles["shadow"] = {"bundle": route.shadow.bundle, "share": route.shadow.share}
    return roles


def _bundle_in_service(endpoint: ServedEndpoint | None) -> str | None:
    return None if endpoint is None else endpoint.served.digest


def _prediction_schema(endpoint: ServedEndpoint) -> dict[str, Any]:
    labels = endpoint.served.labels
    return {
        "type": "object",
        "properties": {
            "label": {
                "enum": [labels.negative, labels.positive],
                "description": f"`{labels.positive}` from a probability of {labels.threshold} on",
            },
            "probability": {
                "type": "number",
                "minimum": 0,
                "maximum": 1,
                "description": f"of `{labels.positive}`, a float32",
            },
        },
        "required": ["label", "probability"],
    }
