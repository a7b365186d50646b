"""Recomputing logged predictions: what is equal, what differs and where, and what nobody can say."""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.attempts import holds_once
from harness.bundles import BuiltBundle, build_bundle, content
from harness.replays import answered, flights, flipped, recorded, with_feature
from skewless.adapters.onnx_scorer import onnx_scorer
from skewless.bundles.bundle import Bundle, load_bundle, write_bundle
from skewless.bundles.degrade_ladder import DegradeLadder
from skewless.bundles.serving_profile import ServingProfile
from skewless.canonical_json import digest_bytes
from skewless.replays.recheck import Bound, Recheck, Rechecker, Verdict, made_of
from skewless.replays.recorded import RecordedRows
from skewless.serving.rungs import Rung

ROWS = 40
EXACT = Bound(0.0, "embedded-cpu")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> BuiltBundle:
    return build_bundle(tmp_path_factory.mktemp("artifacts"))


@pytest.fixture(scope="module")
def honest(built: BuiltBundle) -> RecordedRows:
    return recorded(answered(built.bundle, flights(ROWS)))


def _recheck(bundle: Bundle, rows: RecordedRows, *, bound: Bound = EXACT, told_max: int = 20) -> Recheck:
    run = onnx_scorer(bundle.read_model(), bundle.signature)
    return Rechecker(bundle, run, bound).recheck(rows, told_max=told_max)


def _different(found: Recheck) -> list[int]:
    return [row for row, verdict in enumerate(found.verdicts) if verdict is Verdict.DIFFERENT]


def _changed_output(rows: RecordedRows, row: int, by: float) -> RecordedRows:
    values = rows.outputs["probabilities"].copy()
    values[row] += np.float32(by)
    return replace(rows, outputs={"probabilities": values})


def test_what_was_served_is_recomputed_bit_for_bit_alone_and_in_a_batch(
    built: BuiltBundle, honest: RecordedRows
) -> None:
    found = _recheck(built.bundle, honest)
    assert found.counts == {Verdict.EXACT: ROWS}
    assert found.differences == ()
    for row in (0, ROWS - 1):
        alone = _recheck(built.bundle, _only(honest, row))
        assert alone.digests == [found.digests[row]] == [honest.tensor_digests[row]]
        assert alone.verdicts == [Verdict.EXACT]


def _only(rows: RecordedRows, row: int) -> RecordedRows:
    here = slice(row, row + 1)
    return replace(
        rows,
        prediction_ids=rows.prediction_ids[here],
        as_of=rows.as_of[here],
        roles=rows.roles[here],
        rungs=rows.rungs[here],
        columns={
            name: replace(each, values=each.values[here], valid=each.valid[here]) for name, each in rows.columns.items()
        },
        statuses={name: each[here] for name, each in rows.statuses.items()},
        event_times={name: each[here] for name, each in rows.event_times.items()},
        tensors=rows.tensors[here],
        tensor_digests=rows.tensor_digests[here],
        outputs={name: each[here] for name, each in rows.outputs.items()},
        labels=rows.labels[here],
        probabilities=rows.probabilities[here],
    )


@pytest.mark.parametrize(
    ("name", "output"), [("weather__temp", "temp"), ("aircraft__seats", "seats"), ("noise__level", "level")]
)
def test_one_bit_of_one_feature_is_found_and_the_feature_named(built: BuiltBundle, name: str, output: str) -> None:
    batch = answered(built.bundle, flights(ROWS))
    row = int(np.flatnonzero(batch.frame.columns[name].valid)[5])
    changed = flipped(batch.frame.columns[name], row)
    found = _recheck(built.bundle, recorded(with_feature(batch, name, changed)))
    assert _different(found) == [row]
    (difference,) = found.differences
    assert (difference.level, difference.inputs) == ("tensor", (name,))
    assert difference.prediction_id == batch.prediction_ids[row]
    assert f"`{output}` was {float(batch.tensor[row, _place(built, output)])!r}" in difference.told


