"""No false alarm: a million values of a store that is as it should be, of every kind that stores change on the way."""

import math
import random
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from harness.feature_repository import FEAST_WARNS
from harness.parity_world import ParityWorld, Row, hour, leg, network, parity_world, weather
from harness.servers import ValkeyServer
from skewless.timestamps import from_micros

pytestmark = FEAST_WARNS

STATIONS_COUNT = 1_500
MOMENTS = tuple(10.0 + number / 8 for number in range(64))
"""From the materialization on, across the moments at which rows become too old."""

TEMPS = [None, 0.1, -0.0, 0.0, 3.4e38, 1e-45, math.inf, -math.inf, math.nan]
PRESSURES = [None, 0.1, -0.0, 5e-324, 1e300, math.nan, -math.inf, float(2**60)]
WINDS = [0, -1, 2**50, -(2**63), 2**63 - 1]
"""None is missing on purpose: beside nulls, Feast's writer takes integers through float64 (see docs/parity.md)."""
SKIES = [None, "", "süd \N{CLOUD WITH RAIN}", "e\u0301", "é", " clear", "Clear", "nan", "12.0", '{"a": 1}']
GUSTS = [None, [], [0.1, -0.0], [math.nan, math.inf], [1e-45]]


def _rows(rng: random.Random) -> dict[str, list[Row]]:
    weather_rows, leg_rows = [], []
    for number in range(STATIONS_COUNT):
        name = f"station {number} \N{SNOWMAN}"
        for at in rng.sample([1.0, 2.5, 4.25, 6.0, 8.5, 9.75], rng.randrange(0, 4)):
            values: Row = {
                "temp": rng.choice(TEMPS),
                "pressure": rng.choice(PRESSURES),
                "wind": rng.choice(WINDS),
                "sky": rng.choice(SKIES),
                "rain": rng.choice([None, True, False]),
                "seen": rng.choice(
                    [None, from_micros(hour(at)), from_micros(hour(at)) + timedelta(microseconds=999_999)]
                ),
                "gusts": rng.choice(GUSTS),
            }
            known = at + rng.choice([0.0, 0.0, 0.25])
            weather_rows.append(weather(name, at, known, **values))
        if rng.random() < 0.8:
            leg_rows.append(leg(name, rng.choice([-3, 1, 2**40]), 5.0, late=rng.choice(PRESSURES), stops=number))
    return {"weather": weather_rows, "leg": leg_rows, "network": [network(1), network(3.3, load=0.1)]}


@pytest.fixture
def world(tmp_path: Path, valkey_server: ValkeyServer) -> Any:
    with parity_world(tmp_path, "parityhonest", valkey_server) as made:
        made.write_sources(**_rows(random.Random(41)))
        made.define()
        made.materialize(10)
        yield made


def test_a_million_honest_comparisons_raise_no_alarm(world: ParityWorld) -> None:
    lines = {row["station"]: row["line"] for row in world.rows["leg"]}
    names = [f"station {number} \N{SNOWMAN}" for number in range(STATIONS_COUNT)]
    entities = [{"station": name, "line": lines.get(name, 7)} for name in names for _ in MOMENTS]
    checked, report = world.check(world.serve(entities, [*MOMENTS] * STATIONS_COUNT))
    levels = report["levels"]
    assert levels["values"]["compared"] > 1_000_000
    assert [(each["view"], each["cause"], each["examples"][0]) for each in report["causes"]] == []
    assert levels["values"]["bit_equal"] == levels["values"]["compared"]
    assert levels["statuses_and_ages"]["equal"] == levels["values"]["compared"]
    assert levels["model_inputs"]["equal"] == levels["predictions"]["equal"] == len(entities)
    assert report["known_later"] == []
    statuses = {int(code) for codes in checked.served.frame.statuses.values() for code in codes}
    assert len(statuses) == 4, "ok, null, missing and stale all occur"
