"""What the command line asks of the shipper of a folder: one file per request, and one per answer.

    shipping/requests/<time><random>.json     what is wanted; stays, through any crash, until it is done
    shipping/answers/<the same name>.json     how it came out; removed by who asked, or after a day

Only the holder of a folder's lock writes to the log store, so that a command needs no second writer beside it.
"""

import secrets
import time
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec

from skewless.adapters.shipping import SHIPPING, replace_file
from skewless.errors import Overloaded
from skewless.limits import LOG_REQUESTS_MAX, LOG_UNNAMED_AGE_S

_REQUESTS = "requests"
_ANSWERS = "answers"
_SUFFIX = ".json"


class Work(StrEnum):
    """What can be asked for."""

    SHIP = "ship"
    COMPACT = "compact"
    RETAIN = "retain"
    DELETE = "delete"


class Request(msgspec.Struct, frozen=True):
    """`time` is when it was made, in µs. `keys` and `endpoint` say what to delete; `days` how long to keep."""

    name: str
    work: Work
    time: int
    endpoint: str = ""
    keys: Mapping[str, str] = {}
    days: int | None = None
    dry_run: bool = False
    before: int = 0
    """What is to be deleted was known until then (µs); 0: until the request."""


class Answer(msgspec.Struct, frozen=True):
    """`result` is plain data, and empty where `failure` says what went wrong, with its `hint`."""

    result: dict[str, Any] = {}
    failure: str = ""
    hint: str = ""
    code: str = ""
    """Of the error that a failure was."""


class Requests:
    """The requests of one prediction log's folder."""

    def __init__(self, folder: Path) -> None:
        self._requests = folder / SHIPPING / _REQUESTS
        self._answers = folder / SHIPPING / _ANSWERS

    def ask(
        self,
        work: Work,
        *,
        endpoint: str = "",
        keys: Mapping[str, str] | None = None,
        days: int | None = None,
        dry_run: bool = False,
        before: int = 0,
    ) -> Request:
        """Leave a request, which survives a power cut once this returns. Raises Overloaded, and OSError."""
        if len(self.pending()) >= LOG_REQUESTS_MAX:
            raise Overloaded("the shipper", f"{LOG_REQUESTS_MAX} requests wait for it", hint="does it run?")
        moment = time.time_ns() // 1_000
        name = f"{moment:014x}{secrets.token_hex(4)}"
        request = Request(name, work, moment, endpoint, keys or {}, days, dry_run, before)
        replace_file(self._requests / f"{name}{_SUFFIX}", msgspec.json.encode(request))
        return request

    def pending(self) -> list[Request]:
        """Requests that are not done, oldest first. One that cannot be read is removed: nobody knows what it says."""
        found: list[Request] = []
        for path in sorted(self._requests.glob(f"[0-9a-f]*{_SUFFIX}")):
            try:
                found.append(msgspec.json.decode(path.read_bytes(), type=Request))
            except FileNotFoundError:
                continue
            except msgspec.DecodeError:
                path.unlink(missing_ok=True)
        return found

    def finish(self, request: Request, answer: Answer) -> None:
        """Tell how a request came out, and forget what it said. Raises OSError."""
        replace_file(self._answers / f"{request.name}{_SUFFIX}", msgspec.json.encode(answer))
        self._path(request).unlink(missing_ok=True)

    def withdraw(self, request: Request) -> None:
        """Forget a request, whether it was done or not."""
        self._path(request).unlink(missing_ok=True)

    def waits(self, request: Request) -> bool:
        """Whether it is not done, nor withdrawn."""
        return self._path(request).exists()

    def answer(self, request: Request) -> Answer | None:
        """How a request came out, told once; None as long as it is not done."""
        path = self._answers / f"{request.name}{_SUFFIX}"
        try:
            answer = msgspec.json.decode(path.read_bytes(), type=Answer)
        except FileNotFoundError:
            return None
        path.unlink(missing_ok=True)
        return answer

    def tidy(self) -> None:
        """Remove answers that nobody took for a day."""
        for path in self._answers.glob(f"*{_SUFFIX}"):
            if time.time() - path.stat().st_mtime > LOG_UNNAMED_AGE_S:
                path.unlink(missing_ok=True)

    def _path(self, request: Request) -> Path:
        return self._requests / f"{request.name}{_SUFFIX}"
