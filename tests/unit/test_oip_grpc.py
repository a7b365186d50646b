"""The Open Inference Protocol over gRPC, asked by Triton's own clients: REST's answers, refusals by status."""

import asyncio
import queue
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.grpc.aio
from tritonclient.grpc import InferInput, InferRequestedOutput, service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from harness.bundles import instance
from harness.gateways import ENDPOINT
from harness.polling import until
from harness.protocols import GatewayOfEveryProtocol, Instances, tensor_values
from skewless.errors import SkewlessError, StackFailed, Unavailable
from skewless.limits import GRPC_MESSAGE_BYTES_MAX, ROWS_MAX
from skewless.registry.api_scopes import ApiScope
from skewless.serving.data_plane import Answer
from skewless.serving.deadline import Deadline
from skewless.serving.request import PredictOptions, PredictRequest
from skewless_gateway import grpc_health
from skewless_gateway.gateway import Gateway
from skewless_gateway.grpc_server import serving_grpc
from skewless_gateway.grpc_status import CODE_KEY, PUSHBACK_KEY, STATUS_OF_CLASS, details_of
from skewless_http.problems import STATUS_OF_CLASS as HTTP_STATUS_OF_CLASS
from skewless_http.security.callers import Caller

INSTANCES = [instance(), instance(origin="LGA", tailnum=None, party=7), instance(distance=None)]
_NUMPY = {"BOOL": np.bool_, "INT32": np.int32, "INT64": np.int64, "FP32": np.float32, "BYTES": np.object_}


@dataclass
class Served:
    """A gateway over fakes with its gRPC server."""

    fakes: GatewayOfEveryProtocol
    gateway: Gateway
    address: str
    client: Any

    def count(self, method: str, code: str, endpoint: str = ENDPOINT) -> float:
        labels = {"method": method, "endpoint": endpoint, "code": code}
        return self.gateway.metrics.registry.get_sample_value("skewless_grpc_calls_total", labels) or 0.0


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    fakes = GatewayOfEveryProtocol.build(tmp_path)
    assert isinstance(fakes, GatewayOfEveryProtocol)
    async with fakes.opened() as gateway:
        await until(lambda: ENDPOINT in gateway.follower.state.endpoints)
        async with serving_grpc(gateway, gateway.metrics.grpc, address="127.0.0.1:0", drain_s=1.0) as port:
            client = tritonclient.grpc.aio.InferenceServerClient(f"127.0.0.1:{port}")
            yield Served(fakes, gateway, f"127.0.0.1:{port}", client)
            await client.close()


def inputs(instances: Instances) -> list[InferInput]:
    """As Triton's clients send tensors: raw, nulls said by inputs of their own."""
    found = []
    for name, (datatype, values) in tensor_values(instances).items():
        blank = {"BYTES": ""}.get(datatype, 0)
        found.append(_input(name, datatype, [blank if each is None else each for each in values]))
        if None in values:
            found.append(_input(f"{name}__valid", "BOOL", [each is not None for each in values]))
    return found


def _input(name: str, datatype: str, values: list[Any]) -> InferInput:
    tensor = InferInput(name, [len(values), 1], datatype)
    tensor.set_data_from_numpy(np.array(values, dtype=_NUMPY[datatype]).reshape(-1, 1))
    return tensor


def typed_request(instances: Instances, **members: Any) -> Any:
    """As other clients send tensors: typed contents."""
    contents = {
        "BOOL": "bool_contents", "INT32": "int_contents", "INT64": "int64_contents", "FP32": "fp32_contents",
        "BYTES": "bytes_contents",
    }  # fmt: skip
    request = service_pb2.ModelInferRequest(model_name=ENDPOINT, **members)
    for each in inputs(instances):
        tensor = each._get_tensor()
        values = tensor_values(instances)
        name = tensor.name.removesuffix("__valid") if tensor.name not in values else tensor.name
        elements = values[name][1]
        if tensor.name not in values:
            elements = [element is not None for element in elements]
        elements = [{"BYTES": ""}.get(tensor.datatype, 0) if element is None else element for element in elements]
        given = request.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        encoded = [element.encode() if isinstance(element, str) else element for element in elements]
        getattr(given.contents, contents[tensor.datatype]).extend(encoded)
    return request


