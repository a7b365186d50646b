"""Everything the ingestion service's handlers need, in one place; made by the composition root."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

from skewless.adapters.ingest_intake import Intake
from skewless.adapters.ingest_room import IngestRoom
from skewless.adapters.ingest_views import IngestViews
from skewless.errors import SkewlessError
from skewless.ingestion.batches import BatchKind, LaneState, StoredState
from skewless_http.security.guard import Guard
from skewless_ingest.fullness import Fullness
from skewless_ingest.metrics import IngestMetrics


class OutboxPages(Protocol):
    """What of the outbox is told to callers; `ingest_outbox.Outbox` is one."""

    def batch(self, batch_id: str) -> StoredState | None:
        """Where a batch stands."""
        ...

    def lane(self, kind: BatchKind, name: str) -> LaneState:
        """What waits of a view or stream."""
        ...


@dataclass(frozen=True, slots=True)
class IngestService:
    """One process's parts."""

    intake: Intake
    views: IngestViews
    outbox: OutboxPages
    room: IngestRoom
    fullness: Fullness
    guard: Guard
    metrics: IngestMetrics
    decoders: ThreadPoolExecutor
    draining: Callable[[], bool] = lambda: False
    delivery_problem: Callable[[], str] = str
    """What keeps rows from being delivered; empty where nothing does."""
    stream_problem: Callable[[], str] | None = None
    """What keeps records of the feature stream from being taken; empty where nothing does, None without a stream."""
    public_metrics: bool = False

    def parts(self) -> dict[str, dict[str, Any]]:
        """State of every part by name. Rows can be taken when all are ok; from any thread."""
        guard_ok, guard_detail = self.guard.state()
        full = self.fullness.problem
        told = {
            "definitions": self._definitions(),
            "outbox": (not full, full),
            "callers": (guard_ok, guard_detail),
            # Rows are safe in the outbox meanwhile, so this alone keeps nobody from bringing more.
            "delivery": (True, self.delivery_problem()),
            # Records wait in the stream meanwhile.
            **({} if self.stream_problem is None else {"stream": (True, self.stream_problem())}),
            "lifecycle": (not self.draining(), "this service is draining" if self.draining() else ""),
        }
        return {name: {"ok": ok, "detail": detail} for name, (ok, detail) in told.items()}

    def _definitions(self) -> tuple[bool, str]:
        try:
            refused: Mapping[str, SkewlessError] = self.views.catalogue.refused
        except SkewlessError as error:
            return False, error.message
        wrong = [each for each in (self.views.error, self.fullness.look_problem) if each]
        wrong += [f"`{name}` takes no rows: {self.views.told(error)}" for name, error in sorted(refused.items())]
        return True, "; ".join(wrong)