def _place(built: BuiltBundle, output: str) -> int:
    return built.bundle.transform.output_names.index(output)


def test_a_null_that_became_a_value_is_found_with_both_outputs_that_it_feeds(built: BuiltBundle) -> None:
    batch = answered(built.bundle, flights(ROWS))
    column = batch.frame.columns["weather__temp"]
    row = int(np.flatnonzero(~column.valid)[0])
    valid = column.valid.copy()
    valid[row] = True
    found = _recheck(built.bundle, recorded(with_feature(batch, "weather__temp", replace(column, valid=valid))))
    (difference,) = found.differences
    assert difference.inputs == ("weather__temp",)
    assert "`temp` was" in difference.told
    assert "`temp_is_null` was 1.0, recomputed 0.0" in difference.told


def test_a_changed_tensor_digest_output_and_answer_are_each_named(built: BuiltBundle, honest: RecordedRows) -> None:
    tensors = list(honest.tensors)
    tensors[0] = bytes(len(tensors[0] or b""))
    digests = list(honest.tensor_digests)
    digests[1] = digest_bytes(b"other")
    probabilities = honest.probabilities.copy()
    probabilities[3] += np.float32(1e-6)
    labels = list(honest.labels)
    labels[4] = "late" if labels[4] == "on_time" else "on_time"
    changed = _changed_output(
        replace(honest, tensors=tensors, tensor_digests=digests, probabilities=probabilities, labels=labels), 2, 1e-7
    )
    found = _recheck(built.bundle, changed)
    assert _different(found) == [0, 1, 2, 3, 4]
    levels = [each.level for each in found.differences]
    assert levels == ["record", "tensor", "output", "answer", "answer"]
    told = [each.told for each in found.differences]
    assert "the recorded tensor does not have the recorded digest" in told[0]
    assert "the recorded digest is not that of the recorded tensor" in told[1]
    assert "must be reproduced bit for bit" in told[2]
    assert "post-processing does not make of the recorded output" in told[3]


@pytest.mark.parametrize("size", [0, 4, 400])
def test_a_tensor_of_another_length_is_different_and_breaks_nothing(
    built: BuiltBundle, honest: RecordedRows, size: int
) -> None:
    tensors, digests = list(honest.tensors), list(honest.tensor_digests)
    tensors[7], digests[7] = bytes(size), digest_bytes(bytes(size))
    found = _recheck(built.bundle, replace(honest, tensors=tensors, tensor_digests=digests))
    assert _different(found) == [7]
    assert f"the recorded tensor has {size} bytes" in found.differences[0].told


def test_outputs_may_be_off_by_the_bundles_own_tolerance_and_no_more(built: BuiltBundle, honest: RecordedRows) -> None:
    bundle = built.bundle
    served = honest.outputs["probabilities"].copy()
    served[1] += np.float32(1e-4)
    served[2] += np.float32(1e-2)
    labels, probabilities = bundle.post.apply({"probabilities": served})
    changed = replace(honest, outputs={"probabilities": served}, labels=labels, probabilities=probabilities)
    found = _recheck(bundle, changed, bound=Bound(1e-3, "gpu-tensorrt"))
    assert found.verdicts[:4] == [Verdict.EXACT, Verdict.WITHIN_BOUND, Verdict.DIFFERENT, Verdict.EXACT]
    assert "within 0.001, the output tolerance of the bundle's serving profile on gpu-tensorrt" in (
        found.differences[0].told
    )
    assert _different(_recheck(bundle, changed)) == [1, 2]


