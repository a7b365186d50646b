"""One prediction log as programs ask it."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Self

from skewless.adapters import log_reader
from skewless.adapters.log_rows import LogRows
from skewless.adapters.outcome_maturity import label_maturity
from skewless.registry.repository import system_clock
from skewless.serving.label_maturity import LabelMaturity
from skewless.serving.outcome_terms import OutcomeTerms
from skewless.settings import Settings, load_settings
from skewless.timestamps import given_moment

Moment = datetime | str
"""A datetime with a time zone, or RFC 3339 text; a date alone is its UTC midnight."""


def open_log(
    folder: str | Path | None = None, *, store: str | None = None, terms: Mapping[str, OutcomeTerms] | None = None
) -> "Log":
    """The log in a folder and in the store at an address (`<folder>/store` where not given).

    With a `store` alone what gateways have not shipped yet is left out. With neither it is the log of this home, as
    SKEWLESS_HOME and SKEWLESS_LOG_STORE say. `terms` say what is agreed about outcomes, by endpoint. Nothing is read
    yet. Raises InvalidSettings for an address that cannot be used.
    """
    if folder is None and store is None:
        settings = load_settings(Settings)
        folder, store = settings.folders.predictions, settings.log_store_address
    return Log(
        log_reader.open_log(None if folder is None else Path(folder), store, terms=terms or {}), dict(terms or {})
    )


class Log:
    """Asks one log. Made for one thread; to be closed, or used as a context. Every method raises Unavailable.

    `since` and `until` are moments of `as_of`, the first included and the last not; None: open.
    """

    def __init__(self, reader: log_reader.LogReader, terms: Mapping[str, OutcomeTerms]) -> None:
        self._reader = reader
        self._terms = terms

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """End what is still being read."""
        self._reader.close()

    def endpoints(self) -> tuple[str, ...]:
        """Every endpoint that the log has predictions of, by name."""
        return self._reader.endpoints()

    def find(self, prediction_id: str) -> LogRows:
        """The record of one prediction, one row. Raises NotFound."""
        return LogRows(self._reader.find(prediction_id))

    def predictions(
        self,
        endpoint: str,
        *,
        since: Moment | None = None,
        until: Moment | None = None,
        columns: Sequence[str] | None = None,
    ) -> LogRows:
        """An endpoint's predictions in every role, by as_of and then id; `columns` None: all.

        Raises InvalidRequest for a column that there is not, or that bundles declare with different dtypes.
        """
        return LogRows(self._reader.predictions(endpoint, _micros(since), _micros(until), columns))

    def joined(
        self,
        endpoint: str,
        *,
        since: Moment | None = None,
        until: Moment | None = None,
        columns: Sequence[str] | None = None,
    ) -> LogRows:
        """As `predictions`, each beside its outcome in force: `outcome`, `outcome_time`, `outcome_received_time`,
        `outcome_id`, `outcome_caller`, null where none has come."""
        return LogRows(self._reader.joined(endpoint, _micros(since), _micros(until), columns))

    def outcomes(self, *, since: Moment | None = None, until: Moment | None = None) -> LogRows:
        """Every outcome as it was told, by time of receipt; `since` and `until` are of that time."""
        return LogRows(self._reader.outcomes(_micros(since), _micros(until)))

    def outcome_counts(
        self, endpoint: str | None = None, *, since: Moment | None = None, until: Moment | None = None
    ) -> LogRows:
        """endpoint, class, is_late, outcomes: how many outcomes received in that time did what."""
        return LogRows(self._reader.outcome_counts(endpoint, _micros(since), _micros(until)))

    def maturity(
        self, endpoint: str, *, since: Moment | None = None, until: Moment | None = None, now: Moment | None = None
    ) -> LabelMaturity:
        """How complete the outcomes of an endpoint's predictions are, by their age at `now` (None: this moment)."""
        return label_maturity(
            self._reader,
            endpoint,
            now=system_clock() if now is None else _micros(now) or 0,
            terms=self._terms.get(endpoint, OutcomeTerms()),
            start=_micros(since),
            end=_micros(until),
        )

    def sql(
        self,
        query: str,
        parameters: Sequence[object] = (),
        *,
        endpoint: str | None = None,
        since: Moment | None = None,
        until: Moment | None = None,
    ) -> LogRows:
        """The rows of one SELECT over the views of docs/outcomes.md, with `$1`, `$2`, … for parameters.

        `endpoint`, `since` and `until` choose what `predictions` has. Raises InvalidRequest for what is not one
        SELECT, and for what DuckDB refuses.
        """
        return LogRows(self._reader.sql(query, parameters, endpoint=endpoint, start=_micros(since), end=_micros(until)))


def _micros(moment: Moment | None) -> int | None:
    return given_moment(moment, path="since, until")
