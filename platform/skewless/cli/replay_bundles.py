"""The bundles that a replay needs: found by the digests of records, opened in whichever process recomputes."""

from functools import partial
from pathlib import Path

from skewless.adapters.onnx_scorer import onnx_scorer
from skewless.adapters.step_loader import TransformSteps
from skewless.bundles.bundle import Bundle, load_bundle
from skewless.bundles.model_files import ModelFormat
from skewless.bundles.serving_profile import Target
from skewless.canonical_json import Digest
from skewless.cli.workspace import Workspace
from skewless.errors import BundleRefused, InvalidDefinition, NotFound
from skewless.replays.recheck import Bound, Rechecker, RunModel


class ReplayBundles:
    """Where the bundles of records lie. Each is looked for once."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._folders: dict[Digest, Path] = {}
        self.gone: dict[Digest, str] = {}
        """Bundles that cannot be opened any more, and why."""

    def folder(self, digest: Digest) -> Path | None:
        """The folder of a registered bundle, its files verified; None where it is gone, see `gone`.

        Raises Unavailable where registry or artifact store do not answer.
        """
        if digest not in self._folders and digest not in self.gone:
            try:
                with self._workspace.registry() as registry:
                    registry.bundle(digest)
            except NotFound:
                self.gone[digest] = f"bundle {digest[:12]} is not in the registry"
                return None
            try:
                self._folders[digest] = self._workspace.artifacts.open(digest)
            except NotFound:
                self.gone[digest] = f"the files of bundle {digest[:12]} are not in the artifact store any more"
            except BundleRefused as error:
                self.gone[digest] = f"bundle {digest[:12]} is not what it was: {error.message}"
        return self._folders.get(digest)


def opened_bundle(folder: Path, digest: Digest, packages: frozenset[str]) -> Bundle:
    """A bundle from its folder, verified; `packages` are those whose transform steps may run."""
    return load_bundle(folder, digest, steps=partial(TransformSteps, packages=packages))


def rechecker(bundle: Bundle, target: Target) -> Rechecker:
    """What recomputes predictions of a bundle; of a model that is not ONNX, tensors alone."""
    bound = Bound(bundle.serving.on(target).output_tolerance, str(target))
    if bundle.model.format is not ModelFormat.ONNX:
        reason = f"the model is of format {bundle.model.format}, which a model server runs and commands do not"
        return Rechecker(bundle, None, bound, no_model=reason)
    return Rechecker(bundle, onnx_scorer(bundle.read_model(), bundle.signature), bound)


def model_of(bundle: Bundle) -> RunModel:
    """What runs a bundle's model here. Raises InvalidDefinition for one that commands cannot run."""
    if bundle.model.format is not ModelFormat.ONNX:
        raise InvalidDefinition(
            f"the model of bundle {bundle.digest[:12]} is of format {bundle.model.format}; commands run ONNX only",
            hint="mirror live traffic to it instead: `skewless rollout shadow`",
        )
    return onnx_scorer(bundle.read_model(), bundle.signature)