def test_a_constant_is_held_against_the_one_that_the_bundle_names(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    made = replace(content(), serving=ServingProfile(degrade=DegradeLadder(constant=0.25)))
    bundle = load_bundle(folder, write_bundle(made, folder))
    rows = recorded(answered(bundle, flights(3)))
    outputs = rows.outputs["probabilities"].copy()
    outputs[:] = np.nan
    probabilities = np.array([0.25, 0.25, 0.5], dtype=np.float32)
    constant = replace(
        rows,
        rungs=[str(Rung.CONSTANT)] * 3,
        outputs={"probabilities": outputs},
        labels=bundle.post.label_of(probabilities),
        probabilities=probabilities,
    )
    found = _recheck(bundle, constant)
    assert found.verdicts == [Verdict.EXACT, Verdict.EXACT, Verdict.DIFFERENT]
    assert np.isnan(found.outputs["probabilities"]).all()


def test_a_field_that_is_not_kept_leaves_the_rest_compared(built: BuiltBundle, honest: RecordedRows) -> None:
    columns = {name: each for name, each in honest.columns.items() if name != "distance"}
    marked = replace(honest, columns=columns, tensors=[None] * ROWS, not_kept={"distance": "it is left out of the log"})
    found = _recheck(built.bundle, marked)
    assert found.counts == {Verdict.NOT_DECIDED: ROWS}
    assert found.tensor is None
    assert "`distance`: it is left out of the log" in found.not_decided
    probabilities = honest.probabilities.copy()
    probabilities[9] = 0.75
    assert _different(_recheck(built.bundle, replace(marked, probabilities=probabilities))) == [9]


def test_a_tensor_that_was_left_out_is_recomputed_where_its_inputs_are_kept(
    built: BuiltBundle, honest: RecordedRows
) -> None:
    assert _recheck(built.bundle, replace(honest, tensors=[None] * ROWS)).counts == {Verdict.EXACT: ROWS}


def test_without_a_way_to_run_the_model_tensors_are_compared_and_equal_ones_not_decided(
    built: BuiltBundle, honest: RecordedRows
) -> None:
    checker = Rechecker(built.bundle, None, EXACT, no_model="it runs elsewhere")
    found = checker.recheck(honest, told_max=5)
    assert (found.counts, found.not_decided) == ({Verdict.NOT_DECIDED: ROWS}, "it runs elsewhere")
    digests = list(honest.tensor_digests)
    digests[0] = "0" * 64
    assert _different(checker.recheck(replace(honest, tensor_digests=digests), told_max=5)) == [0]


def test_only_as_many_differences_are_told_as_asked_for_and_all_are_counted(
    built: BuiltBundle, honest: RecordedRows
) -> None:
    found = _recheck(built.bundle, replace(honest, tensor_digests=["0" * 64] * ROWS), told_max=3)
    assert found.counts == {Verdict.DIFFERENT: ROWS}
    assert [each.prediction_id for each in found.differences] == list(honest.prediction_ids[:3])


def test_outputs_that_share_no_input_name_all_that_they_are_made_of(built: BuiltBundle) -> None:
    fitted = built.bundle.transform
    temp, level = (fitted.output_names.index(name) for name in ("temp", "level"))
    assert made_of(fitted, [temp]) == ("weather__temp",)
    assert set(made_of(fitted, [temp, level])) == {"weather__temp", "noise__level"}


def test_many_rows_at_once_cost_a_small_part_of_one_by_one(built: BuiltBundle) -> None:
    rows = 4_000
    batch = recorded(answered(built.bundle, flights(rows)))
    checker = Rechecker(built.bundle, onnx_scorer(built.bundle.read_model(), built.bundle.signature), EXACT)
    alone = [_only(batch, row) for row in range(0, rows, rows // 50)]

    def measure() -> None:
        begun = time.process_time()
        assert checker.recheck(batch, told_max=0).counts == {Verdict.EXACT: rows}
        together_s = (time.process_time() - begun) / rows
        begun = time.process_time()
        for each in alone:
            checker.recheck(each, told_max=0)
        assert together_s < (time.process_time() - begun) / len(alone) / 5

    holds_once(measure)
