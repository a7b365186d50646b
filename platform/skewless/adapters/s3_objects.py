"""Objects of one bucket on S3-compatible storage, whole ones only; the one importer of obstore.

Only what every such server has in common is used: get, put, list (version 2) and delete of single objects, and that a
list shows what was put before it. Each request has a deadline for all of it, body included, and a bounded number of
retries. Objects are small by agreement of the callers, so no multipart upload is ever begun and none is left behind.

Credentials come from the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, a web identity, or
the instance's metadata service), read when the client is made. No error made here repeats what a server sent but its
error code, so none shows a secret.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import S3Store

from skewless.adapters.artifact_address import BucketAddress
from skewless.errors import InvalidSettings, Unavailable
from skewless.limits import (
    ARTIFACT_CONNECT_TIMEOUT_S,
    ARTIFACT_REQUEST_TIMEOUT_S,
    ARTIFACT_RETRIES_MAX,
    ARTIFACT_RETRY_S,
)
from skewless.timestamps import Micros, to_micros

if TYPE_CHECKING:
    from obstore.store import S3Config

_CODE = re.compile(r"<Code>(\w{1,64})</Code>")
_STATUS = re.compile(r"status code: (\d{3})")
_KIND = re.compile(r"kind: (Timeout|Connect)\b")
_LISTED_AT_ONCE = 1_000
_METADATA_SERVICE = "169.254.169.254"
"""Where the client looks for an instance's role when nothing else gave it credentials."""
_CREDENTIALS = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN where they are temporary) of a user with "
    "s3:ListBucket on the bucket, and s3:GetObject, s3:PutObject and s3:DeleteObject on the prefix"
)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long one request may take (all of it, body included), and how often it is tried. Seconds."""

    connect_s: float = ARTIFACT_CONNECT_TIMEOUT_S
    request_s: float = ARTIFACT_REQUEST_TIMEOUT_S
    retries_max: int = ARTIFACT_RETRIES_MAX
    retry_s: float = ARTIFACT_RETRY_S
    """No attempt begins later than this after the first."""


@dataclass(frozen=True, slots=True)
class Use:
    """What the objects are kept for, as errors call it: the part, and the setting that names the bucket."""

    part: str
    setting: str


ARTIFACTS = Use("the artifact store", "SKEWLESS_ARTIFACTS")


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object as a list shows it. `etag` has no quotes; for most servers it is the MD5 of the content."""

    key: str
    size_bytes: int
    modified_time: Micros
    etag: str


@dataclass(frozen=True, slots=True)
class Content:
    """What an object holds, and its size; `data` is empty where that is larger than was asked for."""

    size_bytes: int
    data: memoryview


