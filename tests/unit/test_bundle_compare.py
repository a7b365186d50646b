"""Two bundles side by side: every part that differs is told, and metrics are ranked only on the same rows."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.bundles import content, contract, sample_columns
from skewless.bundles.bundle import Bundle, load_bundle, write_bundle
from skewless.canonical_json import Digest
from skewless.cli.comparison_table import comparison_lines
from skewless.dtypes import Dtype
from skewless.training.compare import compare_bundles
from skewless.training.facts import EvaluationFacts
from skewless.transforms import Transform, column

APRIL, MAY = "a" * 64, "b" * 64


def holdout(dataset: str, **metrics: float) -> dict[str, Any]:
    found = {"rows": 100, "auroc": 0.75, "ece": 0.02, **metrics}
    return {"dataset": dataset, "metrics": found, "slices": {"origin": {"JFK": found, "LGA": found}}}


def bundle(folder: Path, provenance: dict[str, Any], **changes: Any) -> Bundle:
    made = replace(content(**changes), provenance=provenance)
    return load_bundle(folder, write_bundle(made, folder))


def rows(found: Any) -> dict[str, tuple[Any, Any, bool | None]]:
    return {row.name: (row.before, row.after, row.better) for row in found}


def test_on_one_hold_out_each_metric_is_better_or_worse(tmp_path: Path) -> None:
    first = bundle(tmp_path / "1", {"holdout": holdout(APRIL)})
    second = bundle(tmp_path / "2", {"holdout": holdout(APRIL, auroc=0.8, ece=0.05, rows=90)})
    found = compare_bundles(first, second).metrics
    assert found.comparable
    told = rows(found.rows)
    assert told["auroc"] == (0.75, 0.8, True)
    assert told["ece"] == (0.02, 0.05, False)
    assert told["rows"] == (100, 90, None)
    assert told["brier"] == (None, None, None)
    assert rows(found.slices)["origin/JFK"] == (0.75, 0.8, True)


def test_on_two_hold_outs_nothing_is_ranked_until_the_first_is_judged_on_the_seconds(tmp_path: Path) -> None:
    first = bundle(tmp_path / "1", {"holdout": holdout(APRIL)})
    second = bundle(tmp_path / "2", {"holdout": holdout(MAY, auroc=0.8)})
    apart = compare_bundles(first, second).metrics
    assert not apart.comparable
    assert rows(apart.rows)["auroc"] == (0.75, 0.8, None)
    judged = EvaluationFacts.from_json(holdout(MAY, auroc=0.81))
    together = compare_bundles(first, second, {Digest(MAY): judged}).metrics
    assert together.comparable
    assert rows(together.rows)["auroc"] == (0.81, 0.8, False)


def test_a_bundle_without_an_evaluation_is_named(tmp_path: Path) -> None:
    first, second = bundle(tmp_path / "1", {}), bundle(tmp_path / "2", {"holdout": holdout(MAY)})
    found = compare_bundles(first, second).metrics
    assert (found.comparable, found.rows) == (False, ())
    assert first.digest[:12] in found.note


def test_contract_transform_and_statements_are_told(tmp_path: Path) -> None:
    first = bundle(tmp_path / "1", {"learner": {"kind": "BoostedTrees", "max_iter": 150}, "versions": {"onnx": "1"}})
    fitted = Transform({**dict(_outputs()), "seats": column("aircraft__seats", Dtype.INT64).impute(100.0)}).fit(
        sample_columns(), 4
    )
    second = bundle(
        tmp_path / "2",
        {"learner": {"kind": "function", "function": "a:fit"}, "versions": {"onnx": "1"}},
        given=contract(reject_missing_weather=True),
        fitted=fitted,
    )
    found = compare_bundles(first, second)
    assert any("temp" in line for line in found.contract)
    assert not found.transform.equal
    told = rows(found.stated)
    assert told["learner.kind"] == ("BoostedTrees", "function", None)
    assert told["learner.max_iter"] == (150, None, None)
    assert "versions.onnx" not in told
    text = "\n".join(comparison_lines(found))
    assert "impute" in text
    assert "learner.function" in text


def _outputs() -> list[tuple[str, Any]]:
    """The outputs of the harness's transform but for one; fitting them again teaches the same."""
    temp = column("weather__temp", Dtype.FLOAT32)
    return [
        ("temp", temp.impute_mean()),
        ("temp_is_null", temp.is_null()),
        ("party", column("party", Dtype.INT32, nullable=False)),
    ]


def test_a_baseline_that_moved_is_told_and_one_that_did_not_is_not(tmp_path: Path) -> None:
    first, second = bundle(tmp_path / "1", {"n": 1}), bundle(tmp_path / "2", {"n": 2})
    lines = list(comparison_lines(compare_bundles(first, second)))
    assert lines[lines.index("\nbaseline:") + 1] == "  no difference"


def test_a_comparison_is_plain_data(tmp_path: Path) -> None:
    first, second = bundle(tmp_path / "1", {"holdout": holdout(APRIL)}), bundle(tmp_path / "2", {"n": [1, {"a": []}]})
    data = json.loads(json.dumps(compare_bundles(first, second).to_json(), allow_nan=False))
    assert set(data) == {"before", "after", "metrics", "contract", "transform", "baseline", "stated"}
    assert {"name": "n[0]", "before": None, "after": 1, "better": None} in data["stated"]
    assert {"name": "n[1].a", "before": None, "after": [], "better": None} in data["stated"]


def test_a_bundle_beside_itself_is_one_and_the_same(tmp_path: Path) -> None:
    only = bundle(tmp_path, {})
    assert list(comparison_lines(compare_bundles(only, only))) == [f"bundle {only.digest[:12]}: one and the same"]


@pytest.mark.parametrize("value", [0.0, 0.5, 1e-9, 12345.678, -3.2])
def test_numbers_of_any_size_keep_their_digits(tmp_path: Path, value: float) -> None:
    first, second = bundle(tmp_path / "1", {"x": value}), bundle(tmp_path / "2", {"x": 77.25})
    (line,) = [line for line in comparison_lines(compare_bundles(first, second)) if line.strip().startswith("x ")]
    assert float(line.split()[1]) == pytest.approx(value, rel=1e-3)
