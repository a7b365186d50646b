"""The routes that tell: what rows must be like, what waits, where a batch stands, and whether this process is well."""

import asyncio
from collections.abc import Mapping
from typing import Any

from prometheus_client import generate_latest

from skewless.adapters.ingest_views import IngestStream, IngestView
from skewless.errors import Forbidden, NotFound
from skewless.ingestion.batches import BatchKind, LaneState, StoredState
from skewless.timestamps import format_timestamp
from skewless_http.http_message import Reply, json_reply
from skewless_http.problems import problem
from skewless_ingest.edges import FORMS
from skewless_ingest.front_door import Asked
from skewless_ingest.service import IngestService

TEXT = b"text/plain; version=0.0.4; charset=utf-8"


class Pages:
    """Each method answers one route."""

    def __init__(self, service: IngestService) -> None:
        self._service = service

    async def list_features(self, asked: Asked) -> Reply:
        """Feature views that the caller may bring rows for, and those that take none with the reason."""
        return json_reply({"views": self._listed(asked, BatchKind.ROWS)})

    async def list_events(self, asked: Asked) -> Reply:
        """Streams that the caller may bring events for."""
        return json_reply({"streams": self._listed(asked, BatchKind.EVENTS)})

    def _listed(self, asked: Asked, kind: BatchKind) -> list[dict[str, Any]]:
        known = self._service.views.catalogue
        names = known.views if kind is BatchKind.ROWS else known.streams
        listed: list[dict[str, Any]] = [{"name": name} for name in sorted(names) if _may(asked, kind, name)]
        # A name that takes nothing may be of either kind; it is told where the caller may bring it.
        refused = known.refused_of(kind)
        listed += [
            {"name": name, "takes_no_rows": self._service.views.told(error)}
            for name, error in sorted(refused.items())
            if _may(asked, kind, name)
        ]
        return listed

    async def show_features(self, asked: Asked) -> Reply:
        """What rows of a view must be like, what becomes of odd ones, and what waits."""
        name = asked.request.parameters["name"]
        asked.caller.may_bring_features(name)
        view = self._service.views.view(name)
        lane = await asyncio.to_thread(self._service.outbox.lane, BatchKind.ROWS, name)
        return json_reply(
            {
                "view": name,
                "description": view.metadata.description,
                "owner": view.metadata.owner,
                "row_schema": view.rows.json_schema(),
                "media_types": list(FORMS),
                "policies": {"late": str(view.times.late), "future": str(view.times.future), **_gate(view)},
                "waiting": _waiting(lane),
            }
        )

    async def show_events(self, asked: Asked) -> Reply:
        """What events of a stream must be like, and what waits."""
        name = asked.request.parameters["name"]
        asked.caller.may_bring_events(name)
        stream: IngestStream = self._service.views.stream(name)
        lane = await asyncio.to_thread(self._service.outbox.lane, BatchKind.EVENTS, name)
        return json_reply(
            {
                "stream": name,
                "view": stream.declaration.view,
                "description": stream.declaration.description,
                "owner": stream.declaration.owner,
                "row_schema": stream.rows.json_schema(),
                "media_types": list(FORMS),
                "policies": {"future": str(stream.times.future)},
                "waiting": _waiting(lane),
            }
        )

    async def show_batch(self, asked: Asked) -> Reply:
        """Where a batch of accepted rows stands, for who may bring rows of its view or stream."""
        batch_id = asked.request.parameters["id"]
        stored = await asyncio.to_thread(self._service.outbox.batch, batch_id[:100])
        # Whoever may not bring its rows learns nothing of it, not even that there is one.
        if stored is None or not _may(asked, stored.kind, stored.name):
            raise NotFound("batch", batch_id[:100], hint="batches are told for a week after they were delivered")
        return json_reply(_batch(stored))

    async def health(self, _asked: Asked) -> Reply:
        """200 as long as the process answers; says nothing about the parts it needs."""
        return json_reply({"status": "ok"})

    async def ready(self, asked: Asked) -> Reply:
        """200 when rows can be taken, else 503 with which parts are missing, without why."""
        # Who asks here has shown no credential; the admin listener and the log tell the reasons.
        parts = {name: {"ok": part["ok"]} for name, part in self._service.parts().items()}
        missing = [name for name, part in parts.items() if not part["ok"]]
        if not missing:
            return json_reply({"ready": True, "parts": parts})
        return problem(
            503,
            "not_ready",
            f"rows cannot be taken because of: {', '.join(missing)}",
            request_id=asked.request_id,
            headers=((b"retry-after", b"1"),),
            hint="`skewless doctor` says what to do about each part",
            parts=parts,
        )

    async def metrics(self, _asked: Asked) -> Reply:
        """Prometheus metrics, where the settings have them told here too."""
        if not self._service.public_metrics:
            raise NotFound("route", "GET /metrics", hint="SKEWLESS_INGEST_ADMIN_PORT says which port has it")
        return Reply(200, TEXT, generate_latest(self._service.metrics.registry))


def _may(asked: Asked, kind: BatchKind, name: str) -> bool:
    try:
        if kind is BatchKind.ROWS:
            asked.caller.may_bring_features(name)
        else:
            asked.caller.may_bring_events(name)
    except Forbidden:
        return False
    return True


def _gate(view: IngestView) -> Mapping[str, Any]:
    if view.suite is None:
        return {"suite": None}
    return {"suite": view.suite.name, "expectations": len(view.suite.expectations)}


def _waiting(lane: LaneState) -> dict[str, Any]:
    return {
        "batches": lane.waiting_batches,
        "rows": lane.waiting_rows,
        "bytes": lane.waiting_bytes,
        "failed_batches": lane.failed_batches,
        "oldest_accepted_time": _moment(lane.oldest_accepted_time),
        "newest_event_time": _moment(lane.newest_event_time),
    }


def _batch(stored: StoredState) -> dict[str, Any]:
    return {
        "batch_id": stored.id,
        "view" if stored.kind is BatchKind.ROWS else "stream": stored.name,
        "state": stored.state.value,
        "rows": stored.rows,
        "accepted_time": _moment(stored.accepted_time),
        "online_time": _moment(stored.online_time),
        "offline_time": _moment(stored.offline_time),
        "error": stored.error,
    }


def _moment(moment: int | None) -> str | None:
    return None if moment is None else format_timestamp(moment)
