"""The messages of the Open Inference Protocol over gRPC ↔ the tensors that every edge of the protocol shares."""

from collections.abc import Iterable, Mapping
from typing import Any

from tritonclient.grpc import service_pb2

from skewless.errors import InvalidRequest
from skewless.serving.answer_tensors import AnswerTensor
from skewless.serving.field_tensors import GivenTensor
from skewless.serving.request_parameters import check_parameter

_CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""Where a tensor of each datatype has its elements, where it is not raw. Others are raw or nothing."""


def read_tensors(request: Any) -> list[GivenTensor]:
    """The inputs of a ModelInferRequest, unchecked but for where their elements lie. Raises InvalidRequest."""
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise InvalidRequest(
            f"there are {len(request.inputs)} inputs and {len(raw)} raw contents",
            path="$.raw_input_contents",
            allowed="raw contents for every input, in order, or for none",
            code="invalid_tensor",
        )
    return [_read_tensor(given, index, raw[index] if raw else None) for index, given in enumerate(request.inputs)]


def _read_tensor(given: Any, index: int, raw: bytes | None) -> GivenTensor:
    path = f"$.inputs[{index}]"
    for name, value in read_parameters_map(given.parameters).items():
        check_parameter(name, value, path=f"{path}.parameters", allowed=())
    shape = list(given.shape)
    if raw is None:
        data = list(getattr(given.contents, _CONTENTS.get(given.datatype, "bytes_contents")))
        return GivenTensor(given.name, given.datatype, shape, path, data=data)
    if given.HasField("contents"):
        raise InvalidRequest(
            f"input `{given.name}` has both contents and raw contents",
            path=f"{path}.contents",
            allowed="one of the two",
            code="invalid_tensor",
        )
    return GivenTensor(given.name, given.datatype, shape, path, raw=raw)


def read_parameters_map(parameters: Mapping[str, Any]) -> dict[str, object]:
    """Parameters by name as Python values; None for one without a value."""
    found: dict[str, object] = {}
    for name, parameter in parameters.items():
        choice = parameter.WhichOneof("parameter_choice")
        found[name] = None if choice is None else getattr(parameter, choice)
    return found


def read_wanted(request: Any) -> list[str]:
    """Names of the outputs that a request asks for; none means all. Raises InvalidRequest."""
    for index, wanted in enumerate(request.outputs):
        for name, value in read_parameters_map(wanted.parameters).items():
            check_parameter(name, value, path=f"$.outputs[{index}].parameters", allowed=())
    return [wanted.name for wanted in request.outputs]


def infer_response(request: Any, version: str, tensors: Iterable[AnswerTensor], parameters: Mapping[str, str]) -> Any:
    """A ModelInferResponse with raw contents, as Triton gives them."""
    response = service_pb2.ModelInferResponse(model_name=request.model_name, model_version=version, id=request.id)
    for name, value in parameters.items():
        response.parameters[name].string_param = value
    for tensor in tensors:
        response.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        response.raw_output_contents.append(tensor.raw())
    return response


def server_metadata(told: Mapping[str, Any]) -> Any:
    """A ServerMetadataResponse; gRPC's tensors are always binary, so that extension has no name here."""
    return service_pb2.ServerMetadataResponse(
        name=told["name"],
        version=told["version"],
        extensions=[each for each in told["extensions"] if each != "binary_tensor_data"],
    )


def model_metadata(told: Mapping[str, Any]) -> Any:
    """A ModelMetadataResponse."""

    def tensors(listed: Iterable[Mapping[str, Any]]) -> list[Any]:
        return [
            service_pb2.ModelMetadataResponse.TensorMetadata(
                name=each["name"], datatype=each["datatype"], shape=each["shape"]
            )
            for each in listed
        ]

    return service_pb2.ModelMetadataResponse(
        name=told["name"],
        versions=told["versions"],
        platform=told["platform"],
        inputs=tensors(told["inputs"]),
        outputs=tensors(told["outputs"]),
    )


def model_config(told: Mapping[str, Any]) -> Any:
    """A ModelConfigResponse."""
    response = service_pb2.ModelConfigResponse()
    config = response.config
    config.name, config.platform, config.backend = told["name"], told["platform"], told["backend"]
    config.max_batch_size = told["max_batch_size"]
    config.version_policy.latest.num_versions = told["version_policy"]["latest"]["num_versions"]
    for each in told["input"]:
        config.input.add(name=each["name"], data_type=each["data_type"], dims=each["dims"], optional=each["optional"])
    for each in told["output"]:
        config.output.add(name=each["name"], data_type=each["data_type"], dims=each["dims"])
    return response


def repository_index(listed: Iterable[Mapping[str, Any]]) -> Any:
    """A RepositoryIndexResponse."""
    models = [service_pb2.RepositoryIndexResponse.ModelIndex(**each) for each in listed]
    return service_pb2.RepositoryIndexResponse(models=models)
