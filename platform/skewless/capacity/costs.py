"""What requests cost in processor time, memory and bytes: a few numbers, fitted to measurements by `bench/capacity.py`.

Times are of one core of the machine that is named in `measured`. Another machine's cores are faster or slower by some
factor, the same for all of them as a rule: measure there, or scale.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import resources
from typing import Any

from skewless.errors import InvalidDefinition

FORMAT = 1
_PARTS = ("gateway", "store", "model")
_PLAIN = ("ship_us", "monitor_us", "log_bytes", "hash_bytes", "value_bytes", "bundle_mib", "gateway_mib")


@dataclass(frozen=True, slots=True)
class RequestCost:
    """Processor time in µs of a request of one caller: `request_us`, and more with each row and each stored value.

    More rows cost less each (`exponent` below 1): entities repeat among them, and they are computed side by side.
    `shared` is what a request costs where many wait together, as a share of that: reads and calls of the model are made
    for several at once.
    """

    request_us: float
    row_us: float
    value_us: float
    exponent: float
    shared: float

    def alone(self, rows: float, features: float) -> float:
        """µs of one request with so many rows of so many stored features, where one caller asks.

        >>> RequestCost(500.0, 10.0, 1.0, 0.5, 0.6).alone(4, 40)
        600.0
        """
        return self.request_us + (self.row_us + self.value_us * features) * float(rows**self.exponent)

    def crowded(self, rows: float, features: float) -> float:
        """The same where many callers ask at once."""
        return self.alone(rows, features) * self.shared


@dataclass(frozen=True, slots=True)
class Costs:
    """See the module. `model` is of boosted trees on a CPU, in Triton."""

    measured: Mapping[str, str]
    gateway: RequestCost
    store: RequestCost
    model: RequestCost
    ship_us: float
    """Of the shipper, for one prediction."""
    monitor_us: float
    """Of the monitor, for one prediction of 40 features."""
    log_bytes: float
    """In the log store, for one prediction of 40 features, compacted."""
    hash_bytes: float
    """Memory of an entity's hash in the online store, without its features."""
    value_bytes: float
    """Memory of one stored feature."""
    bundle_mib: float
    """Memory of one more loaded bundle in a gateway that runs the model itself."""
    gateway_mib: float

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "format": FORMAT,
            "measured": dict(self.measured),
            **{name: asdict(getattr(self, name)) for name in _PARTS},
            **{name: getattr(self, name) for name in _PLAIN},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Costs":
        """The inverse of `to_json`. Raises InvalidDefinition for anything else."""
        try:
            given = dict(data)
            if given.pop("format") != FORMAT:
                raise InvalidDefinition(f"costs have format {data['format']!r}; allowed: {FORMAT}")
            given |= {name: RequestCost(**given[name]) for name in _PARTS}
            return cls(**given)
        except (KeyError, TypeError) as error:
            raise InvalidDefinition(
                f"this is no sheet of costs: {error!r}", hint="make one with `python -m bench.capacity`"
            ) from error


def shipped_costs() -> Costs:
    """The costs that come with this version."""
    return Costs.from_json(json.loads(resources.files("skewless.capacity").joinpath("costs.json").read_text()))
