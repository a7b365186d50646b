"""What one role of split or mirrored traffic did in a few seconds, in counts that add up over gateways and time."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from skewless.canonical_json import Digest
from skewless.rollout.role_counts import RoleCounts
from skewless.rollout.routes import Role
from skewless.rollout.shadow_comparison import ShadowComparison
from skewless.timestamps import Micros


@dataclass(frozen=True, slots=True)
class RoleTally:
    """One role of an endpoint in one gateway from `start` to `end` (µs); outcomes are not known to gateways.

    `comparison` is a shadow's with the scores of `live`; None for other roles, whose `live` is None.
    """

    endpoint: str
    role: Role
    arm: str
    bundle: Digest
    live: Digest | None
    start: Micros
    end: Micros
    counts: RoleCounts
    rows: int = 0
    dropped_rows: int = 0
    comparison: ShadowComparison | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "endpoint": self.endpoint,
            "role": self.role.value,
            "arm": self.arm,
            "bundle": self.bundle,
            "live": self.live,
            "start": self.start,
            "end": self.end,
            "counts": self.counts.to_json(),
            "rows": self.rows,
            "dropped_rows": self.dropped_rows,
            "comparison": None if self.comparison is None else self.comparison.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "RoleTally":
        """The inverse of `to_json`. Raises KeyError, TypeError, ValueError or InvalidDefinition for anything else."""
        comparison = data["comparison"]
        return cls(
            endpoint=data["endpoint"],
            role=Role(data["role"]),
            arm=data["arm"],
            bundle=Digest(data["bundle"]),
            live=None if data["live"] is None else Digest(data["live"]),
            start=Micros(data["start"]),
            end=Micros(data["end"]),
            counts=RoleCounts.from_json(data["counts"]),
            rows=data["rows"],
            dropped_rows=data["dropped_rows"],
            comparison=None if comparison is None else ShadowComparison.from_json(comparison),
        )
