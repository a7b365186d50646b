"""Suites: what a view's batches must be like, expectation by expectation, and what follows where one is not met."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self

from skewless.canonical_json import Digest, digest
from skewless.monitor_limits import QUARANTINE_SHARE_MAX

AS_OF = "as_of"
"""The one key of a bound that moves with the moment a batch is judged for, such as `{as_of: +5m}`."""


class Severity(StrEnum):
    """How bad it is that an expectation is not met, in Great Expectations' words; for people, reports and alerts."""

    CRITICAL = "critical"
    WARNING = "warning"
    INFO = "info"


class OnFailure(StrEnum):
    """What happens to a batch that does not meet an expectation, mildest first."""

    PASS = "pass"  # noqa: S105  # no password
    """It is kept in the results and nothing else."""
    WARN = "warn"
    """The batch goes on, and whoever runs it is told."""
    QUARANTINE = "quarantine"
    """Rows that fail are set aside with the reason; the others go on."""
    STOP = "stop"
    """Nothing of the batch goes on."""


DEFAULT_ON_FAILURE: Mapping[Severity, OnFailure] = {
    Severity.CRITICAL: OnFailure.STOP,
    Severity.WARNING: OnFailure.WARN,
    Severity.INFO: OnFailure.PASS,
}
"""What follows where an expectation does not say."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """One condition, by Great Expectations' name and arguments. `line` is where a suite file has it, 0 where none."""

    type: str
    kwargs: Mapping[str, Any]
    severity: Severity = Severity.CRITICAL
    on_failure: OnFailure = OnFailure.STOP
    meta: Mapping[str, Any] = field(default_factory=dict)
    line: int = 0

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns it looks at, in order; none where it looks at the table as a whole."""
        named = [self.kwargs[each] for each in ("column", "column_A", "column_B") if each in self.kwargs]
        return (*named, *self.kwargs.get("column_list", ()))

    def to_json(self) -> dict[str, Any]:
        """Plain data, as a suite file has it."""
        return {
            "type": self.type,
            "kwargs": dict(self.kwargs),
            "severity": self.severity.value,
            "on_failure": self.on_failure.value,
            "meta": dict(self.meta),
        }


@dataclass(frozen=True, slots=True)
class Suite:
    """The expectations of one view. `reviewed` is the day (YYYY-MM-DD) somebody approved it, None for a draft."""

    name: str
    view: str
    expectations: tuple[Expectation, ...]
    owner: str = ""
    reviewed: str | None = None
    quarantine_share_max: float = QUARANTINE_SHARE_MAX
    """The largest share of a batch's rows that may be set aside; beyond it the batch itself is wrong, and stops."""

    @property
    def digest(self) -> Digest:
        """Of all that decides about a batch; who owns and reviewed the suite is not part of it."""
        return digest(
            {
                "view": self.view,
                "expectations": [each.to_json() for each in self.expectations],
                "quarantine_share_max": self.quarantine_share_max,
            }
        )

    def to_json(self) -> dict[str, Any]:
        """Plain data, as a suite file has it."""
        return {
            "name": self.name,
            "view": self.view,
            "meta": {"owner": self.owner, "reviewed": self.reviewed},
            "quarantine_share_max": self.quarantine_share_max,
            "expectations": [each.to_json() for each in self.expectations],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The suite that `to_json` gave; for what was checked before. Suite files are read by `loading.suite_of`."""
        return cls(
            name=data["name"],
            view=data["view"],
            expectations=tuple(
                Expectation(
                    each["type"],
                    each["kwargs"],
                    Severity(each["severity"]),
                    OnFailure(each["on_failure"]),
                    each["meta"],
                )
                for each in data["expectations"]
            ),
            owner=data["meta"]["owner"],
            reviewed=data["meta"]["reviewed"],
            quarantine_share_max=data["quarantine_share_max"],
        )
