"""Bringing bundles to an endpoint's traffic: admitted, fitting, past their gates, deployed, and only then routed to."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from skewless.bundles.artifact_store import ArtifactStore
from skewless.bundles.bundle import Bundle, LoadSteps, load_bundle
from skewless.bundles.model_repository import deploy, model_name
from skewless.bundles.serving_profile import Target
from skewless.canonical_json import Digest
from skewless.errors import BundleRefused, Conflict, NotFound, Unavailable
from skewless.parity.dry_run import DryRun
from skewless.registry.records import EndpointRecord
from skewless.registry.repository import Registry, system_clock
from skewless.rollout import changes
from skewless.rollout.history import RouteAction
from skewless.rollout.progression import Progress, ProgressionPlan
from skewless.rollout.routes import Experiment, Route
from skewless.serving.instance_fit import misfits
from skewless.timestamps import Micros
from skewless.training.gates import GateReport

_SHORT = 12


class CheckGates(Protocol):
    """Whether a bundle passes the gates declared with its model, beside the live bundle where there is one."""

    def __call__(self, candidate: Digest, live: Digest | None) -> GateReport:
        """The report, with a line per gate."""
        ...


class CheckParity(Protocol):
    """Whether a bundle would be given online what it is given offline, before it answers anybody."""

    def __call__(self, candidate: Digest, endpoint: str | None) -> DryRun:
        """The verdict; `endpoint` is whose callers' newest questions are asked, None where there are none yet."""
        ...


