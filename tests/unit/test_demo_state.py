"""What a demo remembers: everything it did, and nothing where that cannot be read."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from harness.bundles import contract
from skewless.canonical_json import Digest
from skewless.cli.demo_state import FILE, load_state, record_of, replay_work, sources_work, training_work
from skewless.dtypes import Dtype
from skewless.features.contract import RequestField
from skewless.simulation.replay import Replay
from skewless.timestamps import Micros
from skewless.training.definition import BinaryLabels, BoostedTrees, ExampleTable, ModelDefinition, Period
from skewless.transforms import Transform, column

REPLAY = Replay(("a", "b"), np.ones(2, np.float32), np.array([0.00123456789, 0.5]), 1, 9, 3, 4.5)
DEFINITION = ModelDefinition(
    name="late",
    description="",
    feature_service="s",
    request_fields=(RequestField("cars", Dtype.INT32),),
    transform=Transform({"cars": column("cars", Dtype.INT32, nullable=False)}),
    examples=ExampleTable("examples.parquet"),
    training=Period.between("2024-01-01", "2024-01-10"),
    holdout=Period.between("2024-01-08", "2024-01-10"),
    labels=BinaryLabels("no", "yes"),
)


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    state = load_state(tmp_path)
    assert (state.sources, state.training, state.bundle, state.replay) == ("", "", "", None)
    state.sources, state.training, state.bundle = "s", "t", "b"
    state.replay = record_of(REPLAY, Digest("w"), Micros(7))
    state.save()
    assert load_state(tmp_path) == state
    assert state.replay.latency_s == [0.0012346, 0.5]
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"3", b"{}", b'{"sources":"","training":"","bundle":"","replay":{"work":1}}']
)
def test_a_state_that_cannot_be_read_is_a_new_one(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    state = load_state(tmp_path)
    assert (state.sources, state.replay, state.path) == ("", None, tmp_path / FILE)


def test_source_tables_are_built_again_when_a_module_changes_but_not_for_a_model(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "sources.py").write_text("A = 1")
    before = sources_work(tmp_path)
    (tmp_path / "models" / "model.py").write_text("B = 2")
    assert sources_work(tmp_path) == before
    (tmp_path / "sources.py").write_text("A = 2")
    assert sources_work(tmp_path) != before


@pytest.mark.parametrize(
    "change",
    [
        {"training": Period.between("2024-01-02", "2024-01-10")},
        {"holdout": Period.between("2024-01-09", "2024-01-10")},
        {"learner": BoostedTrees(max_iter=3)},
        {"labels": BinaryLabels("no", "yes", 0.25)},
        {"transform": Transform({"cars": column("cars", Dtype.INT32, nullable=False) + 1.0})},
    ],
)
def test_a_model_is_trained_again_when_its_definition_changes(change: dict[str, object]) -> None:
    changed = dataclasses.replace(DEFINITION, **change)  # type: ignore[arg-type]  # one field of any type
    assert training_work("s", changed, contract()) != training_work("s", DEFINITION, contract())


def test_a_model_is_trained_again_when_its_inputs_change() -> None:
    before = training_work("s", DEFINITION, contract())
    assert training_work("s", DEFINITION, contract()) == before
    assert training_work("other", DEFINITION, contract()) != before
    assert training_work("s", DEFINITION, contract(reject_missing_weather=True)) != before


def test_a_replay_is_of_one_bundle_endpoint_and_period() -> None:
    works = {
        replay_work(*each)
        for each in [
            ("b", "e", Micros(1), Micros(2)),
            ("c", "e", Micros(1), Micros(2)),
            ("b", "f", Micros(1), Micros(2)),
            ("b", "e", Micros(0), Micros(2)),
            ("b", "e", Micros(1), Micros(3)),
        ]
    }
    assert len(works) == 5
