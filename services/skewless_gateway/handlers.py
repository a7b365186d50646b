"""The REST API's other routes: what is served, and whether this process is well."""

from typing import Any

from skewless.errors import NotFound, Unavailable
from skewless_gateway.exposition import OPEN_METRICS, TEXT, wants_open_metrics
from skewless_gateway.gateway import Gateway, metrics_text, readiness
from skewless_gateway.predictions import RequestHead
from skewless_gateway.route_follower import ServedEndpoint
from skewless_http.http_message import HttpRequest, Reply, json_reply
from skewless_http.problems import problem


class Handlers:
    """Each method answers one route, see `routes.py`."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def list_endpoints(self, _request: HttpRequest, head: RequestHead) -> Reply:
        """Every endpoint of the routing table that the caller may ask, and the bundle that answers it."""
        state = self._gateway.follower.state
        if state.table is None:
            raise Unavailable("routing table", state.registry_error or "it has not been read yet")
        return json_reply(
            {
                "endpoints": [
                    {
                        "endpoint": route.endpoint,
                        "description": route.description,
                        "bundle": _bundle_in_service(state.endpoints.get(route.endpoint)),
                    }
                    for route in state.table.routes
                    if head.caller.allows(route.endpoint)
                ]
            }
        )

    async def show_endpoint(self, request: HttpRequest, head: RequestHead) -> Reply:
        """What an endpoint takes, what it answers, and the bundle behind it."""
        name = request.endpoint
        head.caller.may_ask(name)
        endpoint = self._gateway.follower.endpoint(name)
        served = endpoint.served
        state = self._gateway.snapshots.contract_state(endpoint.contract)
        return json_reply(
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

    async def health(self, _request: HttpRequest, _head: RequestHead) -> Reply:
        """200 as long as the process answers; says nothing about the parts it needs."""
        return json_reply({"status": "ok"})

    async def ready(self, _request: HttpRequest, head: RequestHead) -> Reply:
        """200 when predictions can be answered, else 503 with what is missing."""
        is_ready, told = await readiness(self._gateway)
        if is_ready:
            return json_reply({"ready": True, "parts": told})
        missing = [f"{name}: {part['detail']}" for name, part in told.items() if not part["ok"]]
        return problem(
            503,
            "not_ready",
            "; ".join(missing),
            request_id=head.request_id,
            headers=((b"retry-after", b"1"),),
            hint="`skewless doctor` says what to do about each part",
            parts=told,
        )

    async def metrics(self, request: HttpRequest, _head: RequestHead) -> Reply:
        """Prometheus metrics, where the settings have them told here too."""
        if not self._gateway.public_metrics:
            raise NotFound("route", "GET /metrics", hint="the admin listener has it, see SKEWLESS_GATEWAY_ADMIN_PORT")
        open_metrics = wants_open_metrics(request.header(b"accept"))
        page = metrics_text(self._gateway, open_metrics=open_metrics)
        return Reply(200, OPEN_METRICS if open_metrics else TEXT, page)


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