@dataclass(frozen=True, slots=True)
class Change:
    """Who changes something, why, and which safeguards are set aside; all of it is kept in the audit event."""

    actor: str
    reason: str
    override_gates: bool = False
    accept_other_instances: bool = False
    """Make a bundle live although callers then have to send other instances."""
    skip_parity: str = ""
    """Why no dry parity run is made; empty where one is."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """Changes of routes, end to end. `models` is the folder that the model server reads.

    A gateway follows the registry, so a route is changed last: when it changes, the model is where the
    gateway's load request finds it. A step that fails leaves the route as it was.
    Every method raises what `Registry` does, Conflict where someone else changed the endpoint meanwhile, NotFound where
    the artifact store lacks the bundle, and BundleRefused where a bundle does not verify, does not pass its gates or
    its dry parity run, or asks callers for other instances than the live one.
    """

    registry: Registry
    artifacts: ArtifactStore
    models: Path
    steps: LoadSteps | None = None
    admit: Callable[[Path, Digest], Bundle] | None = None
    """All checks of a bundle's folder; None: those that loading makes."""
    check_gates: CheckGates | None = None
    check_parity: CheckParity | None = None
    target: Target = Target.EMBEDDED_CPU
    now: Callable[[], Micros] = system_clock

    def create_endpoint(self, name: str, *, bundle: str, description: str, change: Change) -> EndpointRecord:
        """A new endpoint that serves `bundle`, a digest or a unique prefix of one."""
        digest = self.registry.bundle(bundle).digest
        detail = self._check_gates([digest], None, change)
        folder = self._admitted(digest)
        detail |= self._check_parity([digest], None, change)
        self._deploy(digest, folder)
        return self.registry.create_endpoint(
            name, description=description, bundle=digest, actor=change.actor, reason=change.reason, detail=detail
        )

    def promote(
        self, endpoint: str, change: Change, *, bundle: str | None = None, arm: str | None = None
    ) -> EndpointRecord:
        """Make `bundle` live, a digest or a unique prefix of one, or the experiment's `arm`, or else the canary."""
        seen = self.registry.endpoint(endpoint).route
        digest = None if bundle is None else self.registry.bundle(bundle).digest
        promoted = changes.promote(seen, digest, arm=arm).live
        detail = self._put_in_place([promoted], seen, change, becomes_live=True)
        return self._change(
            seen, lambda route: changes.promote(route, digest, arm=arm), RouteAction.PROMOTE, change, detail
        )

    def start_canary(
        self, endpoint: str, change: Change, *, bundle: str, share: float, plan: ProgressionPlan | None = None
    ) -> EndpointRecord:
        """`bundle` answering `share` of the traffic; with a plan its first step's, and then as the plan says."""
        seen = self.registry.endpoint(endpoint).route
        digest = self.registry.bundle(bundle).digest
        first = share if plan is None else plan.steps[0].share
        after = changes.start_canary(seen, digest, first)
        detail = self._put_in_place([digest], seen, change)
        progress = None
        if plan is not None:
            progress = Progress.started(plan, after, self.now()).to_json()
            detail["plan"] = plan.to_json()
        return self._change(
            seen,
            lambda route: changes.start_canary(route, digest, first),
            RouteAction.START_CANARY,
            change,
            detail,
            progress=progress,
        )

    def set_canary_share(self, endpoint: str, change: Change, *, share: float) -> EndpointRecord:
        """The canary answering `share` of the traffic."""
        seen = self.registry.endpoint(endpoint).route
        return self._change(
            seen, lambda route: changes.set_canary_share(route, share), RouteAction.SET_CANARY_SHARE, change, {}
        )

    def start_shadow(self, endpoint: str, change: Change, *, bundle: str, share: float) -> EndpointRecord:
        """`bundle` seeing `share` of what live answers. It answers nobody, so gates do not stop it."""
        seen = self.registry.endpoint(endpoint).route
        digest = self.registry.bundle(bundle).digest
        changes.start_shadow(seen, digest, share)
        self._put_in_place([digest], seen, change, gated=False)
        return self._change(
            seen, lambda route: changes.start_shadow(route, digest, share), RouteAction.START_SHADOW, change, {}
        )

    def start_experiment(self, endpoint: str, change: Change, *, experiment: Experiment) -> EndpointRecord:
        """The experiment running; its arms name bundles by their whole digests."""
        seen = self.registry.endpoint(endpoint).route
        changes.start_experiment(seen, experiment)
        others = dict.fromkeys(arm.bundle for arm in experiment.arms if arm.bundle != seen.live)
        detail = self._put_in_place(others, seen, change)
        return self._change(
            seen,
            lambda route: changes.start_experiment(route, experiment),
            RouteAction.START_EXPERIMENT,
            change,
            detail,
        )

    def abort(self, endpoint: str, change: Change, *, part: changes.Part) -> EndpointRecord:
        """The endpoint without its canary, shadow or experiment."""
        seen = self.registry.endpoint(endpoint).route
        return self._change(seen, lambda route: changes.abort(route, part), RouteAction.ABORT, change, {"part": part})

    def rollback(self, endpoint: str, change: Change) -> EndpointRecord:
        """Return to the bundle that was live before (see `rollout/history.py`).

        Neither gates nor changed feature definitions stop it, since what it returns to has served; nor does an artifact
        store that is away, where the model is still in the model repository: gateways hold the bundle itself.
        """
        seen = self.registry.endpoint(endpoint).route
        target = self.registry.rollback_target(endpoint)
        try:
            self._deploy(target, self.artifacts.open(target))
        except (Unavailable, NotFound):
            if not (self.models / model_name(target)).is_dir():
                raise
        return self.registry.rollback(endpoint, actor=change.actor, reason=change.reason, expected_version=seen.version)

    def _change(
        self,
        seen: Route,
        change_route: Callable[[Route], Route],
        action: RouteAction,
        change: Change,
        detail: Mapping[str, Any],
        *,
        progress: Mapping[str, Any] | None = None,
    ) -> EndpointRecord:
        return self.registry.change_route(
            seen.endpoint,
            change_route,
            action=action,
            actor=change.actor,
            reason=change.reason,
            detail=detail,
            expected_version=seen.version,
            progress=progress,
        )

    def _put_in_place(
        self,
        digests: Iterable[Digest],
        seen: Route,
        change: Change,
        *,
        becomes_live: bool = False,
        gated: bool = True,
    ) -> dict[str, Any]:
        """Everything that must hold before a route names these bundles, and what of it the audit event keeps."""
        wanted = [digest for digest in digests if digest != seen.live]
        detail = self._check_gates(wanted, seen.live, change) if gated else {}
        folders: dict[Digest, Path] = {}
        for digest in wanted:
            folders[digest] = self._admitted(digest)
            reasons = self._misfits(digest, seen.live)
            if reasons and not (becomes_live and change.accept_other_instances):
                raise _other_instances(digest, seen, reasons, becomes_live=becomes_live)
            if reasons:
                detail["other_instances"] = list(reasons)
        if gated:
            detail |= self._check_parity(_not_answering(seen, wanted), seen.endpoint, change)
        for digest, folder in folders.items():
            self._deploy(digest, folder)
        return detail

    def _admitted(self, digest: Digest) -> Path:
        folder = self.artifacts.open(digest)
        if self.admit is not None:
            self.admit(folder, digest)
        return folder

    def _deploy(self, digest: Digest, folder: Path) -> None:
        # Deploying verifies the bundle's files and golden tensor first.
        deploy(folder, digest, self.models, target=self.target, steps=self.steps)

    def _misfits(self, candidate: Digest, live: Digest) -> tuple[str, ...]:
        """Why callers of the live bundle could not be answered by the candidate."""
        try:
            asked = load_bundle(self.artifacts.open(live), live, steps=self.steps).contract
        except NotFound:
            return ()  # a live bundle whose files are lost must not stop its successor
        return misfits(asked, load_bundle(self.artifacts.open(candidate), candidate, steps=self.steps).contract)

    def _check_gates(self, candidates: Iterable[Digest], live: Digest | None, change: Change) -> dict[str, Any]:
        """The reports for the audit event. Raises BundleRefused where one is not passed and that is not overridden."""
        if self.check_gates is None:
            return {}
        detail: dict[str, Any] = {}
        for candidate in candidates:
            report = self.check_gates(candidate, live)
            detail.setdefault("gates", {})[candidate] = report.to_json()
            if report.passed:
                continue
            if not change.override_gates:
                raise BundleRefused(
                    f"bundle {candidate[:_SHORT]} does not pass its gates:\n" + report.text(),
                    hint="train a better one, or pass --override-gates; the reason is kept in the audit trail",
                )
            detail["gates_overridden"] = True
        return detail

    def _check_parity(self, candidates: Iterable[Digest], endpoint: str | None, change: Change) -> dict[str, Any]:
        """The verdicts for the audit event. Raises BundleRefused where a bundle is given other features online."""
        check = self.check_parity
        if check is None:
            return {}
        verdicts: dict[str, Any] = {}
        for candidate in candidates:
            verdict = DryRun.skipped(change.skip_parity) if change.skip_parity else check(candidate, endpoint)
            verdict.require(candidate)
            verdicts[candidate] = verdict.to_json()
        return {"parity": verdicts} if verdicts else {}


def _not_answering(seen: Route, wanted: Iterable[Digest]) -> list[Digest]:
    """Bundles that answer nobody yet: a canary and an experiment's arms were looked at when they began."""
    arms = () if seen.experiment is None else seen.experiment.arms
    answering = {seen.live, *(arm.bundle for arm in arms)} | ({seen.canary.bundle} if seen.canary else set())
    return [digest for digest in wanted if digest not in answering]


def _other_instances(
    digest: Digest, seen: Route, reasons: tuple[str, ...], *, becomes_live: bool
) -> BundleRefused | Conflict:
    told = "; ".join(reasons)
    message = f"bundle {digest[:_SHORT]} cannot be asked what callers of endpoint `{seen.endpoint}` send: {told}"
    if becomes_live:
        return Conflict(
            message, hint="create another endpoint for it, or change the callers and pass --accept-other-instances"
        )
    return BundleRefused(message, hint="only a bundle that takes the same instances can answer beside the live one")
