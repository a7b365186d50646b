"""The Feast view of a stream's features, made of its declaration: what a feature repository lists beside it.

::

    aircraft = Entity(name="aircraft", join_keys=["tailnum"], value_type=ValueType.STRING)
    aircraft_activity_view = feature_view(aircraft_activity, entities=[aircraft], path="tables/aircraft_activity")
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import feast.types
from feast import Field

from skewless.adapters.feast_import import DeltaFormat, Entity, FeatureView, FileSource
from skewless.aggregates.declaration import CREATED_TIME, StreamAggregates
from skewless.dtypes import TABLE

EVENT_TIME = "event_time"
"""The column of the rows' event times."""


def feature_view(
    stream: StreamAggregates,
    *,
    entities: Sequence[Entity],
    path: str | Path,
    ttl: timedelta = timedelta(0),
    tags: Mapping[str, str] | None = None,
) -> FeatureView:
    """The view that a stream feeds, with its features in their order and a Delta table at `path` for its source.

    `entities` have the stream's join keys. An entity's newest row stays as it is once all its windows are empty, so a
    `ttl` makes those that are quiet for so long `stale`.
    """
    return FeatureView(
        name=stream.view,
        entities=list(entities),
        ttl=ttl,
        schema=[Field(name=name, dtype=_type(TABLE[dtype].feast)) for name, dtype in stream.features],
        source=FileSource(
            name=f"{stream.view}_rows",
            path=str(path),
            file_format=DeltaFormat(),
            timestamp_field=EVENT_TIME,
            created_timestamp_column=CREATED_TIME,
        ),
        description=stream.description,
        owner=stream.owner,
        tags=dict(tags or {}),
    )


def _type(name: str) -> Any:
    return getattr(feast.types, name)
