"""Deployments and rollouts of a workspace, with all the safeguards that the command line has."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from skewless.bundles.bundle import Bundle
from skewless.canonical_json import Digest
from skewless.cli.workspace import Workspace
from skewless.registry.deployment import Deployment
from skewless.registry.rollout_control import RolloutControl
from skewless.training.gates import GateReport


@contextmanager
def opened_deployment(workspace: Workspace, *, definitions: bool = True) -> Iterator[Deployment]:
    """Changes of routes; every bundle is admitted and held to its gates first.

    Without `definitions` a bundle whose feature definitions have changed is not refused for it, as for a rollback.
    """
    from skewless.cli.bundle_admission import admission_of

    def admit(folder: Path, digest: Digest) -> Bundle:
        return admission_of(workspace, folder, digest, definitions=definitions).require()

    def check_gates(candidate: Digest, live: Digest | None) -> GateReport:
        from skewless.cli.gate_check import check_bundle

        return check_bundle(workspace, candidate, live)

    with workspace.registry() as registry:
        yield Deployment(
            registry,
            workspace.artifacts,
            workspace.home.triton_models,
            workspace.steps,
            admit=admit,
            check_gates=check_gates,
            target=workspace.settings.target,
        )


@contextmanager
def opened_control(workspace: Workspace) -> Iterator[RolloutControl]:
    """How rollouts are doing by the prediction log, and what follows from it."""
    from skewless.adapters.rollout_evidence import LogEvidence

    evidence = LogEvidence(
        workspace.home.predictions, workspace.settings.log_store_address, terms=workspace.outcome_terms()
    )
    with workspace.registry() as registry:
        yield RolloutControl(registry, evidence)
