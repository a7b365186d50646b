"""What `skewless demo` runs: the data, the model and the span of time that it replays as live traffic."""

from feature_repo.models.flight_delay import flight_delay
from feature_repo.sources import build_sources
from skewless.simulation.example import Example
from skewless.timestamps import parse_timestamp

EXAMPLE = Example(
    title="Flights out of New York in 2013: which will arrive more than 15 minutes late?",
    model=flight_delay,
    endpoint="flight-delay",
    build_sources=build_sources,
    replay_start=parse_timestamp("2013-05-01"),
    replay_until=parse_timestamp("2013-05-15"),
)
