"""A store in which every fault that a repair can mend was made on purpose, each at a station of its own."""

from contextlib import closing
from typing import Any

import numpy as np
import redis
from feast import ValueType

from harness.parity_world import ParityWorld, Row, leg, network, weather
from skewless.features.redis_layout import KeyTemplate, feature_field, timestamp_field
from skewless.features.stored_hashes import Leftover
from skewless.parity.causes import Cause
from skewless.parity.repair_plan import EXPIRED
from skewless.parity.repair_report import WHOLE_STORE

Hashes = dict[bytes, dict[bytes, bytes]]
AT = 12.0
"""The hour at which the store is compared; the last materialization is of hour 11."""
EXACT = 1013.1
HONEST = ("north", "süd")
FAULTS: dict[str, str] = {
    "lost": Cause.MISSING_ONLINE,
    "nulled": Cause.MISSING_ONLINE,
    "fieldless": Cause.MISSING_ONLINE,
    "invented": Cause.EXTRA_ONLINE,
    "deleted": Cause.EXTRA_ONLINE,
    "outlived": EXPIRED,
    "behind": Cause.MATERIALIZATION_LAG,
    "late": Cause.LATE_ROW,
    "restated": Cause.RESTATED_ROW,
    "leaked": Cause.FUTURE_LEAK,
    "skewed": Cause.FUTURE_LEAK,
    "corrected": Cause.EQUAL_TIMESTAMP_CORRECTION,
    "expired": Cause.TTL,
    "rounded": Cause.DECLARED_PRECISION,
    "spelled": Cause.COERCION,
    "retyped": Cause.COERCION,
    "zeroed": Cause.DEFAULT_FILLED,
    "converted": Cause.PIPELINES_DIFFER,
}
"""What each station's weather suffers from; `keyed` has a leg under a key of another type."""
LEFT_ALONE = {"behind", "restated"}
ELSEWHERE = {"entity_key_type": "leg", Leftover.FIELD: WHOLE_STORE, Leftover.ENTITY: WHOLE_STORE}


def first_sources() -> dict[str, list[Row]]:
    """Source rows before anything goes wrong."""
    stations = [*FAULTS, *HONEST, "keyed"]
    old = ("expired", "outlived")
    rows = [weather(name, 9.5) for name in stations if name not in ("invented", *old)]
    rows += [weather(name, 2) for name in old]
    rows += [
        weather("behind", 11.6, temp=8.0),
        weather("late", 9.7, 11.5, temp=8.0),
        weather("restated", 9.8, temp=2.0),
        weather("leaked", 9.8, 20, temp=9.0),
        weather("corrected", 9.5, 10.5, temp=9.0),
        weather("nulled", 11.5, temp=3.0),
        weather("rounded", 11.5, pressure=EXACT, wind=2**53 + 1),
        weather("spelled", 11.5, sky="Café  noir"),
        weather("zeroed", 11.5, wind=None),
        weather("converted", 11.5, temp=10.0),
    ]
    legs = [leg(name, 1, 1, late=0.1 * number) for number, name in enumerate(stations) if name != "keyed"]
    return {"weather": rows, "leg": [*legs, leg("keyed", 1, 5)], "network": [network(1), network(9.9, load=0.5)]}


def key_of(world: ParityWorld, view: str, *values: object) -> bytes:
    """The key of an entity's hash."""
    read = next(each for each in world.contract().views if each.name == view)
    template = KeyTemplate.compile(read.join_keys, world.repository.project)
    by_name = dict(zip(("station", "line"), values, strict=False))
    ordered = tuple(by_name[name] for name in template.names)
    (key,) = template.keys([ordered if len(ordered) > 1 else ordered[0]])
    return key


def hurt_store(world: ParityWorld) -> None:
    """Make every fault, after the second materialization."""
    store: Any = redis.Redis.from_url(world.url)  # whose stubs know no keys of bytes
    for station in ("lost", "expired"):
        store.delete(key_of(world, "weather", station))
    store.hdel(key_of(world, "weather", "fieldless"), feature_field("weather", "sky"))
    store.hset(key_of(world, "weather", "retyped"), feature_field("weather", "wind"), b"\x12\x01x")
    store.delete(key_of(world, "leg", "keyed", 1))
    # What a renamed feature and a view that is gone left behind; and what is nobody's business here.
    store.hset(key_of(world, "weather", "north"), feature_field("weather", "gone"), b"\x20\x07")
    elsewhere = world.repository.project.encode()
    store.hset(
        b"\x01\0\0\0\x02\0\0\0\x04\0\0\0crew\x04\0\0\0\x08\0\0\0" + bytes(8) + elsewhere, b"_ts:crew", b"\x08\x01"
    )
    store.hset(key_of(world, "weather", "north"), "a note", b"somebody's own")
    store.hset(b"not of Feast", mapping={b"abcd": b"1"})
    store.hset(key_of(world, "weather", "north") + b"other", timestamp_field("weather"), b"\x08\x01")
    store.close()
    world.push("leg", [leg("keyed", 1, 5)], key_types={"line": ValueType.INT32})
    world.push(
        "weather",
        [
            weather("nulled", 11.5, temp=None),
            weather("invented", 9.6, temp=4.0),
            weather("leaked", 9.8, temp=9.0),
            weather("skewed", 13),
            weather("rounded", 11.5, pressure=float(np.float32(EXACT)), wind=2**53),
            weather("spelled", 11.5, sky=" cafe\u0301  NOIR"),
            weather("zeroed", 11.5, wind=0),
            weather("converted", 11.5, temp=50.0),
        ],
    )
    gone = ("deleted", "outlived")
    rows = [row for row in world.rows["weather"] if row["station"] not in gone]
    kept = [row for row in rows if not (row["station"] == "restated" and row["temp"] == 2.0)]
    world.write_sources(weather=[*kept, weather("restated", 9.8, 13, temp=7.0)])


def bytes_of(world: ParityWorld) -> Hashes:
    """Every hash of the world's project."""
    store: Any = redis.Redis.from_url(world.url)
    project = world.repository.project.encode()
    with closing(store):
        return {key: store.hgetall(key) for key in store.scan_iter(_type="hash") if project in key}


def store_bytes(world: ParityWorld, hashes: Hashes) -> None:
    """Put these hashes in place of what lies under their keys; an empty one removes it."""
    store: Any = redis.Redis.from_url(world.url)
    with closing(store):
        for key, fields in hashes.items():
            store.delete(key)
            if fields:
                store.hset(key, mapping=fields)
