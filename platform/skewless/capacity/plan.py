"""From a load to cores, replicas, memory and bytes. Arithmetic on measured costs, with what it leaves out named."""

import math
from dataclasses import dataclass

from skewless.capacity.costs import Costs
from skewless.errors import InvalidRequest

DAY_S = 86_400
GIB = 2**30
UTILISATION = 0.6
"""Above that waiting grows faster than load: at 60 % a queue is 1.5 times as long as the work itself, at 90 % nine."""
ROWS_MEASURED, FEATURES_MEASURED = 1_000, 500
"""The largest requests that costs were measured of; beyond, they would be a guess."""


@dataclass(frozen=True, slots=True)
class Demand:
    """A load at its peak. `entities` are the keys in the online store, over all views' entities together.

    `model_rows_per_s` is what one model server or GPU answers; None: boosted trees on CPU cores, as measured.
    """

    requests_per_s: float
    rows: int = 1
    features: int = 40
    entities: int = 1_000_000
    utilisation: float = UTILISATION
    gateway_cores: int = 4
    """Cores, and so workers, of one gateway."""
    spare: int = 1
    """Replicas more than the load needs, so that one may be away."""
    retention_days: int = 30
    model_rows_per_s: float | None = None

    def __post_init__(self) -> None:
        """Raise InvalidRequest for what is no load."""
        bounds = {
            "rps": (self.requests_per_s, 0.0, 1e9),
            "rows": (self.rows, 1, ROWS_MEASURED),
            "features": (self.features, 1, FEATURES_MEASURED),
            "entities": (self.entities, 1, 1e12),
            "utilisation": (self.utilisation, 0.05, 0.95),
            "gateway-cores": (self.gateway_cores, 1, 256),
            "spare": (self.spare, 0, 1_000),
            "retention-days": (self.retention_days, 1, 10_000),
        }
        for name, (value, low, high) in bounds.items():
            if not low <= value <= high:
                raise InvalidRequest(f"{value:g} is out of range", path=f"--{name}", allowed=f"{low:g} to {high:g}")
        if self.model_rows_per_s is not None and self.model_rows_per_s <= 0:
            raise InvalidRequest(
                f"{self.model_rows_per_s:g} rows a second is no speed", path="--model-rows-per-s", allowed="above 0"
            )

    @property
    def predictions_per_s(self) -> float:
        return self.requests_per_s * self.rows


@dataclass(frozen=True, slots=True)
class Part:
    """One kind of process: the cores that work takes, and how many replicas of how many cores that makes."""

    name: str
    busy_cores: float
    replicas: int
    cores_each: int
    memory_gib_each: float
    why: str


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a demand takes. `log_gib` is the log store's size after the days of retention."""

    parts: tuple[Part, ...]
    log_gib_a_day: float
    log_gib: float

    @property
    def cores(self) -> int:
        """Of all replicas of all parts."""
        return sum(part.replicas * part.cores_each for part in self.parts)


def capacity(demand: Demand, costs: Costs) -> Capacity:
    """What a demand takes, by costs."""
    a_day = demand.predictions_per_s * DAY_S * costs.log_bytes * demand.features / 40 / GIB
    parts = (_gateways(demand, costs), _store(demand, costs), _models(demand, costs), *_behind(demand, costs))
    return Capacity(parts, a_day, a_day * demand.retention_days)


def _gateways(demand: Demand, costs: Costs) -> Part:
    busy = demand.requests_per_s * costs.gateway.crowded(demand.rows, demand.features) / 1e6
    replicas = _replicas(busy, demand, demand.gateway_cores)
    memory = costs.gateway_mib * demand.gateway_cores / 1_024
    return Part("gateway", busy, replicas, demand.gateway_cores, memory, "one worker per core")


def _store(demand: Demand, costs: Costs) -> Part:
    busy = demand.requests_per_s * costs.store.crowded(demand.rows, demand.features) / 1e6
    # A Valkey answers on one core; a replica of each shard stands by, and holds the same.
    shards = max(1, math.ceil(busy / demand.utilisation))
    stored = demand.entities * (costs.hash_bytes + costs.value_bytes * demand.features) / GIB
    copies = 1 + (demand.spare > 0)
    why = f"{shards} shard{'s' * (shards > 1)} of one core, {copies} copies of each"
    return Part("online store", busy, shards * copies, 1, stored / shards, why)


def _models(demand: Demand, costs: Costs) -> Part:
    if demand.model_rows_per_s is None:
        busy = demand.requests_per_s * costs.model.crowded(demand.rows, demand.features) / 1e6
        return Part(
            "model server", busy, _replicas(busy, demand, demand.gateway_cores), demand.gateway_cores, 1.0, "CPU"
        )
    servers = demand.predictions_per_s / demand.model_rows_per_s
    replicas = math.ceil(servers / demand.utilisation) + demand.spare
    return Part(
        "model server", servers, replicas, 1, 0.0, f"{demand.model_rows_per_s:,.0f} rows a second each, as given"
    )


def _behind(demand: Demand, costs: Costs) -> tuple[Part, Part]:
    share = demand.features / 40
    shipping = demand.predictions_per_s * costs.ship_us * share / 1e6
    watching = demand.predictions_per_s * costs.monitor_us * share / 1e6
    return (
        Part("shipper", shipping, max(1, math.ceil(shipping / demand.utilisation)), 1, 0.5, "one per gateway's folder"),
        Part("monitor", watching, max(1, math.ceil(watching / demand.utilisation)), 1, 0.5, "reads what was shipped"),
    )


def _replicas(busy_cores: float, demand: Demand, cores: int) -> int:
    return max(1, math.ceil(busy_cores / demand.utilisation / cores)) + demand.spare
