"""Serving profiles: the defaults deploy what was always deployed, bounds hold, and what is stored reads back."""

import json
import math
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skewless import canonical_json
from skewless.bundles.degrade_ladder import DEFAULT_LADDER, DegradeLadder
from skewless.bundles.serving_profile import (
    BATCH_ROWS_MAX,
    Place,
    Precision,
    QueuePolicy,
    ServingProfile,
    Target,
    TimeoutAction,
    VersionPolicy,
)
from skewless.canonical_json import Digest
from skewless.errors import InvalidDefinition
from skewless.limits import LAST_KNOWN_S_MAX, MODEL_BATCH_ROWS_MAX, MODEL_TIMEOUT_S, ROWS_MAX

QUEUES = st.builds(
    QueuePolicy,
    timeout_us=st.integers(1, int(MODEL_TIMEOUT_S * 1_000_000)),
    on_timeout=st.sampled_from(TimeoutAction),
    allow_override=st.booleans(),
    requests_max=st.integers(0, 1_000_000),
)
SIZES = st.lists(st.integers(1, ROWS_MAX), unique=True, max_size=16).map(tuple)
LADDERS = st.builds(
    DegradeLadder,
    last_known_s=st.integers(0, LAST_KNOWN_S_MAX),
    defaults=st.booleans(),
    in_process=st.booleans(),
    fallback=st.none() | st.just(Digest("ab" * 32)),
    constant=st.none() | st.floats(0.0, 1.0),
)
PROFILES = st.builds(
    ServingProfile,
    batch_rows_max=st.integers(ROWS_MAX, BATCH_ROWS_MAX),
    preferred_batch_rows=SIZES,
    max_queue_delay_us=st.integers(0, 1_000_000),
    instances=st.integers(1, 64),
    queue=st.none() | QUEUES,
    call_timeout_ms=st.integers(1, int(MODEL_TIMEOUT_S * 1_000)),
    version_policy=st.sampled_from(VersionPolicy),
    warm_up_rows=SIZES,
    output_tolerance=st.floats(1e-9, 0.1),
    precision=st.sampled_from(Precision),
    place=st.sampled_from(Place),
    degrade=LADDERS,
)
LATER = {"place", "degrade"}


@given(PROFILES, st.dictionaries(st.sampled_from(Target), PROFILES))
def test_a_stored_profile_reads_back_as_it_was(
    profile: ServingProfile, overrides: dict[Target, ServingProfile]
) -> None:
    whole = replace(profile, overrides=overrides)
    stored = canonical_json.encode(whole.to_json())
    read = ServingProfile.from_json(json.loads(stored))
    assert read == whole
    assert canonical_json.encode(read.to_json()) == stored


def test_the_defaults_are_what_every_bundle_was_deployed_with() -> None:
    profile = ServingProfile()
    assert profile.batch_rows_max == MODEL_BATCH_ROWS_MAX
    assert profile.max_queue_delay_us == 0
    assert profile.instances == 1
    assert profile.queue is None
    assert profile.warm_up_rows == (1, 64)
    assert profile.output_tolerance == 0.0
    assert all(profile.on(target) is profile for target in Target)


def test_an_override_replaces_the_whole_profile_on_its_target_alone() -> None:
    large = ServingProfile(batch_rows_max=8_192, instances=2)
    profile = ServingProfile(max_queue_delay_us=100, overrides={Target.GPU_TENSORRT: large})
    assert profile.on(Target.GPU_TENSORRT) is large
    assert profile.on(Target.EMBEDDED_CPU) is profile


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"batch_rows_max": ROWS_MAX - 1},
            "`batch_rows_max` of a serving profile is 999; allowed: a whole number from",
        ),
        ({"batch_rows_max": BATCH_ROWS_MAX + 1}, "`batch_rows_max`"),
        ({"batch_rows_max": 1024.0}, "`batch_rows_max`"),
        ({"instances": 0}, "`instances` of a serving profile is 0; allowed: a whole number from 1 to 64"),
        ({"instances": True}, "`instances`"),
        ({"max_queue_delay_us": -1}, "`max_queue_delay_us`"),
        ({"call_timeout_ms": 0}, "`call_timeout_ms`"),
        ({"call_timeout_ms": 5_001}, "`call_timeout_ms`"),
        ({"warm_up_rows": (0,)}, "`warm_up_rows`"),
        ({"warm_up_rows": (2_000,)}, "`warm_up_rows`"),
        ({"warm_up_rows": (1, 1)}, "up to 16 different sizes"),
        ({"warm_up_rows": tuple(range(1, 18))}, "up to 16 different sizes"),
        ({"preferred_batch_rows": (4, 4)}, "`preferred_batch_rows`"),
        ({"output_tolerance": -0.001}, "`output_tolerance`"),
        ({"output_tolerance": 0.2}, "`output_tolerance`"),
        ({"output_tolerance": math.nan}, "`output_tolerance`"),
        ({"precision": Precision.FP16}, "asks for FP16 and for outputs that equal the golden ones bit for bit"),
        (
            {"overrides": {Target.GPU_TENSORRT: ServingProfile(overrides={Target.EMBEDDED_CPU: ServingProfile()})}},
            "overrides of its own",
        ),
    ],
)
def test_a_value_out_of_bounds_is_refused_by_name(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidDefinition) as caught:
        ServingProfile(**changes)
    assert said in caught.value.message


