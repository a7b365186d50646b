"""A home whose monitor has counted weeks of an endpoint's traffic, and raised an alarm on its last half day."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import uuid_utils
from sqlalchemy.orm import Session

from harness.bundles import content, transform
from harness.replays import ENDPOINT, RecordingHome, answered, flights, frame_of
from skewless.bundles.bundle import Bundle
from skewless.drift.tally_form import packed
from skewless.dtypes import Column, Dtype, column_of
from skewless.registry.database import engine
from skewless.registry.drift_records import DriftKey
from skewless.registry.drift_tables import (
    DriftAlarmRow,
    DriftEndpointRow,
    DriftStateRow,
    DriftTallyRow,
    DriftWindowRow,
    DriftWordRow,
)
from skewless.registry.repository import Registry
from skewless.registry.sqlite import WRITES
from skewless.serving.records import AnsweredBatch
from skewless.statistics.observed import Observed
from skewless.timestamps import DAY_US, HOUR_US, parse_timestamp

START_US = parse_timestamp("2013-05-06")  # a Monday
ROWS = 40
CHANGED_HOURS = 12
SLICE = "origin=JFK"
_TRAINED_ROWS = 1_500


@dataclass(frozen=True, slots=True)
class DriftWorld:
    """What was written. Traffic is hourly, from START_US to `end_us`; it changed at `changed_us`."""

    made: RecordingHome
    bundle: Bundle
    key: DriftKey
    end_us: int
    alarm_id: str

    @property
    def changed_us(self) -> int:
        return self.end_us - CHANGED_HOURS * HOUR_US

    @property
    def url(self) -> str:
        return f"sqlite:///{self.made.home.database}"


def drift_world(folder: Path, *, days: int = 30, calibrated: bool = True, logged_days: int = 8) -> DriftWorld:
    """Everything; of the last `logged_days` the log has rows too. Training saw what comes until the change."""
    made = RecordingHome.make(folder)
    bundle = made.register(content(fitted=transform(), columns=flights(_TRAINED_ROWS, seed=1)))
    end_us = START_US + days * DAY_US
    key = DriftKey(ENDPOINT, bundle.digest, "live")
    world = DriftWorld(made, bundle, key, end_us, str(uuid_utils.uuid7()))
    hours = range(START_US, end_us, HOUR_US)
    batches = [_hour(world, at) for at in hours]
    made.log(*batches[-24 * logged_days :])
    database = engine(world.url)
    with Session(database.execution_options(**{WRITES: True})) as session, session.begin():
        session.add_all(row for batch in batches for row in _tallies(world, batch))
        session.add_all(_found(world, list(hours), calibrated=calibrated))
    database.dispose()
    return world


def newcomer(world: DriftWorld) -> DriftWorld:
    """The world as a new bundle sees it, which has answered one hour since and is live now."""
    made = content(fitted=transform(), columns=flights(_TRAINED_ROWS, seed=2), scale=2.0**-11)
    bundle = world.made.register(made)
    after = replace(world, bundle=bundle, key=replace(world.key, bundle=bundle.digest), end_us=world.end_us + HOUR_US)
    database = engine(world.url)
    with Session(database.execution_options(**{WRITES: True})) as session, session.begin():
        session.add_all(_tallies(after, _hour(after, world.end_us)))
    Registry(database).create_endpoint(ENDPOINT, description="", bundle=bundle.digest, actor="test", reason="test")
    database.dispose()
    return after


def _hour(world: DriftWorld, at: int) -> AnsweredBatch:
    """The answers of one hour, ROWS at its middle."""
    columns = flights(ROWS, seed=at // HOUR_US)
    if at >= world.changed_us:
        temp, seats = columns["weather__temp"], columns["aircraft__seats"]
        columns["weather__temp"] = _warmer(temp)
        kept = seats.valid & (np.arange(ROWS) % 3 == 0)
        columns["aircraft__seats"] = Column(Dtype.INT64, np.where(kept, seats.values, 0), kept)
        columns["origin"] = column_of(Dtype.STRING, ["BOS", *columns["origin"].values[1:].tolist()])
    as_of = at + HOUR_US // 2
    frame = frame_of(world.bundle.contract, columns, ROWS)
    frame = replace(frame, event_times={view: np.full(ROWS, as_of - HOUR_US) for view in frame.event_times})
    return answered(world.bundle, columns, frame=frame, first=at // HOUR_US * ROWS, as_of=as_of)


def _warmer(temp: Column) -> Column:
    values = np.where(temp.valid, temp.values.astype(np.float32) + np.float32(25), np.float32(0))
    return Column(Dtype.FLOAT32, values.astype(np.float32), temp.valid)


def _tallies(world: DriftWorld, batch: AnsweredBatch) -> list[DriftTallyRow]:
    """What the monitor would keep of a batch: its window, of all rows and of one slice."""
    found = []
    columns = {**batch.given, **batch.frame.columns}
    for name, places in (("", np.arange(ROWS)), (SLICE, np.flatnonzero(columns["origin"].values == "JFK"))):
        counter = world.bundle.baseline.counter()
        tally = counter.empty()
        observed = Observed(
            len(places),
            {key: Column(each.dtype, each.values[places], each.valid[places]) for key, each in columns.items()},
            {key: each[places] for key, each in batch.frame.statuses.items()},
            {view: batch.as_of - times[places] for view, times in batch.frame.event_times.items()},
            batch.tensor[places],
            {"score": batch.probabilities[places].astype(np.float32)},
        )
        counter.add(observed, tally)
        found.append(
            DriftTallyRow(
                **_key(world),
                slice=name,
                window_start_us=batch.as_of // HOUR_US * HOUR_US,
                window_us=HOUR_US,
                layout=counter.layout.digest,
                rows=tally.rows,
                late_rows=1 if not name else 0,
                recounted=False,
                shapes=None,
                counts=packed(tally),
            )
        )
    return found


def _key(world: DriftWorld) -> dict[str, Any]:
    return {"endpoint_name": world.key.endpoint, "bundle_digest": world.key.bundle, "role": world.key.role}


def _found(world: DriftWorld, hours: list[int], *, calibrated: bool) -> list[Any]:
    """What the detector would have said."""
    grade = "hour of week" if calibrated else "hour of day"
    rows: list[Any] = [
        DriftWindowRow(
            **_key(world),
            window_start_us=at,
            window_us=HOUR_US,
            rows=ROWS,
            level=2.4 if at >= world.changed_us else 0.2 + (at // HOUR_US % 5) / 10,
            leading="weather__temp",
            is_open=at >= world.changed_us,
            grade=grade,
            breaks=[_BREAK] if at >= world.changed_us + 2 * HOUR_US else None,
        )
        for at in hours
    ]
    rows.append(_alarm(world, calibrated=calibrated))
    rows.append(_state(world, grade, calibrated=calibrated))
    last = world.end_us - HOUR_US // 2
    rows.append(
        DriftWordRow(
            endpoint_name=ENDPOINT,
            bundle_digest=world.bundle.digest,
            feature="origin",
            word="BOS",
            rows=CHANGED_HOURS,
            over=0,
            first_us=world.changed_us + HOUR_US // 2,
            last_us=last,
        )
    )
    rows.append(
        DriftEndpointRow(
            endpoint_name=ENDPOINT,
            newest_us=last,
            sealed_us=world.end_us,
            is_live=False,
            rows=len(hours) * ROWS,
            late_rows=len(hours),
            uncounted_rows=0,
            problem=None,
            changed_time=world.end_us,
        )
    )
    return rows


_BREAK = {"rule": "nulls", "part": "column", "name": "aircraft__seats", "share": 0.7, "usual": 0.1}


def _alarm(world: DriftWorld, *, calibrated: bool) -> DriftAlarmRow:
    since_us = world.changed_us
    stream = {"slice": "", "part": "column", "share": 0.001, "named": True, "since_us": since_us}
    moved = [
        {**stream, "name": "weather__temp", "kind": "rise of the mean", "level": 2.4, "reached_us": since_us + HOUR_US},
        {**stream, "name": "aircraft__seats", "kind": "distribution", "level": 1.2, "reached_us": since_us + HOUR_US},
    ]
    return DriftAlarmRow(
        id=world.alarm_id,
        **_key(world),
        opened_us=since_us + HOUR_US,
        since_us=since_us,
        closed_us=None,
        peak=2.4,
        calibrated=calibrated,
        moved=moved,
        report=None,
        told_time=since_us + HOUR_US,
    )


def _state(world: DriftWorld, grade: str, *, calibrated: bool) -> DriftStateRow:
    return DriftStateRow(
        **_key(world),
        window_us=HOUR_US,
        slices=["origin"],
        next_start_us=world.end_us,
        grade=grade,
        height=30.0 if calibrated else None,
        promise_days=30.0,
        streams=40,
        achieved=0.9 if calibrated else None,
        history_start_us=START_US if calibrated else None,
        history_end_us=world.changed_us if calibrated else None,
        levels={},
        problem=None,
        computed_time=world.end_us,
        state={},
        calibration=None,
    )
