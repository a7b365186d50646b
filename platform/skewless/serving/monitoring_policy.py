"""What an endpoint's owner agrees with the monitor: one document per endpoint, defaults where nothing is said.

    drift:   {window: 5m, lateness: 10m, slices: [origin], promise_days: 30, excluded_days: ["2026-12-25"]}
    metrics: {positive: late, slices: [origin], period: 1d, ranking_k: 10, counters: {ctr: [click]}}
    parity:  {entity_share: 0.01, uniform_share: 0.001, horizon: 24h, quiet: 15m}

Durations are a whole number and `s`, `m`, `h` or `d`. The document is kept in the registry and carried to gateways in
the endpoint's route, of which they read the parity sample.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from skewless.drift.window_length import check_window
from skewless.errors import InvalidDefinition
from skewless.monitor_limits import (
    MONITORING_COUNTERS_MAX,
    MONITORING_DURATION_S_MAX,
    MONITORING_EXCLUDED_DAYS_MAX,
    MONITORING_LABELS_MAX,
    MONITORING_SLICES_MAX,
    MONITORING_TEXT_MAX,
)
from skewless.timestamps import DAY_US, HOUR_US, MINUTE_US, SECOND_US

_UNITS = {"d": DAY_US, "h": HOUR_US, "m": MINUTE_US, "s": SECOND_US}
_LONGEST_US = int(MONITORING_DURATION_S_MAX * SECOND_US)
_COUNTER_NAME = "[a-z][a-z0-9_]{0,30}"
RANKING_K_MAX = 1_000

Read = Callable[[object, str], Any]


@dataclass(frozen=True, slots=True)
class DriftPolicy:
    """How traffic is watched. Raises InvalidDefinition for what cannot be.

    `window_us` is how long a window of event time is, `lateness_us` how long rows of it are waited for. `slices` names
    columns of the contract, join keys or request fields, each of whose values is watched by itself too. One false alarm
    in `promise_days` is promised. `excluded_days` (UTC, `YYYY-MM-DD`) are neither history nor scored: holidays.
    """

    window_us: int = 5 * MINUTE_US
    lateness_us: int = 10 * MINUTE_US
    slices: tuple[str, ...] = ()
    promise_days: float = 30.0
    excluded_days: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_window(self.window_us)
        _check_duration("drift.lateness", self.lateness_us, least=0)
        _check_names("drift.slices", self.slices, MONITORING_SLICES_MAX)
        _check_between("drift.promise_days", self.promise_days, 1.0, 365.0)
        _check_days(self.excluded_days)

    def to_json(self) -> dict[str, Any]:
        """The document's form."""
        return {
            "window": duration_text(self.window_us),
            "lateness": duration_text(self.lateness_us),
            "slices": list(self.slices),
            "promise_days": self.promise_days,
            "excluded_days": list(self.excluded_days),
        }

    @classmethod
    def from_json(cls, data: object, path: str = "$") -> "DriftPolicy":
        """The inverse of `to_json`; fields may be left out. Raises InvalidDefinition with the path."""
        forms = {
            "window": ("window_us", _duration),
            "lateness": ("lateness_us", _duration),
            "slices": ("slices", _texts),
            "promise_days": ("promise_days", _number),
            "excluded_days": ("excluded_days", _days),
        }
        return cls(**_read(data, path, forms))


