"""From a load to replicas: arithmetic that must not forget a factor, and the sheet of costs that is shipped."""

import dataclasses
import json

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from skewless.capacity.costs import Costs, RequestCost, shipped_costs
from skewless.capacity.plan import Demand, capacity
from skewless.cli.capacity_command import capacity_command
from skewless.errors import InvalidDefinition, InvalidRequest

COSTS = Costs(
    measured={"date": "2026-01-01", "commit": "0", "processor": "one"},
    gateway=RequestCost(500.0, 10.0, 0.5, 1.0, 0.5),
    store=RequestCost(20.0, 10.0, 0.25, 1.0, 1.0),
    model=RequestCost(100.0, 10.0, 0.0, 1.0, 0.5),
    ship_us=20.0,
    monitor_us=10.0,
    log_bytes=100.0,
    hash_bytes=200.0,
    value_bytes=20.0,
    bundle_mib=3.0,
    gateway_mib=100.0,
)


def test_cores_memory_and_bytes_of_a_load_by_hand() -> None:
    found = capacity(Demand(10_000, rows=2, features=40, entities=10_000_000, utilisation=0.5, gateway_cores=4), COSTS)
    gateway, store, model, shipper, monitor = found.parts
    # (500 + 2 * 10 + 2 * 40 * 0.5) µs * 10,000 /s * 0.5 = 2.8 busy cores; at half of each 5.6, on gateways of 4.
    assert gateway.busy_cores == pytest.approx(2.8)
    assert (gateway.replicas, gateway.cores_each) == (2 + 1, 4)
    # (20 + 20 + 20) µs * 10,000 /s = 0.6 cores: two shards at half a core each, with a copy of each.
    assert store.busy_cores == pytest.approx(0.6)
    assert store.replicas == 4
    assert store.memory_gib_each == pytest.approx(10_000_000 * (200 + 40 * 20) / 2**30 / 2)
    assert model.busy_cores == pytest.approx(10_000 * 120 * 0.5 / 1e6)
    assert shipper.busy_cores == pytest.approx(20_000 * 20 / 1e6)
    assert monitor.busy_cores == pytest.approx(20_000 * 10 / 1e6)
    assert found.log_gib_a_day == pytest.approx(20_000 * 86_400 * 100 / 2**30)
    assert found.log_gib == pytest.approx(30 * found.log_gib_a_day)


def test_a_given_speed_of_the_model_takes_the_place_of_cores() -> None:
    model = capacity(Demand(1_000, rows=100, model_rows_per_s=50_000.0, utilisation=0.5, spare=1), COSTS).parts[2]
    assert model.replicas == 4 + 1, "100,000 rows a second at half of 50,000 each"


@given(st.floats(1, 1e6), st.integers(1, 1_000), st.integers(1, 500), st.floats(1.0, 4.0))
def test_more_load_never_takes_less(rps: float, rows: int, features: int, factor: float) -> None:
    less = capacity(Demand(rps, rows=rows, features=features), COSTS)
    more = capacity(Demand(min(rps * factor, 1e9), rows=rows, features=features), COSTS)
    for one, other in zip(less.parts, more.parts, strict=True):
        assert other.busy_cores >= one.busy_cores
        assert other.replicas >= one.replicas
        assert one.busy_cores <= 0.6 * one.replicas * one.cores_each, "no part is planned above its utilisation"


@pytest.mark.parametrize(
    ("change", "option"),
    [({"requests_per_s": -1.0}, "--rps"), ({"rows": 0}, "--rows"), ({"utilisation": 1.0}, "--utilisation"),
     ({"model_rows_per_s": 0.0}, "--model-rows-per-s")],
)  # fmt: skip
def test_what_is_no_load_is_refused_by_its_option(change: dict[str, float], option: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        Demand(**{"requests_per_s": 1.0, **change})  # type: ignore[arg-type]  # of several fields' types
    assert refused.value.path == option


def test_the_sheet_survives_its_json_and_another_form_is_refused() -> None:
    assert Costs.from_json(json.loads(json.dumps(COSTS.to_json()))) == COSTS
    for data in ({**COSTS.to_json(), "format": 2}, {**COSTS.to_json(), "more": 1}, {}):
        with pytest.raises(InvalidDefinition):
            Costs.from_json(data)


def test_the_shipped_sheet_has_a_positive_number_everywhere() -> None:
    sheet = shipped_costs()
    assert sheet.measured["processor"]
    plain = [value for value in dataclasses.asdict(sheet).values() if isinstance(value, float | int)]
    assert len(plain) == 7
    assert min(plain) > 0
    for cost in (sheet.gateway, sheet.store, sheet.model):
        assert 0 < cost.crowded(1, 40) <= cost.alone(1, 40) * 1.2 < cost.alone(100, 40)


def test_the_command_says_the_same_as_the_arithmetic() -> None:
    told = CliRunner().invoke(capacity_command, ["--rps", "10000", "--rows", "100", "--json"])
    assert told.exit_code == 0, told.output
    answer = json.loads(told.stdout)
    assert answer["cores"] == capacity(Demand(10_000, rows=100), shipped_costs()).cores
    shown = CliRunner().invoke(capacity_command, ["--rps", "10000", "--rows", "100"])
    assert "1,000,000 predictions/s" in shown.output
