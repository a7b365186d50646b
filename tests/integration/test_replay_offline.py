"""A back-test whose bundle reads a view that was never recorded, filled from the offline store, point in time."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from numpy.typing import NDArray

from harness.bundles import content
from harness.feature_repository import FEAST_WARNS, MODEL, small_repository
from harness.replays import RecordingHome, answered
from skewless.adapters.local_model import local_model
from skewless.bundles.bundle import Bundle
from skewless.cli.main import main
from skewless.cli.workspace import Workspace
from skewless.dtypes import Column, Dtype
from skewless.features.contract import RequestField
from skewless.features.frame import FeatureFrame
from skewless.parity.recompute import recompute
from skewless.settings import Home
from skewless.training.examples import select
from skewless.transforms import Transform, column

pytestmark = FEAST_WARNS
ROWS = 60


@dataclass(frozen=True, slots=True)
class Shop:
    """A trained bundle, traffic that a smaller one answered, and what the trained one says of it offline."""

    trained: Bundle
    expected: NDArray[np.float32]


def _rows(columns: Mapping[str, Column], rows: slice) -> dict[str, Column]:
    return {name: Column(each.dtype, each.values[rows], each.valid[rows]) for name, each in columns.items()}


def _frame(frame: FeatureFrame, rows: slice) -> FeatureFrame:
    return FeatureFrame(
        rows.stop - rows.start,
        _rows(frame.columns, rows),
        {name: each[rows] for name, each in frame.statuses.items()},
        {name: each[rows] for name, each in frame.event_times.items()},
    )


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("offline")
    with small_repository(folder, "small_offline", project="offline") as small, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SKEWLESS_HOME", str(folder / "home"))
        patch.setenv("SKEWLESS_REPO", str(small.folder))
        assert _run("apply").exit_code == 0
        made = _run("train", MODEL, "--json")
        assert made.exit_code == 0, made.output
        yield _traffic(RecordingHome(Home(folder / "home"), folder), json.loads(made.stdout)["bundle"])


def _traffic(home: RecordingHome, digest: str) -> Shop:
    """Log what a bundle without the view `leg` answers to the model's own examples, each at its own moment."""
    workspace = Workspace()
    trained, definition = workspace.bundle(digest), workspace.model(MODEL)
    offline = workspace.offline(definition)
    examples = offline.examples(definition.examples, trained.contract, definition.holdout)
    chosen = np.arange(examples.rows) < ROWS
    keys, as_of = dict(select(examples.keys, chosen)), examples.as_of[chosen]
    weather = tuple(view for view in trained.contract.views if view.name == "weather")
    # Callers of the smaller bundle tell the line too, or nobody could say which leg is meant.
    fields = (*trained.contract.request_fields, RequestField("line", Dtype.INT64, nullable=True))
    contract = replace(trained.contract, views=weather, request_fields=fields)
    frame = offline.features_at(contract, keys, as_of)
    columns = {**keys, **frame.columns}
    columns = {name: columns[name] for name, _ in contract.columns}
    temp = column("weather__temp", Dtype.FLOAT32).clean().impute(0.0)
    fitted = Transform({"temp": temp}).fit(columns, ROWS)
    bundle = home.register(content(given=contract, fitted=fitted, columns=columns))
    home.log(
        *(
            answered(
                bundle, _rows(columns, row), frame=_frame(frame, row), first=row.start, as_of=int(as_of[row.start])
            )
            for row in (slice(number, number + 1) for number in range(ROWS))
        )
    )
    scored = recompute(trained, offline, local_model(trained).run, keys, as_of)
    _, expected = trained.post.apply({trained.post.output: scored.output})
    return Shop(trained, expected)


def _run(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def _back_test(shop: Shop, *arguments: str) -> Any:
    return _run("replay", "--bundle", shop.trained.digest, *arguments)


def test_a_view_that_was_not_recorded_is_refused_with_what_to_do(shop: Shop) -> None:
    done = _back_test(shop)
    assert done.exit_code == 2
    assert "`leg__late` (the bundle that answered did not read it)" in done.stderr
    assert "--fill offline" in done.stderr


def test_filled_from_the_offline_store_the_scores_are_those_of_a_point_in_time_computation(
    shop: Shop, tmp_path: Path
) -> None:
    path = tmp_path / "rows.parquet"
    done = _back_test(shop, "--fill", "offline", "--output", str(path), "--json")
    assert done.exit_code == 0, (done.output, done.exception)
    found = json.loads(done.stdout)
    assert (found["rows"], found["left_out"]) == (ROWS, {})
    rows = pq.read_table(path)
    assert rows.column("other_probability").to_numpy().tobytes() == shop.expected.tobytes()
    assert len(set(shop.expected.tolist())) > 5


def test_a_model_without_a_source_for_every_view_is_named(shop: Shop) -> None:
    done = _back_test(shop, "--fill", "offline", "--model", "nobody")
    assert (done.exit_code, "model `nobody` does not exist" in done.stderr) == (2, True)