@dataclass(frozen=True, slots=True)
class MetricsPolicy:
    """How models are judged by outcomes. Raises InvalidDefinition for what cannot be.

    `positive` is the label of the positive class, None where the bundle says it. With `ranking_k` the rows of one
    request are one ranking, judged by its first k. `counters` has, by name, the labels that count as success.
    """

    positive: str | None = None
    slices: tuple[str, ...] = ()
    period_us: int = DAY_US
    ranking_k: int | None = None
    counters: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if self.positive is not None:
            _check_text("metrics.positive", self.positive)
        _check_names("metrics.slices", self.slices, MONITORING_SLICES_MAX)
        if self.period_us < HOUR_US or (DAY_US % self.period_us and self.period_us % DAY_US):
            _refuse("metrics.period", duration_text(self.period_us), "whole parts of a day from 1h on, and whole days")
        _check_duration("metrics.period", self.period_us, least=HOUR_US)
        if self.ranking_k is not None and not 1 <= self.ranking_k <= RANKING_K_MAX:
            _refuse("metrics.ranking_k", self.ranking_k, f"1 to {RANKING_K_MAX:,}, or none")
        self._check_counters()

    def _check_counters(self) -> None:
        if len(self.counters) > MONITORING_COUNTERS_MAX:
            _refuse("metrics.counters", f"{len(self.counters)} counters", f"at most {MONITORING_COUNTERS_MAX}")
        for name, labels in self.counters.items():
            if not re.fullmatch(_COUNTER_NAME, name):
                _refuse("metrics.counters", name, "names of 1 to 31 of a-z, 0-9 and `_`, first a letter")
            if not labels:
                _refuse(f"metrics.counters.{name}", "no label", "the labels that count as success")
            _check_names(f"metrics.counters.{name}", labels, MONITORING_LABELS_MAX)

    def to_json(self) -> dict[str, Any]:
        """The document's form."""
        return {
            "positive": self.positive,
            "slices": list(self.slices),
            "period": duration_text(self.period_us),
            "ranking_k": self.ranking_k,
            "counters": {name: list(labels) for name, labels in sorted(self.counters.items())},
        }

    @classmethod
    def from_json(cls, data: object, path: str = "$") -> "MetricsPolicy":
        """The inverse of `to_json`; fields may be left out. Raises InvalidDefinition with the path."""
        forms = {
            "positive": ("positive", _optional(_text)),
            "slices": ("slices", _texts),
            "period": ("period_us", _duration),
            "ranking_k": ("ranking_k", _optional(_integer)),
            "counters": ("counters", _counters),
        }
        return cls(**_read(data, path, forms))


@dataclass(frozen=True, slots=True)
class ParityPolicy:
    """Which predictions are compared with the offline store, and when. Raises InvalidDefinition for what cannot be.

    All predictions of `entity_share` of the entities are, and `uniform_share` of all others (both 0 to 1). What was
    known may still change for `horizon_us`, after which it is final. A source that has said nothing new for `quiet_us`
    counts as having nothing to say.
    """

    entity_share: float = 0.01
    uniform_share: float = 0.001
    horizon_us: int = DAY_US
    quiet_us: int = 15 * MINUTE_US

    def __post_init__(self) -> None:
        _check_between("parity.entity_share", self.entity_share, 0.0, 1.0)
        _check_between("parity.uniform_share", self.uniform_share, 0.0, 1.0)
        _check_duration("parity.horizon", self.horizon_us, least=0)
        _check_duration("parity.quiet", self.quiet_us, least=MINUTE_US)

    def to_json(self) -> dict[str, Any]:
        """The document's form."""
        return {
            "entity_share": self.entity_share,
            "uniform_share": self.uniform_share,
            "horizon": duration_text(self.horizon_us),
            "quiet": duration_text(self.quiet_us),
        }

    @classmethod
    def from_json(cls, data: object, path: str = "$") -> "ParityPolicy":
        """The inverse of `to_json`; fields may be left out. Raises InvalidDefinition with the path."""
        forms = {
            "entity_share": ("entity_share", _number),
            "uniform_share": ("uniform_share", _number),
            "horizon": ("horizon_us", _duration),
            "quiet": ("quiet_us", _duration),
        }
        return cls(**_read(data, path, forms))


@dataclass(frozen=True, slots=True)
class MonitoringPolicy:
    """See the module.

    >>> MonitoringPolicy.from_json({"drift": {"window": "1h"}}).drift.window_us
    3600000000
    """

    drift: DriftPolicy = field(default_factory=DriftPolicy)
    metrics: MetricsPolicy = field(default_factory=MetricsPolicy)
    parity: ParityPolicy = field(default_factory=ParityPolicy)

    def to_json(self) -> dict[str, Any]:
        """The document, every field written out."""
        return {"drift": self.drift.to_json(), "metrics": self.metrics.to_json(), "parity": self.parity.to_json()}

    @classmethod
    def from_json(cls, data: object, path: str = "$") -> "MonitoringPolicy":
        """The inverse of `to_json`; what is left out is as by default. Raises InvalidDefinition with the path."""
        forms: dict[str, tuple[str, Read]] = {
            "drift": ("drift", DriftPolicy.from_json),
            "metrics": ("metrics", MetricsPolicy.from_json),
            "parity": ("parity", ParityPolicy.from_json),
        }
        return cls(**_read(data, path, forms))


