"""The JSON of a request body: strict RFC 8259, with refusals that say what is wrong and where."""

import msgspec

from skewless.errors import InvalidRequest

_NON_NUMBERS = ("-Infinity", "Infinity", "NaN")
_NON_NUMBER_HINT = "JSON has no NaN or Infinity; give null where the field is nullable, or a finite number"


def parse_json(body: bytes) -> object:
    """Python value of a JSON text. Raises InvalidRequest with a byte offset where the parser gives one.

    >>> parse_json(b'{"a": [1, null]}')
    {'a': [1, None]}
    """
    try:
        return msgspec.json.decode(body)
    except UnicodeDecodeError as error:
        raise _malformed(f"the body is not UTF-8: {error.reason}", hint="send the body as UTF-8") from error
    except RecursionError as error:
        raise _malformed("the body is nested too deeply", hint="a request nests three levels") from error
    except msgspec.ValidationError as error:
        raise _malformed(
            f"the body holds a number that no field can hold: {error}",
            hint="numbers must be finite 64-bit values; check for exponents such as 1e999",
        ) from error
    except msgspec.DecodeError as error:
        raise _explain(body, str(error)) from error


def _malformed(message: str, *, hint: str) -> InvalidRequest:
    return InvalidRequest(message, path="$", allowed="one JSON object", hint=hint, code="malformed_json")


def _explain(body: bytes, reason: str) -> InvalidRequest:
    """The refusal for a text that is no JSON, with its own words for the tokens that Python's encoder writes."""
    if not body.strip():
        return _malformed("the body is empty", hint='send {"instances": [{…}]}')
    offset = _offset(reason)
    if offset is not None:
        # The parser stops at the word, or one byte into it when it starts with a minus.
        before = body[max(0, offset - 1) : offset + 9].decode("utf-8", "replace")
        found = next((each for each in _NON_NUMBERS if before.startswith(each) or before[1:].startswith(each)), None)
        if found is not None:
            return _malformed(f"the body holds {found} at byte {offset}", hint=_NON_NUMBER_HINT)
    return _malformed(f"the body is not JSON: {reason}", hint="check the body with a JSON parser")


def _offset(reason: str) -> int | None:
    """The byte offset in a parser message that ends with `(byte 5)`."""
    head, found, tail = reason.rpartition("(byte ")
    return int(tail.rstrip(")")) if found and head and tail.rstrip(")").isdigit() else None
