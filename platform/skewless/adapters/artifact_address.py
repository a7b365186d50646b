"""Where an artifact store is: a folder or a bucket, read once out of a setting. Nothing made here shows a secret."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from skewless.errors import InvalidSettings

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.\-]{1,61}[a-z0-9]")
_PREFIX = re.compile(r"[A-Za-z0-9_.\-=+@]+(/[A-Za-z0-9_.\-=+@]+)*")
_REGION = re.compile(r"[a-z0-9-]{1,64}")
_OPTIONS = frozenset({"addressing", "endpoint", "region"})
_ADDRESSING = ("path", "virtual")
_ALLOWED = (
    "allowed: a folder, file:///folder, or s3://bucket[/prefix][?endpoint=http://host:port&region=…&addressing=path|"
    "virtual]; credentials come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or from what AWS's own tools use"
)


@dataclass(frozen=True, slots=True)
class BucketAddress:
    """A bucket and the prefix of all keys in it (without a slash at its end), and how the server is reached.

    Empty `endpoint` is AWS itself or what AWS_ENDPOINT_URL_S3 says, empty `region` what the environment says.
    """

    bucket: str
    prefix: str = ""
    endpoint: str = ""
    region: str = ""
    path_style: bool = False
    """Whether the bucket stands in the URL's path; servers that are not AWS seldom have host names per bucket."""

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/") + (f" at {self.endpoint}" if self.endpoint else "")


def parse_artifacts_url(url: str) -> Path | BucketAddress:
    """The folder or bucket that a setting names. Raises InvalidSettings, never with a secret in it.

    >>> parse_artifacts_url("s3://models/prod?region=eu-central-1")
    BucketAddress(bucket='models', prefix='prod', endpoint='', region='eu-central-1', path_style=False)
    >>> str(parse_artifacts_url("file:///var/artifacts")), str(parse_artifacts_url("kept/here"))
    ('/var/artifacts', 'kept/here')
    """
    scheme, separator, rest = url.partition("://")
    if not separator and not url.startswith(("file:", "s3:")):
        if not url:
            raise _refused("it is empty")
        return Path(url)
    if scheme == "file":
        if not rest.startswith("/"):
            raise _refused("file:// takes an absolute path and no host")
        return Path(unquote(rest))
    if scheme == "s3":
        return _bucket_address(rest)
    # What has no known scheme may be anything, also a secret pasted into the wrong variable: it is not shown.
    raise _refused("it is no folder and begins with neither file:// nor s3://")


def _bucket_address(rest: str) -> BucketAddress:
    place, _, query = rest.partition("?")
    bucket, _, prefix = place.partition("/")
    if "@" in bucket:
        raise _refused("credentials do not belong into it")
    if not _BUCKET.fullmatch(bucket):
        raise _refused(f"`{bucket}` is no bucket name: 3 to 63 lower-case letters, digits, dots and hyphens")
    prefix = unquote(prefix.rstrip("/"))
    if prefix and (not _PREFIX.fullmatch(prefix) or {".", ".."} & set(prefix.split("/"))):
        raise _refused(
            f"`{prefix}` is no prefix: parts of letters, digits and _ . - = + @, separated by single slashes"
        )
    options = _options(query)
    endpoint = _endpoint(options.get("endpoint", ""))
    addressing = options.get("addressing", "path" if endpoint else "virtual")
    if addressing not in _ADDRESSING:
        raise _refused("addressing is neither `path` nor `virtual`")
    region = options.get("region", "")
    if region and not _REGION.fullmatch(region):
        raise _refused("the region is no name such as eu-central-1")
    return BucketAddress(bucket, prefix, endpoint, region, addressing == "path")


def _options(query: str) -> Mapping[str, str]:
    options: dict[str, str] = {}
    for part in query.split("&") if query else ():
        name, _, value = part.partition("=")
        if name not in _OPTIONS or name in options:
            allowed = ", ".join(sorted(_OPTIONS))
            raise _refused(f"after the `?` is an option that s3:// does not take, or one twice. Taken: {allowed}")
        options[name] = unquote(value)
    return options


def _endpoint(text: str) -> str:
    if not text:
        return ""
    try:
        parts = urlsplit(text)
        odd = parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0
    except ValueError:
        odd = True
    if odd or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise _refused("the endpoint is no URL such as https://storage.example:9000")
    if "@" in parts.netloc:
        raise _refused("credentials do not belong into the endpoint")
    return f"{parts.scheme}://{parts.netloc}"


def _refused(reason: str) -> InvalidSettings:
    return InvalidSettings(f"the address of the artifact store cannot be used: {reason}", hint=_ALLOWED)
