"""Work on the log store for a command: by the shipper that runs, or here where none does."""

import time
from collections.abc import Mapping
from typing import Any

from skewless.adapters.shipper_requests import Answer, Request, Requests, Work
from skewless.adapters.shipping import shipper_of
from skewless.cli.workspace import Workspace
from skewless.errors import Conflict, InvalidRequest, LimitExceeded, NotFound, SkewlessError, Unavailable
from skewless.settings import ShipperSettings, StackSettings, load_settings
from skewless.stack.shipper import log_hash_key

_POLL_S = 0.1
_SERVE_S = 1.0
"""Between two tries of what has to wait, where no shipper runs."""


class LogWork:
    """Asks for work and waits for it. Errors are those of the work, wherever it was done."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._folder = workspace.home.predictions
        self._requests = Requests(self._folder)

    def done(
        self,
        work: Work,
        *,
        wait_s: float,
        endpoint: str = "",
        keys: Mapping[str, str] | None = None,
        days: int | None = None,
        dry_run: bool = False,
        before: int = 0,
    ) -> dict[str, Any]:
        """What came of it. Raises Unavailable where it takes longer than `wait_s`, and then it is not done."""
        request = self._ask(work, endpoint=endpoint, keys=keys, days=days, dry_run=dry_run, before=before)
        answer = self._answer(request, wait_s)
        if answer is None:
            self._requests.withdraw(request)
            raise Unavailable(
                "the shipper",
                f"it has not done this within {wait_s:g} s",
                hint="`skewless log status` says how it does",
            )
        return _result(answer)

    def receipt(self, endpoint: str, keys: Mapping[str, str], *, wait_s: float, before: int = 0) -> dict[str, Any]:
        """What came of a deletion; `pending` where it has to wait longer, which it does without anybody waiting.

        `before` (µs) is until when what goes was known; 0: until now.
        """
        request = self._ask(Work.DELETE, endpoint=endpoint, keys=keys, days=None, dry_run=False, before=before)
        answer = self._answer(request, wait_s)
        if answer is None:
            return {"request": request.name, "pending": True}
        return {**_result(answer), "pending": False}

    def _ask(
        self,
        work: Work,
        *,
        endpoint: str,
        keys: Mapping[str, str] | None,
        days: int | None,
        dry_run: bool,
        before: int,
    ) -> Request:
        if not self._folder.is_dir():
            raise NotFound("prediction log", str(self._folder), hint="a gateway makes it with its first prediction")
        try:
            return self._requests.ask(work, endpoint=endpoint, keys=keys, days=days, dry_run=dry_run, before=before)
        except OSError as error:
            raise Unavailable("the prediction log", f"`{self._folder}`: {error.strerror}") from error

    def _answer(self, request: Request, wait_s: float) -> Answer | None:
        deadline_s = time.monotonic() + wait_s
        while True:
            if shipper_of(self._folder) is None:
                self._serve(request, deadline_s)
            answer = self._requests.answer(request)
            if answer is not None or time.monotonic() > deadline_s:
                return answer
            time.sleep(_POLL_S)

    def _serve(self, request: Request, deadline_s: float) -> None:
        """Do here what is asked for, as far as it can be done in time; nothing where a shipper has begun meanwhile."""
        from skewless.adapters.log_shipping import log_shipping

        try:
            with log_shipping(self._settings()) as shipping:
                shipping.serve()
                while self._requests.waits(request) and time.monotonic() < deadline_s:
                    time.sleep(_SERVE_S)
                    shipping.serve()
        except Conflict:
            return

    def _settings(self) -> ShipperSettings:
        given = {
            "prediction_log": str(self._folder),
            "log_store": self._workspace.settings.log_store_address,
            **{name.lower(): value for name, value in log_hash_key().items()},
        }
        settings = load_settings(ShipperSettings, given)
        if settings.stream is None and load_settings(StackSettings).stream:
            # The stack's own shipper gives it every segment; one that never came to it must not be deleted here.
            return load_settings(ShipperSettings, {**given, "stream": self._workspace.stack().valkey_url})
        return settings


def _result(answer: Answer) -> dict[str, Any]:
    if not answer.failure:
        return answer.result
    if answer.code in (NotFound.code, InvalidRequest.code, LimitExceeded.code):
        raise InvalidRequest(answer.failure, path="$", hint=answer.hint)
    if answer.code == Conflict.code:
        raise Conflict(answer.failure, hint=answer.hint)
    if answer.code == Unavailable.code:
        raise Unavailable("the log store", answer.failure, hint=answer.hint)
    raise SkewlessError(answer.failure, hint=answer.hint)
