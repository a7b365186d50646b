"""The routes that bring rows: POST /v1/features/{name} and POST /v1/events/{name}.

    head ──may this caller, is there room──▶ body ──decoded──▶ joined with others ──kept──▶ 202

A request is answered when its rows are in the outbox for good. One that is cut off before may be kept or not: repeated
with the same Idempotency-Key it is kept once, and answered as it would have been.
"""

import asyncio
from collections.abc import Mapping

from skewless.adapters.ingest_requests import Decoded, IntakeRequest, TakenRows
from skewless.adapters.ingest_room import Place
from skewless.adapters.ingest_rows import Form
from skewless.errors import Forbidden, InvalidRequest, Unavailable
from skewless.ingest_limits import (
    INGEST_BODY_BYTES_MAX,
    INGEST_BODY_S,
    INGEST_INLINE_BYTES,
    INGEST_JSON_BYTES_MAX,
    INGEST_KEY_BYTES_MAX,
    INGEST_TAKE_S,
)
from skewless.ingestion.batches import BatchKind
from skewless_http.http_message import HttpRequest, Reply, json_reply
from skewless_http.problems import UNSUPPORTED_MEDIA_TYPE
from skewless_http.security.callers import Brought, Caller
from skewless_ingest.front_door import Asked
from skewless_ingest.service import IngestService

FORMS: Mapping[str, Form] = {
    "application/json": Form.JSON,
    "application/x-ndjson": Form.NDJSON,
    "application/vnd.apache.arrow.stream": Form.ARROW,
}
_CHARSETS = ("", "charset=utf-8", "charset=utf8", 'charset="utf-8"')
IDEMPOTENCY_KEY = b"idempotency-key"
ACCEPTED = 202


class TakeEdge:
    """One of both routes."""

    def __init__(self, service: IngestService, kind: BatchKind) -> None:
        self._service = service
        self._kind = kind

    async def handle(self, asked: Asked) -> Reply:
        """The answer once the rows are kept. Raises SkewlessError."""
        service, request = self._service, asked.request
        name = request.parameters["name"]
        brought = self._allowed(asked, name)
        form, key = _form(request), _key(request)
        service.intake.target(self._kind, name)
        service.fullness.refuse_if_full()
        bytes_max = INGEST_JSON_BYTES_MAX if form is Form.JSON else INGEST_BODY_BYTES_MAX
        with service.room.taken(asked.caller.id, _announced(request, bytes_max)) as place:
            body = await request.body(bytes_max, timeout_s=INGEST_BODY_S)
            intake = IntakeRequest(
                self._kind,
                name,
                asked.caller.id,
                key,
                body,
                form,
                may_give_created_time=brought.created_time,
                check_keys=brought.check if brought.is_limited else None,
            )
            taken = await self._taken(await self._decoded(intake, asked.caller, place), place)
        return json_reply(taken.to_json(), status=ACCEPTED)

    def _allowed(self, asked: Asked, name: str) -> Brought:
        """What the caller may bring. Raises Forbidden, also for names that do not exist."""
        try:
            caller = asked.caller
            return caller.may_bring_features(name) if self._kind is BatchKind.ROWS else caller.may_bring_events(name)
        except Forbidden as error:
            self._service.guard.forbidden(error)
            raise

    async def _decoded(self, request: IntakeRequest, caller: Caller, place: Place) -> Decoded:
        """The rows, paid for by their caller. Larger bodies take a decoder's thread."""
        service = self._service
        try:
            if len(request.body) > INGEST_INLINE_BYTES:
                return await self._decoded_beside(request, caller, place)
            decoded = service.intake.decode(request)
        except Forbidden as error:
            service.guard.forbidden(error)
            raise
        service.guard.charge(caller, decoded.rows)
        return decoded

    async def _decoded_beside(self, request: IntakeRequest, caller: Caller, place: Place) -> Decoded:
        """Decoding that has begun goes on to its end and is paid for, also where its caller has gone meanwhile."""

        def pay(done: "asyncio.Future[Decoded]") -> None:
            if not done.cancelled() and done.exception() is None:
                self._service.guard.charge(caller, done.result().rows)

        work = self._service.decoders.submit(self._service.intake.decode, request)
        place.stay_until(work)
        decoding = asyncio.wrap_future(work)
        decoding.add_done_callback(pay)
        try:
            return await asyncio.shield(decoding)
        except asyncio.CancelledError:
            work.cancel()  # only what has not begun
            raise

    async def _taken(self, decoded: Decoded, place: Place) -> TakenRows:
        answer = self._service.intake.join(decoded)
        place.stay_until(answer)
        try:
            async with asyncio.timeout(INGEST_TAKE_S):
                return await asyncio.wrap_future(answer)
        except TimeoutError as error:
            raise Unavailable(
                "ingestion",
                f"the rows were not kept within {INGEST_TAKE_S:g} s, and may be kept yet",
                hint="repeat the request with the same Idempotency-Key: then its rows are kept once",
            ) from error


def _form(request: HttpRequest) -> Form:
    """How the body is written. Raises InvalidRequest before it is read."""
    given = (request.header(b"content-type") or b"").decode("latin-1")
    media_type, _, parameters = given.partition(";")
    form = FORMS.get(media_type.strip().lower())
    encoding = (request.header(b"content-encoding") or b"identity").decode("latin-1")
    if form is None or parameters.strip().lower() not in _CHARSETS or encoding != "identity":
        seen = f"content encoding `{encoding[:100]}`" if encoding != "identity" else f"content type `{given[:100]}`"
        raise InvalidRequest(
            f"the body has {seen if given else 'no content type'}",
            path="$",
            allowed=f"{', '.join(FORMS)}; in UTF-8, not compressed",
            hint="send the header Content-Type",
            code=UNSUPPORTED_MEDIA_TYPE,
        )
    return form


def _key(request: HttpRequest) -> str:
    """The request's Idempotency-Key, empty where it has none. Raises InvalidRequest."""
    given = request.header(IDEMPOTENCY_KEY)
    if given is None:
        return ""
    text = given.decode("latin-1").strip()
    if not 1 <= len(text) <= INGEST_KEY_BYTES_MAX or not text.isascii() or not text.isprintable():
        raise InvalidRequest(
            f"the Idempotency-Key has {len(given)} bytes, or bytes that are no printable ASCII",
            path="Idempotency-Key",
            allowed=f"1 to {INGEST_KEY_BYTES_MAX} printable ASCII characters",
            hint="a UUID is a good key: one for each request, and the same one when it is repeated",
            code="invalid_idempotency_key",
        )
    return text


def _announced(request: HttpRequest, bytes_max: int) -> int:
    """Bytes to make room for: as announced, else as many as the body may have."""
    announced = request.header(b"content-length") or b""
    return min(int(announced), bytes_max) if announced.isdigit() and len(announced) < 20 else bytes_max
