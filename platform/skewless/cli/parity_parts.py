"""Where a workspace has the parts of a parity check; see `CheckParts`."""

import os
from collections import OrderedDict
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from skewless.adapters.parity_checker import CheckedBundle
from skewless.canonical_json import Digest
from skewless.cli.workspace import Workspace
from skewless.errors import NotFound, Unavailable
from skewless.features.compiled_registry import CompiledRegistry
from skewless.features.point_in_time import OfflineSource
from skewless.monitor_limits import PARITY_BUNDLES_OPEN_MAX
from skewless.registry.ingest_batches import IngestBatches
from skewless.serving.log_privacy import LogPrivacy

if TYPE_CHECKING:
    from skewless.adapters.feast_repository import FeatureRepository

HASH_KEY_VARIABLE = "SKEWLESS_MONITOR_LOG_HASH_KEY"


class WorkspaceParts:
    """The parts as they are at this moment.

    `bundles` may be shared by several, so that none is loaded twice; `online_store` is the URL of another store than
    the workspace's.
    """

    def __init__(
        self,
        workspace: Workspace,
        bundles: "OrderedDict[Digest, CheckedBundle] | None" = None,
        *,
        online_store: str | None = None,
    ) -> None:
        self._workspace = workspace
        self._online_store = online_store
        self._bundles = OrderedDict() if bundles is None else bundles

    def bundle(self, digest: Digest) -> CheckedBundle:
        """See `CheckParts`; its feature service is that of its model's definition."""
        if digest not in self._bundles:
            bundle = self._workspace.bundle(digest)
            self._bundles[digest] = CheckedBundle.of(bundle, self._workspace.model(bundle.name).feature_service)
            if len(self._bundles) > PARITY_BUNDLES_OPEN_MAX:
                self._bundles.popitem(last=False)
        return self._bundles[digest]

    def sources(self, feature_service: str) -> dict[str, OfflineSource]:
        """See `CheckParts`."""
        return self._repository.sources(feature_service)

    def materialized(self, feature_service: str) -> dict[str, tuple[tuple[int, int], ...]]:
        """See `CheckParts`."""
        return self._repository.materialized(feature_service)

    def ingested(self) -> "WorkspaceIngestTimes":
        """See `CheckParts`."""
        return WorkspaceIngestTimes(self._workspace)

    def registered(self) -> CompiledRegistry | None:
        """See `CheckParts`."""
        try:
            return self._workspace.feature_snapshot().registry
        except NotFound:
            return None

    def online_store(self) -> str | None:
        """See `CheckParts`."""
        if self._online_store is not None:
            return self._online_store
        try:
            return self._workspace.online_store_url
        except Unavailable:
            return None

    @cached_property
    def _repository(self) -> "FeatureRepository":
        return self._workspace.features(connected=False)


class WorkspaceIngestTimes:
    """Implements `IngestTimes` by a workspace's registry database, which it opens when it is asked."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    def online_times(self, view: str, created_times: NDArray[np.int64]) -> NDArray[np.int64]:
        """See `IngestTimes`."""
        with self._workspace.kept(IngestBatches) as batches:
            return batches.online_times(view, created_times)


def log_privacy() -> LogPrivacy:
    """The key that gateways hash the log with, where the environment has it."""
    return LogPrivacy(os.environ.get(HASH_KEY_VARIABLE, "").encode())
