"""The files of a log store in a bucket, each at most some dozens of MiB, over the client that artifacts use too."""

import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from skewless.adapters.artifact_address import BucketAddress
from skewless.adapters.log_files import PART, SETTING
from skewless.adapters.s3_objects import Patience, S3Objects, Use
from skewless.errors import Unavailable
from skewless.limits import LOG_FILE_BYTES_MAX, LOG_STORE_REQUEST_S

_USE = Use(PART, SETTING)
_PROBE = "conditional-put-probe"


class BucketLogFiles:
    """Implements `LogFiles` in a bucket; drafts and fetched files lie in `scratch`, which is emptied at first."""

    def __init__(self, address: BucketAddress, scratch: Path) -> None:
        self._address = address
        self._objects = S3Objects(address, Patience(request_s=LOG_STORE_REQUEST_S), _USE)
        self._scratch = scratch

    def address(self, path: str) -> str:
        """See `LogFiles.address`."""
        return "/".join(filter(None, ("s3:/", self._address.bucket, self._address.prefix, path)))

    def draft(self, path: str) -> Path:
        """See `LogFiles.draft`."""
        self._scratch.mkdir(parents=True, exist_ok=True)
        return self._scratch / f"{uuid.uuid4().hex}-{Path(path).name}"

    def keep(self, draft: Path, path: str) -> None:
        """See `LogFiles.keep`."""
        try:
            self._objects.put(path, draft.read_bytes())
        finally:
            draft.unlink()

    @contextmanager
    def fetched(self, path: str) -> Iterator[Path]:
        """See `LogFiles.fetched`. Raises Unavailable where it is gone."""
        local = self.draft(path)
        content = self._objects.get(path, bytes_max=2 * LOG_FILE_BYTES_MAX)
        if content is None:
            raise Unavailable(PART, f"the file `{path}` that a commit names is gone", hint="was the bucket cleaned up?")
        try:
            local.write_bytes(content.data)
            del content
            yield local
        finally:
            local.unlink(missing_ok=True)

    def remove(self, paths: Sequence[str]) -> int:
        """See `LogFiles.remove`."""
        for path in paths:
            self._objects.delete(path)
        return len(paths)

    def folders(self, path: str) -> list[str]:
        """See `LogFiles.folders`."""
        return self._objects.folders(path)

    def stops_second_writers(self) -> bool:
        """See `LogFiles.stops_second_writers`: asks the server by an object of its own."""
        return self._objects.heeds_conditions(_PROBE)

    def tidy(self) -> None:
        """See `LogFiles.tidy`."""
        shutil.rmtree(self._scratch, ignore_errors=True)
