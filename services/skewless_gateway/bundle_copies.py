"""The gateway's own copies of routed bundles, from which it starts while the artifact store is away."""

import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from skewless.adapters.folder_artifact_store import FolderArtifactStore
from skewless.bundles.artifact_store import ArtifactStore
from skewless.bundles.bundle import Bundle
from skewless.bundles.model_repository import model_name
from skewless.canonical_json import Digest
from skewless.errors import BundleRefused, NotFound, SkewlessError

FOLDER = "bundles"
Load = Callable[[Path, Digest], Bundle]
"""Reads and verifies the bundle in a folder. Raises BundleRefused."""
_LOGGER = logging.getLogger(__name__)


class BundleCopies:
    """One folder that outlives the process; several gateways of a machine may share it.

    A copy is trusted no more than the store: it is verified like any bundle, and one that is refused is fetched anew.
    A copy that cannot be kept is logged, and the bundle is then loaded from the store.
    """

    def __init__(self, copies: FolderArtifactStore, store: ArtifactStore, load: Load) -> None:
        self._copies = copies
        self._store = store
        self._load = load

    def load(self, digest: Digest) -> Bundle:
        """The verified bundle. Raises BundleRefused, NotFound, or Unavailable where only the store could have it."""
        try:
            folder = self._copies.open(digest)
        except NotFound:
            folder = self._fetched(digest)
        except BundleRefused as error:
            _LOGGER.warning("the copy of bundle %s is refused and fetched anew: %s", digest[:12], error.message)
            folder = self._fetched(digest)
        return self._load(folder, digest)

    def of_model(self, model: str) -> Bundle:
        """The verified bundle of which a copy is kept under its name at model servers. Raises BundleRefused."""
        for digest in self._copies.digests():
            if model_name(digest) == model:
                return self.load(digest)
        raise BundleRefused(f"no bundle is kept here of which the model is `{model}`")

    def keep_only(self, digests: frozenset[Digest]) -> None:
        """Delete the copies of all other bundles. Raises Unavailable where that cannot be done now."""
        for digest in self._copies.digests():
            if digest not in digests:
                with suppress(NotFound):  # another gateway of this machine was first
                    self._copies.delete(digest)

    def _fetched(self, digest: Digest) -> Path:
        source = self._store.open(digest)
        try:
            self._copies.put(source, digest)
            return self._copies.open(digest)
        except SkewlessError as error:
            _LOGGER.warning("bundle %s cannot be copied: %s", digest[:12], error.message)
            return source
