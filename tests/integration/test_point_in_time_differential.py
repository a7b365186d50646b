"""Our point-in-time engine against Feast's over its DuckDB store: equal, or different for a reason that is listed."""

import math
import random
from enum import Enum
from typing import Any

import numpy as np
import pandas as pd
import pytest

from harness.feature_repository import (
    EVERYTHING,
    FEAST_WARNS,
    HOURS,
    LINES,
    START_US,
    STATIONS,
    SmallRepository,
    small_repository,
)
from skewless.adapters.duckdb_point_in_time import features_at
from skewless.adapters.feast_import import quiet
from skewless.dtypes import Dtype, column_of, to_python
from skewless.features.contract import FeatureContract, ViewRead
from skewless.features.frame import STATUS_CODES, FeatureFrame
from skewless.features.point_in_time import Known
from skewless.features.visibility import Status
from skewless.timestamps import HOUR_US, SECOND_US, from_micros

pytestmark = FEAST_WARNS

QUESTIONS = 400


class Reason(Enum):
    """Why a value that Feast's engine gives is not the one that ours gives."""

    NOT_KNOWN_YET = "Feast takes rows whose created time is after the moment asked for, unless told not to."
    NAN = "Feast gives a NaN back; ours gives null, as Feast's own online store keeps it."
    EMPTY_BYTES = "Feast gives empty bytes back; ours gives null, as Feast's own online store keeps them."
    WITHIN_A_SECOND = "Feast gives microseconds of a time; ours whole seconds, as Feast's own online store keeps it."
    NEGATIVE_ZERO = "Feast gives -0.0 back; ours gives 0.0, for joins keep the sign only sometimes."


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("differential")
    with small_repository(folder, "pit_differential", project="pitdifferential", seed=17) as made:
        yield made


def _questions(seed: int) -> list[dict[str, Any]]:
    rng = random.Random(seed)
    return [
        {
            "row_id": number,
            "station": rng.choice([*STATIONS, "unknown"]),
            "line": rng.choice([*LINES, 99]),
            # On the grid of the sources' times as well as between, so that ages lie on the edge of the ttl.
            "as_of": START_US + rng.randrange(-2, HOURS) * HOUR_US + rng.choice([0, 250_001, 250_000, 17]),
        }
        for number in range(QUESTIONS)
    ]


def _feasts(small: SmallRepository, questions: list[dict[str, Any]], known: Known) -> list[dict[str, Any]]:
    """Feast's rows in the order of the questions, which it does not keep."""
    store = small.open("127.0.0.1:1", small.data / "feast_registry.db")._store
    entities = pd.DataFrame([{**each, "event_timestamp": from_micros(each["as_of"])} for each in questions]).drop(
        columns="as_of"
    )
    with quiet():
        service = store.get_feature_service(EVERYTHING)
        job = store.get_historical_features(
            entities, service, full_feature_names=True, filter_by_created_timestamp=known is Known.THEN
        )
        found: list[dict[str, Any]] = job.to_arrow().to_pylist()
    assert sorted(each["row_id"] for each in found) == list(range(QUESTIONS))
    return sorted(found, key=lambda each: int(each["row_id"]))


def _ours(small: SmallRepository, questions: list[dict[str, Any]]) -> tuple[FeatureContract, FeatureFrame]:
    repository = small.open("127.0.0.1:1", small.data / "feast_registry.db")
    repository.apply(small.definitions())
    contract = repository.contract(EVERYTHING)
    keys = {
        "station": column_of(Dtype.STRING, [each["station"] for each in questions]),
        "line": column_of(Dtype.INT64, [each["line"] for each in questions]),
    }
    as_of = np.array([each["as_of"] for each in questions], dtype=np.int64)
    return contract, features_at(contract, repository.sources(EVERYTHING), keys, as_of)


def _reason(mine: Any, theirs: Any, dtype: Dtype) -> Reason | None:
    """Why two values differ as they are stored; None where there is no reason for it."""
    if mine is None and isinstance(theirs, float) and math.isnan(theirs):
        return Reason.NAN
    if mine is None and theirs == b"":
        return Reason.EMPTY_BYTES
    if dtype is Dtype.TIMESTAMP and mine is not None and theirs is not None:
        return Reason.WITHIN_A_SECOND if theirs // SECOND_US == mine // SECOND_US else None
    if isinstance(theirs, float) and theirs == 0.0 and mine == 0.0:
        return Reason.NEGATIVE_ZERO
    return None


def _plain(value: Any, dtype: Dtype) -> Any:
    if value is None or dtype is not Dtype.TIMESTAMP:
        return value
    return int(pd.Timestamp(value).tz_convert("UTC").value // 1_000)


def _same(mine: Any, theirs: Any) -> bool:
    if isinstance(mine, float) and isinstance(theirs, float):
        return mine == theirs and math.copysign(1, mine) == math.copysign(1, theirs)
    return bool(type(mine) is type(theirs) and mine == theirs) if mine is not None else theirs is None


def _compare(
    view: ViewRead, frame: FeatureFrame, other: FeatureFrame | None, feasts: list[dict[str, Any]]
) -> dict[Reason | None, int]:
    """How often each reason held; `other` is the answer with what is finally known, where that is a reason."""
    seen: dict[Reason | None, int] = {}
    for feature in view.features:
        name = f"{view.name}__{feature.name}"
        mine = to_python(frame.columns[name])
        final = None if other is None else to_python(other.columns[name])
        for row, line in enumerate(feasts):
            theirs = _plain(line[name], feature.dtype)
            reason: Reason | None = None
            if not _same(mine[row], theirs):
                reason = _reason(mine[row], theirs, feature.dtype)
                if reason is None and final is not None:
                    later = _same(final[row], theirs) or _reason(final[row], theirs, feature.dtype) is not None
                    reason = Reason.NOT_KNOWN_YET if later else None
                assert reason is not None, f"{name} of {line}: ours {mine[row]!r}, Feast's {theirs!r}"
            seen[reason] = seen.get(reason, 0) + 1
    return seen


@pytest.mark.parametrize("seed", [1, 2])
def test_our_engine_gives_what_feasts_gives_or_a_listed_reason(small: SmallRepository, seed: int) -> None:
    questions = _questions(seed)
    contract, frame = _ours(small, questions)
    sources = small.open("127.0.0.1:1", small.data / "feast_registry.db").sources(EVERYTHING)
    keys = {
        "station": column_of(Dtype.STRING, [each["station"] for each in questions]),
        "line": column_of(Dtype.INT64, [each["line"] for each in questions]),
    }
    as_of = np.array([each["as_of"] for each in questions], dtype=np.int64)
    final = features_at(contract, sources, keys, as_of, Known.FINALLY)
    total: dict[Reason | None, int] = {}
    for known, other in ((Known.THEN, None), (Known.FINALLY, final)):
        feasts = _feasts(small, questions, known)
        for view in contract.views:
            for reason, count in _compare(view, frame, other, feasts).items():
                total[reason] = total.get(reason, 0) + count
    assert total[None] > QUESTIONS * 10
    assert set(total) == {None, *Reason}, f"seed {seed} shows only {total}"
    statuses = {STATUS_CODES[code] for codes in frame.statuses.values() for code in codes}
    assert statuses == {Status.OK, Status.NULL, Status.MISSING, Status.STALE}
