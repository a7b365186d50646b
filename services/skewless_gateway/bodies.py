"""Request bodies: read up to a limit, in the one media type, within a time."""

import asyncio

from starlette.requests import Request

from skewless.errors import InvalidRequest, LimitExceeded
from skewless.limits import BODY_BYTES_MAX, DEADLINE_MS_MAX
from skewless.serving.json_body import parse_json
from skewless_gateway.problems import BODY_TOO_SLOW, UNSUPPORTED_MEDIA_TYPE

_JSON = "application/json"
_CHARSETS = frozenset({"", "utf-8", "utf8"})


async def read_json(request: Request) -> object:
    """The decoded JSON body. Raises InvalidRequest, and LimitExceeded without reading past the limit."""
    _check_media_type(request)
    return parse_json(await _read(request))


def _check_media_type(request: Request) -> None:
    given = request.headers.get("content-type", "")
    media_type, _, parameters = given.partition(";")
    name, _, charset = parameters.strip().lower().partition("=")
    is_json = media_type.strip().lower() == _JSON and (name != "charset" or charset.strip('"') in _CHARSETS)
    encoding = request.headers.get("content-encoding", "identity")
    if not is_json or encoding != "identity":
        seen = f"content type `{given[:100]}`" if not is_json else f"content encoding `{encoding[:100]}`"
        raise InvalidRequest(
            f"the body has {seen if given or is_json else 'no content type'}",
            path="$",
            allowed=f"{_JSON} in UTF-8, not compressed",
            hint=f"send the header Content-Type: {_JSON}",
            code=UNSUPPORTED_MEDIA_TYPE,
        )


async def _read(request: Request) -> bytes:
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > BODY_BYTES_MAX:
        raise _too_large(f"announces {int(announced)} bytes")
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(DEADLINE_MS_MAX / 1_000):
            async for chunk in request.stream():
                size += len(chunk)
                if size > BODY_BYTES_MAX:
                    raise _too_large(f"has more than {BODY_BYTES_MAX} bytes")
                chunks.append(chunk)
    except TimeoutError as error:
        raise InvalidRequest(
            f"the body did not arrive within {DEADLINE_MS_MAX} ms", path="$", allowed="", code=BODY_TOO_SLOW
        ) from error
    return b"".join(chunks)


def _too_large(what: str) -> LimitExceeded:
    return LimitExceeded(
        f"the body {what}", path="$", allowed=f"at most {BODY_BYTES_MAX} bytes", hint="send fewer instances at once"
    )
