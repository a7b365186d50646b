"""The split of traffic: exact in its shares, sticky by entity, independent between decisions, minimal in what moves."""

import hashlib
import json
import subprocess
import sys
from dataclasses import replace

import mmh3
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from harness.examples import examples
from harness.routes import routes
from skewless.canonical_json import digest
from skewless.dtypes import Column, Dtype, column_of
from skewless.errors import InvalidDefinition
from skewless.rollout.assignment import Assigned, Splitter, assign, mirrored
from skewless.rollout.changes import set_arm_shares
from skewless.rollout.routes import Arm, Canary, Experiment, ExperimentKind, Role, Route, Shadow

A, B, C, D = (digest(name) for name in "abcd")
ARMS = (Arm("control", A, 0.5), Arm("b", B, 0.3), Arm("c", C, 0.2))
EXPERIMENT = Experiment("prices", ExperimentKind.AB, ARMS, 0.4, "yes")
FULL = Route("flights", "", A, canary=Canary(D, 0.1), shadow=Shadow(D, 0.25), experiment=EXPERIMENT)
LIVE, CANARY, CONTROL, ARM_B, ARM_C = range(5)
CODES = {
    (Role.LIVE, None): LIVE,
    (Role.CANARY, None): CANARY,
    (Role.ARM, "control"): CONTROL,
    (Role.ARM, "b"): ARM_B,
    (Role.ARM, "c"): ARM_C,
}
Answers = NDArray[np.int8]
SOME, MANY = 200_000, 1_000_000
P_MIN = 1e-6
"""Each of about forty chi-square tests may fail by chance once in a million seeds; here keys are fixed."""


def counted(rows: int) -> dict[str, Column]:
    """Keys that differ in nothing but a count, as ids of customers do."""
    return {"customer": Column(Dtype.INT64, np.arange(rows), np.ones(rows, np.bool_))}


@pytest.fixture(scope="module")
def customers() -> dict[str, Column]:
    return counted(SOME)


def answers(groups: tuple[Assigned, ...], rows: int) -> Answers:
    """What answers each row: one of LIVE, CANARY, CONTROL, ARM_B and ARM_C."""
    told: Answers = np.full(rows, -1, dtype=np.int8)
    for group in groups:
        assert (told[group.rows] == -1).all(), "a row is in one group"
        told[group.rows] = CODES[group.role, group.arm]
    assert -1 not in told
    return told


def answered(route: Route, keys: dict[str, Column], rows: int) -> Answers:
    return answers(assign(route, keys, rows), rows)


def is_canary(route: Route, keys: dict[str, Column], rows: int) -> NDArray[np.bool_]:
    told = np.zeros(rows, np.bool_)
    for group in assign(route, keys, rows):
        told[group.rows] = group.role is Role.CANARY
    return told


def naive(route: Route, key: bytes) -> tuple[Role, str | None]:
    """The rule of the split in whole numbers, for one row whose keys are written as `key`."""

    def hashed(*purpose: str) -> int:
        text = json.dumps(["skewless rollout", route.endpoint, *purpose], separators=(",", ":"), ensure_ascii=False)
        word = mmh3.hash64(key, signed=False)[0] + int(hashlib.sha256(text.encode()).hexdigest()[:16], 16)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
            word %= 2**64
            word = (word ^ (word >> shift)) * factor
        return word % 2**64

    experiment, traffic = route.experiment, 0.0
    if experiment is not None:
        salt, traffic = experiment.salt or experiment.name, experiment.traffic
        if hashed("traffic", salt) < traffic * 2**64:
            slot = (hashed("arm", salt) >> 32) * 10_000 // 2**32
            owners = [arm for arm, count in experiment.layout for _ in range(count)]
            return Role.ARM, experiment.arms[owners[slot]].name
    if route.canary is not None and traffic < 1.0:
        below = int(min(route.canary.share / (1.0 - traffic), 1.0) * 2**64)
        if hashed("canary", route.canary.bundle) < below:
            return Role.CANARY, None
    return Role.LIVE, None


