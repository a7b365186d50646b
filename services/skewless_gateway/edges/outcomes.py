"""POST /v1/outcomes: what turned out for earlier predictions, as JSON or line by line as NDJSON.

JSON is kept as a whole or refused as a whole. Of NDJSON, which may be of any length and is never held, every line is
kept or refused by itself; the answer counts both and explains the first refusals. Whatever an answer calls accepted is
as safe as the log promises for predictions.
"""

import asyncio
from typing import Any

import uuid_utils

from skewless.errors import Forbidden, InvalidRequest, LimitExceeded, Overloaded, SkewlessError
from skewless.limits import (
    OUTCOME_CHUNK,
    OUTCOME_LINE_BYTES_MAX,
    OUTCOME_REFUSALS_TOLD_MAX,
    OUTCOME_STREAMS_MAX,
    RETRY_AFTER_S,
)
from skewless.serving.json_body import parse_json
from skewless.serving.outcome_entity import EntityForm
from skewless.serving.outcome_lines import LineCutter
from skewless.serving.outcomes import OutcomeReader, told_outcomes
from skewless.serving.records import Outcome
from skewless_gateway.edges.ndjson_batch import MEDIA_TYPE as NDJSON
from skewless_gateway.gateway import Gateway
from skewless_gateway.predictions import RequestHead
from skewless_http.bodies import check_json
from skewless_http.http_message import HttpRequest, Reply, json_reply
from skewless_http.problems import problem_members, problem_of
from skewless_http.security.callers import Caller
from skewless_http.streamed_body import bounded

EDGE = "rest"


class OutcomesEdge:
    """POST /v1/outcomes."""

    name = EDGE
    refusal = staticmethod(problem_of)

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._streams = 0

    async def handle(self, request: HttpRequest, head: RequestHead) -> Reply:
        """Keep outcomes; see the module for what is kept of a body that is partly wrong."""
        head.caller.may_tell_outcomes()
        if (request.header(b"content-type") or b"").partition(b";")[0].strip().lower() == NDJSON:
            return json_reply(await self._streamed(request, head))
        check_json(request)
        reader = self._reader(head)
        told = told_outcomes(parse_json(await request.body()))
        outcomes: list[Outcome] = []
        for start in range(0, len(told), OUTCOME_CHUNK):
            outcomes += [reader.read(given, path) for path, given in told[start : start + OUTCOME_CHUNK]]
            await asyncio.sleep(0)  # other requests have their turn
        await self._keep(outcomes, head.caller)
        return json_reply({"accepted": len(outcomes)})

    async def _streamed(self, request: HttpRequest, head: RequestHead) -> dict[str, Any]:
        if request.header(b"content-encoding") not in (None, b"identity"):
            check_json(request)  # which says what a body may be encoded as
        if self._streams >= OUTCOME_STREAMS_MAX:
            raise Overloaded(
                "outcomes",
                f"{self._streams} bodies of outcomes are being taken, as many as one process takes",
                retry_after_s=RETRY_AFTER_S,
                hint="retry later, or send fewer bodies at once",
            )
        self._streams += 1
        try:
            return await self._take(request, head)
        finally:
            self._streams -= 1

    async def _take(self, request: HttpRequest, head: RequestHead) -> dict[str, Any]:
        """Read lines and keep them, a chunk at a time; nothing is read on while a chunk is being kept."""
        taken = TakenLines(head.request_id)
        try:
            await self._take_lines(request, head, taken)
        except SkewlessError as error:
            # Whatever ends it, the caller is told from where to go on.
            kept = f"{taken.accepted} outcomes before line {taken.next_line} are kept"
            error.hint = f"{error.hint}; {kept}" if error.hint else kept
            raise
        if not taken.lines:
            raise InvalidRequest("the body has no outcome", path="$", allowed="one JSON object on each line")
        return taken.told()

    async def _take_lines(self, request: HttpRequest, head: RequestHead, taken: "TakenLines") -> None:
        cutter, lines = LineCutter(), list[tuple[int, bytes | None]]()
        async for piece in bounded(request.stream()):
            for line in cutter.feed(piece):
                lines.append(line)
                if len(lines) == OUTCOME_CHUNK:
                    await self._keep_lines(lines, head, taken)
                    lines.clear()
        lines += cutter.finish()
        await self._keep_lines(lines, head, taken)

    async def _keep_lines(self, lines: list[tuple[int, bytes | None]], head: RequestHead, taken: "TakenLines") -> None:
        reader = self._reader(head)
        outcomes: list[Outcome] = []
        for number, line in lines:
            try:
                outcomes.append(reader.read(_parsed(line), "$"))
            except SkewlessError as error:
                taken.refuse(number, error)
        await self._keep(outcomes, head.caller)
        taken.accepted += len(outcomes)
        if lines:
            taken.next_line = lines[-1][0] + 1
        await asyncio.sleep(0)  # other requests have their turn, however fast lines come

    async def _keep(self, outcomes: list[Outcome], caller: Caller) -> None:
        """Return once they are as safe as the log promises. Raises Unavailable where the log cannot take them."""
        if not outcomes:
            return
        gateway = self._gateway
        gateway.guard.charge(caller, len(outcomes))
        gateway.log.append_outcomes(outcomes)
        await gateway.log.commit()
        gateway.metrics.outcomes.inc(len(outcomes))

    def _reader(self, head: RequestHead) -> OutcomeReader:
        entities = _Entities(self._gateway, head.caller)
        return OutcomeReader(
            entities.kept, caller=head.caller.id, received_time=self._gateway.now(), new_id=_new_outcome_id
        )


