"""Deployments and rollouts of a workspace, with all the safeguards that the command line has."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from skewless.bundles.bundle import Bundle
from skewless.canonical_json import Digest
from skewless.cli.output import say
from skewless.cli.workspace import Workspace
from skewless.errors import Unavailable
from skewless.parity.dry_run import DryRun
from skewless.registry.deployment import Deployment
from skewless.registry.rollout_control import RolloutControl
from skewless.training.gates import GateReport

_SHORT = 12


@contextmanager
def opened_deployment(workspace: Workspace, *, definitions: bool = True) -> Iterator[Deployment]:
    """Changes of routes; every bundle is admitted, held to its gates and given a dry parity run first.

    Without `definitions` a bundle whose feature definitions have changed is not refused for it, as for a rollback.
    """
    from skewless.cli.bundle_admission import admission_of

    def admit(folder: Path, digest: Digest) -> Bundle:
        return admission_of(workspace, folder, digest, definitions=definitions).require()

    def check_gates(candidate: Digest, live: Digest | None) -> GateReport:
        from skewless.cli.gate_check import check_bundle

        return check_bundle(workspace, candidate, live)

    def check_parity(candidate: Digest, endpoint: str | None) -> DryRun:
        return told_dry_run(workspace, workspace.bundle(candidate), endpoint)

    with workspace.registry() as registry:
        yield Deployment(
            registry,
            workspace.artifacts,
            workspace.home.triton_models,
            workspace.steps,
            admit=admit,
            check_gates=check_gates,
            check_parity=check_parity,
            target=workspace.settings.target,
        )


def told_dry_run(workspace: Workspace, bundle: Bundle, endpoint: str | None) -> DryRun:
    """A dry parity run of a bundle, with a line that says how it ended."""
    try:
        url = workspace.online_store_url
    except Unavailable as error:
        url, verdict = "", DryRun.not_checked(f"there is no online store to ask: {error.message}")
    if url:
        # Loads DuckDB and, once the store has answered, Feast: seconds that nobody pays without a store.
        from skewless.cli.parity_gate import dry_run

        verdict = dry_run(workspace, bundle, endpoint)
    say(f"dry parity run of bundle {bundle.digest[:_SHORT]} {verdict.summary}")
    return verdict


@contextmanager
def opened_control(workspace: Workspace) -> Iterator[RolloutControl]:
    """How rollouts are doing by the prediction log, and what follows from it."""
    from skewless.adapters.rollout_evidence import LogEvidence

    evidence = LogEvidence(
        workspace.home.predictions, workspace.settings.log_store_address, terms=workspace.outcome_terms()
    )
    with workspace.registry() as registry:
        yield RolloutControl(registry, evidence)