class S3Objects:
    """Objects under the prefix of an address; keys are relative to it. May be used by several threads.

    Every method raises Unavailable where the server is away, slow, failing or refuses the credentials, and
    InvalidSettings where there is no such bucket.
    """

    def __init__(self, address: BucketAddress, patience: Patience = Patience(), use: Use = ARTIFACTS) -> None:
        self._address = address
        self._use = use
        self._store = _client(address, patience, use)

    def get(self, key: str, *, bytes_max: int) -> Content | None:
        """The content of an object; None where there is none. Of one that is larger than allowed only the size.

        The size is looked at before the content is read, so nothing unbounded enters memory.
        """
        with self._translated():
            try:
                found = obstore.get(self._store, key)
                size_bytes = found.meta["size"]
                # A view of the client's own buffer: a copy of it would double what an open takes.
                return Content(size_bytes, memoryview(found.bytes() if size_bytes <= bytes_max else b""))
            except FileNotFoundError as error:
                self._refuse_missing_bucket(error)
                return None

    def put(self, key: str, data: bytes) -> None:
        """Write an object, or replace it by this one; nobody sees a part of it. The server checks its SHA-256."""
        with self._translated():
            obstore.put(self._store, key, data, use_multipart=False)

    def create(self, key: str, data: bytes) -> bool:
        """Write an object where there is none by this key, and say so; false where there is one.

        Servers that ignore `If-None-Match` replace it and say that they wrote it, see `heeds_conditions`.
        """
        with self._translated():
            try:
                obstore.put(self._store, key, data, mode="create", use_multipart=False)
            except AlreadyExistsError:
                return False
            return True

    def heeds_conditions(self, key: str) -> bool:
        """Whether the server refuses to create what is there: of two writers it then stops one. Leaves an object."""
        self.create(key, b"")
        return not self.create(key, b"")

    def modified_time(self, key: str) -> Micros | None:
        """When an object was written, by the server's clock; None where there is none."""
        with self._translated():
            try:
                return to_micros(obstore.head(self._store, key)["last_modified"])
            except FileNotFoundError:
                return None

    def folders(self, prefix: str) -> list[str]:
        """What stands between a prefix and the next slash, in the keys that go on after one; sorted."""
        with self._translated():
            listed = obstore.list_with_delimiter(self._store, prefix or None)
        return sorted(each.rstrip("/").rpartition("/")[2] for each in listed["common_prefixes"])

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """Every object whose key begins with a prefix that ends in a slash, a page at a time."""
        with self._translated():
            for page in obstore.list(self._store, prefix or None, chunk_size=_LISTED_AT_ONCE):
                for each in page:
                    yield StoredObject(
                        key=each["path"],
                        size_bytes=each["size"],
                        modified_time=to_micros(each["last_modified"]),
                        etag=(each["e_tag"] or "").strip('"'),
                    )

    def delete(self, key: str) -> None:
        """Remove an object; nothing where there is none."""
        with self._translated():
            obstore.delete(self._store, key)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """What the client raises, as an error of ours."""
        try:
            yield
        except (BaseError, FileNotFoundError) as error:
            self._refuse_missing_bucket(error)
            raise self._unavailable(error) from error

    def _refuse_missing_bucket(self, error: Exception) -> None:
        if _found(_CODE, error) == "NoSuchBucket":
            raise InvalidSettings(
                f"{self._use.part} {self._address} cannot be used: there is no bucket `{self._address.bucket}`",
                hint=f"make the bucket, or correct its name, endpoint or region in {self._use.setting}",
            ) from error

    def _unavailable(self, error: Exception) -> Unavailable:
        code, status, kind = (_found(pattern, error) for pattern in (_CODE, _STATUS, _KIND))
        answered = f"it answered {status}" + (f" ({code})" if code else "") if status else ""
        if _METADATA_SERVICE in str(error):
            reason, hint = "there are no credentials for it", _CREDENTIALS
        elif status in ("401", "403"):
            reason, hint = f"{answered}: the credentials are wrong or may not do this", _CREDENTIALS
        elif answered:
            reason, hint = answered, "look into the server's log; what is kept here already stays usable"
        else:
            reason = {"Timeout": "it did not answer in time", "Connect": "it cannot be reached"}.get(
                kind, "the connection failed"
            )
            hint = f"check the endpoint in {self._use.setting}, and that the server runs and is reached from here"
        return Unavailable(f"{self._use.part} {self._address}", reason, hint=hint)


def _client(address: BucketAddress, patience: Patience, use: Use) -> S3Store:
    config: S3Config = {
        # Deleting many at once needs a header that some servers do not know.
        "disable_bulk_delete": True,
        "virtual_hosted_style_request": not address.path_style,
    }
    if address.endpoint:
        config["endpoint"] = address.endpoint
    if address.region:
        config["region"] = address.region
    try:
        return S3Store(
            address.bucket,
            prefix=address.prefix or None,
            config=config,
            client_options={
                "allow_http": address.endpoint.startswith("http://"),
                "connect_timeout": timedelta(seconds=patience.connect_s),
                "timeout": timedelta(seconds=patience.request_s),
            },
            retry_config={"max_retries": patience.retries_max, "retry_timeout": timedelta(seconds=patience.retry_s)},
        )
    except (BaseError, ValueError) as error:
        raise InvalidSettings(
            f"{use.part} {address} cannot be used: the client refuses its address or an AWS_… variable",
            hint=f"check the AWS_… variables of the environment, and the endpoint and region in {use.setting}",
        ) from error


def _found(pattern: re.Pattern[str], error: Exception) -> str:
    match = pattern.search(str(error))
    return match.group(1) if match else ""
