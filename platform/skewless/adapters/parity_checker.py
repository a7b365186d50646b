"""Checks rows of the prediction log against the offline store, bundle by bundle: for commands and for the monitor.

Where bundles, definitions and stores are is told by whoever runs it (`CheckParts`); what a comparison means is in
`parity/check.py`.
"""

import importlib
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

from skewless.adapters.duckdb_point_in_time import OfflineSession
from skewless.adapters.local_model import local_model
from skewless.adapters.parity_keys import OtherKeys
from skewless.adapters.parity_log import served_of
from skewless.adapters.redis_blocking_store import BlockingRedisOnlineStore
from skewless.bundles.bundle import Bundle
from skewless.canonical_json import Digest
from skewless.errors import InvalidDefinition, NotFound
from skewless.features.compiled_registry import CompiledRegistry
from skewless.features.contract import FeatureContract
from skewless.features.on_demand import OnDemandPlan
from skewless.features.point_in_time import OfflineSource
from skewless.limits import POINT_IN_TIME_MEMORY
from skewless.monitor_limits import PARITY_BUNDLES_OPEN_MAX
from skewless.parity.check import Checked, KeyProbe, Subject, check_rows
from skewless.parity.definitions import changed_views
from skewless.parity.evidence import IngestTimes, Written
from skewless.parity.hidden import cut_down, logged_contract
from skewless.parity.recompute import with_present_functions
from skewless.parity.schedule import passed_until
from skewless.serving.log_privacy import LogPrivacy
from skewless.training.learner import Scorer
from skewless.transforms import FittedTransform


class CheckParts(Protocol):
    """Where the parts of a check are. What is asked for once may be kept: a check is of one moment."""

    def bundle(self, digest: Digest) -> "CheckedBundle":
        """A registered bundle, verified. Raises NotFound, and InvalidDefinition for one that cannot run here."""
        ...

    def sources(self, feature_service: str) -> Mapping[str, OfflineSource]:
        """Where the offline rows of its views lie, by view."""
        ...

    def materialized(self, feature_service: str) -> Mapping[str, tuple[tuple[int, int], ...]]:
        """The (start, end) in µs of each materialization of its views, by view."""
        ...

    def ingested(self) -> IngestTimes | None:
        """When rows that were ingested became visible online; None where nobody knows."""
        ...

    def registered(self) -> CompiledRegistry | None:
        """What is defined today; None where nobody knows."""
        ...

    def online_store(self) -> str | None:
        """URL of the online store; None where there is none to be asked."""
        ...


@dataclass(frozen=True, slots=True)
class CheckedBundle:
    """What a check needs of a bundle; `feature_service` is the one that it was trained on.

    `score` runs its model: tensors (rows, columns) to `output` (rows, classes).
    """

    digest: Digest
    contract: FeatureContract
    transform: FittedTransform
    feature_service: str
    score: Scorer
    output: str
    output_tolerance: float = 0.0

    @classmethod
    def of(cls, bundle: Bundle, feature_service: str) -> Self:
        """Of a bundle whose model is ONNX. Raises InvalidDefinition for any other."""
        model = local_model(bundle)
        return cls(
            bundle.digest,
            bundle.contract,
            bundle.transform,
            feature_service,
            model.run,
            model.output_name,
            bundle.serving.output_tolerance,
        )


@dataclass(frozen=True, slots=True)
class _Opened:
    """One bundle, ready to be checked against. `logged` is its contract with the dtypes of the log."""

    subject: Subject
    logged: FeatureContract
    output: str
    offline: OfflineSession
    passed: Mapping[str, int]
    """By view, up to which moment its offline rows are there (µs)."""


@dataclass(frozen=True, slots=True)
class ViewProgress:
    """How far the offline store is for the views of one bundle: by view, in µs."""

    passed: Mapping[str, int]

    @property
    def least(self) -> int:
        """Up to which moment all of them are there; of a bundle that reads no view, for ever."""
        return min(self.passed.values(), default=2**62)


