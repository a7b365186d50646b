"""The Feast definitions of the example: four entities, eight feature views with 44 features, one feature service.

Every view reads `<data folder>/<view>.parquet`, written by `feature_repo.sources`. The data folder is the
environment variable SKEWLESS_DATA, by default `.skewless/data`: Feast stores a source's path when definitions are
applied, so it has to be known, and absolute, at import.
"""

import os
from datetime import timedelta
from pathlib import Path

from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.data_format import ParquetFormat
from feast.types import Float32, Int64, PrimitiveFeastType, String

OWNER = "flights"
DATA_FOLDER = Path(os.environ.get("SKEWLESS_DATA", ".skewless/data")).absolute()

origin = Entity(
    name="origin",
    join_keys=["origin"],
    value_type=ValueType.STRING,
    description="New York airport that flights leave from, such as `EWR`",
    owner=OWNER,
)
carrier = Entity(
    name="carrier",
    join_keys=["carrier"],
    value_type=ValueType.STRING,
    description="airline by its two-letter code, such as `UA`",
    owner=OWNER,
)
route = Entity(
    name="route",
    join_keys=["route"],
    value_type=ValueType.STRING,
    description="origin and destination, such as `EWR-ORD`",
    owner=OWNER,
)
tailnum = Entity(
    name="tailnum",
    join_keys=["tailnum"],
    value_type=ValueType.STRING,
    description="registration of the aircraft, such as `N14228`; a flight may have none assigned",
    owner=OWNER,
)


def _source(view: str) -> FileSource:
    return FileSource(
        name=f"{view}_source",
        path=str(DATA_FOLDER / f"{view}.parquet"),
        file_format=ParquetFormat(),
        timestamp_field="event_time",
        created_timestamp_column="created_time",
        owner=OWNER,
    )


def _field(name: str, dtype: PrimitiveFeastType, unit: str, description: str, within: str = "") -> Field:
    """A feature; `within` is the range of its values, empty where it has none."""
    return Field(
        name=name, dtype=dtype, description=description, tags={"unit": unit, **({"range": within} if within else {})}
    )


origin_weather = FeatureView(
    name="origin_weather",
    entities=[origin],
    ttl=timedelta(hours=4),
    source=_source("origin_weather"),
    schema=[
        _field("temp", Float32, "°F", "temperature", "-60..140"),
        _field("dewp", Float32, "°F", "dew point", "-60..140"),
        _field("humid", Float32, "%", "relative humidity", "0..100"),
        _field("wind_dir", Float32, "°", "direction the wind blows from", "0..360"),
        _field("wind_speed", Float32, "mph", "wind speed; the source has one implausible value above 1,000", "0..250"),
        _field("wind_gust", Float32, "mph", "gust speed; null where no gust was reported", "0..250"),
        _field("precip", Float32, "in", "precipitation of the hour", "0..20"),
        _field("pressure", Float32, "hPa", "pressure at sea level", "850..1100"),
        _field("visib", Float32, "mi", "visibility, at most 10", "0..10"),
    ],
    description="hourly weather at the origin, known when its hour is over",
    owner=OWNER,
    tags={"cadence": "1h", "freshness": "3h"},
)

origin_departures = FeatureView(
    name="origin_departures",
    entities=[origin],
    ttl=timedelta(hours=1),
    source=_source("origin_departures"),
    schema=[
        _field("dep_count_1h", Int64, "flights", "departures of the last hour", "0.."),
        _field("dep_delay_mean_1h", Float32, "min", "mean delay of the last hour's departures"),
        _field("dep_delay_max_1h", Float32, "min", "largest delay of the last hour's departures"),
        _field("dep_delay_mean_3h", Float32, "min", "mean delay of the last 3 hours' departures"),
        _field(
            "dep_delayed_share_3h",
            Float32,
            "share",
            "departures of the last 3 hours delayed by over 15 minutes",
            "0..1",
        ),
        _field(
            "waiting_3h", Int64, "flights", "scheduled in the last 3 hours and not departed, cancelled or not", "0.."
        ),
        _field("scheduled_next_1h", Int64, "flights", "departures scheduled for the coming hour", "0.."),
    ],
    description="how departures from the origin are going, every 15 minutes",
    owner=OWNER,
    tags={"cadence": "15min", "freshness": "45m"},
)

