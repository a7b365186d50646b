"""The Open Inference Protocol over gRPC: `inference.GRPCInferenceService`, as Triton's and KServe's clients speak it.

Health is told to anybody, everything else to callers that are known. A stream is answered in order, a response for each
request, and the next request is read once the one before has its answer.
"""

from collections.abc import AsyncIterator
from typing import Any

from grpc import StatusCode
from tritonclient.grpc import service_pb2
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceServicer

from skewless.serving.answer_tensors import answer_parameters, answer_tensors, checked_names, selected
from skewless.serving.field_tensors import field_tensors
from skewless.serving.request import PredictRequest
from skewless.serving.request_parameters import read_parameters
from skewless.serving.served_bundle import ServedBundle
from skewless_gateway.edges.oip import RAW_SUFFIX, OipModels
from skewless_gateway.edges.raw_model import RawModels
from skewless_gateway.gateway import Gateway
from skewless_gateway.grpc_calls import Calls, Context, code_of
from skewless_gateway.grpc_messages import (
    infer_response,
    model_config,
    model_metadata,
    read_parameters_map,
    read_tensors,
    read_wanted,
    repository_index,
    server_metadata,
)
from skewless_gateway.grpc_metrics import GrpcMetrics
from skewless_gateway.predictions import RequestHead

SERVICE = "inference.GRPCInferenceService"


class InferenceService(GRPCInferenceServiceServicer):  # type: ignore[misc]  # the generated class is not typed
    """Methods that are not here answer UNIMPLEMENTED: loading, shared memory, statistics, tracing, logging."""

    def __init__(self, gateway: Gateway, metrics: GrpcMetrics) -> None:
        self._gateway = gateway
        self._models = OipModels(gateway)
        self._raw_models = RawModels(gateway)
        self._calls = Calls(gateway, metrics)

    async def ServerLive(self, _request: Any, _context: Context) -> Any:  # noqa: N802  # named by the protocol
        """True as long as the process answers."""
        return service_pb2.ServerLiveResponse(live=True)

    async def ServerReady(self, _request: Any, _context: Context) -> Any:  # noqa: N802
        """Whether predictions can be answered, as /readyz says."""
        return service_pb2.ServerReadyResponse(ready=await is_ready(self._gateway))

    async def ModelReady(self, request: Any, context: Context) -> Any:  # noqa: N802
        """Whether the model would answer."""

        async def work(head: RequestHead) -> Any:
            model = self._models.find(request.name, request.version, head.caller)
            return service_pb2.ModelReadyResponse(ready=await self._models.is_ready(model))

        return await self._calls.answer(context, "ModelReady", _endpoint(request.name), work)

    async def ServerMetadata(self, _request: Any, context: Context) -> Any:  # noqa: N802
        """Name, version and extensions."""

        async def work(_head: RequestHead) -> Any:
            return server_metadata(self._models.server())

        return await self._calls.answer(context, "ServerMetadata", "", work)

    async def ModelMetadata(self, request: Any, context: Context) -> Any:  # noqa: N802
        """What a model takes and gives."""

        async def work(head: RequestHead) -> Any:
            return model_metadata(self._models.metadata(self._models.find(request.name, request.version, head.caller)))

        return await self._calls.answer(context, "ModelMetadata", _endpoint(request.name), work)

    async def ModelConfig(self, request: Any, context: Context) -> Any:  # noqa: N802
        """The same as a Triton model configuration."""

        async def work(head: RequestHead) -> Any:
            return model_config(self._models.config(self._models.find(request.name, request.version, head.caller)))

        return await self._calls.answer(context, "ModelConfig", _endpoint(request.name), work)

    async def RepositoryIndex(self, request: Any, context: Context) -> Any:  # noqa: N802
        """Every model that the caller may ask, with its state."""

        async def work(head: RequestHead) -> Any:
            return repository_index(self._models.index(head.caller, ready_only=request.ready))

        return await self._calls.answer(context, "RepositoryIndex", "", work)

    async def ModelInfer(self, request: Any, context: Context) -> Any:  # noqa: N802
        """Predictions for the tensors in the request."""

        async def work(head: RequestHead) -> Any:
            return await self._infer(request, head)

        return await self._calls.answer(context, "ModelInfer", _endpoint(request.model_name), work)

    async def ModelStreamInfer(self, requests: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:  # noqa: N802
        """A response for each request, in order; a refusal is told in its response, and the stream goes on."""
        stream_id = self._calls.request_id(context)
        number = 0
        async for request in requests:
            yield await self._stream_response(request, context, f"{stream_id}.{number}")
            number += 1

    async def _stream_response(self, request: Any, context: Context, request_id: str) -> Any:
        endpoint = _endpoint(request.model_name)
        head: RequestHead | None = None
        try:
            head = await self._calls.head(context, request_id)
            response = await self._infer(request, head)
        except Exception as error:  # noqa: BLE001  # the boundary of one request of the stream; `refusal` logs ours
            status, text, _ = self._calls.refusal(error, request_id)
            self._calls.ended("ModelStreamInfer", endpoint, status, head, code=code_of(error))
            told = service_pb2.ModelInferResponse(model_name=request.model_name, id=request.id)
            return service_pb2.ModelStreamInferResponse(error_message=text, infer_response=told)
        self._calls.ended("ModelStreamInfer", endpoint, StatusCode.OK, head)
        return service_pb2.ModelStreamInferResponse(infer_response=response)

    async def _infer(self, request: Any, head: RequestHead) -> Any:
        model = self._models.find(request.model_name, request.model_version, head.caller)
        endpoint = model.endpoint.route.endpoint
        predictions = self._gateway.predictions
        predictions.refuse_early(endpoint, head)
        wanted = checked_names(read_wanted(request), model.outputs)
        options = read_parameters(read_parameters_map(request.parameters), as_of_allowed=self._gateway.allow_as_of)
        tensors = read_tensors(request)
        if model.is_raw:
            given = await self._raw_models.answer(model, tensors, options, head)
            return infer_response(request, model.version, selected(given, wanted), {})

        def read(served: ServedBundle) -> PredictRequest:
            columns, rows = field_tensors(served.validator).columns(tensors)
            return PredictRequest(columns, rows, options)

        answered = await predictions.answer(endpoint, read, head)
        version = str(answered.endpoint.route.version)
        parameters = answer_parameters(answered.answer)
        return infer_response(request, version, selected(answer_tensors(answered.answer), wanted), parameters)


async def is_ready(gateway: Gateway) -> bool:
    """Whether predictions can be answered, and requests are wanted."""
    return not gateway.draining() and all(part.ok for part in (await gateway.parts()).values())


def _endpoint(model: str) -> str:
    return model.removesuffix(RAW_SUFFIX)
