"""What a reviewer reads about one transform, and about the difference of two."""

import pytest

from skewless import canonical_json
from skewless.dtypes import Dtype, column_of
from skewless.transforms import Expression, FittedTransform, Transform, column
from skewless.transforms.catalogue import CATALOGUE
from skewless.transforms.description import describe
from skewless.transforms.difference import compare, how_moved

TEMP = column("temp", Dtype.FLOAT64)
WIND = column("wind", Dtype.FLOAT64)
WORD = column("word", Dtype.STRING)
ROWS: dict[str, list[object]] = {
    "temp": [1.0, 2.0, 4.0, None],
    "wind": [10.0, 20.0, 40.0, 80.0],
    "word": ["a", "a", "b", None],
}
BASE = {"temp": TEMP.impute_median().standardise(), "wind": WIND.impute(0.0), "word": WORD.one_hot(top_k=2)}


def fitted(outputs: dict[str, Expression], **rows: list[object]) -> FittedTransform:
    transform = Transform(outputs)
    items = {**ROWS, **rows}
    return transform.fit({name: column_of(dtype, items[name]) for name, dtype in transform.inputs}, 4)


def said(before: FittedTransform, after: FittedTransform) -> list[str]:
    return [
        f"{change.subject}: {change.text}{''.join(f' [{each}]' for each in change.outputs)}"
        for change in compare(before, after).changes
    ]


def test_a_transform_does_not_differ_from_itself() -> None:
    difference = compare(fitted(BASE), fitted(BASE))
    assert difference.equal
    assert difference.changes == ()
    assert difference.text().endswith("no difference")


def test_learned_values_that_moved_are_told_with_how_far() -> None:
    assert said(fitted(BASE), fitted(BASE, temp=[1.0, 3.0, 5.0, None], word=["c", "c", "b", None])) == [
        "outputs: the tensor's columns are others (still 5): a model for one cannot take the other",
        "learned: standardise of temp → impute_median 3: offset 2.25 → 3 (+0.75, +33.3 %) [temp]",
        "learned: standardise of temp → impute_median 3: scale 1.089725 → 1.414214 (+0.3245, +29.8 %) [temp]",
        "learned: impute_median of temp: value 2 → 3 (+1, +50 %) [temp]",
        "learned: one_hot of word: vocabulary (2 → 2 words) 1 came: 'c'; 1 went: 'a' [word]",
    ]


def test_what_is_declared_otherwise_comes_before_what_is_learned_otherwise() -> None:
    clipped = {**BASE, "temp": TEMP.clip(0.0, 3.0).impute_median().min_max()}
    tighter = {**BASE, "temp": TEMP.clip(0.0, 2.0).impute_median().min_max()}
    assert said(fitted(clipped), fitted(tighter)) == [
        "operations: clip of temp: high 3 → 2 [temp]",
        "learned: min_max of temp → clip low 0, high 2 → impute_median 2: scale 2 → 1 (-1, -50 %) [temp]",
    ]
    open_ended = {**BASE, "temp": TEMP.clip(0.0, None).impute_median().min_max()}
    assert said(fitted(clipped), fitted(open_ended))[0] == "operations: clip of temp: high 3 → none [temp]"


def test_an_operation_put_in_between_is_told_as_that_in_both_directions() -> None:
    clipped = {**BASE, "temp": TEMP.clip(0.0, 9.0).impute_median().standardise()}
    assert said(fitted(BASE), fitted(clipped)) == ["operations: clip low 0, high 9 comes after temp [temp]"]
    assert said(fitted(clipped), fitted(BASE)) == ["operations: clip low 0, high 9 is gone after temp [temp]"]


def test_a_change_that_several_outputs_share_is_told_once() -> None:
    def outputs(low: float) -> dict[str, Expression]:
        clean = TEMP.clean(low, None)
        return {"filled": clean.impute(0.0), "unknown": clean.is_null()}

    assert said(fitted(outputs(0.0)), fitted(outputs(1.5))) == [
        "operations: clean of temp: low 0 → 1.5 [filled] [unknown]"
    ]