@settings(deadline=None, max_examples=examples(200))
@given(routes(), st.lists(st.text(max_size=12), min_size=1, max_size=20))
def test_every_row_is_answered_as_the_rule_says_alone_and_in_a_batch(route: Route, words: list[str]) -> None:
    route = replace(route, sticky_by=())
    keys = {"word": column_of(Dtype.STRING, list(words))}
    groups = assign(route, keys, len(words))
    told = {int(row): (group.role, group.arm) for group in groups for row in group.rows}
    assert sorted(told) == list(range(len(words)))
    assert all(len(group.rows) and (np.diff(group.rows) > 0).all() for group in groups)
    seen = mirrored(route, keys, len(words))
    for row, word in enumerate(words):
        one = {"word": column_of(Dtype.STRING, [word])}
        [alone] = assign(route, one, 1)
        assert (alone.role, alone.arm) == told[row] == naive(route, word.encode())
        assert alone.rows.tolist() == [0]
        assert mirrored(route, one, 1)[0] == seen[row]


def test_a_group_names_the_bundle_of_its_role() -> None:
    bundles = {(group.role, group.arm): group.bundle for group in assign(FULL, counted(1_000), 1_000)}
    assert bundles == {
        (Role.LIVE, None): A,
        (Role.CANARY, None): D,
        (Role.ARM, "control"): A,
        (Role.ARM, "b"): B,
        (Role.ARM, "c"): C,
    }


def test_a_route_with_only_a_live_bundle_looks_at_no_key() -> None:
    [everything] = assign(Route("one", "", A, sticky_by=("absent",)), {}, 3)
    assert (everything.role, everything.bundle, everything.rows.tolist()) == (Role.LIVE, A, [0, 1, 2])
    assert mirrored(Route("one", "", A, sticky_by=("absent",)), {}, 3).tolist() == [False] * 3
    assert mirrored(Route("one", "", A, shadow=Shadow(B), sticky_by=("absent",)), {}, 3).tolist() == [True] * 3


def test_no_rows_are_one_empty_group_of_the_live_bundle() -> None:
    [nothing] = assign(FULL, counted(0), 0)
    assert (nothing.role, len(nothing.rows), nothing.rows.dtype) == (Role.LIVE, 0, np.dtype(np.intp))
    assert mirrored(FULL, counted(0), 0).shape == (0,)


def test_shares_of_a_million_entities_are_the_route_s() -> None:
    told = answered(FULL, counted(MANY), MANY)
    shares = {LIVE: 0.5, CANARY: 0.1, CONTROL: 0.4 * 0.5, ARM_B: 0.4 * 0.3, ARM_C: 0.4 * 0.2}
    expected = [shares[code] * MANY for code in range(5)]
    assert stats.chisquare(np.bincount(told, minlength=5), expected).pvalue > P_MIN


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.5, 0.999, 1.0])
def test_a_canary_answers_its_share_of_the_entities(share: float, customers: dict[str, Column]) -> None:
    count = int(is_canary(Route("one", "", A, canary=Canary(B, share)), customers, SOME).sum())
    if share in (0.0, 1.0):
        assert count == share * SOME
    else:
        assert stats.binomtest(count, SOME, share).pvalue > P_MIN


