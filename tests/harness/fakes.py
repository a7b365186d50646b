"""Fakes of the serving ports: real behaviour in memory, held to the same contract tests as the adapters."""

import asyncio
from collections.abc import Callable, Mapping, Sequence

import hiredis
import numpy as np
from numpy.typing import NDArray

from skewless.errors import BundleRefused, DeadlineExceeded, SkewlessError, Unavailable
from skewless.features.online_store import Invalidate, Reply
from skewless.serving.ports import LogState, ModelSignature
from skewless.serving.records import AnsweredBatch, LogEntry, Outcome, TallyBatch
from skewless.serving.role_tally import RoleTally

Scorer = Callable[[NDArray[np.float32]], dict[str, NDArray[np.float32]]]


class FakeOnlineStore:
    """Hashes in memory. `failure`, where set, is raised instead of an answer; `slow_s` is how long a read takes.

    Understands the commands that reads are made of. `reads` holds the keys of each read, in order.
    """

    def __init__(self, hashes: Mapping[bytes, Mapping[bytes, bytes]]) -> None:
        self.hashes = dict(hashes)
        self.failure: SkewlessError | None = None
        self.slow_s = 0.0
        self.reads: list[tuple[bytes, ...]] = []
        self._subscribers: list[Invalidate] = []
        self._tracked: set[bytes] = set()

    async def read(self, keys: Sequence[bytes], commands: Sequence[bytes], *, timeout_s: float) -> list[Reply]:
        self.reads.append(tuple(keys))
        if self.failure is not None:
            raise self.failure
        if timeout_s <= self.slow_s:
            raise DeadlineExceeded("online store", f"no answer within {timeout_s * 1_000:.0f} ms")
        return [self._answer(key, command) for key, command in zip(keys, commands, strict=True)]

    async def read_tracked(self, keys: Sequence[bytes], commands: Sequence[bytes], *, timeout_s: float) -> list[Reply]:
        replies = await self.read(keys, commands, timeout_s=timeout_s)
        self._tracked.update(keys)
        return replies

    def subscribe(self, invalidate: Invalidate) -> None:
        self._subscribers.append(invalidate)

    def change(self, key: bytes, fields: Mapping[bytes, bytes]) -> None:
        """Replace a hash, and tell subscribers once where it was read tracked."""
        self.hashes[key] = fields
        if key in self._tracked:
            self._tracked.remove(key)
            self._tell([key])

    def lose_tracking(self) -> None:
        """Tell subscribers that any hash may have changed, as after a lost connection."""
        self._tracked.clear()
        self._tell(None)

    async def ping(self) -> None:
        if self.failure is not None:
            raise self.failure

    async def close(self) -> None:
        self.failure = Unavailable("online store", "it was closed by this process")

    def _tell(self, keys: Sequence[bytes] | None) -> None:
        for invalidate in self._subscribers:
            invalidate(keys)

    def _answer(self, key: bytes, command: bytes) -> Reply:
        reader = hiredis.Reader()
        reader.feed(command)
        name, read_key, *fields = reader.gets()
        assert read_key == key, f"the command reads {read_key!r}, but is said to read {key!r}"
        stored = self.hashes.get(key, {})
        if name.upper() == b"HGETALL":
            return [part for pair in stored.items() for part in pair]
        assert name.upper() == b"HMGET", f"no read is made of {name!r}"
        return [stored.get(field) for field in fields]


class FakeModelBackend:
    """Models of a repository, loaded on request. `failure`, where set, is raised instead of any answer; while `is_held`
    nothing is answered."""

    def __init__(self, repository: Mapping[str, Scorer]) -> None:
        self.repository = dict(repository)
        self.loaded: set[str] = set()
        self.failure: SkewlessError | None = None
        self.slow_s = 0.0
        self.is_held = False
        self.calls = 0

    async def infer(
        self, model: str, signature: ModelSignature, tensor: NDArray[np.float32], *, timeout_s: float
    ) -> dict[str, NDArray[np.float32]]:
        self.calls += 1
        if self.failure is not None:
            raise self.failure
        if model not in self.loaded:
            raise Unavailable("model backend", f"model `{model}` is not loaded")
        while self.is_held:  # noqa: ASYNC110  # set by the thread of a test, which no event of a loop can be
            await asyncio.sleep(0.001)
        if self.slow_s > timeout_s:
            raise DeadlineExceeded("model backend", f"no answer within {timeout_s * 1_000:.0f} ms")
        if tensor.shape[1] != signature.input_columns:
            raise BundleRefused(f"model `{model}` takes {signature.input_columns} columns, got {tensor.shape[1]}")
        outputs = self.repository[model](tensor)
        return {name: outputs[name] for name, _ in signature.outputs}

    async def ping(self) -> None:
        if self.failure is not None:
            raise self.failure

    async def load(self, model: str) -> None:
        await self.ping()
        if model not in self.repository:
            raise BundleRefused(f"model `{model}` cannot be loaded: it is not in the repository")
        self.loaded.add(model)

    async def unload(self, model: str) -> None:
        await self.ping()
        self.loaded.discard(model)

    async def is_ready(self, model: str) -> bool:
        return self.failure is None and model in self.loaded

    async def close(self) -> None:
        """Nothing to close."""


class MemoryPredictionLog:
    """Entries in a list. `failure`, where set, is raised by `commit`."""

    def __init__(self) -> None:
        self.entries: list[LogEntry] = []
        self.failure: SkewlessError | None = None
        self.closed = False

    @property
    def batches(self) -> list[AnsweredBatch]:
        return [entry for entry in self.entries if isinstance(entry, AnsweredBatch)]

    @property
    def outcomes(self) -> list[Outcome]:
        return [outcome for entry in self.entries if isinstance(entry, tuple) for outcome in entry]

    def state(self) -> LogState:
        """Nothing waits in memory to be written elsewhere."""
        return LogState()

    def refuse_if_full(self, rows: int) -> None:
        """Memory takes any number."""

    def append(self, batch: AnsweredBatch) -> None:
        self.entries.append(batch)

    def append_outcomes(self, outcomes: Sequence[Outcome]) -> None:
        self.entries.append(tuple(outcomes))

    def append_tallies(self, tallies: Sequence[RoleTally]) -> None:
        self.entries.append(TallyBatch.of(tallies))

    async def commit(self) -> None:
        if self.failure is not None:
            raise self.failure

    async def close(self) -> None:
        self.closed = True