class TakenLines:
    """What became of the lines of one body."""

    def __init__(self, request_id: str) -> None:
        self._request_id = request_id
        self.accepted = 0
        self.next_line = 1
        """The first one that is neither kept nor refused yet."""
        self._refused = 0
        self._errors: list[dict[str, Any]] = []

    @property
    def lines(self) -> int:
        """Lines so far, refused ones included."""
        return self.accepted + self._refused

    def refuse(self, line: int, error: SkewlessError) -> None:
        """Count a line that was refused, and keep why where it is among the first."""
        self._refused += 1
        if len(self._errors) < OUTCOME_REFUSALS_TOLD_MAX:
            members = problem_members(error, request_id=self._request_id)
            told: dict[str, Any] = {
                name: members[name] for name in ("code", "detail", "path", "allowed", "hint") if name in members
            }
            self._errors.append({"line": line, **told})

    def told(self) -> dict[str, Any]:
        """The answer."""
        told: dict[str, Any] = {"accepted": self.accepted, "refused": self._refused}
        return {**told, "errors": self._errors} if self._errors else told


class _Entities:
    """The entities that one body names, checked against the contracts of their endpoints and the caller's scopes."""

    def __init__(self, gateway: Gateway, caller: Caller) -> None:
        self._gateway = gateway
        self._caller = caller
        self._forms: dict[str, EntityForm] = {}

    def kept(self, endpoint: str, given: object, path: str) -> str:
        """See `KeptEntity`."""
        form = self._forms.get(endpoint)
        if form is None:
            self._forms[endpoint] = form = self._form(endpoint)
        values = form.read(given, path)
        try:
            self._caller.check_entities(endpoint, form.columns(values), 1)
        except Forbidden as error:
            self._gateway.guard.forbidden(error)
            raise Forbidden(
                f"`{self._caller.id}` may not tell outcomes of `{endpoint[:100]}` about this entity",
                path=path,
                hint=error.hint,
            ) from error
        return form.kept(values, self._gateway.privacy)

    def _form(self, endpoint: str) -> EntityForm:
        self._caller.may_ask(endpoint)
        return EntityForm.of(self._gateway.follower.endpoint(endpoint).contract)


def _parsed(line: bytes | None) -> object:
    if line is None:
        raise LimitExceeded(
            f"the line has more than {OUTCOME_LINE_BYTES_MAX} bytes",
            path="$",
            allowed=f"at most {OUTCOME_LINE_BYTES_MAX} bytes",
        )
    return parse_json(line)


def _new_outcome_id() -> str:
    # Grows with every call within a process, also within a millisecond: of outcomes received together the last counts.
    return str(uuid_utils.uuid7())
