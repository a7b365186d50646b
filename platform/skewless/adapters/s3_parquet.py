"""Parquet files of a bucket as DuckDB reads them: by ranges, through obstore. DuckDB's own client would be a download.

Credentials and options are those of the bucket's other users (`s3_objects.py`). A range that is all of an object is
asked for as the object: some servers answer such a range with the whole, which the client takes for a fault.
"""

from datetime import timedelta
from typing import Any

import obstore
from fsspec.spec import AbstractBufferedFile, AbstractFileSystem  # type: ignore[import-untyped]  # has no types
from obstore.store import S3Store

from skewless.adapters.artifact_address import BucketAddress
from skewless.limits import ARTIFACT_CONNECT_TIMEOUT_S, ARTIFACT_RETRIES_MAX, ARTIFACT_RETRY_S, LOG_STORE_REQUEST_S, MIB

_SCHEME = "s3"


class BucketFiles(AbstractFileSystem):  # type: ignore[misc]  # fsspec is untyped
    """Objects of one bucket as files to read, by `s3://bucket/key`; to be registered with DuckDB.

    Nothing is connected until a file is opened.
    """

    protocol = _SCHEME
    cachable = False
    """fsspec would keep the first one made for all later ones."""

    def __init__(self, address: BucketAddress) -> None:
        super().__init__()
        self._start = f"{_SCHEME}://{address.bucket}/"
        self._store = _client(address)

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return path

    def info(self, path: str, **_options: object) -> dict[str, Any]:
        """Size in bytes and time of the last change. Raises FileNotFoundError."""
        found = obstore.head(self._store, self._key(path))
        return {"name": path, "type": "file", "size": found["size"], "modified": found["last_modified"]}

    def modified(self, path: str) -> Any:
        """When the object was written, by the server's clock."""
        return self.info(path)["modified"]

    def glob(self, path: str, **_options: object) -> list[str]:
        """The path itself: readers name each file."""
        return [path]

    def fetch(self, path: str, start: int, end: int, *, size: int) -> bytes:
        """Bytes `start` to before `end` of an object with `size` bytes."""
        if start == 0 and end >= size:
            return bytes(obstore.get(self._store, self._key(path)).bytes())
        return bytes(obstore.get_range(self._store, self._key(path), start=start, end=min(end, size)))

    def _open(self, path: str, mode: str = "rb", **_options: object) -> "BucketFile":
        return BucketFile(self, path, mode, block_size=MIB, cache_type="readahead")

    def _key(self, path: str) -> str:
        if not path.startswith(self._start):
            raise FileNotFoundError(f"{path} is not in the bucket of the log's store")
        return path.removeprefix(self._start)


class BucketFile(AbstractBufferedFile):  # type: ignore[misc]  # fsspec is untyped
    """One object, read by ranges with what follows them."""

    def _fetch_range(self, start: int, end: int) -> bytes:
        fetched: bytes = self.fs.fetch(self.path, start, end, size=self.size)
        return fetched


def _client(address: BucketAddress) -> S3Store:
    return S3Store(
        address.bucket,
        config={
            "virtual_hosted_style_request": not address.path_style,
            **({"endpoint": address.endpoint} if address.endpoint else {}),
            **({"region": address.region} if address.region else {}),
        },
        client_options={
            "allow_http": address.endpoint.startswith("http://"),
            "connect_timeout": timedelta(seconds=ARTIFACT_CONNECT_TIMEOUT_S),
            "timeout": timedelta(seconds=LOG_STORE_REQUEST_S),
        },
        retry_config={"max_retries": ARTIFACT_RETRIES_MAX, "retry_timeout": timedelta(seconds=ARTIFACT_RETRY_S)},
    )
