"""What a JSON body must say it is."""

from skewless.errors import InvalidRequest
from skewless_http.http_message import HttpRequest
from skewless_http.problems import UNSUPPORTED_MEDIA_TYPE

_JSON = "application/json"
_CHARSETS = frozenset({"", "utf-8", "utf8"})


def check_json(request: HttpRequest) -> None:
    """Return where the body is said to be JSON in UTF-8, not compressed. Raises InvalidRequest, before it is read."""
    content_type = request.header(b"content-type")
    encoding = request.header(b"content-encoding")
    if content_type == b"application/json" and encoding is None:
        return
    given = (content_type or b"").decode("latin-1")
    media_type, _, parameters = given.partition(";")
    name, _, charset = parameters.strip().lower().partition("=")
    is_json = media_type.strip().lower() == _JSON and (name != "charset" or charset.strip('"') in _CHARSETS)
    encoded = (encoding or b"identity").decode("latin-1")
    if not is_json or encoded != "identity":
        seen = f"content type `{given[:100]}`" if not is_json else f"content encoding `{encoded[:100]}`"
        raise InvalidRequest(
            f"the body has {seen if given or is_json else 'no content type'}",
            path="$",
            allowed=f"{_JSON} in UTF-8, not compressed",
            hint=f"send the header Content-Type: {_JSON}",
            code=UNSUPPORTED_MEDIA_TYPE,
        )
