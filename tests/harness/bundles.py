"""A small bundle with every kind of field, written to disk as a real one, and stored features to go with it.

Its model computes with powers of two only, so that its outputs are exact wherever they are computed.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from skewless.adapters.onnx_runtime import OnnxModel
from skewless.bundles.bundle import Bundle, BundleContent, load_bundle, write_bundle
from skewless.bundles.golden import GoldenVectors
from skewless.bundles.model_files import ModelFiles
from skewless.bundles.post_processing import PROBABILITIES, PostProcessing
from skewless.bundles.serving_profile import ServingProfile
from skewless.canonical_json import Digest, digest
from skewless.dtypes import Column, Dtype, column_of
from skewless.features.contract import (
    Action,
    FeatureContract,
    FeatureField,
    JoinKey,
    Policy,
    RequestField,
    ViewRead,
    column_name,
)
from skewless.features.redis_layout import KeyTemplate, feature_field, timestamp_field
from skewless.serving.ports import ModelSignature
from skewless.statistics.baseline import baseline_of
from skewless.timestamps import HOUR_US, SECOND_US
from skewless.training.definition import BinaryLabels
from skewless.transforms import FittedTransform, Transform, column, where

ORIGIN = JoinKey("origin", Dtype.STRING)
TAILNUM = JoinKey("tailnum", Dtype.STRING, nullable=True)
STATION = JoinKey("station", Dtype.INT64)
WEATHER_TTL_US = 4 * HOUR_US
TRAINED = "2013-01-01"
_VALUE_TAGS = {Dtype.STRING: 0x12, Dtype.INT64: 0x20, Dtype.FLOAT32: 0x35}

Hashes = dict[bytes, dict[bytes, bytes]]
"""What Redis holds: hashes by key."""


def contract(*, reject_missing_weather: bool = False) -> FeatureContract:
    """Two views over two entities, an entity with a number as key, and four request fields."""
    on_missing = Policy(Action.REJECT) if reject_missing_weather else Policy()
    weather = ViewRead(
        "weather",
        (ORIGIN,),
        WEATHER_TTL_US,
        (
            FeatureField("temp", Dtype.FLOAT32, on_missing=on_missing),
            FeatureField("wind_dir", Dtype.INT64, on_missing=Policy(Action.DEFAULT, 90)),
        ),
    )
    aircraft = ViewRead("aircraft", (TAILNUM,), 0, (FeatureField("seats", Dtype.INT64),))
    noise = ViewRead("noise", (STATION,), 0, (FeatureField("level", Dtype.FLOAT32),))
    request_fields = (
        RequestField("scheduled_departure", Dtype.TIMESTAMP),
        RequestField("distance", Dtype.FLOAT32, nullable=True),
        RequestField("is_holiday", Dtype.BOOL),
        RequestField("party", Dtype.INT32),
    )
    return FeatureContract("demo", (weather, aircraft, noise), request_fields, digest("definitions of the tests"))


def transform() -> FittedTransform:
    """Six outputs over every column of `contract`, fitted on four rows."""
    temp = column("weather__temp", Dtype.FLOAT32)
    declared = Transform(
        {
            "temp": temp.impute_mean(),
            "temp_is_null": temp.is_null(),
            "wind_dir": column("weather__wind_dir", Dtype.INT64).impute(0.0),
            "seats": column("aircraft__seats", Dtype.INT64).impute(0.0),
            "level": column("noise__level", Dtype.FLOAT32).impute(0.0),
            "distance": column("distance", Dtype.FLOAT32).impute(0.0),
            "is_jfk": where(column("origin", Dtype.STRING, nullable=False) == "JFK", 1.0, 0.0),
            "party": column("party", Dtype.INT32, nullable=False),
        }
    )
    return declared.fit(sample_columns(), 4)


def sample_columns() -> dict[str, Column]:
    """Four rows of every column of the contract, nulls among them."""
    return {
        "origin": column_of(Dtype.STRING, ["JFK", "LGA", "EWR", "JFK"]),
        "tailnum": column_of(Dtype.STRING, ["N1", None, "N2", "N1"]),
        "station": column_of(Dtype.INT64, [7, 7, 8, 9]),
        "scheduled_departure": column_of(Dtype.TIMESTAMP, [hour * HOUR_US for hour in range(4)]),
        "is_holiday": column_of(Dtype.BOOL, [True, False, False, True]),
        "weather__temp": column_of(Dtype.FLOAT32, [1.5, None, 2.5, 8.0]),
        "weather__wind_dir": column_of(Dtype.INT64, [270, 90, None, 0]),
        "aircraft__seats": column_of(Dtype.INT64, [None, 180, 55, None]),
        "noise__level": column_of(Dtype.FLOAT32, [0.5, 0.25, None, -1.0]),
        "distance": column_of(Dtype.FLOAT32, [100.0, None, 2500.5, 0.0]),
        "party": column_of(Dtype.INT32, [1, 2, 3, 4]),
    }


def model(columns: int, *, scale: float = 2.0**-12) -> bytes:
    """An ONNX classifier: clip(scale * sum of inputs, 0, 1) is the probability of the positive class."""
    nodes = [
        helper.make_node("ReduceSum", ["features", "axis"], ["sum"], keepdims=1),
        helper.make_node("Mul", ["sum", "scale"], ["scaled"]),
        helper.make_node("Clip", ["scaled", "zero", "one"], ["positive"]),
        helper.make_node("Sub", ["one", "positive"], ["negative"]),
        helper.make_node("Concat", ["negative", "positive"], ["probabilities"], axis=1),
    ]
    constants = {"axis": np.array([1]), "zero": np.float32(0), "one": np.float32(1), "scale": np.float32(scale)}
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, columns])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, 2])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made)
    serialized: bytes = made.SerializeToString()
    return serialized


@dataclass(frozen=True, slots=True)
class BuiltBundle:
    """A bundle on disk, and its model to compare with."""

    bundle: Bundle
    model: OnnxModel

    @property
    def digest(self) -> Digest:
        return self.bundle.digest

    @property
    def folder(self) -> Path:
        return self.bundle.folder

    def outputs(self, tensor: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """What the model must answer."""
        return {"probabilities": self.model.run(tensor)}


def content(
    *,
    name: str = "late-flights",
    given: FeatureContract | None = None,
    fitted: FittedTransform | None = None,
    columns: Mapping[str, Column] | None = None,
    scale: float = 2.0**-12,
    wrong_golden: bool = False,
) -> BundleContent:
    """What a bundle is made of: by default everything of this module, or another contract, transform and rows of it."""
    given, fitted = given or contract(), fitted or transform()
    columns = columns or sample_columns()
    rows = len(next(iter(columns.values())))
    read = {name: columns[name] for name, _ in fitted.inputs}
    tensor = fitted.prepare().apply(read, rows)
    data = model(len(fitted.output_names), scale=scale)
    probabilities = OnnxModel(data).run(tensor)
    post = PostProcessing(BinaryLabels("on_time", "late"))
    scores = post.scores({PROBABILITIES: probabilities})
    ages = {view.name: np.full(rows, HOUR_US, dtype=np.int64) for view in given.views}
    return BundleContent(
        name=name,
        contract=given,
        transform=fitted,
        model=ModelFiles.onnx(data),
        signature=ModelSignature("features", len(fitted.output_names), ((PROBABILITIES, 2),)),
        serving=ServingProfile(),
        post=post,
        baseline=baseline_of(given, fitted, columns, tensor, {"score": scores}, ages, rows),
        golden=GoldenVectors(
            read, tensor, {PROBABILITIES: probabilities + np.float32(0.125) if wrong_golden else probabilities}
        ),
        provenance={"trained": TRAINED},
    )


def build_bundle(
    artifacts: Path, *, scale: float = 2.0**-12, reject_missing_weather: bool = False, wrong_golden: bool = False
) -> BuiltBundle:
    """Write a bundle to `<artifacts>/<digest>` as an artifact store keeps it."""
    made = content(
        given=contract(reject_missing_weather=reject_missing_weather), scale=scale, wrong_golden=wrong_golden
    )
    incoming = artifacts / "incoming"
    kept = artifacts / write_bundle(made, incoming)
    incoming.rename(kept)
    return BuiltBundle(load_bundle(kept), OnnxModel(made.model.files[made.model.entry]))


def stored(
    keys: tuple[JoinKey, ...], values: tuple[object, ...], view: str, event_time: int, features: Mapping[str, object]
) -> Hashes:
    """The hash of one entity as Feast writes it; a feature's value is a float, int, str or None for a stored null."""
    fields = {timestamp_field(view): b"\x08" + _varint(event_time // SECOND_US)}
    for name, value in features.items():
        fields[feature_field(view, name)] = _value(value)
    (key,) = KeyTemplate.compile(keys, "demo").keys([values[0] if len(values) == 1 else values])
    return {key: fields}


def merged(*parts: Hashes) -> Hashes:
    """One store of several hashes; views of one entity share a hash."""
    hashes: Hashes = {}
    for part in parts:
        for key, fields in part.items():
            hashes.setdefault(key, {}).update(fields)
    return hashes


def flights_at(moment: int) -> Hashes:
    """Fresh features of JFK and station 7, stale weather of LGA, and one aircraft, at a moment in µs."""
    return merged(
        stored((ORIGIN,), ("JFK",), "weather", moment - HOUR_US, {"temp": 21.5, "wind_dir": 270}),
        stored((ORIGIN,), ("LGA",), "weather", moment - 5 * HOUR_US, {"temp": 3.25, "wind_dir": None}),
        stored((TAILNUM,), ("N1",), "aircraft", moment - 100 * HOUR_US, {"seats": 180}),
        stored((STATION,), (7,), "noise", moment - HOUR_US, {"level": 0.5}),
    )


def instance(**changes: object) -> dict[str, object]:
    """A valid instance for `contract`, with changes."""
    return {
        "origin": "JFK",
        "tailnum": "N1",
        "station": 7,
        "scheduled_departure": "2013-05-01T12:30:00Z",
        "distance": 1089.5,
        "is_holiday": False,
        "party": 2,
        **changes,
    }


FEATURES = tuple(column_name(view.view, feature.name) for view in contract().views for feature in view.features)


def _value(value: object) -> bytes:
    if value is None:
        return b""
    if isinstance(value, float):
        return bytes([_VALUE_TAGS[Dtype.FLOAT32]]) + struct.pack("<f", value)
    if isinstance(value, int):
        return bytes([_VALUE_TAGS[Dtype.INT64]]) + _varint(value)
    data = str(value).encode()
    return bytes([_VALUE_TAGS[Dtype.STRING]]) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
