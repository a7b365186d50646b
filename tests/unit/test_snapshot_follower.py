"""The gateway follows registry snapshots: swaps whole, keeps the last good ones, restarts from its copy."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from harness.bundles import contract
from harness.gateways import FakeSnapshots
from skewless.canonical_json import digest
from skewless.errors import InvalidDefinition, Unavailable
from skewless.features.compiled_registry import CompiledRegistry
from skewless.features.contract_changes import Definitions
from skewless.features.feature_checks import Finding, Severity
from skewless.registry.snapshot_heads import SnapshotHead
from skewless.registry.snapshots import FeatureSnapshot
from skewless.timestamps import SECOND_US, Micros
from skewless_gateway.snapshot_follower import SnapshotFollower, SnapshotState
from skewless_gateway.snapshots_copy import FILE, SnapshotsCopy
from skewless_http.polling import Polling

CHECKED = Micros(100 * SECOND_US)
AWAY = Unavailable("registry database", "no route to host")


def snapshot(*, project: str = "demo", version: int = 1, hash_size: int = 3) -> FeatureSnapshot:
    registry = CompiledRegistry(project, {"delays": contract()}, {"broken": "why"}, {("origin",): hash_size})
    findings = (Finding(Severity.WARNING, "code", "message", "hint"),)
    head = SnapshotHead(project, version, digest(""), digest("source"), CHECKED, CHECKED)
    made = FeatureSnapshot(head, registry, findings)
    return replace(made, head=replace(head, digest=digest(made.document())))


def follower_of(registry: FakeSnapshots, folder: Path | None = None) -> SnapshotFollower:
    return SnapshotFollower(registry, poll_s=1.0, copy=None if folder is None else SnapshotsCopy(folder))


async def test_a_new_snapshot_replaces_the_one_before_as_a_whole() -> None:
    registry = FakeSnapshots({"demo": snapshot()})
    follower = follower_of(registry)
    await follower.refresh()
    seen = follower.state
    registry.snapshots = {"demo": snapshot(version=2, hash_size=9), "other": snapshot(project="other")}
    await follower.refresh()
    assert follower.hash_sizes("demo") == {("origin",): 9}
    assert follower.hash_sizes("other") == {("origin",): 3}
    assert seen.snapshots["demo"].head.version == 1, "whoever holds a state goes on with it"


async def test_what_did_not_change_is_not_read_again() -> None:
    class Counting(FakeSnapshots):
        reads = 0

        def newest(self, project: str) -> FeatureSnapshot:
            self.reads += 1
            return super().newest(project)

    registry = Counting({"demo": snapshot()})
    follower = follower_of(registry)
    for later_s in range(3):
        checked = replace(snapshot().head, checked_at=Micros(CHECKED + later_s * SECOND_US))
        registry.snapshots = {"demo": replace(snapshot(), head=checked)}
        await follower.refresh()
    assert registry.reads == 1
    assert follower.ages_s(CHECKED + 10 * SECOND_US) == {"demo": 8.0}


async def test_the_last_good_snapshot_stays_while_the_registry_is_away_and_gets_older() -> None:
    registry = FakeSnapshots({"demo": snapshot()})
    follower = follower_of(registry)
    await follower.refresh()
    registry.failure = AWAY
    await follower.refresh()
    assert follower.hash_sizes("demo") == {("origin",): 3}
    assert follower.state.error == AWAY.message
    assert follower.ages_s(CHECKED + 60 * SECOND_US) == {"demo": 60.0}
    registry.failure = None
    await follower.refresh()
    assert follower.state.error == ""


async def test_a_snapshot_that_cannot_be_read_leaves_the_one_before_and_the_other_projects() -> None:
    class Damaged(FakeSnapshots):
        def newest(self, project: str) -> FeatureSnapshot:
            if self.snapshots[project].head.version == 2:
                raise InvalidDefinition("it is not what was stored")
            return super().newest(project)

    registry = Damaged({"demo": snapshot()})
    follower = follower_of(registry)
    await follower.refresh()
    registry.snapshots = {"demo": snapshot(version=2, hash_size=9), "other": snapshot(project="other")}
    await follower.refresh()
    assert follower.state.snapshots["demo"].head.version == 1
    assert sorted(follower.state.snapshots) == ["demo", "other"]
    assert follower.state.error == "it is not what was stored"


async def test_a_restart_while_the_registry_is_away_starts_from_the_copy(tmp_path: Path) -> None:
    before = follower_of(FakeSnapshots({"demo": snapshot()}), tmp_path)
    await before.refresh()
    after = follower_of(FakeSnapshots(failure=AWAY), tmp_path)
    await after.refresh()
    assert dict(after.state.snapshots) == {"demo": snapshot()}
    assert after.state.error == AWAY.message


@pytest.mark.parametrize("text", ["", "{}", "[{}]", '[{"head": {}, "document": {}}]', "[1]", "no json", "3"])
async def test_a_copy_that_cannot_be_read_counts_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    follower = follower_of(FakeSnapshots(failure=AWAY), tmp_path)
    await follower.refresh()
    assert dict(follower.state.snapshots) == {}


async def test_a_copy_with_a_changed_byte_is_not_used(tmp_path: Path) -> None:
    await follower_of(FakeSnapshots({"demo": snapshot()}), tmp_path).refresh()
    kept = tmp_path / FILE
    kept.write_text(kept.read_text().replace('["origin"], 3', '["origin"], 4'))
    follower = follower_of(FakeSnapshots(failure=AWAY), tmp_path)
    await follower.refresh()
    assert dict(follower.state.snapshots) == {}


async def test_changes_are_told_and_checks_are_not() -> None:
    told: list[SnapshotState] = []
    registry = FakeSnapshots({"demo": snapshot()})
    follower = SnapshotFollower(registry, poll_s=1.0, on_change=told.append)
    await follower.refresh()
    checked = replace(snapshot().head, checked_at=Micros(CHECKED + SECOND_US))
    registry.snapshots = {"demo": replace(snapshot(), head=checked)}
    await follower.refresh()
    assert len(told) == 1
    registry.snapshots = {}
    await follower.refresh()
    assert told[-1] == SnapshotState()
    registry.failure = AWAY
    await follower.refresh()
    await follower.refresh()
    assert [state.error for state in told] == ["", "", AWAY.message]


async def test_a_bundle_is_compared_with_its_own_projects_snapshot() -> None:
    follower = follower_of(FakeSnapshots({"demo": snapshot()}))
    await follower.refresh()
    changed = replace(contract(), definitions_digest=digest("others"))
    assert follower.contract_state(contract()).definitions is Definitions.CURRENT
    assert follower.contract_state(changed).definitions is Definitions.CHANGED
    assert follower.contract_state(replace(contract(), project="other")).definitions is Definitions.UNKNOWN


async def test_polling_goes_on_after_a_look_that_failed_and_looks_at_once_when_woken(
    caplog: pytest.LogCaptureFixture,
) -> None:
    looks = asyncio.Semaphore(0)

    async def look() -> None:
        looks.release()
        raise RuntimeError("our own fault")

    polling = Polling(look, every_s=600.0, what="a test")
    running = asyncio.create_task(polling.run())
    async with asyncio.timeout(80):
        await looks.acquire()
        await polling.first_look(timeout_s=20)
        polling.wake()
        await looks.acquire()
    running.cancel()
    assert "a test failed; serving goes on" in caplog.text


async def test_the_first_look_is_waited_for_no_longer_than_asked() -> None:
    async def never() -> None:
        await asyncio.Event().wait()

    polling = Polling(never, every_s=1.0, what="a test")
    running = asyncio.create_task(polling.run())
    async with asyncio.timeout(80):
        await polling.first_look(timeout_s=0.01)
    running.cancel()
