"""The columns of the model `flight-delay`: what each is made of, and what stands where a value is unknown.

A stored feature can be null for any question: its entity may be unknown, its row too old, the source silent.
So every one is imputed, and where being unknown says something an indicator says so.
"""

from skewless.dtypes import Dtype
from skewless.transforms import Expression, column

LOCAL = "America/New_York"
AIRPORTS = ("EWR", "JFK", "LGA")
TURBO_FAN, TURBO_JET = "Turbo-fan", "Turbo-jet"


def _number(view: str, feature: str) -> Expression:
    return column(f"{view}__{feature}", Dtype.FLOAT32)


def _whole(view: str, feature: str) -> Expression:
    return column(f"{view}__{feature}", Dtype.INT64)


def _delay(view: str, feature: str) -> Expression:
    """A delay in minutes; the few of many hours are cut so that they do not set the scale."""
    return _number(view, feature).clip(-60.0, 360.0).impute_median().standardise()


def _share(view: str, feature: str) -> Expression:
    return _number(view, feature).impute_mean()


scheduled = column("scheduled_departure", Dtype.TIMESTAMP, nullable=False)
manufacture_year = _whole("aircraft", "manufacture_year").clean(1950, 2013)

CALENDAR: dict[str, Expression] = {
    "hour": scheduled.hour(LOCAL),
    "time_of_day": (scheduled.minute_of_day(LOCAL) / 60.0).cyclical(24.0),
    "day_of_week": scheduled.day_of_week(LOCAL),
    "week": scheduled.day_of_week(LOCAL).cyclical(7.0),
}
FLIGHT: dict[str, Expression] = {
    "origin": column("origin", Dtype.STRING).one_hot(categories=AIRPORTS),
    "carrier": column("carrier", Dtype.STRING).one_hot(top_k=10),
    "route": column("route", Dtype.STRING).index(top_k=300),
}
WEATHER: dict[str, Expression] = {
    "temp": _number("origin_weather", "temp").impute_median().standardise(),
    "dew_point_spread": (_number("origin_weather", "temp") - _number("origin_weather", "dewp")).impute_median(),
    "humid": _number("origin_weather", "humid").impute_median().standardise(),
    "wind_dir": _number("origin_weather", "wind_dir").impute_median().cyclical(360.0),
    # One observation says 1,048 miles per hour: a broken instrument, not a wind.
    "wind_speed": _number("origin_weather", "wind_speed").clean(0.0, 100.0).impute_median().standardise(),
    "wind_gust": _number("origin_weather", "wind_gust").clean(0.0, 150.0).impute(0.0),
    "wind_gust_unknown": _number("origin_weather", "wind_gust").is_null(),
    "precip": _number("origin_weather", "precip").clip(0.0, None).impute(0.0).log1p(),
    "pressure": _number("origin_weather", "pressure").impute_median().standardise(),
    "pressure_unknown": _number("origin_weather", "pressure").is_null(),
    "visib": _number("origin_weather", "visib").impute_median().min_max(),
}
DEPARTURES: dict[str, Expression] = {
    "dep_count_1h": _whole("origin_departures", "dep_count_1h").impute(0).standardise(),
    "dep_delay_mean_1h": _delay("origin_departures", "dep_delay_mean_1h"),
    "dep_delay_max_1h": _number("origin_departures", "dep_delay_max_1h").clip(0.0, None).impute(0.0).log1p(),
    "dep_delay_mean_3h": _delay("origin_departures", "dep_delay_mean_3h"),
    "dep_delayed_share_3h": _share("origin_departures", "dep_delayed_share_3h"),
    "waiting_3h": _whole("origin_departures", "waiting_3h").clip(0, None).impute(0).log1p(),
    "scheduled_next_1h": _whole("origin_departures", "scheduled_next_1h").impute(0).standardise(),
    "dep_delay_rising": (
        _number("origin_departures", "dep_delay_mean_1h") - _number("origin_departures", "dep_delay_mean_3h")
    ).impute(0.0),
    "no_recent_departures": _number("origin_departures", "dep_delay_mean_3h").is_null(),
}
CARRIER: dict[str, Expression] = {
    "carrier_arrivals_6h": _whole("carrier_recent", "arrivals_6h").clip(0, None).impute(0).log1p(),
    "carrier_arr_delay_6h": _delay("carrier_recent", "arr_delay_mean_6h"),
    "carrier_late_share_6h": _share("carrier_recent", "late_share_6h"),
    "carrier_arr_delay_24h": _delay("carrier_recent", "arr_delay_mean_24h"),
    "carrier_dep_delay_3h": _delay("carrier_recent", "dep_delay_mean_3h"),
    "carrier_quiet": _number("carrier_recent", "dep_delay_mean_3h").is_null(),
    "carrier_flights_30d": _whole("carrier_history", "flights_30d").clip(0, None).impute(0).log1p(),
    "carrier_arr_delay_30d": _delay("carrier_history", "arr_delay_mean_30d"),
    "carrier_arr_delay_std_30d": _number("carrier_history", "arr_delay_std_30d").impute_median().standardise(),
    "carrier_late_share_30d": _share("carrier_history", "late_share_30d"),
}
ROUTE: dict[str, Expression] = {
    "route_flights_30d": _whole("route_history", "flights_30d").clip(0, None).impute(0).log1p(),
    "route_arr_delay_30d": _delay("route_history", "arr_delay_mean_30d"),
    "route_arr_delay_std_30d": _number("route_history", "arr_delay_std_30d").impute_median().standardise(),
    "route_late_share_30d": _share("route_history", "late_share_30d"),
    "route_air_time_30d": _number("route_history", "air_time_mean_30d").impute_median().standardise(),
    "route_distance": _number("route_history", "distance").impute_median().standardise(),
    "route_last_arr_delay": _delay("route_recent", "last_arr_delay"),
    "route_last_dep_delay": _delay("route_recent", "last_dep_delay"),
    "route_arr_delay_last_5": _delay("route_recent", "arr_delay_mean_last_5"),
    "route_quiet": _number("route_recent", "last_arr_delay").is_null(),
}
AIRCRAFT: dict[str, Expression] = {
    "prev_arr_delay": _delay("aircraft_previous_leg", "prev_arr_delay"),
    "prev_dep_delay": _delay("aircraft_previous_leg", "prev_dep_delay"),
    # What the leg made up in the air (below zero) or lost (above).
    "prev_delay_gained": (
        _number("aircraft_previous_leg", "prev_arr_delay") - _number("aircraft_previous_leg", "prev_dep_delay")
    ).impute(0.0),
    "prev_air_time": _number("aircraft_previous_leg", "prev_air_time").impute_median().standardise(),
    "prev_distance": _number("aircraft_previous_leg", "prev_distance").impute_median().standardise(),
    "legs_7d": _whole("aircraft_previous_leg", "legs_7d").impute(0).standardise(),
    "prev_leg_unknown": _number("aircraft_previous_leg", "prev_arr_delay").is_null(),
    "aircraft_age": (scheduled.year(LOCAL) - manufacture_year).impute_median(),
    "seats": _whole("aircraft", "seats").impute_median().standardise(),
    "engines": _whole("aircraft", "engines").impute_median(),
    "engine_type": column("aircraft__engine_type", Dtype.STRING).one_hot(categories=(TURBO_FAN, TURBO_JET)),
    "manufacturer": column("aircraft__manufacturer", Dtype.STRING).index(top_k=20),
    "aircraft_unknown": manufacture_year.is_null(),
}

OUTPUTS: dict[str, Expression] = CALENDAR | FLIGHT | WEATHER | DEPARTURES | CARRIER | ROUTE | AIRCRAFT
"""Every output in the order of the model's tensor."""
