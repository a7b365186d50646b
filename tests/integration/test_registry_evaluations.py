"""Data sets and evaluations, on SQLite and PostgreSQL."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from skewless.canonical_json import digest
from skewless.errors import Conflict, InvalidDefinition, NotFound
from skewless.registry import database
from skewless.registry.records import BundleRecord, DatasetRecord, EvaluationRecord
from skewless.registry.repository import Registry
from skewless.timestamps import Micros

BUNDLE, OTHER = digest("bundle"), digest("other bundle")
DATASET = DatasetRecord(digest("rows"), "hold-out", 327_346, Micros(-5), Micros(1 << 50), "SELECT 'é'", Micros(7))
EVALUATION = EvaluationRecord(
    BUNDLE,
    DATASET.digest,
    {"auroc": 0.1 + 0.2, "rows": 3, "interval": [0.5, None]},
    {"carrier": [{"value": "AA", "auroc": 0.7}]},
    Micros(9),
)


@pytest.fixture
def registry(registry_url: str) -> Iterator[Registry]:
    made = Registry(database.engine(registry_url))
    for own in (BUNDLE, OTHER):
        made.register_bundle(BundleRecord(own, "b", Micros(1), own, own, own, {}))
    yield made
    made.close()


def test_a_dataset_is_read_back_exactly_and_added_once(registry: Registry) -> None:
    registry.add_dataset(DATASET, actor="ann", reason="training")
    registry.add_dataset(replace(DATASET, created_time=Micros(99)))
    assert registry.dataset(DATASET.digest) == DATASET
    assert [each.action for each in registry.audit(subject=f"dataset/{DATASET.digest}")] == ["add"]


def test_datasets_are_listed_newest_first_and_by_name(registry: Registry) -> None:
    newer = replace(DATASET, digest=digest("more"), name="train", start=None, end=None, created_time=Micros(8))
    registry.add_dataset(DATASET)
    registry.add_dataset(newer)
    assert registry.datasets() == (newer, DATASET)
    assert registry.datasets("hold-out") == (DATASET,)


def test_a_dataset_that_contradicts_its_digest_or_itself_is_refused(registry: Registry) -> None:
    registry.add_dataset(DATASET)
    with pytest.raises(Conflict, match="is known with 327346 rows, not 1"):
        registry.add_dataset(replace(DATASET, rows=1))
    with pytest.raises(InvalidDefinition, match="ends before it starts"):
        registry.add_dataset(replace(DATASET, digest=digest("odd"), end=Micros(-6)))
    with pytest.raises(NotFound, match="dataset"):
        registry.dataset(digest("odd"))


def test_an_evaluation_is_read_back_exactly(registry: Registry) -> None:
    registry.add_dataset(DATASET)
    registry.add_evaluation(EVALUATION, actor="ann", reason="trained")
    assert registry.evaluations(BUNDLE) == (EVALUATION,)
    assert registry.evaluations(OTHER) == ()


def test_evaluating_a_bundle_on_the_same_dataset_again_replaces_the_figures_and_is_audited(registry: Registry) -> None:
    registry.add_dataset(DATASET)
    registry.add_evaluation(EVALUATION)
    again = replace(EVALUATION, metrics={"auroc": 0.8}, slices={}, created_time=Micros(10))
    registry.add_evaluation(again)
    assert registry.evaluations(BUNDLE) == (again,)
    events = [each for each in registry.audit(subject=f"bundle/{BUNDLE}") if each.action == "evaluate"]
    assert [each.detail["metrics"] for each in events] == [EVALUATION.metrics, again.metrics]


def test_evaluations_on_several_datasets_are_told_newest_first(registry: Registry) -> None:
    later = replace(DATASET, digest=digest("may"), name="may")
    registry.add_dataset(DATASET)
    registry.add_dataset(later)
    registry.add_evaluation(EVALUATION)
    newer = replace(EVALUATION, dataset=later.digest, created_time=Micros(20))
    registry.add_evaluation(newer)
    registry.add_evaluation(replace(EVALUATION, bundle=OTHER))
    assert registry.evaluations(BUNDLE) == (newer, EVALUATION)


def test_an_evaluation_needs_its_bundle_and_its_dataset(registry: Registry) -> None:
    with pytest.raises(NotFound, match="dataset"):
        registry.add_evaluation(EVALUATION)
    registry.add_dataset(DATASET)
    with pytest.raises(NotFound, match="bundle"):
        registry.add_evaluation(replace(EVALUATION, bundle=digest("unknown")))
    assert registry.evaluations(BUNDLE) == ()
