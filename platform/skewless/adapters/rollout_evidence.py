"""What the prediction log says about a rollout: tallies of roles, and outcomes beside the predictions they are about.

A segment's name begins with the moment at which it was begun, and it is sealed seconds later: those that can hold
records since a moment are known by their names. Outcomes and predictions are joined by id, as `log_views.py` says.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa

from skewless.adapters.log_reader import days, open_log
from skewless.adapters.log_session import LogSession
from skewless.adapters.log_sources import ALL_DAYS, Wanted
from skewless.adapters.log_tables import OUTCOMES, PREDICTIONS
from skewless.adapters.log_views import records_sql, since_sql
from skewless.adapters.spool import SPOOL, open_segments, segment_name
from skewless.canonical_json import Digest
from skewless.errors import InvalidDefinition
from skewless.features.point_in_time import literal
from skewless.rollout.routes import Role
from skewless.serving.outcome_terms import OutcomeTerms
from skewless.serving.role_tally import RoleTally
from skewless.serving.scored_outcome import ScoredOutcome, prediction_time
from skewless.timestamps import HOUR_US, Micros

_SEGMENT_SPAN_US = HOUR_US
"""More than the time from a segment's first record to its last, also where sealing was late."""
_NAME_DIGITS = 14
"""Of the moment that a segment's name begins with, in hexadecimal µs."""
_PREDICTED = ("prediction_id", "label", "role", "bundle_digest", "experiment", "arm")
_NO_TERMS: Mapping[str, OutcomeTerms] = {}


class LogEvidence:
    """Implements `Evidence` on a prediction log; see `open_log` for what it is made of."""

    def __init__(
        self, folder: Path, store: str | None = None, *, terms: Mapping[str, OutcomeTerms] = _NO_TERMS
    ) -> None:
        self._folder = folder
        self._log = open_log(folder, store, terms=terms)
        self._terms = terms

    def tallies(self, endpoint: str, start: Micros, end: Micros) -> list[RoleTally]:
        """See `Evidence.tallies`."""
        documents = map(json.loads, self._log.tallies(endpoint, start, end).column("tally").to_pylist())
        return sorted(_tallies(documents), key=lambda each: each.end)

    def outcomes(self, endpoint: str, start: Micros, end: Micros) -> list[ScoredOutcome]:
        """See `Evidence.outcomes`."""

        def ask(session: LogSession) -> list[ScoredOutcome]:
            told = f"SELECT * FROM outcomes_told WHERE {since_sql('received_time', start, end)}"
            return [_scored(row) for row in self._beside(session, endpoint, _last_sql(told))]

        return self._log.ask(self._wanted(endpoint, start, end), ask)

    def outcome_segments(
        self, endpoint: str, *, since: Micros, known: frozenset[str]
    ) -> Iterator[tuple[str, list[ScoredOutcome]]]:
        """See `Evidence.outcome_segments`."""
        unsealed = [segment_name(path) for path in open_segments(self._folder / SPOOL)]
        first = f"{max(0, since - _SEGMENT_SPAN_US):0{_NAME_DIGITS}x}"

        def ask(session: LogSession) -> tuple[list[str], list[dict[str, Any]]]:
            session.register("known_segments", _segments(known))
            session.register("unsealed_segments", _segments(unsealed))
            session.outcome_views(self._terms)
            new = f"segment >= {literal(first)} AND segment NOT IN (SELECT segment FROM unsealed_segments)"
            session.view(
                "ranked",
                "SELECT outcomes_told.*, CASE WHEN segment IN (SELECT segment FROM known_segments) THEN '' "
                f"ELSE segment END AS place FROM outcomes_told WHERE {new}",
            )
            first_told = (
                "SELECT * FROM ranked WHERE prediction_id IS NOT NULL "
                "QUALIFY place = min(place) OVER (PARTITION BY prediction_id)"
            )
            found = session.arrow("SELECT DISTINCT place FROM ranked WHERE place <> '' ORDER BY place")
            last = _last_sql(f"SELECT * FROM ({first_told}) WHERE place <> ''")
            return found.column(0).to_pylist(), self._beside(session, endpoint, last, prepared=True)

        segments, rows = self._log.ask(self._wanted(endpoint, Micros(since - _SEGMENT_SPAN_US), None), ask)
        scored = {
            segment: [_scored(row) for row in of_segment]
            for segment, of_segment in groupby(rows, key=lambda row: str(row["segment"]))
        }
        for segment in segments:
            yield segment, scored.get(segment, [])

    def _wanted(self, endpoint: str, start: Micros, end: Micros | None) -> Wanted:
        # Which days predictions are of is not known: their as_of may be any moment. DuckDB skips by their ids.
        return Wanted({OUTCOMES: days(start, end), PREDICTIONS: ALL_DAYS}, endpoint)

    def _beside(self, session: LogSession, endpoint: str, told: str, *, prepared: bool = False) -> list[dict[str, Any]]:
        """Outcomes beside the endpoint's predictions, by segment and then prediction; others are left out."""
        if not prepared:
            session.outcome_views(self._terms)
        own = [scan for scan in session.scans(PREDICTIONS) if scan.source.endpoint == endpoint]
        sql = (
            "SELECT told.segment, told.label AS outcome, predicted.* "
            f"FROM ({told}) AS told JOIN ({records_sql(own, PREDICTIONS, only=_PREDICTED)}) AS predicted "
            "ON told.prediction_id = predicted.prediction_id ORDER BY told.segment, predicted.prediction_id"
        )
        rows: list[dict[str, Any]] = session.arrow(sql).to_pylist()
        return rows


def _last_sql(told: str) -> str:
    """Of several outcomes of one prediction the one received last."""
    return (
        f"SELECT * FROM ({told}) WHERE prediction_id IS NOT NULL "
        "QUALIFY row_number() OVER (PARTITION BY prediction_id ORDER BY received_time DESC, outcome_id DESC) = 1"
    )


def _segments(names: Iterable[str]) -> Any:
    return pa.table({"segment": pa.array(sorted(names), pa.string())})


def _tallies(documents: Iterable[Mapping[str, Any]]) -> Iterator[RoleTally]:
    """The tallies that this version understands; what a gateway of another version counts is not mixed in."""
    for document in documents:
        with suppress(InvalidDefinition, KeyError, TypeError, ValueError):
            yield RoleTally.from_json(document)


def _scored(row: Mapping[str, Any]) -> ScoredOutcome:
    return ScoredOutcome(
        row["prediction_id"],
        row["outcome"],
        row["label"],
        Role(row["role"]),
        Digest(row["bundle_digest"]),
        row["experiment"] or "",
        row["arm"] or "",
        prediction_time(row["prediction_id"]),
    )
