"""Readers of one contract's features: a blocking one for scripts and threads, and one for an event loop."""

import time
from collections.abc import Mapping
from importlib import import_module
from types import TracebackType
from typing import Any, Self

from skewless.adapters.redis_blocking_store import BlockingRedisOnlineStore
from skewless.adapters.redis_online_store import RedisOnlineStore
from skewless.features.contract import FeatureContract
from skewless.features.frame import FeatureFrame
from skewless.features.near_cache import NearCache
from skewless.features.on_demand import OnDemandPlan
from skewless.features.plan import ReadPlan
from skewless.features.reader import FeatureReads
from skewless.limits import FLUSH_ROWS_MAX, FLUSHES_MAX, NEAR_CACHE_AGE_MAX_S, ONLINE_STORE_TIMEOUT_S, ROWS_WAITING_MAX
from skewless.online.features import Features, features_of
from skewless.online.given import Moment, Question, QuestionReader
from skewless.online.table import FeatureTable


class _Compiled:
    """A contract made ready: what to ask, and what to make of the answer."""

    def __init__(self, features: Features) -> None:
        given = features_of(features)
        self.contract = given.contract
        self.questions = QuestionReader.compile(given.contract)
        self.plan = ReadPlan.compile(given.contract, given.hash_sizes)
        self.on_demand = OnDemandPlan.compile(given.contract, import_module)

    def table(self, question: Question, frame: FeatureFrame) -> FeatureTable:
        """The answer to a question, with the features that are computed when asked for."""
        extended = self.on_demand.extend(frame, {**question.keys, **question.request})
        return FeatureTable(question.keys, extended, question.as_of)


class FeatureReader:
    """Reads features from a thread. Connects when first used; threads that share it take turns. Close it when done."""

    def __init__(self, url: str, features: Features, *, timeout_s: float = ONLINE_STORE_TIMEOUT_S) -> None:
        """`url` is the online store's, such as `redis://127.0.0.1:6379`.

        `features` are a FeatureSet, a FeatureContract, or the path of a contract's JSON file or a bundle's folder.
        Raises InvalidSettings for a URL, and what `load_features` raises.
        """
        self._compiled = _Compiled(features)
        self._timeout_s = timeout_s
        self._store = BlockingRedisOnlineStore(url)

    @property
    def contract(self) -> FeatureContract:
        """What is read."""
        return self._compiled.contract

    def read(
        self, keys: Mapping[str, Any], *, as_of: Moment | None = None, request: Mapping[str, Any] | None = None
    ) -> FeatureTable:
        """The features of the entities that `keys` names, one list of values per join key, None for no such entity.

        `as_of` None is now. `request` has the request fields that on-demand views read. Raises InvalidRequest,
        Rejected where a feature's policy is `reject`, Unavailable, and DeadlineExceeded after the reader's timeout.
        """
        question = self._compiled.questions.question(keys, request, as_of)
        prepared = self._compiled.plan.prepare(question.keys, question.rows)
        replies = self._store.read(prepared.keys, prepared.commands, timeout_s=self._timeout_s)
        return self._compiled.table(question, prepared.decode(replies, question.as_of).frame)

    def close(self) -> None:
        """Close the connection. A later read opens it again."""
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class AsyncFeatureReader:
    """Reads features in an event loop; concurrent reads share round trips. Close it when done."""

    def __init__(
        self,
        url: str,
        features: Features,
        *,
        timeout_s: float = ONLINE_STORE_TIMEOUT_S,
        near_cache_bytes: int = 0,
    ) -> None:
        """As `FeatureReader`. `near_cache_bytes` above 0 keeps so much of the views that ask for it near."""
        self._compiled = _Compiled(features)
        self._timeout_s = timeout_s
        self._store = RedisOnlineStore(url, tracked=near_cache_bytes > 0)
        self._near_cache = (
            NearCache(self._store, bytes_max=near_cache_bytes, age_max_s=NEAR_CACHE_AGE_MAX_S, clock=time.monotonic)
            if near_cache_bytes > 0
            else None
        )
        self._reads = FeatureReads(
            self._store,
            near_cache=self._near_cache,
            rows_max=FLUSH_ROWS_MAX,
            flushes_max=FLUSHES_MAX,
            rows_waiting_max=ROWS_WAITING_MAX,
        )

    @property
    def contract(self) -> FeatureContract:
        """What is read."""
        return self._compiled.contract

    async def read(
        self, keys: Mapping[str, Any], *, as_of: Moment | None = None, request: Mapping[str, Any] | None = None
    ) -> FeatureTable:
        """As `FeatureReader.read`; also Unavailable at once where too many rows wait already."""
        question = self._compiled.questions.question(keys, request, as_of)
        frame = await self._reads.read(
            self._compiled.plan, question.keys, question.rows, question.as_of, timeout_s=self._timeout_s
        )
        return self._compiled.table(question, frame)

    async def close(self) -> None:
        """Refuse reads that wait, and close every connection."""
        await self._reads.close()
        await self._store.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()
