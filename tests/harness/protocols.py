"""One set of instances asked through every protocol that the gateway speaks over HTTP."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from harness.bundles import contract
from harness.gateways import ENDPOINT, GatewayOverFakes
from skewless.dtypes import TABLE, Dtype
from skewless.serving.instances import InstanceValidator
from skewless.timestamps import parse_timestamp
from skewless_gateway.gateway import Gateway, VertexRoutes

Instances = Sequence[Mapping[str, Any]]
FIELDS = InstanceValidator.compile(contract()).fields
OIP = f"/v2/models/{ENDPOINT}"
TENSORFLOW = f"/v1/models/{ENDPOINT}"
VERTEX = VertexRoutes(ENDPOINT, "/vertex/predict", "/vertex/health")
JSON_LENGTH = "Inference-Header-Content-Length"
_WIRE = {"BOOL": "?", "INT32": "<i4", "INT64": "<i8", "FP32": "<f4", "FP64": "<f8"}


@dataclass
class GatewayOfEveryProtocol(GatewayOverFakes):
    """A gateway over fakes that also answers raw models and Vertex AI."""

    vertex: VertexRoutes = VERTEX

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Gateway]:
        async with super().opened() as gateway:
            yield replace(gateway, raw_models=True, vertex=self.vertex)


@dataclass(frozen=True)
class Answers:
    """What was answered, a row per instance; probabilities as float32."""

    labels: list[str]
    probabilities: NDArray[np.float32]
    prediction_ids: list[str]


def tensor_values(instances: Instances) -> dict[str, tuple[str, list[Any]]]:
    """Datatype and elements by name of the inputs that say the same as the instances, null where they are."""
    inputs: dict[str, tuple[str, list[Any]]] = {}
    for field in FIELDS:
        values = [each[field.name] for each in instances]
        if field.dtype is Dtype.TIMESTAMP:
            values = [parse_timestamp(each) for each in values]
        inputs[field.name] = TABLE[field.dtype].triton, values
    return inputs


def json_tensors(instances: Instances) -> list[dict[str, Any]]:
    """The inputs of a request in JSON."""
    return [
        {"name": name, "datatype": datatype, "shape": [len(values), 1], "data": values}
        for name, (datatype, values) in tensor_values(instances).items()
    ]


def binary_tensors(instances: Instances) -> list[tuple[dict[str, Any], bytes]]:
    """The inputs of a binary request, each with its bytes; nulls are said by inputs of their own."""
    tensors: list[tuple[dict[str, Any], bytes]] = []
    for name, (datatype, values) in tensor_values(instances).items():
        named = [(name, datatype, values)]
        if None in values:
            named.append((f"{name}__valid", "BOOL", [each is not None for each in values]))
        for each, kind, elements in named:
            content = raw(kind, elements)
            head = {"name": each, "datatype": kind, "shape": [len(elements), 1]}
            tensors.append((head | {"parameters": {"binary_data_size": len(content)}}, content))
    return tensors


def raw(datatype: str, values: Sequence[Any]) -> bytes:
    """Raw contents of a tensor, with something where a value is None."""
    if datatype == "BYTES":
        elements = [str("" if each is None else each).encode() for each in values]
        return b"".join(len(each).to_bytes(4, "little") + each for each in elements)
    return np.array([0 if each is None else each for each in values], dtype=_WIRE[datatype]).tobytes()


def by_rest(client: httpx.Client, instances: Instances) -> Answers:
    body = client.post(f"/v1/endpoints/{ENDPOINT}/predict", json={"instances": instances}).json()
    return _of_rows(body["predictions"], body["prediction_ids"])


def by_oip_json(client: httpx.Client, instances: Instances) -> Answers:
    body = client.post(f"{OIP}/infer", json={"inputs": json_tensors(instances)}).json()
    outputs = {each["name"]: each["data"] for each in body["outputs"]}
    return _of_columns(outputs)


def by_oip_binary(client: httpx.Client, instances: Instances) -> Answers:
    response = post_binary(client, binary_tensors(instances), {"parameters": {"binary_data_output": True}})
    length = int(response.headers[JSON_LENGTH])
    content = response.content[length:]
    found: dict[str, Any] = {}
    for output in httpx.Response(200, content=response.content[:length]).json()["outputs"]:
        size = output["parameters"]["binary_data_size"]
        found[output["name"]], content = content[:size], content[size:]
    assert not content, "every byte belongs to an output"
    return Answers(
        texts(found["label"]), np.frombuffer(found["probability"], dtype="<f4"), texts(found["prediction_id"])
    )


def by_tensorflow_rows(client: httpx.Client, instances: Instances) -> Answers:
    rows = client.post(f"{TENSORFLOW}:predict", json={"instances": instances}).json()["predictions"]
    return _of_rows(rows, [each["prediction_id"] for each in rows])


def by_tensorflow_columns(client: httpx.Client, instances: Instances) -> Answers:
    inputs = {field.name: [each[field.name] for each in instances] for field in FIELDS}
    return _of_columns(client.post(f"{TENSORFLOW}:predict", json={"inputs": inputs}).json()["outputs"])


def by_vertex(client: httpx.Client, instances: Instances) -> Answers:
    rows = client.post(VERTEX.predict_route, json={"instances": instances}).json()["predictions"]
    return _of_rows(rows, [each["prediction_id"] for each in rows])


PROTOCOLS: tuple[Callable[[httpx.Client, Instances], Answers], ...] = (
    by_rest,
    by_oip_json,
    by_oip_binary,
    by_tensorflow_rows,
    by_tensorflow_columns,
    by_vertex,
)


def post_binary(
    client: httpx.Client, tensors: list[tuple[dict[str, Any], bytes]], document: dict[str, Any] | None = None
) -> httpx.Response:
    """A request whose tensors follow its JSON as bytes."""
    head = httpx.Request("POST", "http://test", json={"inputs": [each for each, _ in tensors], **(document or {})})
    head_bytes = head.read()
    content = head_bytes + b"".join(content for _, content in tensors)
    return client.post(f"{OIP}/infer", content=content, headers={JSON_LENGTH: str(len(head_bytes))})


def texts(content: bytes) -> list[str]:
    """Elements of a BYTES output."""
    found: list[str] = []
    while content:
        size = int.from_bytes(content[:4], "little")
        found.append(content[4 : 4 + size].decode())
        content = content[4 + size :]
    return found


def _of_rows(rows: list[dict[str, Any]], ids: list[str]) -> Answers:
    return _of_columns(
        {
            "label": [each["label"] for each in rows],
            "probability": [each["probability"] for each in rows],
            "prediction_id": ids,
        }
    )


def _of_columns(outputs: Mapping[str, Any]) -> Answers:
    probabilities = np.array(outputs["probability"], dtype=np.float32)
    assert probabilities.tolist() == outputs["probability"], "a float32 is told exactly"
    return Answers(outputs["label"], probabilities, outputs["prediction_id"])
