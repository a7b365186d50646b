"""Triton's configuration of one model as values, and the text that Triton reads, `config.pbtxt`.

The fields are those of Triton's ModelConfig that are used here, under its names where a name is given.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from skewless.bundles.serving_profile import QueuePolicy, ServingProfile, TimeoutAction, VersionPolicy
from skewless.serving.ports import ModelSignature

Fields: TypeAlias = "tuple[tuple[str, Value], ...]"
Value: TypeAlias = "str | bool | int | Symbol | Fields"
"""A message is its fields in order; a repeated field stands there several times."""

WARM_UP_FOLDER = "warmup"
"""Where Triton looks for the files that warm-up inputs name, beside config.pbtxt."""


class Symbol(StrEnum):
    """A value of one of Triton's enumerations."""

    FP32 = "TYPE_FP32"
    CPU = "KIND_CPU"
    GPU = "KIND_GPU"
    REJECT = "REJECT"
    DELAY = "DELAY"


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """How Triton is to run one model. `parameters` are its backend's."""

    name: str
    backend: str
    kind: Symbol
    """KIND_CPU or KIND_GPU."""
    signature: ModelSignature
    profile: ServingProfile
    warm_up_files: Mapping[int, str]
    """Name of the file in the warm-up folder with the row to repeat, by the number of rows of the call."""
    platform: str = ""
    queue: QueuePolicy | None = None
    """The profile's queue policy where it is wanted; see `QueuePolicy`."""
    parameters: Mapping[str, str] = field(default_factory=dict)
    tensorrt: Mapping[str, str] | None = None
    """Parameters of TensorRT as an accelerator of ONNX Runtime; None runs without it."""
    comments: tuple[str, ...] = ()

    def text(self) -> str:
        """The content of config.pbtxt."""
        return "".join(f"# {comment}\n" for comment in self.comments) + "".join(_lines(self._fields()))

    def _fields(self) -> Fields:
        signature = self.signature
        given: list[tuple[str, Value]] = [("name", self.name), ("backend", self.backend)]
        if self.platform:
            given.append(("platform", self.platform))
        given.append(("max_batch_size", self.profile.batch_rows_max))
        given.append(("input", _tensor(signature.input_name, signature.input_columns)))
        given += [("output", _tensor(name, columns)) for name, columns in signature.outputs]
        given.append(("version_policy", _VERSIONS[self.profile.version_policy]))
        given.append(("instance_group", (("kind", self.kind), ("count", self.profile.instances))))
        given.append(("dynamic_batching", self._batching()))
        if self.tensorrt is not None:
            accelerator = (("name", "tensorrt"), *_map("parameters", self.tensorrt))
            given.append(("optimization", (("execution_accelerators", (("gpu_execution_accelerator", accelerator),)),)))
        given += _map("parameters", {key: (("string_value", text),) for key, text in self.parameters.items()})
        given += [("model_warmup", self._warm_up(rows, file)) for rows, file in self.warm_up_files.items()]
        return tuple(given)

    def _batching(self) -> Fields:
        sizes = [("preferred_batch_size", rows) for rows in self.profile.preferred_batch_rows]
        delay = ("max_queue_delay_microseconds", self.profile.max_queue_delay_us)
        return (*sizes, delay, *(() if self.queue is None else (("default_queue_policy", _queue(self.queue)),)))

    def _warm_up(self, rows: int, file: str) -> Fields:
        columns = self.signature.input_columns
        tensor: Fields = (("data_type", Symbol.FP32), ("dims", columns), ("input_data_file", file))
        given: Fields = (("key", self.signature.input_name), ("value", tensor))
        # Triton repeats the one row of the file to fill the batch.
        return (("name", f"{rows} rows"), ("batch_size", rows), ("inputs", given))


_VERSIONS: dict[VersionPolicy, Fields] = {
    VersionPolicy.LATEST: (("latest", (("num_versions", 1),)),),
    VersionPolicy.ALL: (("all", ()),),
    VersionPolicy.SPECIFIC: (("specific", (("versions", 1),)),),
}
_ACTIONS = {TimeoutAction.REJECT: Symbol.REJECT, TimeoutAction.DELAY: Symbol.DELAY}


def _tensor(name: str, columns: int) -> Fields:
    return (("name", name), ("data_type", Symbol.FP32), ("dims", columns))


def _queue(policy: QueuePolicy) -> Fields:
    return (
        ("timeout_action", _ACTIONS[policy.on_timeout]),
        ("default_timeout_microseconds", policy.timeout_us),
        ("allow_timeout_override", policy.allow_override),
        ("max_queue_size", policy.requests_max),
    )


def _map(name: str, entries: Mapping[str, str] | Mapping[str, Fields]) -> Fields:
    """A protobuf map: its entries as messages of a key and a value."""
    return tuple((name, (("key", key), ("value", value))) for key, value in entries.items())


def _lines(message: Fields, indent: str = "") -> Iterator[str]:
    for name, value in message:
        if isinstance(value, tuple):
            yield f"{indent}{name} {{\n"
            yield from _lines(value, indent + "  ")
            yield f"{indent}}}\n"
        else:
            yield f"{indent}{name}: {_scalar(value)}\n"


def _scalar(value: str | bool | int) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | Symbol):
        return str(value)
    escaped = "".join(
        _ESCAPES.get(byte) or (chr(byte) if 32 <= byte < 127 else f"\\{byte:03o}") for byte in value.encode()
    )
    return f'"{escaped}"'


_ESCAPES = {ord('"'): '\\"', ord("\\"): "\\\\"}
