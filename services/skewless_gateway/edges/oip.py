"""Endpoints as models of the Open Inference Protocol: their names, versions and metadata, over HTTP and gRPC alike.

A model is an endpoint, its inputs are the fields of an instance, and its version is the route's: under one version the
same bundles answer the same shares. Where the server allows it, `<endpoint>.raw` is the live bundle's own model.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from skewless.errors import NotFound, Unavailable
from skewless.limits import ROWS_MAX
from skewless.serving.answer_tensors import OUTPUTS, TensorSpec
from skewless.serving.field_tensors import field_tensors
from skewless_gateway.gateway import Gateway
from skewless_gateway.route_follower import ServedEndpoint
from skewless_http.security.callers import Caller

PLATFORM = "skewless"
EXTENSIONS = ("binary_tensor_data", "model_configuration")
"""Of the protocol. The repository's index is answered too, but nothing can be loaded or unloaded through it."""
RAW_SUFFIX = ".raw"
_MODEL_TYPES = {"BYTES": "TYPE_STRING"}
"""What a model's configuration calls a datatype where that is not `TYPE_` before it."""


@dataclass(frozen=True, slots=True)
class OipModel:
    """An endpoint, or the model behind it, as it is in service now."""

    name: str
    endpoint: ServedEndpoint
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    is_raw: bool

    @property
    def version(self) -> str:
        """The version of the route in service."""
        return str(self.endpoint.route.version)


class OipModels:
    """Every model that a gateway's callers can see."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def server(self) -> dict[str, Any]:
        """Metadata of the server."""
        return {"name": PLATFORM, "version": version(PLATFORM), "extensions": list(EXTENSIONS)}

    def endpoint_of(self, name: str) -> str:
        """The endpoint that a model's name stands for, whether it exists or not."""
        return name.removesuffix(RAW_SUFFIX) if self._is_raw(name) else name

    def find(self, name: str, wanted_version: str, caller: Caller) -> OipModel:
        """The model of that name; an empty version is the one in service, and no other is.

        Raises NotFound, Forbidden, Unavailable where the endpoint is not in service yet.
        """
        endpoint_name = self.endpoint_of(name)
        caller.may_ask(endpoint_name)
        endpoint = self._gateway.follower.endpoint(endpoint_name)
        check_version(endpoint, wanted_version)
        return raw_model(endpoint) if self._is_raw(name) else _endpoint_model(endpoint)

    def metadata(self, model: OipModel) -> dict[str, Any]:
        """What a model takes and gives."""
        return {
            "name": model.name,
            "versions": [model.version],
            "platform": PLATFORM,
            "inputs": [_tensor_metadata(spec) for spec in model.inputs],
            "outputs": [_tensor_metadata(spec) for spec in model.outputs],
            "parameters": {"bundle": model.endpoint.served.digest},
        }

    def config(self, model: OipModel) -> dict[str, Any]:
        """The same in the form of a Triton model configuration, which load generators ask for."""
        return {
            "name": model.name,
            "platform": PLATFORM,
            "backend": PLATFORM,
            "version_policy": {"latest": {"num_versions": 1}},
            "max_batch_size": ROWS_MAX,
            "input": [_tensor_config(spec) | {"optional": spec.optional} for spec in model.inputs],
            "output": [_tensor_config(spec) for spec in model.outputs],
        }

    async def is_ready(self, model: OipModel) -> bool:
        """Whether the model backend would answer for it now."""
        return await self._gateway.backend.is_ready(model.endpoint.served.model)

    def index(self, caller: Caller, *, ready_only: bool = False) -> list[dict[str, Any]]:
        """Every model that the caller may ask, with its state. Raises Unavailable before routes were read."""
        state = self._gateway.follower.state
        if state.table is None:
            raise Unavailable("routing table", state.registry_error or "it has not been read yet")
        listed: list[dict[str, Any]] = []
        for route in state.table.routes:
            endpoint = state.endpoints.get(route.endpoint)
            if (ready_only and endpoint is None) or not caller.allows(route.endpoint):
                continue
            listed.extend(self._index_rows(route.endpoint, endpoint, state.failures))
        return listed

    def _is_raw(self, name: str) -> bool:
        return self._gateway.raw_models and name.endswith(RAW_SUFFIX)

    def _index_rows(
        self, name: str, endpoint: ServedEndpoint | None, failures: Mapping[str, str]
    ) -> Iterator[dict[str, Any]]:
        names = (name, name + RAW_SUFFIX) if self._gateway.raw_models else (name,)
        for each in names:
            if endpoint is None:
                reason = failures.get(name, "its bundle is being loaded")
                yield {"name": each, "version": "", "state": "UNAVAILABLE", "reason": reason}
            else:
                yield {"name": each, "version": str(endpoint.route.version), "state": "READY", "reason": ""}


def check_version(endpoint: ServedEndpoint, wanted: str) -> None:
    """Return where `wanted` is the version in service, or empty. Raises NotFound."""
    current = str(endpoint.route.version)
    if wanted not in ("", current):
        raise NotFound(
            "version",
            wanted,
            known=(current,),
            hint="a version is a route's, and only the one in service answers; leave it out to ask whatever is",
        )


def raw_model(endpoint: ServedEndpoint) -> OipModel:
    """The live bundle's own model, with the tensors of its signature."""
    signature = endpoint.served.signature
    return OipModel(
        endpoint.route.endpoint + RAW_SUFFIX,
        endpoint,
        (TensorSpec(signature.input_name, "FP32", (-1, signature.input_columns)),),
        tuple(TensorSpec(name, "FP32", (-1, columns)) for name, columns in signature.outputs),
        is_raw=True,
    )


def _endpoint_model(endpoint: ServedEndpoint) -> OipModel:
    inputs = field_tensors(endpoint.served.validator).inputs
    return OipModel(endpoint.route.endpoint, endpoint, inputs, OUTPUTS, is_raw=False)


def _tensor_metadata(spec: TensorSpec) -> dict[str, Any]:
    told: dict[str, Any] = {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}
    return told | {"parameters": {"optional": True}} if spec.optional else told


def _tensor_config(spec: TensorSpec) -> dict[str, Any]:
    data_type = _MODEL_TYPES.get(spec.datatype, f"TYPE_{spec.datatype}")
    return {"name": spec.name, "data_type": data_type, "dims": list(spec.shape[1:])}
