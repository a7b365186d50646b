"""Bundles as the monitor needs them: contract and baseline, verified once and kept. Models are never read."""

import json
from collections import OrderedDict

from skewless.bundles.artifact_store import ArtifactStore
from skewless.bundles.bundle import (
    BASELINE,
    CONTRACT,
    SIGNATURE,
    signature_from_json,
    verified_documents,
)
from skewless.bundles.bundle_folder import read_manifest
from skewless.canonical_json import Digest
from skewless.drift.watched_bundle import WatchedBundle
from skewless.errors import BundleRefused, NotFound
from skewless.features.contract import FeatureContract
from skewless.monitor_limits import DRIFT_BUNDLES_KEPT
from skewless.statistics.baseline import Baseline


class WatchedBundles:
    """Opens bundles, and keeps those that were used last. Not for threads."""

    def __init__(self, artifacts: ArtifactStore) -> None:
        self._artifacts = artifacts
        self._kept: OrderedDict[Digest, WatchedBundle] = OrderedDict()
        self.gone: dict[Digest, str] = {}
        """Why a bundle cannot be opened, for those that were asked for and cannot."""

    def get(self, digest: Digest) -> WatchedBundle | None:
        """A bundle, None where its files are gone or not what they were. Raises Unavailable."""
        if (known := self._kept.get(digest)) is not None:
            self._kept.move_to_end(digest)
            return known
        try:
            opened = self._opened(digest)
        except (BundleRefused, NotFound) as error:
            # Told anew each time: files may be put back, and nothing is kept of what is missing.
            self.gone[digest] = error.message
            return None
        self.gone.pop(digest, None)
        self._kept[digest] = opened
        if len(self._kept) > DRIFT_BUNDLES_KEPT:
            self._kept.popitem(last=False)
        return opened

    def _opened(self, digest: Digest) -> WatchedBundle:
        folder = self._artifacts.open(digest)
        _, manifest = read_manifest(folder, digest)
        files = verified_documents(folder, manifest)
        # Their digests were verified, and they were read in full when the bundle was registered.
        return WatchedBundle(
            digest,
            FeatureContract.from_json(json.loads(files[CONTRACT])),
            Baseline.from_json(json.loads(files[BASELINE])),
            tuple(signature_from_json(json.loads(files[SIGNATURE])).outputs),
        )
