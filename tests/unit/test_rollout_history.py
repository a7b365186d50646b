"""Which bundle a rollback returns to, checked against a naive list of what was live."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skewless.canonical_json import digest
from skewless.rollout.history import LIVE_ACTIONS, LiveChange, RouteAction, rollback_target, target_after_rollback

BUNDLES = tuple(digest(number) for number in range(5))


def test_an_endpoint_that_was_only_created_has_nothing_to_go_back_to() -> None:
    assert rollback_target([]) is None
    assert rollback_target([LiveChange(RouteAction.CREATE, BUNDLES[0])]) is None


def test_rolling_back_twice_goes_back_two_promotions() -> None:
    changes = [
        LiveChange(RouteAction.CREATE, BUNDLES[0]),
        LiveChange(RouteAction.PROMOTE, BUNDLES[1]),
        LiveChange(RouteAction.PROMOTE, BUNDLES[2]),
    ]
    for expected in (BUNDLES[1], BUNDLES[0]):
        assert rollback_target(changes) == expected
        changes.append(LiveChange(RouteAction.ROLLBACK, expected))
    assert rollback_target(changes) is None


def test_a_promotion_after_a_rollback_rolls_back_to_what_was_live_then() -> None:
    changes = [
        LiveChange(RouteAction.CREATE, BUNDLES[0]),
        LiveChange(RouteAction.PROMOTE, BUNDLES[1]),
        LiveChange(RouteAction.ROLLBACK, BUNDLES[0]),
        LiveChange(RouteAction.PROMOTE, BUNDLES[2]),
    ]
    assert rollback_target(changes) == BUNDLES[0]


@pytest.mark.parametrize("action", [action for action in RouteAction if action not in LIVE_ACTIONS])
def test_changes_of_canary_shadow_and_experiment_are_nothing_to_roll_back(action: RouteAction) -> None:
    changes = [
        LiveChange(RouteAction.CREATE, BUNDLES[0]),
        LiveChange(RouteAction.PROMOTE, BUNDLES[1]),
        LiveChange(action, BUNDLES[1]),
    ]
    assert rollback_target(changes) == BUNDLES[0]


def test_actions_fit_their_column() -> None:
    assert max(len(action) for action in RouteAction) <= 32


@settings(deadline=None)
@given(st.lists(st.none() | st.sampled_from(BUNDLES), max_size=30))
def test_rollbacks_undo_promotions_one_by_one(steps: list[str | None]) -> None:
    changes = [LiveChange(RouteAction.CREATE, BUNDLES[0])]
    undo = [BUNDLES[0]]
    for step in steps:
        if step is not None:
            bundle = digest(step)
            changes.append(LiveChange(RouteAction.PROMOTE, bundle))
            if bundle != undo[-1]:  # what is live already is not promoted over itself
                undo.append(bundle)
        elif len(undo) > 1:
            undo.pop()
            assert rollback_target(changes) == undo[-1]
            assert target_after_rollback(changes) == (undo[-2] if len(undo) > 1 else None)
            changes.append(LiveChange(RouteAction.ROLLBACK, undo[-1]))
        else:
            assert rollback_target(changes) is None