def test_a_batch_smaller_than_a_gateways_call_says_why_it_is_refused() -> None:
    with pytest.raises(InvalidDefinition) as caught:
        ServingProfile(batch_rows_max=256)
    assert f"{ROWS_MAX} rows in one call" in caught.value.hint


@pytest.mark.parametrize("changes", [{}, {"on_timeout": TimeoutAction.DELAY}])
def test_a_queue_policy_bounds_something(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidDefinition, match="bounds nothing"):
        QueuePolicy(**changes)


@pytest.mark.parametrize("name", sorted({each.name for each in fields(ServingProfile)} - LATER))
def test_a_stored_profile_has_every_field_and_no_others(name: str) -> None:
    stored = ServingProfile().to_json()
    del stored[name]
    with pytest.raises(InvalidDefinition, match=f"lacks `{name}`"):
        ServingProfile.from_json(stored)
    with pytest.raises(InvalidDefinition, match=r"does not know `colour`\. Fields: batch_rows_max"):
        ServingProfile.from_json(ServingProfile().to_json() | {"colour": "red"})


def test_what_the_first_profiles_did_not_know_is_absent_where_it_is_the_default() -> None:
    stored = ServingProfile().to_json()
    assert not LATER & stored.keys(), "or every older bundle would read back otherwise than it is stored"
    read = ServingProfile.from_json(stored)
    assert (read.place, read.degrade) == (Place.SERVER, DEFAULT_LADDER)
    declared = ServingProfile(place=Place.GATEWAY, degrade=DegradeLadder(constant=0.25))
    assert declared.to_json().keys() >= LATER


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"last_known_s": -1}, "`last_known_s` of a degrade ladder is -1; allowed: whole seconds from 0 to 86400"),
        ({"last_known_s": LAST_KNOWN_S_MAX + 1}, "`last_known_s`"),
        ({"last_known_s": 1.5}, "`last_known_s`"),
        ({"last_known_s": True}, "`last_known_s`"),
        ({"defaults": 1}, "`defaults`"),
        ({"in_process": "no"}, "`in_process`"),
        (
            {"fallback": "late-flights"},
            "`fallback` of a degrade ladder is 'late-flights'; allowed: null, or a",
        ),
        ({"fallback": "AB" * 32}, "`fallback`"),
        ({"constant": 1.01}, "`constant`"),
        ({"constant": math.nan}, "`constant`"),
        ({"constant": True}, "`constant`"),
        ({"constant": "0.5"}, "`constant`"),
    ],
)
def test_a_rung_out_of_bounds_is_refused_by_name_declared_or_stored(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidDefinition) as declared:
        DegradeLadder(**changes)
    with pytest.raises(InvalidDefinition) as stored:
        DegradeLadder.from_json(DegradeLadder().to_json() | changes)
    assert said in declared.value.message
    assert said in stored.value.message


def test_a_stored_ladder_has_every_rung_and_no_others() -> None:
    for wrong, said in (
        ({"colour": 1}, "does not know `colour`"),
        (None, "the whole"),
    ):
        with pytest.raises(InvalidDefinition, match=said):
            DegradeLadder.from_json(wrong and DegradeLadder().to_json() | wrong)
    with pytest.raises(InvalidDefinition, match="lacks `constant`"):
        DegradeLadder.from_json({name: each for name, each in DegradeLadder().to_json().items() if name != "constant"})


WRONG: tuple[object, ...] = ("x", None, [], {}, 1.5, "0", [0.5], -3)


@pytest.mark.parametrize("name", sorted({each.name for each in fields(ServingProfile)} - {"output_tolerance"}))
@pytest.mark.parametrize("value", WRONG, ids=repr)
def test_a_stored_value_of_another_kind_is_refused_or_is_one_that_is_allowed(name: str, value: object) -> None:
    stored = ServingProfile().to_json() | {name: value}
    if (name, value) in (("queue", None), ("overrides", {}), ("preferred_batch_rows", []), ("warm_up_rows", [])):
        ServingProfile.from_json(stored)
        return
    with pytest.raises(InvalidDefinition):
        ServingProfile.from_json(stored)


@pytest.mark.parametrize("value", ["0.1", True, None, [0.1]])
def test_a_stored_tolerance_is_a_number(value: object) -> None:
    with pytest.raises(InvalidDefinition, match="`output_tolerance`"):
        ServingProfile.from_json(ServingProfile().to_json() | {"output_tolerance": value})


def test_a_stored_queue_policy_is_checked_too() -> None:
    queue = QueuePolicy(5_000).to_json()
    for changes, said in (
        ({"timeout_us": -1}, "queue.timeout_us"),
        ({"on_timeout": "drop"}, "`queue.on_timeout` of a serving profile is 'drop'; allowed: `reject`, `delay`"),
        ({"allow_override": 1}, "queue.allow_override"),
        ({"colour": 1}, "does not know `queue.colour`"),
    ):
        with pytest.raises(InvalidDefinition) as caught:
            ServingProfile.from_json(ServingProfile().to_json() | {"queue": queue | changes})
        assert said in caught.value.message