@pytest.mark.parametrize(
    "keys",
    [
        {"customer": Column(Dtype.INT64, np.arange(SOME) * 2**32, np.ones(SOME, np.bool_))},
        {"customer": column_of(Dtype.STRING, [f"{number:032b}" for number in range(SOME)])},
        {"when": Column(Dtype.TIMESTAMP, np.arange(SOME) * 3_600_000_000, np.ones(SOME, np.bool_))},
        {"width": Column(Dtype.FLOAT64, np.arange(SOME) / 8, np.ones(SOME, np.bool_))},
        {
            "a": Column(Dtype.INT32, np.arange(SOME, dtype=np.int32) // 447, np.ones(SOME, np.bool_)),
            "b": Column(Dtype.INT32, np.arange(SOME, dtype=np.int32) % 447, np.ones(SOME, np.bool_)),
        },
    ],
    ids=["large steps", "long common prefixes", "whole hours", "fractions", "two small keys"],
)
def test_keys_of_any_pattern_are_split_evenly(keys: dict[str, Column]) -> None:
    for salt in ("", "another"):
        tenths = tuple(Arm(f"a{each}", A, 1 / 8) for each in range(8))
        experiment = Experiment("e", ExperimentKind.AB, tenths, 1.0, "yes", salt=salt)
        counts = [len(group.rows) for group in assign(Route("one", "", A, experiment=experiment), keys, SOME)]
        assert stats.chisquare(counts).pvalue > P_MIN


def test_entities_that_ask_more_than_others_have_one_answer_each() -> None:
    asked = np.random.default_rng(5).zipf(1.5, 50_000) % 10_000
    keys = {"customer": Column(Dtype.INT64, asked, np.ones(len(asked), np.bool_))}
    told = answered(FULL, keys, len(asked))
    by_entity: dict[int, int] = {}
    for entity, answer in zip(asked.tolist(), told.tolist(), strict=True):
        assert by_entity.setdefault(entity, answer) == answer
    canary = list(by_entity.values()).count(CANARY)
    assert stats.binomtest(canary, len(by_entity), 0.1).pvalue > P_MIN, "of entities, not of requests"


def test_the_answer_depends_on_neither_batch_nor_place() -> None:
    rows, order = 500, np.random.default_rng(7).permutation(500)
    whole = answered(FULL, counted(rows), rows)
    shuffled = {"customer": Column(Dtype.INT64, order, np.ones(rows, np.bool_))}
    assert (answered(FULL, shuffled, rows) == whole[order]).all()
    splitter = Splitter(FULL)
    for row in range(rows):
        one = {"customer": Column(Dtype.INT64, np.array([row]), np.ones(1, np.bool_))}
        assert answers(splitter.assign(one, 1), 1)[0] == whole[row]


def test_decisions_do_not_correlate(customers: dict[str, Column]) -> None:
    """Arm, canary of one bundle and of another, shadow, and the same in another endpoint: pairwise independent."""
    told = [
        answered(Route("one", "", A, experiment=replace(EXPERIMENT, traffic=1.0)), customers, SOME) == ARM_B,
        answered(Route("one", "", A, experiment=EXPERIMENT), customers, SOME) == LIVE,
        is_canary(Route("one", "", A, canary=Canary(B, 0.3)), customers, SOME),
        is_canary(Route("one", "", A, canary=Canary(C, 0.3)), customers, SOME),
        is_canary(Route("two", "", A, canary=Canary(B, 0.3)), customers, SOME),
        mirrored(Route("one", "", A, shadow=Shadow(B, 0.3)), customers, SOME),
    ]
    for index, one in enumerate(told):
        for other in told[:index]:
            table = [[int((a & b).sum()) for b in (other, ~other)] for a in (one, ~one)]
            assert stats.chi2_contingency(table).pvalue > P_MIN


def test_arms_take_no_part_in_who_takes_part(customers: dict[str, Column]) -> None:
    """More traffic for an experiment brings rows in, and moves none between its arms."""
    more = replace(FULL, canary=None, experiment=replace(EXPERIMENT, traffic=0.6))
    before, after = answered(replace(FULL, canary=None), customers, SOME), answered(more, customers, SOME)
    took_part = before >= CONTROL
    assert (after[took_part] == before[took_part]).all()


def test_a_canary_that_grows_keeps_its_entities(customers: dict[str, Column]) -> None:
    small, large = (is_canary(Route("one", "", A, canary=Canary(B, share)), customers, SOME) for share in (0.05, 0.1))
    assert not (small & ~large).any()
    assert stats.binomtest(int((large & ~small).sum()), SOME, 0.05).pvalue > P_MIN


def test_a_new_canary_tries_other_entities(customers: dict[str, Column]) -> None:
    first, second = (is_canary(Route("one", "", A, canary=Canary(each, 0.01)), customers, SOME) for each in (B, C))
    assert stats.binomtest(int((first & second).sum()), SOME, 0.0001).pvalue > P_MIN


def test_a_canary_grows_without_touching_the_experiment(customers: dict[str, Column]) -> None:
    before = answered(FULL, customers, SOME)
    after = answered(replace(FULL, canary=Canary(D, 0.3)), customers, SOME)
    moved = before != after
    assert set(before[moved]) == {LIVE}
    assert set(after[moved]) == {CANARY}


@pytest.mark.parametrize(
    "shares",
    [(0.4, 0.3, 0.3), (0.5, 0.2, 0.3), (0.1, 0.8, 0.1), (0.45, 0.33, 0.22), (0.0, 0.0, 1.0)],
)
def test_changed_shares_of_arms_move_what_they_differ_by(
    shares: tuple[float, ...], customers: dict[str, Column]
) -> None:
    named = dict(zip(("control", "b", "c"), shares, strict=True))
    before = answered(FULL, customers, SOME)
    after = answered(set_arm_shares(FULL, named), customers, SOME)
    differ = sum(abs(arm.share - named[arm.name]) for arm in ARMS) / 2
    moved = float((before != after).mean())
    deviation = (0.4 * differ * (1 - 0.4 * differ) / SOME) ** 0.5
    assert abs(moved - 0.4 * differ) <= 5 * deviation


def test_another_salt_or_name_draws_anew(customers: dict[str, Column]) -> None:
    whole = replace(EXPERIMENT, traffic=1.0)
    before = answered(Route("one", "", A, experiment=whole), customers, SOME) == ARM_B
    for other in (replace(whole, salt="second run"), replace(whole, name="others")):
        after = answered(Route("one", "", A, experiment=other), customers, SOME) == ARM_B
        assert stats.binomtest(int((before & after).sum()), SOME, 0.09).pvalue > P_MIN
    same = replace(whole, name="others", salt="prices")
    assert (answered(Route("one", "", A, experiment=same), customers, SOME) == ARM_B).tolist() == before.tolist()


def test_a_null_is_a_value_of_its_own() -> None:
    route = Route("one", "", A, experiment=replace(EXPERIMENT, traffic=1.0))
    values: list[list[object]] = [[None, "x"], ["", "x"], ["x", None], ["x", ""], [None, None], ["", ""]]
    seen = set()
    for salt in map(str, range(40)):
        salted = replace(route, experiment=replace(EXPERIMENT, traffic=1.0, salt=salt))
        keys = {f"k{index}": column_of(Dtype.STRING, [row[index] for row in values]) for index in (0, 1)}
        told = answered(salted, keys, len(values))
        seen |= {(one, other) for one in range(6) for other in range(one) if told[one] != told[other]}
    assert len(seen) == 15, "each two of the six rows fall apart in some of forty experiments"


def test_where_one_key_ends_and_the_next_begins_matters() -> None:
    splitters = [Splitter(replace(FULL, experiment=replace(EXPERIMENT, salt=str(salt)))) for salt in range(40)]
    keys = {"a": column_of(Dtype.STRING, ["ab", "a"]), "b": column_of(Dtype.STRING, ["c", "bc"])}
    assert any(len(splitter.assign(keys, 2)) == 2 for splitter in splitters)


def test_equal_keys_of_other_widths_are_the_same_entity_whatever_order_they_come_in() -> None:
    wide = {"a": column_of(Dtype.INT64, list(range(100))), "b": column_of(Dtype.FLOAT64, [0.0] * 100)}
    narrow = {"b": column_of(Dtype.FLOAT32, [-0.0] * 100), "a": column_of(Dtype.INT32, list(range(100)))}
    assert (answered(FULL, wide, 100) == answered(FULL, narrow, 100)).all()


def test_keys_of_every_dtype_of_an_entity_are_split() -> None:
    for dtype, value in (
        (Dtype.BOOL, True),
        (Dtype.INT32, 7),
        (Dtype.FLOAT32, float("nan")),
        (Dtype.STRING, "é😀"),
        (Dtype.BYTES, b"\xff\xfe\x00"),
        (Dtype.TIMESTAMP, -1),
    ):
        column = column_of(dtype, [value, None])
        assert len(answered(FULL, {"key": column}, 2)) == 2


def test_traffic_is_split_by_the_keys_that_the_route_names() -> None:
    """Sticky by customer: whatever the item, a customer has one answer."""
    route = replace(FULL, sticky_by=("customer",))
    rows = 2_000
    items = Column(Dtype.INT64, np.arange(rows), np.ones(rows, np.bool_))
    customers = Column(Dtype.INT64, np.arange(rows) // 20, np.ones(rows, np.bool_))
    told = answered(route, {"item": items, "customer": customers}, rows).reshape(100, 20)
    assert (told == told[:, :1]).all()
    assert (told[:, 0] == answered(FULL, counted(100), 100)).all()
    assert len(set(answered(FULL, {"item": items, "customer": customers}, rows)[:20])) > 1


def test_a_sticky_key_that_no_bundle_has_is_told() -> None:
    route = replace(FULL, sticky_by=("user",))
    for rows in (1, 2):
        with pytest.raises(InvalidDefinition, match=r"sticky by `user`, which is no join key .* Join keys: customer"):
            assign(route, counted(rows), rows)
    with pytest.raises(InvalidDefinition, match="correct `sticky_by`"):
        mirrored(route, counted(1), 1)


def test_without_entities_every_row_has_one_answer() -> None:
    assert len(set(answered(FULL, {}, 50))) == 1


def test_equal_routes_split_alike_for_ever() -> None:
    """Golden values: an entity must not change sides because of an update of Skewless or of a library."""
    keys = {
        "customer": column_of(Dtype.INT64, [1, 2, 3, None, -5, 2**62, 7, 8, 9, 10]),
        "origin": column_of(Dtype.STRING, ["JFK", "LGA", "", "EWR", None, "é😀", "x", "y", "z", "w"]),
    }
    many = answered(FULL, counted(10_000), 10_000)
    assert answered(FULL, keys, 10).tolist() == GOLDEN_ANSWERS
    assert mirrored(FULL, keys, 10).tolist() == GOLDEN_MIRRORED
    assert hashlib.sha256(many.tobytes()).hexdigest() == GOLDEN_DIGEST


def test_another_process_splits_alike() -> None:
    program = (
        "import numpy, sys, json; from skewless.rollout.assignment import assign;"
        "from skewless.rollout.routes import Route; from skewless.dtypes import Column, Dtype;"
        "route = Route.from_json(json.loads(sys.argv[1]));"
        "keys = {'customer': Column(Dtype.INT64, numpy.arange(200), numpy.ones(200, bool))};"
        "print(json.dumps([[each.role, each.arm, each.rows.tolist()] for each in assign(route, keys, 200)]))"
    )
    arguments = [sys.executable, "-c", program, json.dumps(FULL.to_json())]
    output = subprocess.run(arguments, capture_output=True, check=True, timeout=60).stdout
    here = [[each.role, each.arm, each.rows.tolist()] for each in assign(FULL, counted(200), 200)]
    assert json.loads(output) == here


GOLDEN_ANSWERS = [CONTROL, ARM_B, CONTROL, LIVE, CONTROL, LIVE, LIVE, CONTROL, CANARY, ARM_C]
GOLDEN_MIRRORED = [False, False, False, False, False, True, False, False, False, False]
GOLDEN_DIGEST = "ed18dc0558c46fb315ebe3bb4a3a6f3abc944d60721931a968587b284b78e75b"