carrier_recent = FeatureView(
    name="carrier_recent",
    entities=[carrier],
    ttl=timedelta(hours=24),
    source=_source("carrier_recent"),
    schema=[
        _field("arrivals_6h", Int64, "flights", "landings of the last 6 hours", "0.."),
        _field("arr_delay_mean_6h", Float32, "min", "mean arrival delay of the last 6 hours' landings"),
        _field("late_share_6h", Float32, "share", "landings of the last 6 hours late by over 15 minutes", "0..1"),
        _field("arr_delay_mean_24h", Float32, "min", "mean arrival delay of the last 24 hours' landings"),
        _field("dep_delay_mean_3h", Float32, "min", "mean delay of the last 3 hours' departures"),
    ],
    description="the carrier's last hours, every hour",
    owner=OWNER,
    tags={"cadence": "1h", "freshness": "12h"},
)

carrier_history = FeatureView(
    name="carrier_history",
    entities=[carrier],
    ttl=timedelta(days=3),
    source=_source("carrier_history"),
    schema=[
        _field("flights_30d", Int64, "flights", "landings of the last 30 days", "0.."),
        _field("arr_delay_mean_30d", Float32, "min", "mean arrival delay of those landings"),
        _field("arr_delay_std_30d", Float32, "min", "sample standard deviation of their arrival delay", "0.."),
        _field("late_share_30d", Float32, "share", "those late by over 15 minutes", "0..1"),
    ],
    description="the carrier's last 30 days, daily at 09:00 UTC",
    owner=OWNER,
    tags={"cadence": "1d", "freshness": "2d"},
)

route_history = FeatureView(
    name="route_history",
    entities=[route],
    ttl=timedelta(days=3),
    source=_source("route_history"),
    schema=[
        _field("flights_30d", Int64, "flights", "landings of the last 30 days", "0.."),
        _field("arr_delay_mean_30d", Float32, "min", "mean arrival delay of those landings"),
        _field("arr_delay_std_30d", Float32, "min", "sample standard deviation of their arrival delay", "0.."),
        _field("late_share_30d", Float32, "share", "those late by over 15 minutes", "0..1"),
        _field("air_time_mean_30d", Float32, "min", "mean time in the air", "0.."),
        _field("distance", Float32, "mi", "distance between the airports", "0.."),
    ],
    description="the route's last 30 days, daily at 09:00 UTC",
    owner=OWNER,
    tags={"cadence": "1d", "freshness": "2d"},
)

route_recent = FeatureView(
    name="route_recent",
    entities=[route],
    ttl=timedelta(hours=24),
    source=_source("route_recent"),
    schema=[
        _field("last_arr_delay", Float32, "min", "arrival delay of the last landing"),
        _field("last_dep_delay", Float32, "min", "departure delay of the flight that landed last"),
        _field("arr_delay_mean_last_5", Float32, "min", "mean arrival delay of the last five landings"),
    ],
    description="the route's last landings, a row per landing",
    owner=OWNER,
    tags={"cadence": "event", "freshness": "12h"},
)

aircraft_previous_leg = FeatureView(
    name="aircraft_previous_leg",
    entities=[tailnum],
    ttl=timedelta(days=7),
    source=_source("aircraft_previous_leg"),
    schema=[
        _field("prev_arr_delay", Float32, "min", "arrival delay of the leg; null where it was diverted"),
        _field("prev_dep_delay", Float32, "min", "departure delay of the leg"),
        _field("prev_air_time", Float32, "min", "time in the air", "0.."),
        _field("prev_distance", Float32, "mi", "distance of the leg", "0.."),
        _field("legs_7d", Int64, "flights", "legs out of New York that ended in the 7 days up to its landing", "0.."),
    ],
    description="the leg the aircraft flew last: it happens at its departure and is known at its landing",
    owner=OWNER,
    tags={"cadence": "event", "freshness": "12h"},
)

aircraft = FeatureView(
    name="aircraft",
    entities=[tailnum],
    ttl=timedelta(0),
    source=_source("aircraft"),
    schema=[
        _field("manufacture_year", Int64, "year", "year of manufacture", "1900..2100"),
        _field("seats", Int64, "seats", "number of seats", "1..1000"),
        _field("engines", Int64, "engines", "number of engines", "1..10"),
        _field("engine_type", String, "name", "such as `Turbo-fan`"),
        _field("manufacturer", String, "name", "such as `BOEING`"),
    ],
    description="the register's record of the aircraft; about a sixth of the flights use one it lacks",
    owner=OWNER,
    tags={"cadence": "static"},
)

flight_delay_v1 = FeatureService(
    name="flight_delay_v1",
    features=[
        origin_weather,
        origin_departures,
        carrier_recent,
        carrier_history,
        route_history,
        route_recent,
        aircraft_previous_leg,
        aircraft,
    ],
    description="everything known at scheduled departure about whether a flight will arrive late",
    owner=OWNER,
)
