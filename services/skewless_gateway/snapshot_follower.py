"""Keeps the gateway on the newest registry snapshots: what is registered with Feast, without Feast."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Protocol

from skewless.errors import SkewlessError
from skewless.features.contract import FeatureContract
from skewless.features.contract_changes import ContractState, compare_contract
from skewless.registry.snapshot_heads import SnapshotHead
from skewless.registry.snapshots import FeatureSnapshot
from skewless.timestamps import SECOND_US
from skewless_gateway.snapshots_copy import SnapshotsCopy
from skewless_http.polling import Polling

_LOGGER = logging.getLogger(__name__)
_COPY_EVERY_S = 60.0
"""The copy is also renewed when nothing changed, so that a restart knows when a snapshot was last checked."""
_NO_SIZES: Mapping[tuple[str, ...], int] = MappingProxyType({})


class SnapshotReader(Protocol):
    """Where snapshots are read; `registry.snapshots.FeatureSnapshots` is one."""

    def heads(self) -> tuple[SnapshotHead, ...]:
        """Which snapshot each project has."""
        ...

    def newest(self, project: str) -> FeatureSnapshot:
        """A project's snapshot."""
        ...


@dataclass(frozen=True, slots=True)
class SnapshotState:
    """The last good snapshot of each project; replaced as a whole. `error` says why there may be newer ones."""

    snapshots: Mapping[str, FeatureSnapshot] = field(default_factory=dict)
    error: str = ""


class SnapshotFollower:
    """Polls the registry. `state` is always the last good one; a failure never takes away what is known."""

    def __init__(
        self,
        reader: SnapshotReader,
        *,
        poll_s: float,
        copy: SnapshotsCopy | None = None,
        on_change: Callable[[SnapshotState], None] = lambda _state: None,
    ) -> None:
        self.state = SnapshotState()
        self._reader = reader
        self._copy = copy
        self._copied_s = 0.0
        self._on_change = on_change
        self._polling = Polling(self.refresh, every_s=poll_s, what="following the registry snapshots")

    async def run(self) -> None:
        """Follow the registry until cancelled."""
        await self._polling.run()

    def wake(self) -> None:
        """Look at once: the registry changed."""
        self._polling.wake()

    async def first_look(self, *, timeout_s: float) -> None:
        """Return when snapshots were read once, or could not be, or `timeout_s` is over."""
        await self._polling.first_look(timeout_s=timeout_s)

    def hash_sizes(self, project: str) -> Mapping[tuple[str, ...], int]:
        """How large a project's entity hashes are; empty where no snapshot of it is known."""
        snapshot = self.state.snapshots.get(project)
        return _NO_SIZES if snapshot is None else snapshot.registry.hash_sizes

    def contract_state(self, contract: FeatureContract) -> ContractState:
        """Whether a bundle's feature definitions are still those that are registered."""
        snapshot = self.state.snapshots.get(contract.project)
        return compare_contract(contract, None if snapshot is None else snapshot.registry)

    def ages_s(self, now: int) -> dict[str, float]:
        """Seconds at `now` (µs) since each project's snapshot was last known to say what Feast's registry says."""
        return {
            project: max(0.0, (now - snapshot.head.checked_at) / SECOND_US)
            for project, snapshot in self.state.snapshots.items()
        }

    async def refresh(self) -> None:
        """Read which snapshots there are, and those that changed."""
        before = self.state
        try:
            heads = await asyncio.to_thread(self._reader.heads)
        except SkewlessError as error:
            known = before.snapshots or await self._copied()
            self._replace(before, SnapshotState(known, error.message))
            return
        snapshots: dict[str, FeatureSnapshot] = {}
        errors: list[str] = []
        for head in heads:
            known_one = before.snapshots.get(head.project)
            try:
                snapshots[head.project] = await self._newest(head, known_one)
            except SkewlessError as error:
                errors.append(error.message)
                if known_one is not None:
                    snapshots[head.project] = known_one
        self._replace(before, SnapshotState(MappingProxyType(snapshots), "; ".join(errors)))
        await self._save(before)

    async def _newest(self, head: SnapshotHead, known: FeatureSnapshot | None) -> FeatureSnapshot:
        """The snapshot of a head; its content is read only where it is another one than is known."""
        if known is not None and known.head.digest == head.digest:
            return replace(known, head=head)
        return await asyncio.to_thread(self._reader.newest, head.project)

    async def _copied(self) -> Mapping[str, FeatureSnapshot]:
        return {} if self._copy is None else await asyncio.to_thread(self._copy.load)

    async def _save(self, before: SnapshotState) -> None:
        is_due = time.monotonic() - self._copied_s >= _COPY_EVERY_S
        if self._copy is not None and (is_due or _content(self.state) != _content(before)):
            await asyncio.to_thread(self._copy.save, self.state.snapshots)
            self._copied_s = time.monotonic()

    def _replace(self, before: SnapshotState, after: SnapshotState) -> None:
        self.state = after
        if _content(after) == _content(before) and after.error == before.error:
            return
        for project, digest in _content(after).items():
            if _content(before).get(project) != digest:
                _LOGGER.info("registry snapshot %s of project %s is in use", digest[:12], project)
        if after.error and after.error != before.error:
            _LOGGER.error("the registry snapshots cannot be followed: %s", after.error)
        self._on_change(after)


def _content(state: SnapshotState) -> dict[str, str]:
    """Digests by project: what a snapshot says, without when it was last checked."""
    return {project: str(snapshot.head.digest) for project, snapshot in state.snapshots.items()}
