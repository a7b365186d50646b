"""Whether a bundle may go live: gates declared with the model, checked against facts, told in words.

Gates and the held-out evaluation travel in the bundle's provenance; latency is of a machine and a moment, and is
measured when the gates are checked. A gate that cannot be decided does not pass: what is missing is told.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any, ClassVar

from skewless.errors import InvalidDefinition
from skewless.training.facts import EvaluationFacts, Metrics
from skewless.training.slices import OTHER

HIGHER_IS_BETTER: Mapping[str, bool] = {
    "auroc": True,
    "average_precision": True,
    "brier": False,
    "log_loss": False,
    "ece": False,
}
"""The metrics that gates know, and which way is better."""


class Outcome(StrEnum):
    """What a gate found."""

    PASSED = "passed"
    FAILED = "failed"
    UNDECIDED = "undecided"
    """Something that it needs is not known; it does not pass."""


@dataclass(frozen=True, slots=True)
class GateLine:
    """One gate's finding, in words."""

    gate: str
    outcome: Outcome
    text: str


@dataclass(frozen=True, slots=True)
class GateReport:
    """Every gate's finding; `passed` when all of them passed."""

    lines: tuple[GateLine, ...]

    @property
    def passed(self) -> bool:
        """Whether the bundle may go live. True where no gate is declared."""
        return all(line.outcome is Outcome.PASSED for line in self.lines)

    def text(self) -> str:
        """Lines for a terminal."""
        if not self.lines:
            return "no gate is declared"
        width = max(len(line.outcome.value) for line in self.lines)
        return "\n".join(f"{line.outcome.value:>{width}}  {line.gate}: {line.text}" for line in self.lines)

    def to_json(self) -> dict[str, Any]:
        """Plain data, for the audit trail."""
        return {
            "passed": self.passed,
            "lines": [{"gate": line.gate, "outcome": line.outcome.value, "text": line.text} for line in self.lines],
        }


@dataclass(frozen=True, slots=True)
class MetricGate:
    """The metric on the hold-out is `at_least`, or `at_most`, a number."""

    kind: ClassVar[str] = "metric"
    metric: str
    at_least: float | None = None
    at_most: float | None = None

    def __post_init__(self) -> None:
        _require_metric(self.metric)
        if (self.at_least is None) == (self.at_most is None):
            raise InvalidDefinition(f"the gate of `{self.metric}` needs one bound: at_least or at_most")

    def lines(self, candidate: EvaluationFacts, live: EvaluationFacts | None) -> Iterator[GateLine]:  # noqa: ARG002  # a gate's signature
        """One finding."""
        bound = f"≥ {self.at_least:g}" if self.at_least is not None else f"≤ {self.at_most:g}"
        title, value = f"{self.metric} {bound}", candidate.metrics.get(self.metric)
        if value is None:
            yield _unknown(title, f"the hold-out gives no {self.metric}")
            return
        low_enough = self.at_most is None or value <= self.at_most
        high_enough = self.at_least is None or value >= self.at_least
        yield _decided(title, low_enough and high_enough, f"it is {value:.4f}")


@dataclass(frozen=True, slots=True)
class AgainstLive:
    """The metric is no worse than the live bundle's on the same rows, less a tolerance."""

    kind: ClassVar[str] = "against_live"
    metric: str
    tolerance: float = 0.0

    def __post_init__(self) -> None:
        _require_metric(self.metric)
        _require_not_negative("tolerance", self.tolerance)

    def lines(self, candidate: EvaluationFacts, live: EvaluationFacts | None) -> Iterator[GateLine]:
        """One finding; passed where nothing is live."""
        sign = "-" if HIGHER_IS_BETTER[self.metric] else "+"
        order = "≥" if HIGHER_IS_BETTER[self.metric] else "≤"
        title = f"{self.metric} {order} live {sign} {self.tolerance:g}"
        if live is None:
            yield _decided(title, True, "nothing is live yet")
            return
        same = live.on(candidate.dataset)
        if same is None:
            yield _unknown(title, _NOT_THE_SAME_ROWS)
            return
        value, before = candidate.metrics.get(self.metric), same.metrics.get(self.metric)
        if value is None or before is None:
            yield _unknown(title, f"the hold-out gives no {self.metric}")
            return
        worse = worsening(self.metric, before, value)
        yield _decided(title, worse <= self.tolerance, f"live {before:.4f}, candidate {value:.4f}")


@dataclass(frozen=True, slots=True)
class SliceGate:
    """In no part of a slice is the metric worse than the live bundle's there by more than `no_worse_than`.

    Parts with fewer than `rows_min` rows, and the rest of the rare values, do not decide: their metrics are noise.
    """

    kind: ClassVar[str] = "slice"
    slice: str
    metric: str
    no_worse_than: float
    rows_min: int = 500

    def __post_init__(self) -> None:
        _require_metric(self.metric)
        _require_not_negative("no_worse_than", self.no_worse_than)
        _require_not_negative("rows_min", self.rows_min)

    def lines(self, candidate: EvaluationFacts, live: EvaluationFacts | None) -> Iterator[GateLine]:
        """One finding, which names the parts that are worse; passed where nothing is live."""
        title = f"{self.metric} of no {self.slice} worse than live by {self.no_worse_than:g}"
        if self.slice not in candidate.slices:
            yield _unknown(title, f"the hold-out was not cut by `{self.slice}`")
        elif live is None:
            yield _decided(title, True, "nothing is live yet")
        elif (same := live.on(candidate.dataset)) is None:
            yield _unknown(title, _NOT_THE_SAME_ROWS)
        elif self.slice not in same.slices:
            yield _unknown(title, f"the live bundle's evaluation was not cut by `{self.slice}`")
        else:
            yield self._compared(title, candidate.slices[self.slice], same.slices[self.slice])

    def _compared(self, title: str, candidate: Mapping[str, Metrics], live: Mapping[str, Metrics]) -> GateLine:
        looked_at = 0
        worst: list[tuple[float, str]] = []
        for part, metrics in candidate.items():
            value, before = metrics.get(self.metric), live.get(part, {}).get(self.metric)
            if part == OTHER or value is None or before is None or (metrics.get("rows") or 0) < self.rows_min:
                continue
            looked_at += 1
            if (worse := worsening(self.metric, before, value)) > self.no_worse_than:
                worst.append((worse, f"`{part}` went from {before:.4f} to {value:.4f}"))
        if not looked_at:
            return _unknown(title, f"no part of `{self.slice}` has {self.rows_min:,} held-out rows")
        told = "; ".join(text for _, text in sorted(worst, reverse=True))
        return _decided(title, not worst, told or f"{looked_at} parts of {self.rows_min:,} rows or more compared")


