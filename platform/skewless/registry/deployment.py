"""Bringing a bundle to an endpoint's traffic: verified, in the model repository, and only then routed to."""

from dataclasses import dataclass
from pathlib import Path

from skewless.bundles.artifact_store import ArtifactStore
from skewless.bundles.bundle import LoadSteps
from skewless.bundles.model_repository import deploy
from skewless.canonical_json import Digest
from skewless.registry.records import EndpointRecord
from skewless.registry.repository import Registry


@dataclass(frozen=True, slots=True)
class Deployment:
    """Changes of live bundles, end to end. `models` is the folder that the model server reads.

    A gateway follows the registry, so a route is changed last: when it changes, the model is where the
    gateway's load request finds it. A step that fails leaves the route as it was.
    Every method raises what `Registry` does, NotFound where the artifact store lacks the bundle, and
    BundleRefused where the bundle does not verify.
    """

    registry: Registry
    artifacts: ArtifactStore
    models: Path
    steps: LoadSteps | None = None

    def create_endpoint(self, name: str, *, bundle: str, description: str, actor: str, reason: str) -> EndpointRecord:
        """A new endpoint that serves `bundle`, a digest or a unique prefix of one."""
        digest = self._deployed(self.registry.bundle(bundle).digest)
        return self.registry.create_endpoint(name, description=description, bundle=digest, actor=actor, reason=reason)

    def promote(self, endpoint: str, *, bundle: str, actor: str, reason: str) -> EndpointRecord:
        """Make `bundle`, a digest or a unique prefix of one, the live bundle of an endpoint.

        Raises Conflict when someone else changes the endpoint between the start of this call and its end.
        """
        seen = self.registry.endpoint(endpoint).route
        digest = self._deployed(self.registry.bundle(bundle).digest)
        return self.registry.set_live(endpoint, digest, actor=actor, reason=reason, expected_version=seen.version)

    def rollback(self, endpoint: str, *, actor: str, reason: str) -> EndpointRecord:
        """Return to the bundle that was live before (see `rollout/history.py`). Raises Conflict as `promote`."""
        seen = self.registry.endpoint(endpoint).route
        self._deployed(self.registry.rollback_target(endpoint))
        return self.registry.rollback(endpoint, actor=actor, reason=reason, expected_version=seen.version)

    def _deployed(self, digest: Digest) -> Digest:
        # Deploying verifies the bundle's files and golden vectors first.
        deploy(self.artifacts.open(digest), digest, self.models, steps=self.steps)
        return digest
