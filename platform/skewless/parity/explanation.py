"""One served value beside the offline one, with what is known about both rows, in words that a person can follow."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from skewless.features.contract import FeatureContract
from skewless.features.frame import NO_EVENT_TIME, STATUS_CODES, FeatureFrame
from skewless.parity.causes import ACCOUNTS, CAUSES, PENDING, Cause
from skewless.parity.check import Checked
from skewless.parity.compare import shown
from skewless.parity.evidence import Versions
from skewless.timestamps import format_timestamp

_VERSIONS_SHOWN = 6


@dataclass(frozen=True, slots=True)
class Side:
    """A value as one side had it. Times in µs, None where there is no row or it is not known."""

    value: str
    status: str
    event_time: int | None
    created_time: int | None = None


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a source row that was looked at. Times in µs."""

    event_time: int
    created_time: int
    value: str


@dataclass(frozen=True, slots=True)
class Explained:
    """One column of one prediction. `cause` is None where both sides are equal; `pending` where nobody knows yet."""

    prediction_id: str
    as_of: int
    view: str
    column: str
    cause: Cause | None
    pending: bool
    served: Side
    offline: Side
    versions: tuple[Version, ...]

    @property
    def words(self) -> str:
        """What happened, as a sentence or two; empty where both sides are equal."""
        if self.pending:
            return f"{_told('served', self.served)}; the source has not got so far yet, so nobody can say"
        if self.cause is None:
            return ""
        told = f"{_told('served', self.served)}, {_told('offline', self.offline)}: {ACCOUNTS[self.cause].meaning}"
        others = [each for each in self.versions if each.value == self.served.value != self.offline.value]
        if others and self.served.event_time is not None:
            told += f" (a version known since {_when(others[-1].created_time)} holds the served value)"
        return told

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "prediction_id": self.prediction_id,
            "as_of": _when(self.as_of),
            "view": self.view,
            "column": self.column,
            "cause": self.cause and self.cause.value,
            "pending": self.pending,
            "served": _side_json(self.served),
            "offline": _side_json(self.offline),
            "versions": [
                {"event_time": _when(each.event_time), "created_time": _when(each.created_time), "value": each.value}
                for each in self.versions
            ],
            "words": self.words,
        }


def explain_value(checked: Checked, contract: FeatureContract, row: int, column: str) -> Explained:
    """What is known of one column of one prediction of a check."""
    view = contract.view_of_column[column]
    versions = _versions(checked.versions.get(view), row, column.removeprefix(f"{view}__"))
    offline = _side(checked.then, view, column, row)
    known = [each.created_time for each in versions if each.event_time == offline.event_time]
    as_of = int(checked.served.as_of[row])
    code = int(checked.features[column][row])
    return Explained(
        prediction_id=checked.served.prediction_ids[row],
        as_of=as_of,
        view=view,
        column=column,
        cause=CAUSES[code] if code < len(CAUSES) else None,
        pending=code == PENDING,
        served=_side(checked.served.frame, view, column, row),
        offline=Side(
            offline.value,
            offline.status,
            offline.event_time,
            max((each for each in known if each <= as_of), default=None),
        ),
        versions=versions,
    )


def explain_row(checked: Checked, contract: FeatureContract, row: int) -> tuple[Explained, ...]:
    """Every feature of one prediction, in the contract's order."""
    return tuple(explain_value(checked, contract, row, column) for column in contract.view_of_column)


def _side(frame: FeatureFrame, view: str, column: str, row: int) -> Side:
    event_time = int(frame.event_times[view][row])
    return Side(
        shown(frame.columns[column], row),
        str(STATUS_CODES[frame.statuses[column][row]]),
        None if event_time == NO_EVENT_TIME else event_time,
    )


def _versions(found: Versions | None, row: int, feature: str) -> tuple[Version, ...]:
    if found is None or feature not in found.columns:
        return ()
    lines = np.flatnonzero(found.row == row)[-_VERSIONS_SHOWN:]
    return tuple(
        Version(int(found.event_time[line]), int(found.created_time[line]), shown(found.columns[feature], int(line)))
        for line in lines.tolist()
    )


def _told(side: str, value: Side) -> str:
    if value.event_time is None:
        return f"{side} {value.value} ({value.status}, no row)"
    known = "" if value.created_time is None else f", known since {_when(value.created_time)}"
    return f"{side} {value.value} ({value.status}, row of {_when(value.event_time)}{known})"


def _side_json(side: Side) -> dict[str, Any]:
    return {
        "value": side.value,
        "status": side.status,
        "event_time": None if side.event_time is None else _when(side.event_time),
        "created_time": None if side.created_time is None else _when(side.created_time),
    }


def _when(moment: int) -> str:
    """RFC 3339, or the bare microseconds of a moment outside the years 1 to 9999."""
    try:
        return format_timestamp(moment)
    except OverflowError:
        return f"{moment} µs"
