"""Local time is what the zone's clocks show, summer time included, and does not depend on the host once fitted."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from skewless.dtypes import Column, Dtype, column_of
from skewless.timestamps import parse_timestamp
from skewless.transforms import FittedTransform, Transform, column
from skewless.transforms.timezones import offsets_of

AT = column("at", Dtype.TIMESTAMP, nullable=False)
ZONES = ["America/New_York", "Europe/Dublin", "Australia/Lord_Howe", "Asia/Kathmandu", "Africa/Casablanca", "UTC"]


def parts(zone: str) -> FittedTransform:
    transform = Transform(
        {
            "year": AT.year(zone),
            "month": AT.month(zone),
            "day_of_week": AT.day_of_week(zone),
            "hour": AT.hour(zone),
            "minute_of_day": AT.minute_of_day(zone),
        }
    )
    return transform.fit({"at": column_of(Dtype.TIMESTAMP, [0])}, 1)


def moments(values: list[int]) -> dict[str, Column]:
    return {"at": column_of(Dtype.TIMESTAMP, list(values))}


@pytest.mark.parametrize("zone", ZONES)
def test_parts_are_those_that_zoneinfo_gives_for_random_moments_of_two_centuries(zone: str) -> None:
    seed = 20130310
    rng = np.random.default_rng(seed)
    first, last = parse_timestamp("1900-01-01"), parse_timestamp("2100-01-01")
    around = [moment * 1_000_000 + step for moment in offsets_of(zone)[0] for step in (-1, 0, 1)]
    values = [*rng.integers(first, last, 2_000).tolist(), *around]
    tensor = parts(zone).prepare().apply(moments(values), len(values))
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    local = [(epoch + timedelta(microseconds=value)).astimezone(ZoneInfo(zone)) for value in values]
    expected = [[at.year, at.month, at.weekday(), at.hour, at.hour * 60 + at.minute] for at in local]
    assert tensor.tolist() == expected, f"seed {seed}"


def test_the_hour_that_summer_time_skips_and_the_one_it_repeats() -> None:
    texts = ["2013-03-10T06:59:59Z", "2013-03-10T07:00:00Z", "2013-11-03T05:30:00Z", "2013-11-03T06:30:00Z"]
    values = [int(parse_timestamp(text)) for text in texts]
    tensor = parts("America/New_York").prepare().apply(moments(values), 4)
    assert tensor[:, 4].tolist() == [119.0, 180.0, 90.0, 90.0]


def test_the_offsets_used_are_stored_with_the_fitted_transform() -> None:
    stored = parts("America/New_York").to_json()
    (learned,) = [entry for entry in stored["learned"] if entry is not None]
    assert learned["transitions"] == list(offsets_of("America/New_York")[0])
    assert {-4 * 3600, -5 * 3600} <= set(learned["offsets"])


def test_years_outside_the_table_and_the_ends_of_int64_are_computed_with_the_nearest_offset() -> None:
    values = [int(parse_timestamp("2400-07-01")), -(2**63), 2**63 - 1]
    tensor = parts("America/New_York").prepare().apply(moments(values), 3)
    assert tensor[0].tolist() == [2400.0, 6.0, 4.0, 19.0, 19.0 * 60]
    assert np.isfinite(tensor).all()


def test_null_moments_are_null() -> None:
    nullable = column("at", Dtype.TIMESTAMP)
    transform = Transform({"hour": nullable.hour("UTC").impute(-1.0)})
    fitted = transform.fit({"at": column_of(Dtype.TIMESTAMP, [0])}, 1)
    assert fitted.prepare().apply({"at": column_of(Dtype.TIMESTAMP, [None, 3_600_000_000])}, 2).tolist() == [
        [-1.0],
        [1.0],
    ]