@dataclass(frozen=True, slots=True)
class CalibrationGate:
    """The expected calibration error of the served probabilities is at most `ece`."""

    kind: ClassVar[str] = "calibration"
    ece: float

    def __post_init__(self) -> None:
        _require_not_negative("ece", self.ece)

    def lines(self, candidate: EvaluationFacts, live: EvaluationFacts | None) -> Iterator[GateLine]:
        """One finding."""
        return MetricGate("ece", at_most=self.ece).lines(candidate, live)


@dataclass(frozen=True, slots=True)
class LatencyGate:
    """A call of the optimised model with `rows` rows takes at most `p99_ms` at its 99th percentile.

    `ratio_to_live`: and at most so many times the live model's, measured in the same run; None asks for no ratio.
    """

    kind: ClassVar[str] = "latency"
    p99_ms: float
    rows: int = 64
    ratio_to_live: float | None = None

    def __post_init__(self) -> None:
        if not (self.p99_ms > 0.0 and self.rows > 0 and (self.ratio_to_live is None or self.ratio_to_live > 0.0)):
            raise InvalidDefinition(f"a latency gate needs bounds and rows above 0, got {self}")

    def lines(self, candidate: EvaluationFacts, live: EvaluationFacts | None) -> Iterator[GateLine]:
        """One finding, and one for the ratio where one is asked for and something is live."""
        title, found = f"p99 of {self.rows} rows ≤ {self.p99_ms:g} ms", candidate.latency(self.rows)
        if found is None:
            yield _unknown(title, f"the latency of {self.rows} rows was not measured")
            return
        yield _decided(title, found.p99_ms <= self.p99_ms, f"{found.p99_ms:.3f} ms over {found.calls:,} calls")
        if self.ratio_to_live is None or live is None:
            return
        title, before = f"p99 of {self.rows} rows ≤ {self.ratio_to_live:g} times live", live.latency(self.rows)
        if before is None:
            yield _unknown(title, "the live model's latency was not measured in the same run")
            return
        slow = found.p99_ms > self.ratio_to_live * before.p99_ms
        yield _decided(title, not slow, f"live {before.p99_ms:.3f} ms, candidate {found.p99_ms:.3f} ms")


Gate = MetricGate | AgainstLive | SliceGate | CalibrationGate | LatencyGate
_KINDS: Mapping[str, type[Gate]] = {
    each.kind: each for each in (MetricGate, AgainstLive, SliceGate, CalibrationGate, LatencyGate)
}
_NOT_THE_SAME_ROWS = (
    "the live bundle was not evaluated on the candidate's hold-out; `skewless bundle evaluate` does that"
)


def check_gates(gates: Iterable[Gate], candidate: EvaluationFacts, live: EvaluationFacts | None) -> GateReport:
    """What every gate finds about a candidate, beside the live bundle, None where nothing is live."""
    return GateReport(tuple(line for gate in gates for line in gate.lines(candidate, live)))


def worsening(metric: str, before: float, after: float) -> float:
    """By how much a metric got worse; below 0 where it got better.

    >>> worsening("auroc", 0.75, 0.5), worsening("ece", 0.25, 0.5)
    (0.25, 0.25)
    """
    return before - after if HIGHER_IS_BETTER[metric] else after - before


def gate_json(gate: Gate) -> dict[str, Any]:
    """Plain data of a gate."""
    return {"kind": gate.kind, **asdict(gate)}


def gate_from_json(data: Mapping[str, Any]) -> Gate:
    """The inverse of `gate_json`. Raises InvalidDefinition for anything else."""
    try:
        kind = _KINDS[data["kind"]]
        return kind(**{each.name: data[each.name] for each in fields(kind) if each.name in data})
    except (KeyError, TypeError) as error:
        raise InvalidDefinition(f"{dict(data)!r} is no gate: {error!r}; kinds: {', '.join(_KINDS)}") from error


def gates_of(provenance: Mapping[str, Any]) -> tuple[Gate, ...]:
    """The gates declared with a bundle's model, from its provenance; none where it was made without."""
    return tuple(gate_from_json(each) for each in provenance.get("gates", ()))


def _require_metric(metric: str) -> None:
    if metric not in HIGHER_IS_BETTER:
        raise InvalidDefinition(f"`{metric}` is no metric of a gate; allowed: {', '.join(HIGHER_IS_BETTER)}")


def _require_not_negative(name: str, value: float) -> None:
    if not value >= 0:
        raise InvalidDefinition(f"{name} of a gate is {value}; allowed: 0 or more")


def _decided(gate: str, passed: bool, text: str) -> GateLine:
    return GateLine(gate, Outcome.PASSED if passed else Outcome.FAILED, text)


def _unknown(gate: str, text: str) -> GateLine:
    return GateLine(gate, Outcome.UNDECIDED, text)