def test_outputs_that_come_go_move_or_get_another_name_are_told() -> None:
    after = {"wind": BASE["wind"], "warmth": BASE["temp"], "gust": (WIND * TEMP).impute(0)}
    assert said(fitted(BASE), fitted(after)) == [
        "inputs: `word` (string) is read no more",
        "outputs: `temp` is called `warmth` now",
        "outputs: `gust` is new: (wind * temp) → impute 0",
        "outputs: `word` is gone",
        "outputs: in another order: `wind` moved",
        "outputs: the tensor's columns are others (5 → 3): a model for one cannot take the other",
    ]


def test_inputs_that_come_go_or_change_are_told() -> None:
    exact = column("wind", Dtype.FLOAT32, nullable=False)
    assert said(fitted(BASE), fitted({**BASE, "wind": exact.impute(0.0)})) == [
        "inputs: `wind` is float32, was float64",
        "inputs: `wind` may be null no more",
    ]
    assert said(fitted(BASE), fitted({**BASE, "wind": TEMP.impute(0.0)})) == [
        "inputs: `wind` (float64) is read no more",
        "operations: reads `temp` instead of `wind` [wind]",
    ]


def test_an_expression_of_another_kind_is_told_whole() -> None:
    assert said(fitted(BASE), fitted({**BASE, "wind": WIND.is_null()})) == [
        "operations: is wind → is_null, was wind → impute 0 [wind]"
    ]


def test_a_newer_semantics_version_is_told() -> None:
    newer = fitted({**BASE, "wind": WIND.abs().impute(0.0)})
    assert said(fitted(BASE), newer)[0].startswith("semantics: version 1 → 2")


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (0.0, 2.0, "0 → 2 (+2)"),
        (-4.0, -2.0, "-4 → -2 (+2, +50 %)"),
        (5e-324, 1.0, "4.940656e-324 → 1 (+1)"),
        ([1.0, 2.0], [1.0, 3.0], "1 of 2 numbers moved, the furthest is number 2: 2 → 3 (+1, +50 %)"),
        ([1.0, 2.0], [1.0], "2 → 1 numbers: (1, 2) → (1)"),
        (["a", "b"], ["b", "a"], "(2 → 2 words) 1 changed place: 'b'"),
        ([], list("abcdefg"), "(0 → 7 words) 7 came: 'a', 'b', 'c', 'd', 'e' …"),
        ("a", "b", "'a' → 'b'"),
        (False, True, "no → yes"),
    ],
)
def test_a_learned_value_says_how_it_moved(before: object, after: object, words: str) -> None:
    assert how_moved(before, after) == words


def test_the_text_groups_by_subject_and_the_json_is_plain_data() -> None:
    difference = compare(fitted(BASE), fitted({**BASE, "wind": WIND.impute(1.0)}))
    assert difference.text().splitlines()[1:] == ["operations:", "  impute of wind: value 0 → 1  [wind]"]
    assert canonical_json.encode(difference.to_json())


def test_every_output_is_described_by_what_it_reads_and_how_it_is_computed() -> None:
    temp, wind, word = describe(fitted(BASE))
    assert temp.words == "temp → impute_median 2 → standardise offset 2.25, scale 1.0897"
    assert temp.reads == (("temp", Dtype.FLOAT64, True),)
    assert [step.text for step in temp.steps] == [
        "impute_median 2 of temp",
        "standardise offset 2.25, scale 1.0897 of temp → impute_median 2",
    ]
    assert temp.steps[0].meaning == "A statistic of the training values where null."
    assert (wind.first_column, wind.columns) == (1, ("wind",))
    assert (word.first_column, word.columns) == (2, ("word[a]", "word[b]", "word[oov]"))
    assert canonical_json.encode([each.to_json() for each in (temp, wind, word)])


def test_arithmetic_is_described_as_it_is_written() -> None:
    (spread,) = describe(fitted({"spread": (TEMP.clip(0.0, 3.0) - WIND / 2).impute(0.0)}))
    assert spread.words == "([temp → clip low 0, high 3] - (wind / 2.0)) → impute 0"
    assert [name for name, _, _ in spread.reads] == ["temp", "wind"]


def test_every_operation_has_a_meaning_in_words() -> None:
    for operation in CATALOGUE.values():
        assert (type(operation).__doc__ or "").strip(), f"{type(operation).__name__} needs a docstring: it is shown"
