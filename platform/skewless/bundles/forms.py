"""Forms of a bundle's smaller documents: which fields they have and of what type, checked before anything is made of
them. Transforms, baselines and serving profiles check their own.

A form says less than the part's own reader: whether names are known and values fit together is for that to say.
"""

from typing import Annotated, Any, Literal, NotRequired, TypedDict

import msgspec

from skewless.dtypes import Dtype
from skewless.errors import InvalidDefinition
from skewless.features.contract import Action, Mode

_TTL_US_MAX = 2**62
Name = Annotated[str, msgspec.Meta(min_length=1)]
Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
Mark = Literal["hash", "omit"]
"""A `LogMark` that is not the default, which is left out."""


class PolicyForm(TypedDict):
    """`on_missing`, `on_stale`."""

    action: Action
    value: bool | int | float | str | None


class JoinKeyForm(TypedDict):
    """One of `join_keys`."""

    name: Name
    dtype: Dtype
    nullable: bool
    stored_name: NotRequired[Name]
    log: NotRequired[Mark]


class FeatureForm(TypedDict):
    """One of `features`."""

    name: Name
    dtype: Dtype
    on_missing: PolicyForm
    on_stale: PolicyForm
    feast_type: NotRequired[Name]
    log: NotRequired[Mark]


class ViewForm(TypedDict):
    """One of `views`."""

    view: Name
    ttl_us: Annotated[int, msgspec.Meta(ge=0, le=_TTL_US_MAX)]
    join_keys: list[JoinKeyForm]
    features: list[FeatureForm]
    alias: NotRequired[Name]
    stored_name: NotRequired[Name]
    near_cache: NotRequired[bool]


class OnDemandForm(TypedDict):
    """One of `on_demand`."""

    name: Name
    mode: Mode
    function: Annotated[str, msgspec.Meta(pattern="^[^:]+:[^:]+$")]
    source_digest: Sha256
    inputs: list[tuple[Name, Name]]
    features: list[FeatureForm]


class RequestFieldForm(TypedDict):
    """One of `request_fields`."""

    name: Name
    dtype: Dtype
    nullable: bool
    log: NotRequired[Mark]


class ContractForm(TypedDict):
    """contract.json"""

    project: Name
    definitions_digest: Sha256
    request_fields: list[RequestFieldForm]
    views: list[ViewForm]
    on_demand: NotRequired[list[OnDemandForm]]


class TensorForm(TypedDict):
    """Input or output of a model: (rows, columns) float32."""

    name: Name
    columns: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]


class SignatureForm(TypedDict):
    """model/signature.json"""

    input: TensorForm
    outputs: Annotated[list[TensorForm], msgspec.Meta(min_length=1)]


class LabelsForm(TypedDict):
    """`labels` of post_processing.json."""

    negative: Name
    positive: Name
    threshold: float


class CalibrationForm(TypedDict):
    """`calibration` of post_processing.json; which fields a kind has its reader says."""

    kind: str
    slope: NotRequired[float]
    intercept: NotRequired[float]
    inputs: NotRequired[list[float]]
    outputs: NotRequired[list[float]]


class PostProcessingForm(TypedDict):
    """post_processing.json"""

    labels: LabelsForm
    calibration: CalibrationForm
    output: Name


class ColumnForm(TypedDict):
    """A column of golden.json."""

    dtype: Dtype
    values: list[Any]


class ArrayForm(TypedDict):
    """An array of golden.json: its shape, and its float32 bytes in base64."""

    shape: list[Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]]
    float32: str


class GoldenForm(TypedDict):
    """golden.json"""

    columns: dict[Name, ColumnForm]
    tensor: ArrayForm
    outputs: dict[Name, ArrayForm]
    scores: NotRequired[ArrayForm]
    reasons: NotRequired[list[str]]


def check_form(data: object, form: Any) -> None:
    """Raise InvalidDefinition, with the path of the value that is missing or of another type.

    >>> check_form({"input": {"name": "x", "columns": 0}, "outputs": []}, SignatureForm)
    Traceback (most recent call last):
    skewless.errors.InvalidDefinition: Expected `int` >= 1 - at `$.input.columns`
    """
    try:
        msgspec.convert(data, form)
    except msgspec.ValidationError as error:
        raise InvalidDefinition(str(error)) from error
