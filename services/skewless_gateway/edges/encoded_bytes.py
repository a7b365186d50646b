"""`{"b64": "…"}`, how Google's protocols say bytes in JSON, as what the REST API's instances hold instead."""

import base64
import binascii
from collections.abc import Mapping

from skewless.dtypes import Dtype
from skewless.errors import InvalidRequest
from skewless.serving.field_types import shown
from skewless.serving.instances import InstanceValidator

_KEY = "b64"


def with_encoded_bytes(instances: object, validator: InstanceValidator) -> object:
    """The instances with each `{"b64": "…"}` of a text field decoded; that of a bytes field stays base64.

    A plain string in a bytes field stands for its UTF-8 bytes, as in TensorFlow Serving. Instances of another form are
    given back as they are: whoever checks them says what is wrong. Raises InvalidRequest for text that is no base64.
    """
    texts = {field.name: field.dtype for field in validator.fields if field.dtype in (Dtype.STRING, Dtype.BYTES)}
    if type(instances) is not list:
        return instances
    return [_row(row, texts, index) if type(row) is dict else row for index, row in enumerate(instances)]


def _row(row: dict[str, object], texts: Mapping[str, Dtype], index: int) -> dict[str, object]:
    changed: dict[str, object] = {}
    for name, dtype in texts.items():
        value = row.get(name)
        if type(value) is dict and value.keys() == {_KEY} and type(value[_KEY]) is str:
            changed[name] = value[_KEY] if dtype is Dtype.BYTES else _text(value[_KEY], f"$.instances[{index}].{name}")
        elif type(value) is str and dtype is Dtype.BYTES:
            changed[name] = base64.b64encode(value.encode()).decode()
    return row | changed if changed else row


def _text(encoded: str, path: str) -> str:
    try:
        return base64.b64decode(encoded, validate=True).decode()
    except (binascii.Error, ValueError) as error:
        raise InvalidRequest(
            f"{shown(encoded)} is no text in base64: {error}",
            path=path,
            allowed="base64 of UTF-8 text",
            code="mistyped_field",
        ) from error