async def by_rest_bits(served: Served, instances: Instances) -> list[float]:
    """What the data plane answers to the same columns."""
    columns, rows = served.gateway.follower.endpoint(ENDPOINT).served.validator.columns(list(instances))
    deadline = Deadline(served.gateway.clock, started_ns=served.gateway.clock(), deadline_ms=5_000)
    request = PredictRequest(columns, rows, PredictOptions())
    serving = served.gateway.follower.endpoint(ENDPOINT).serving
    answer: Answer = await served.gateway.plane.predict(serving, request, deadline=deadline, request_id="check")
    values: list[float] = answer.probabilities.tolist()
    return values


async def test_tensors_are_answered_with_the_bits_of_the_same_instances(served: Served) -> None:
    result = await served.client.infer(ENDPOINT, inputs(INSTANCES), request_id="mine")
    assert result.as_numpy("probability").dtype == np.float32
    assert result.as_numpy("probability").shape == (3, 1)
    assert result.as_numpy("probability")[:, 0].tolist() == await by_rest_bits(served, INSTANCES)
    batch = served.fakes.log.batches[0]
    assert [each.decode() for each in result.as_numpy("prediction_id")[:, 0]] == list(batch.prediction_ids)
    assert [each.decode() for each in result.as_numpy("label")[:, 0]] == list(batch.labels)
    told = result.get_response()
    assert (told.model_name, told.model_version, told.id) == (ENDPOINT, "1", "mine")
    assert told.parameters["rung"].string_param == "normal"
    assert told.parameters["bundle"].string_param == served.fakes.built.digest
    assert served.count("ModelInfer", "OK") == 1