def duration_text(duration_us: int) -> str:
    """A duration of whole seconds in the largest unit that divides it.

    >>> duration_text(5_400_000_000), duration_text(86_400_000_000)
    ('90m', '1d')
    """
    for unit, unit_us in _UNITS.items():
        if duration_us % unit_us == 0 and duration_us:
            return f"{duration_us // unit_us}{unit}"
    return f"{duration_us // SECOND_US}s"


def _read(data: object, path: str, forms: Mapping[str, tuple[str, Read]]) -> dict[str, Any]:
    """The fields that are given, by the names of the class."""
    if not isinstance(data, Mapping):
        raise InvalidDefinition(f"{path} is {type(data).__name__}; allowed: an object with {', '.join(forms)}")
    unknown = [name for name in data if name not in forms]
    if unknown:
        raise InvalidDefinition(
            f"{path} has no field {unknown[0]!r}. Allowed: {', '.join(forms)}",
            hint="`skewless endpoint show` prints the policy in force, every field of it",
        )
    return {forms[name][0]: forms[name][1](value, f"{path}.{name}") for name, value in data.items()}


def _duration(value: object, path: str) -> int:
    found = re.fullmatch(r"(\d{1,9})([smhd])", value.strip()) if isinstance(value, str) else None
    if found is None:
        raise InvalidDefinition(f"{path} is {value!r}; allowed: a whole number and `s`, `m`, `h` or `d`, such as `5m`")
    return int(found[1]) * _UNITS[found[2]]


def _number(value: object, path: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise InvalidDefinition(f"{path} is {value!r}; allowed: a number")
    return float(value)


def _integer(value: object, path: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidDefinition(f"{path} is {value!r}; allowed: a whole number")
    return value


def _text(value: object, path: str) -> str:
    if not isinstance(value, str):
        raise InvalidDefinition(f"{path} is {value!r}; allowed: text", hint="put it in quotation marks")
    return value


def _texts(value: object, path: str) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        raise InvalidDefinition(f"{path} is {value!r}; allowed: a list of texts")
    return tuple(_text(each, f"{path}[{index}]") for index, each in enumerate(value))


def _days(value: object, path: str) -> tuple[str, ...]:
    """Days as text; YAML makes dates of them where they stand without quotation marks."""
    listed = value if isinstance(value, list | tuple) else (value,)
    return _texts([each.isoformat() if type(each) is date else each for each in listed], path)


def _counters(value: object, path: str) -> Mapping[str, tuple[str, ...]]:
    if not isinstance(value, Mapping):
        raise InvalidDefinition(f"{path} is {value!r}; allowed: an object of names, each with a list of labels")
    return {_text(name, path): _texts(labels, f"{path}.{name}") for name, labels in value.items()}


def _optional(read: Read) -> Read:
    return lambda value, path: None if value is None else read(value, path)


def _check_duration(name: str, value: int, *, least: int) -> None:
    if not least <= value <= _LONGEST_US or value % SECOND_US:
        allowed = f"whole seconds from {duration_text(least)} to {duration_text(_LONGEST_US)}"
        _refuse(name, f"{value / SECOND_US:g} s", allowed)


def _check_between(name: str, value: float, least: float, most: float) -> None:
    if not (math.isfinite(value) and least <= value <= most):
        _refuse(name, value, f"{least:g} to {most:g}")


def _check_text(name: str, text: str) -> None:
    if not 1 <= len(text) <= MONITORING_TEXT_MAX:
        _refuse(name, f"{len(text)} characters long", f"1 to {MONITORING_TEXT_MAX} characters")


def _check_names(name: str, names: tuple[str, ...], most: int) -> None:
    if len(names) > most or len(set(names)) != len(names):
        _refuse(name, list(names[: most + 1]), f"at most {most}, each once")
    for each in names:
        _check_text(name, each)


def _check_days(days: tuple[str, ...]) -> None:
    if len(days) > MONITORING_EXCLUDED_DAYS_MAX:
        _refuse("drift.excluded_days", f"{len(days)} days", f"at most {MONITORING_EXCLUDED_DAYS_MAX}")
    for day in days:
        try:
            is_day = date.fromisoformat(day).isoformat() == day
        except ValueError:
            is_day = False
        if not is_day:
            _refuse("drift.excluded_days", day, "days such as 2026-12-25")


def _refuse(name: str, value: object, allowed: str) -> None:
    raise InvalidDefinition(f"the monitoring policy's `{name}` is {value!r}; allowed: {allowed}")
