"""From results to what happens with a batch: pass, warn, set rows aside, or stop."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from skewless.quality.results import ExpectationResult
from skewless.quality.suite import Expectation, OnFailure, Suite
from skewless.quality.view_schema import SchemaFault

DECLARED = "declared_column"
"""What every suite expects without saying so: the columns of the view's definition, of its types."""


class Decision(StrEnum):
    """What happens with a batch, mildest first."""

    PASS = "pass"  # noqa: S105  # no password
    WARN = "warn"
    QUARANTINE = "quarantine"
    STOP = "stop"

    @property
    def rank(self) -> int:
        """0 for the mildest."""
        return list(Decision).index(self)


@dataclass(frozen=True, slots=True)
class Finding:
    """One expectation with its result and what follows from it (PASS where it is met)."""

    expectation: Expectation
    result: ExpectationResult
    follows: OnFailure


@dataclass(frozen=True, slots=True, eq=False)
class Verdict:
    """What happens with a batch, and why.

    `set_aside` is (rows,), True for rows that go into quarantine; all False where the batch stops, because then nothing
    of it goes anywhere. `too_many` says that it stops only because too large a share of its rows would be set aside.
    """

    decision: Decision
    findings: tuple[Finding, ...]
    set_aside: NDArray[np.bool_]
    too_many: bool = False

    @property
    def failed(self) -> tuple[Finding, ...]:
        """Findings of expectations that are not met, worst first."""
        failed = [each for each in self.findings if not each.result.success]
        return tuple(sorted(failed, key=lambda each: -Decision(each.follows).rank))

    def reasons(self) -> list[tuple[int, ...]]:
        """For each row that is set aside, in order: positions of the expectations that it does not meet."""
        positions: dict[int, list[int]] = {row: [] for row in np.flatnonzero(self.set_aside).tolist()}
        for each in self.findings:
            rows = each.result.failing_rows
            if each.follows is OnFailure.QUARANTINE and rows is not None:
                for row in rows.tolist():
                    positions[row].append(each.result.position)
        return [tuple(each) for each in positions.values()]


def decide(suite: Suite, results: Sequence[ExpectationResult], rows: int) -> Verdict:
    """The verdict on a batch of so many rows; `results` are those of the suite's expectations.

    What could not be judged never passes: it stops a batch that it could have held back, and warns of others.
    """
    findings = tuple(_finding(suite.expectations[each.position], each) for each in results)
    set_aside = np.zeros(rows, dtype=np.bool_)
    for each in findings:
        if each.follows is OnFailure.QUARANTINE and each.result.failing_rows is not None:
            set_aside[each.result.failing_rows] = True
    worst = max((Decision(each.follows) for each in findings), key=lambda each: each.rank, default=Decision.PASS)
    too_many = worst is Decision.QUARANTINE and set_aside.sum() > suite.quarantine_share_max * rows
    if worst is Decision.STOP or too_many:
        return Verdict(Decision.STOP, findings, np.zeros(rows, dtype=np.bool_), too_many)
    return Verdict(worst, findings, set_aside)


def refused_schema(faults: Sequence[SchemaFault], rows: int) -> Verdict:
    """The verdict on a batch that lacks a column or has one of another type: it stops, and nothing else is judged."""
    findings = tuple(
        Finding(
            Expectation(
                DECLARED, {"column": each.column.name, "dtype": each.column.dtype.value}, meta={"hint": each.hint}
            ),
            ExpectationResult(position, success=False, rows=rows, error=each.message),
            OnFailure.STOP,
        )
        for position, each in enumerate(faults)
    )
    return Verdict(Decision.STOP, findings, np.zeros(rows, dtype=np.bool_))


def _finding(expectation: Expectation, result: ExpectationResult) -> Finding:
    if result.error:
        held_back = expectation.on_failure in (OnFailure.QUARANTINE, OnFailure.STOP)
        return Finding(expectation, replace(result, success=False), OnFailure.STOP if held_back else OnFailure.WARN)
    if result.success:
        return Finding(expectation, result, OnFailure.PASS)
    return Finding(expectation, result, expectation.on_failure)
