"""Logged predictions with their outcomes as a reader of the log hands them over, and how they are judged.

Text columns come as codes into a list of texts, so that what a text means is decided once for each text.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skewless.canonical_json import Digest
from skewless.model_metrics.judged import ALL, JudgedRows
from skewless.model_metrics.labels import Classes, outcome_meanings
from skewless.model_metrics.period_counts import PeriodCounts, slice_name
from skewless.model_metrics.ranking import ranking_sums

SHADOW = "shadow"
Key = tuple[Digest, str]
"""A bundle and the role in which it predicted."""


@dataclass(frozen=True, slots=True, eq=False)
class Coded:
    """A text of each row: `texts[codes[row]]`, None for none."""

    codes: NDArray[np.int32]
    texts: list[str | None]

    def where(self, wanted: frozenset[str] | set[str]) -> NDArray[np.bool_]:
        """Which rows (rows,) have one of these texts."""
        return np.array([text in wanted for text in self.texts], dtype=np.bool_)[self.codes]


@dataclass(frozen=True, slots=True, eq=False)
class LoggedRows:
    """Some predictions of an endpoint, in any order, each array (rows,).

    `scores` are the logged probabilities. `requests` numbers the request of each row, the same number for one request
    within these rows, which have all rows of each of their requests where rankings are asked for. `parts` has a text
    per row for every slice.
    """

    bundle: Coded
    role: Coded
    label: Coded
    outcome: Coded
    scores: NDArray[np.float32]
    clusters: NDArray[np.intp]
    requests: NDArray[np.int64]
    parts: Mapping[str, Coded]


@dataclass(frozen=True, slots=True)
class Judging:
    """How the rows of an endpoint are judged: what a bundle's outcomes mean, rankings by their first `ranking_k`,
    and the labels of each counter."""

    classes: Callable[[Digest], Classes | None]
    ranking_k: int | None
    counters: Mapping[str, frozenset[str]]


def count_rows(rows: LoggedRows, judging: Judging, into: dict[Key, PeriodCounts]) -> None:
    """Add rows to the counts of their bundles and roles. Raises InvalidDefinition for scores that are none."""
    for (bundle, role), places in _by_key(rows):
        counts = into.setdefault((bundle, role), PeriodCounts())
        classes = judging.classes(bundle)
        codes, numbers, told = outcome_meanings(rows.outcome.texts, classes)
        outcomes = rows.outcome.codes[places]
        scores = rows.scores[places]
        judged = JudgedRows(
            scores=(1.0 - scores).astype(np.float32) if classes is not None and classes.turned else scores,
            flagged=rows.label.where({classes.flagged} if classes is not None else set())[places],
            outcomes=codes[outcomes],
            numbers=numbers[outcomes],
            told=told[outcomes],
            clusters=rows.clusters[places],
            parts={name: coded.codes[places] for name, coded in rows.parts.items()},
            successes={name: rows.outcome.where(labels)[places] for name, labels in judging.counters.items()},
        )
        counts.add(_named(judged, rows.parts))
        if judging.ranking_k is not None:
            _count_rankings(judged, rows, places, judging.ranking_k, counts)


def _by_key(rows: LoggedRows) -> Iterator[tuple[Key, NDArray[np.intp]]]:
    roles = len(rows.role.texts)
    combined = rows.bundle.codes.astype(np.int64) * roles + rows.role.codes
    order = np.argsort(combined, kind="stable")
    for places in np.split(order, np.flatnonzero(np.diff(combined[order])) + 1):
        if len(places):
            bundle, role = divmod(int(combined[places[0]]), roles)
            yield (Digest(str(rows.bundle.texts[bundle])), str(rows.role.texts[role])), places


def _named(rows: JudgedRows, parts: Mapping[str, Coded]) -> JudgedRows:
    """Codes of one reading mean nothing beside those of another: the texts themselves from here on."""
    texts = {name: np.array([str(text) for text in coded.texts])[rows.parts[name]] for name, coded in parts.items()}
    return JudgedRows(
        rows.scores, rows.flagged, rows.outcomes, rows.numbers, rows.told, rows.clusters, texts, rows.successes
    )


def _count_rankings(
    judged: JudgedRows, rows: LoggedRows, places: NDArray[np.intp], k: int, counts: PeriodCounts
) -> None:
    """A gain is the number that was told, else 1 for the positive class and 0 for the other."""
    classed = np.where(judged.outcomes >= 0, judged.outcomes.astype(np.float64), np.nan)
    gains = np.where(np.isnan(judged.numbers), classed, judged.numbers)
    queries = rows.requests[places]
    counts.add_ranking(ALL, ranking_sums(queries, judged.scores, gains, k=k))
    for name, coded in rows.parts.items():
        codes = coded.codes[places]
        for code, whole in _requests_of_one_part(queries, codes):
            sums = ranking_sums(queries[whole], judged.scores[whole], gains[whole], k=k)
            counts.add_ranking(slice_name(name, coded.texts[code]), sums)


def _requests_of_one_part(
    queries: NDArray[np.int64], codes: NDArray[np.int32]
) -> Iterator[tuple[int, NDArray[np.bool_]]]:
    """(code, rows of the requests all of whose rows have it): a request of several parts belongs to none."""
    _, request = np.unique(queries, return_inverse=True)
    lowest = np.full(int(request.max()) + 1, np.iinfo(np.int32).max, dtype=np.int32)
    highest = np.full(len(lowest), -1, dtype=np.int32)
    np.minimum.at(lowest, request, codes)
    np.maximum.at(highest, request, codes)
    alike = (lowest == highest)[request]
    for code in np.unique(codes[alike]).tolist():
        yield code, alike & (codes == code)
