"""Counts what the roles of split and mirrored traffic do, to be written down every few seconds.

A gateway writes a tally per role into its prediction log, so that whoever decides about a canary or reads a shadow's
comparison reads one place, and a gateway that is killed loses seconds of counts and nothing else.
"""

import numpy as np
from numpy.typing import NDArray

from skewless.canonical_json import Digest
from skewless.rollout.role_counts import LATENCY_BINS, RoleCounts, latency_bin
from skewless.rollout.routes import Role
from skewless.rollout.shadow_comparison import ShadowComparison
from skewless.serving.records import AnsweredBatch
from skewless.serving.role_tally import RoleTally
from skewless.timestamps import Micros


class _Open:
    """The tally of one role while it is counted."""

    __slots__ = ("comparison", "dropped_rows", "errors", "latency", "requests", "rows")

    def __init__(self) -> None:
        self.requests = 0
        self.errors = 0
        self.rows = 0
        self.dropped_rows = 0
        self.latency = [0] * LATENCY_BINS
        self.comparison: ShadowComparison | None = None

    def counts(self) -> RoleCounts:
        return RoleCounts(requests=self.requests, errors=self.errors, latency=tuple(self.latency))


class Tallies:
    """Counts until it is asked. Belongs to one event loop."""

    def __init__(self, started: Micros) -> None:
        self._start = started
        self._open: dict[tuple[str, Role, str, Digest, Digest | None], _Open] = {}

    def answered(self, batch: AnsweredBatch, *, took_ms: float) -> None:
        """Count a role's answer, which took so long from the request's arrival."""
        entry = self._of(batch.endpoint, Role(batch.role), batch.arm, batch.bundle)
        entry.requests += 1
        entry.rows += batch.rows
        entry.latency[latency_bin(took_ms)] += 1

    def failed(
        self, endpoint: str, role: Role, arm: str, bundle: Digest, *, rows: int, beside: Digest | None = None
    ) -> None:
        """Count a request that a role could not answer; of a shadow also the rows that cannot be compared."""
        entry = self._of(endpoint, role, arm, bundle, beside)
        entry.requests += 1
        entry.errors += 1
        if beside is not None:
            entry.comparison = (entry.comparison or ShadowComparison()).merged(ShadowComparison(failed=rows))

    def mirrored(self, shadow: AnsweredBatch, live: AnsweredBatch, rows: NDArray[np.intp]) -> None:
        """Count what a shadow scored of live's `rows`, and how the two differ."""
        entry = self._of(shadow.endpoint, Role.SHADOW, "", shadow.bundle, live.bundle)
        entry.requests += 1
        entry.rows += shadow.rows
        entry.latency[latency_bin(sum(shadow.stage_ms.values()))] += 1
        compared = entry.comparison or ShadowComparison()
        entry.comparison = compared.added(live.probabilities[rows], shadow.probabilities, flips(shadow, live, rows))

    def dropped(self, endpoint: str, bundle: Digest, *, rows: int) -> None:
        """Count rows that were not mirrored."""
        self._of(endpoint, Role.SHADOW, "", bundle).dropped_rows += rows

    def take(self, moment: Micros) -> tuple[RoleTally, ...]:
        """What was counted since the last time, up to `moment`."""
        start, self._start = self._start, moment
        taken, self._open = self._open, {}
        return tuple(
            RoleTally(
                *role,
                start=start,
                end=moment,
                counts=entry.counts(),
                rows=entry.rows,
                dropped_rows=entry.dropped_rows,
                comparison=entry.comparison,
            )
            for role, entry in taken.items()
        )

    def _of(self, endpoint: str, role: Role, arm: str, bundle: Digest, live: Digest | None = None) -> _Open:
        return self._open.setdefault((endpoint, role, arm, bundle, live), _Open())


def flips(shadow: AnsweredBatch, live: AnsweredBatch, rows: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Which labels of a shadow differ from those that live gave for the same `rows`, (rows,)."""
    told = [live.labels[row] for row in rows.tolist()]
    return np.array([one != other for one, other in zip(shadow.labels, told, strict=True)], np.bool_)