class Checker:
    """Checks rows of the log, bundle by bundle; each is opened once. A context manager, for one thread.

    At most PARITY_BUNDLES_OPEN_MAX bundles are open at a time.
    """

    def __init__(
        self, parts: CheckParts, *, privacy: LogPrivacy | None = None, memory: str = POINT_IN_TIME_MEMORY
    ) -> None:
        """`privacy` has the key that hashed columns of the log are hashed with; without it they are not compared.

        `memory` bounds the joins of each open bundle, in DuckDB's form.
        """
        self._parts = parts
        self._privacy = privacy or LogPrivacy()
        self._memory = memory
        self._open: OrderedDict[Digest, tuple[_Opened, ExitStack]] = OrderedDict()
        self._changed: dict[str, str] = {}
        self._lost: dict[Digest, tuple[str, ...]] = {}
        self._seen: set[Digest] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._open:
            self._close_oldest()

    @property
    def changed(self) -> dict[str, str]:
        """By view, what is defined otherwise today than in a bundle that was checked."""
        return dict(self._changed)

    @property
    def bundles(self) -> tuple[Digest, ...]:
        """Bundles that were checked."""
        return tuple(sorted(self._seen))

    @property
    def not_comparable(self) -> dict[Digest, tuple[str, ...]]:
        """By bundle, columns that the log does not keep as they were served, and that are not compared."""
        return dict(self._lost)

    def contract(self, digest: Digest) -> FeatureContract:
        """The contract that a bundle is checked by, with the dtypes of the log. Raises as `check`."""
        return self._opened(digest).logged

    def progress(self, digest: Digest) -> ViewProgress:
        """How far the offline store is for a bundle. Raises as `check`."""
        return ViewProgress(self._opened(digest).passed)

    def check(self, digest: Digest, table: Any) -> tuple[Checked, FeatureContract]:
        """Check rows of one bundle.

        Raises NotFound where the bundle or its model's definition is gone, InvalidDefinition where its features can no
        longer be computed here, and Unavailable where the online store does not answer.
        """
        opened = self._opened(digest)
        served = served_of(table, opened.logged, opened.output)
        return check_rows(opened.subject, served, opened.offline), opened.logged

    def _opened(self, digest: Digest) -> _Opened:
        if digest in self._open:
            self._open.move_to_end(digest)
            return self._open[digest][0]
        while len(self._open) >= PARITY_BUNDLES_OPEN_MAX:
            self._close_oldest()
        with ExitStack() as stack:
            opened = self._opening(digest, stack)
            self._open[digest] = opened, stack.pop_all()
        self._seen.add(digest)
        self._changed |= opened.subject.changed
        if opened.subject.hidden.lost:
            self._lost[digest] = opened.subject.hidden.lost
        return opened

    def _close_oldest(self) -> None:
        _, (_, stack) = self._open.popitem(last=False)
        stack.close()

    def _opening(self, digest: Digest, stack: ExitStack) -> _Opened:
        bundle = self._parts.bundle(digest)
        inputs = frozenset(each.name for each in bundle.transform.graph.inputs)
        cut, hidden = cut_down(bundle.contract, inputs, self._privacy)
        sources = self._parts.sources(bundle.feature_service)
        _refuse_gone(bundle, sources)
        contract, _ = with_present_functions(cut, importlib.import_module)
        offline = stack.enter_context(OfflineSession(contract, sources, memory=self._memory))
        runs = self._parts.materialized(bundle.feature_service)
        written = {view: Written.of(each) for view, each in runs.items() if each}
        watermarks = offline.watermarks()
        logged = logged_contract(contract, hidden)
        subject = Subject(
            transform=bundle.transform,
            contract=logged,
            plan=OnDemandPlan.compile(contract, importlib.import_module),
            score=bundle.score,
            output_tolerance=bundle.output_tolerance,
            changed=changed_views(bundle.contract, self._parts.registered()),
            written=written,
            watermarks=watermarks,
            probe=self._probe(contract, stack),
            hidden=hidden,
            ingested=self._parts.ingested(),
        )
        passed = {each.name: passed_until(watermarks.get(each.name), written.get(each.name)) for each in contract.views}
        return _Opened(subject, logged, bundle.output, offline, passed)

    def _probe(self, contract: FeatureContract, stack: ExitStack) -> KeyProbe | None:
        """What looks for entities under other types of keys; None where no online store is known."""
        url = self._parts.online_store()
        if url is None:
            return None
        store = BlockingRedisOnlineStore(url)
        stack.callback(store.close)
        return OtherKeys(contract, store)


def _refuse_gone(bundle: CheckedBundle, sources: Mapping[str, OfflineSource]) -> None:
    gone = [view.name for view in bundle.contract.views if view.name not in sources]
    if gone:
        raise InvalidDefinition(
            f"bundle {bundle.digest[:12]} reads view `{gone[0]}`, which feature service "
            f"`{bundle.feature_service}` no longer has, so its offline values cannot be computed",
            hint="check bundles of the present definitions, or register the view again",
        )


class Unchecked:
    """Bundles that predictions came from and that cannot be checked here, with how many those are and why."""

    def __init__(self) -> None:
        self._found: dict[Digest, tuple[int, NotFound | InvalidDefinition]] = {}

    def __contains__(self, digest: Digest) -> bool:
        return digest in self._found

    def add(self, digest: Digest, rows: int, error: NotFound | InvalidDefinition | None = None) -> None:
        """Count predictions; `error` is given with a bundle's first."""
        count, known = self._found.get(digest, (0, error))
        assert known is not None, "a bundle's first rows come with the reason"
        self._found[digest] = (count + rows, known)

    def refuse(self) -> None:
        """Raise the first reason, where there is one."""
        for _, error in self._found.values():
            raise error

    def to_json(self) -> list[dict[str, Any]]:
        """Plain data."""
        return [
            {"bundle": digest, "predictions": count, "reason": error.message}
            for digest, (count, error) in self._found.items()
        ]