async def test_typed_contents_say_the_same_as_raw_ones(served: Served) -> None:
    async with grpc.aio.insecure_channel(served.address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        response = await stub.ModelInfer(typed_request(INSTANCES))
    raw = await served.client.infer(ENDPOINT, inputs(INSTANCES))
    place = [output.name for output in response.outputs].index("probability")
    assert response.raw_output_contents[place] == raw.as_numpy("probability").tobytes()
    first, second = served.fakes.log.batches
    for name, column in first.given.items():
        assert column.values.tolist() == second.given[name].values.tolist()
        assert column.valid.tolist() == second.given[name].valid.tolist()


async def test_outputs_can_be_chosen_and_come_in_that_order(served: Served) -> None:
    wanted = [InferRequestedOutput("prediction_id"), InferRequestedOutput("probability")]
    result = await served.client.infer(ENDPOINT, inputs(INSTANCES), outputs=wanted)
    assert [each.name for each in result.get_response().outputs] == ["prediction_id", "probability"]


async def test_health_and_metadata_are_what_tritons_client_asks_for(served: Served) -> None:
    client = served.client
    assert await client.is_server_live()
    assert await client.is_server_ready()
    assert await client.is_model_ready(ENDPOINT)
    server = await client.get_server_metadata()
    assert (server.name, list(server.extensions)) == ("skewless", ["model_configuration"])
    model = await client.get_model_metadata(ENDPOINT, "1")
    assert [each.name for each in model.inputs][:2] == ["origin", "tailnum"]
    assert [(each.name, each.datatype) for each in model.outputs] == [
        ("label", "BYTES"),
        ("probability", "FP32"),
        ("prediction_id", "BYTES"),
    ]
    config = (await client.get_model_config(ENDPOINT)).config
    assert (config.name, config.max_batch_size) == (ENDPOINT, ROWS_MAX)
    assert [each.dims for each in config.input] == [[1]] * len(config.input)
    index = await client.get_model_repository_index()
    assert [(each.name, each.state) for each in index.models] == [(ENDPOINT, "READY"), (f"{ENDPOINT}.raw", "READY")]


async def test_a_raw_model_takes_its_own_tensor_and_is_not_logged(served: Served) -> None:
    signature = served.gateway.follower.endpoint(ENDPOINT).served.signature
    tensor = np.arange(2 * signature.input_columns, dtype=np.float32).reshape(2, -1)
    given = InferInput(signature.input_name, list(tensor.shape), "FP32")
    given.set_data_from_numpy(tensor)
    result = await served.client.infer(f"{ENDPOINT}.raw", [given])
    expected = served.fakes.built.outputs(tensor)["probabilities"]
    assert result.as_numpy("probabilities").tobytes() == expected.tobytes()
    assert not served.fakes.log.batches


async def test_the_blocking_client_runs_unchanged(served: Served) -> None:
    def ask() -> list[float]:
        with tritonclient.grpc.InferenceServerClient(served.address) as client:
            assert client.is_server_ready()
            result = client.infer(ENDPOINT, inputs(INSTANCES), client_timeout=30.0, timeout=5_000_000)
            values: list[float] = result.as_numpy("probability")[:, 0].tolist()
            return values

    assert await asyncio.to_thread(ask) == await by_rest_bits(served, INSTANCES)


async def test_a_stream_is_answered_in_order_and_goes_on_after_a_refusal(served: Served) -> None:
    answers: queue.Queue[tuple[Any, InferenceServerException | None]] = queue.Queue()

    def ask() -> list[tuple[Any, InferenceServerException | None]]:
        with tritonclient.grpc.InferenceServerClient(served.address) as client:
            client.start_stream(callback=lambda result, error: answers.put((result, error)))
            for number in range(20):
                asked = inputs([instance(party=number)])
                client.async_stream_infer("nobody" if number == 7 else ENDPOINT, asked, request_id=str(number))
            found = [answers.get(timeout=30) for _ in range(20)]
            client.stop_stream()
            return found

    found = await asyncio.to_thread(ask)
    expected = await by_rest_bits(served, [instance(party=number) for number in range(20)])
    for number, (result, error) in enumerate(found):
        if number == 7:
            assert error is not None
            assert "`nobody` does not exist" in error.message()
        else:
            assert error is None
            assert result.get_response().id == str(number)
            assert result.as_numpy("probability")[0, 0] == np.float32(expected[number])
    assert served.count("ModelStreamInfer", "OK") == 19
    assert served.count("ModelStreamInfer", "NOT_FOUND", "") == 1
    ids = [batch.request_id for batch in served.fakes.log.batches[:19]]
    assert len(set(ids)) == 19


async def refused(served: Served, *args: Any, **options: Any) -> grpc.aio.AioRpcError:
    async with grpc.aio.insecure_channel(served.address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as found:
            await stub.ModelInfer(*args, **options)
        return found.value


def trailers(error: grpc.aio.AioRpcError) -> dict[str, Any]:
    return dict(error.trailing_metadata())


@pytest.mark.parametrize(
    ("change", "path"),
    [
        (lambda request: request.inputs.pop(0), "$.inputs"),
        (lambda request: setattr(request.inputs[0], "name", "orgin"), "$.inputs"),
        (lambda request: setattr(request.inputs[0], "datatype", "FP64"), "$.inputs[0].datatype"),
        (lambda request: setattr(request.inputs[0], "datatype", "NONE"), "$.inputs[0].datatype"),
        (lambda request: request.inputs[0].shape.append(2), "$.inputs[0].shape"),
        (lambda request: request.inputs[0].contents.bytes_contents.append(b"JFK"), "$.inputs[0].data"),
        (lambda request: request.inputs[0].contents.bytes_contents.__setitem__(0, b"\xff"), "$.inputs[0].data[0]"),
        (lambda request: request.raw_input_contents.append(b"x"), "$.raw_input_contents"),
        (lambda request: request.outputs.add(name="score"), "$.outputs"),
        (lambda request: request.parameters["priority"].MergeFrom(_number(1)), "$.parameters.priority"),
        (lambda request: request.parameters["timeout"].MergeFrom(_number(1)), "$.parameters.timeout"),
        (
            lambda request: request.outputs.add(name="label").parameters["classification"].MergeFrom(_number(2)),
            "$.outputs",
        ),
    ],
)
async def test_what_is_wrong_with_a_request_is_named_by_its_place(served: Served, change: Any, path: str) -> None:
    request = typed_request([instance()])
    change(request)
    error = await refused(served, request)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert path in (error.details() or "")
    assert trailers(error)[CODE_KEY]
    assert not served.fakes.log.batches


def _number(value: int) -> Any:
    return service_pb2.InferParameter(int64_param=value)


async def test_unknown_names_and_versions_are_not_found(served: Served) -> None:
    for request in (
        service_pb2.ModelInferRequest(model_name="nobody"),
        service_pb2.ModelInferRequest(model_name=ENDPOINT, model_version="2"),
    ):
        error = await refused(served, request)
        assert error.code() is grpc.StatusCode.NOT_FOUND


async def test_the_callers_deadline_is_the_requests(served: Served) -> None:
    served.fakes.store.slow_s = 30.0
    error = await refused(served, typed_request([instance()]), timeout=0.3)
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    served.fakes.store.slow_s = 0.5
    error = await refused(served, typed_request([instance()], parameters={"timeout": _number(100_000)}), timeout=30)
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "online store" in (error.details() or "")


async def test_a_part_that_is_away_is_unavailable_and_says_when_to_try_again(served: Served) -> None:
    served.fakes.store.failure = Unavailable("online store", "it is away", retry_after_s=0.25)
    error = await refused(served, typed_request([instance()]))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert trailers(error)[CODE_KEY] == "unavailable"
    assert int(trailers(error)[PUSHBACK_KEY]) >= 250


async def test_the_request_id_is_the_callers_or_a_new_one(served: Served) -> None:
    request = typed_request([instance()])
    async with grpc.aio.insecure_channel(served.address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        await stub.ModelInfer(request, metadata=(("x-request-id", "mine-7"),))
        await stub.ModelInfer(request, metadata=(("x-request-id", "not allowed!"),))
    first, second = served.fakes.log.batches
    assert first.request_id == "mine-7"
    assert second.request_id not in ("not allowed!", "")
    wrong = await refused(served, service_pb2.ModelInferRequest(model_name="x"), metadata=(("x-request-id", "mine-8"),))
    assert trailers(wrong)["x-request-id"] == "mine-8"


async def test_nobody_is_answered_without_a_credential_but_for_health(tmp_path: Path) -> None:
    fakes = GatewayOfEveryProtocol.build(tmp_path)
    fakes.anonymous = None
    async with (
        fakes.opened() as gateway,
        serving_grpc(gateway, gateway.metrics.grpc, address="127.0.0.1:0", drain_s=1.0) as port,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        assert (await stub.ServerLive(service_pb2.ServerLiveRequest())).live
        for method, request in (
            (stub.ModelInfer, typed_request([instance()])),
            (stub.ServerMetadata, service_pb2.ServerMetadataRequest()),
            (stub.ModelReady, service_pb2.ModelReadyRequest(name=ENDPOINT)),
            (stub.RepositoryIndex, service_pb2.RepositoryIndexRequest()),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as found:
                await method(request, metadata=(("authorization", "Bearer nothing"),))
            assert found.value.code() is grpc.StatusCode.UNAUTHENTICATED
        stream = stub.ModelStreamInfer(iter([typed_request([instance()])]))
        (answer,) = [each async for each in stream]
        assert answer.error_message
        assert not fakes.log.batches


async def test_a_caller_asks_only_what_its_scopes_cover(tmp_path: Path) -> None:
    fakes = GatewayOfEveryProtocol.build(tmp_path)
    fakes.anonymous = Caller("key:jfk", (ApiScope((ENDPOINT,), {"origin": ("JFK",)}),))
    assert isinstance(fakes, GatewayOfEveryProtocol)
    async with fakes.opened() as gateway:
        await until(lambda: ENDPOINT in gateway.follower.state.endpoints)
        async with serving_grpc(gateway, gateway.metrics.grpc, address="127.0.0.1:0", drain_s=1.0) as port:
            client = tritonclient.grpc.aio.InferenceServerClient(f"127.0.0.1:{port}")
            await client.infer(ENDPOINT, inputs([instance()]))
            with pytest.raises(InferenceServerException) as found:
                await client.infer(ENDPOINT, inputs([instance(), instance(origin="LGA")]))
            assert found.value.status() == "StatusCode.PERMISSION_DENIED"
            await client.close()


async def test_a_request_that_is_too_large_is_refused_before_it_is_held(served: Served) -> None:
    request = service_pb2.ModelInferRequest(
        model_name=ENDPOINT, raw_input_contents=[b"x" * (GRPC_MESSAGE_BYTES_MAX + 1)]
    )
    error = await refused(served, request)
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_what_the_protocol_offers_and_this_server_does_not_is_unimplemented(served: Served) -> None:
    with pytest.raises(InferenceServerException) as found:
        await served.client.load_model(ENDPOINT)
    assert found.value.status() == "StatusCode.UNIMPLEMENTED"


async def test_our_own_fault_tells_nothing_but_an_id(served: Served) -> None:
    served.fakes.backend.failure = ZeroDivisionError("a secret")  # type: ignore[assignment]  # a fault, not an error
    error = await refused(served, typed_request([instance()]), metadata=(("x-request-id", "mine-9"),))
    assert error.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in (error.details() or "")
    assert trailers(error)["x-request-id"] == "mine-9"


async def test_orchestrators_can_probe_health(served: Served) -> None:
    async with grpc.aio.insecure_channel(served.address) as channel:
        check = channel.unary_unary(
            f"/{grpc_health.SERVICE}/Check",
            request_serializer=grpc_health.HealthRequest.SerializeToString,
            response_deserializer=grpc_health.HealthResponse.FromString,
        )
        for service in ("", "inference.GRPCInferenceService"):
            assert (await check(grpc_health.HealthRequest(service=service))).status == grpc_health.SERVING
        with pytest.raises(grpc.aio.AioRpcError) as found:
            await check(grpc_health.HealthRequest(service="nobody"))
        assert found.value.code() is grpc.StatusCode.NOT_FOUND
        watch = channel.unary_stream(
            f"/{grpc_health.SERVICE}/Watch",
            request_serializer=grpc_health.HealthRequest.SerializeToString,
            response_deserializer=grpc_health.HealthResponse.FromString,
        )(grpc_health.HealthRequest())
        assert (await watch.read()).status == grpc_health.SERVING
        served.fakes.store.failure = Unavailable("online store", "it is away")
        assert (await watch.read()).status == grpc_health.NOT_SERVING
        watch.cancel()


async def test_a_port_that_is_taken_is_said_at_the_start(served: Served) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(StackFailed, match=str(port)):
            async with serving_grpc(
                served.gateway, served.gateway.metrics.grpc, address=f"127.0.0.1:{port}", drain_s=0
            ):
                pass


async def test_what_is_under_way_is_answered_when_the_server_stops(tmp_path: Path) -> None:
    fakes = GatewayOfEveryProtocol.build(tmp_path)
    async with fakes.opened() as gateway:
        await until(lambda: ENDPOINT in gateway.follower.state.endpoints)
        async with serving_grpc(gateway, gateway.metrics.grpc, address="127.0.0.1:0", drain_s=30.0) as port:
            channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
            before = fakes.backend.calls
            fakes.backend.is_held = True
            request = typed_request([instance()])
            asking = asyncio.ensure_future(
                service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=30)
            )
            await until(lambda: fakes.backend.calls > before)
            asyncio.get_running_loop().call_later(0.2, setattr, fakes.backend, "is_held", False)
        assert (await asking).model_name == ENDPOINT
        await channel.close()


def test_every_error_class_has_a_status_of_grpc() -> None:
    def below(error: type[SkewlessError]) -> set[type[SkewlessError]]:
        return {error, *(each for child in error.__subclasses__() for each in below(child))}

    ours = {each for each in below(SkewlessError) if each.__module__ == "skewless.errors"}
    assert set(STATUS_OF_CLASS) == ours
    for error, status in HTTP_STATUS_OF_CLASS.items():
        assert (status == 500) == (STATUS_OF_CLASS[error] is grpc.StatusCode.INTERNAL), error


def test_details_fit_into_a_trailer() -> None:
    assert len(details_of({"detail": "é" * 5_000})) == 1_000
