"""The stack's own look at rollouts: a real process that takes a harmful canary back and ends when nothing is left."""

import time
from pathlib import Path

import pytest

from harness.registered import register
from harness.servers import wait_until
from skewless.adapters.prediction_log import FolderPredictionLog
from skewless.registry import database
from skewless.registry.repository import Registry, system_clock
from skewless.rollout import changes
from skewless.rollout.history import RouteAction
from skewless.rollout.progression import Progress, ProgressionPlan
from skewless.rollout.role_counts import LATENCY_BINS, RoleCounts
from skewless.rollout.routes import Role
from skewless.serving.role_tally import RoleTally
from skewless.settings import Settings, load_settings
from skewless.stack.rollout_watch import adjusting_rollouts
from skewless.timestamps import SECOND_US, Micros

LONG_S = 600.0
"""Between two looks, where nobody is to wait for the next one."""


async def test_a_harmful_canary_is_taken_back_without_anybody_asking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKEWLESS_HOME", str(tmp_path / "home"))
    settings = load_settings(Settings)
    database.upgrade(settings.registry_url)
    registry = Registry(database.engine(settings.registry_url))
    live, canary = (register(settings.folders, registry, tmp_path / f"built{each}", each) for each in range(2))
    registry.create_endpoint("one", description="", bundle=live, actor="ann", reason="test")
    begun = Micros(system_clock() - 10 * SECOND_US)
    plan = ProgressionPlan()
    started = changes.start_canary(registry.endpoint("one").route, canary, plan.steps[0].share)
    registry.change_route(
        "one", lambda _route: started, action=RouteAction.START_CANARY, actor="ann", reason="test",
        progress=Progress.started(plan, started, begun).to_json(),
    )  # fmt: skip
    answered = (200, *[0] * (LATENCY_BINS - 1))
    span = (Micros(begun + SECOND_US), Micros(begun + 2 * SECOND_US))
    log = FolderPredictionLog(settings.folders.predictions, flush_ms=0)
    log.append_tallies(
        [
            RoleTally("one", Role.LIVE, "", live, None, *span, RoleCounts(200, 0, answered)),
            RoleTally("one", Role.CANARY, "", canary, None, *span, RoleCounts(200, 200)),
        ]
    )
    await log.close()
    told: list[str] = []
    with adjusting_rollouts(settings, told.append):
        wait_until(lambda: registry.endpoint("one").route.canary is None, "the canary is taken back")
    event = registry.audit("one")[-1]
    registry.close()
    assert (event.action, event.detail["by"]) == ("abort", "progression")
    assert "200 of 200 requests failed" in event.reason
    assert told == ["adjusting the rollouts of one"]


def test_leaving_ends_the_watch_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKEWLESS_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("skewless.stack.rollout_watch.EVERY_S", LONG_S)
    begun_s = time.monotonic()
    with adjusting_rollouts(load_settings(Settings), lambda _text: None):
        pass
    assert time.monotonic() - begun_s < LONG_S, "it does not wait for the next look"
