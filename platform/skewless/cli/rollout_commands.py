"""`skewless rollout …`: which bundles answer for an endpoint, each change of it, and how what is on trial is doing."""

import threading
from collections.abc import Callable
from functools import partial

import click

from skewless.canonical_json import Digest
from skewless.cli import rollout_options as options
from skewless.cli.arguments import actor
from skewless.cli.deployments import opened_control, opened_deployment
from skewless.cli.output import print_json, say
from skewless.cli.rollout_views import show_adjustments, show_endpoints, show_standing
from skewless.cli.workspace import Workspace
from skewless.errors import InvalidRequest, Unavailable
from skewless.registry.deployment import Deployment
from skewless.registry.records import EndpointRecord
from skewless.registry.rollout_control import Adjustment, RolloutControl
from skewless.rollout.changes import Part
from skewless.rollout.routes import Experiment, ExperimentKind, Route


@click.group()
def rollout() -> None:
    """Which bundles answer for an endpoint, and every change of it."""


@rollout.command("start")
@click.argument("name")
@options.bundle
@click.option("--share", metavar="SHARE", help="Share of the traffic, such as 0.05 or 5%, until you change it.")
@click.option("--steps", metavar="SHARES", help="Growing by itself, by steps such as 0.01,0.05,0.25,1.")
@click.option("--hold", default="10m", show_default=True, metavar="TIME", help="Least time of each step, or one each.")
@click.option("--requests-min", type=click.IntRange(0), help="Least requests that the canary answers in a step.")
@click.option("--outcomes-min", type=click.IntRange(0), help="Least outcomes of what the canary answered in a step.")
@options.reason
@options.override_gates
@options.skip_parity
@options.as_json
def start(
    name: str,
    bundle: str,
    share: str | None,
    steps: str | None,
    hold: str,
    requests_min: int | None,
    outcomes_min: int | None,
    reason: str,
    override_gates: bool,
    skip_parity: str,
    as_json: bool,
) -> None:
    """Start a canary on endpoint NAME: a bundle that answers a share of the traffic, always the same entities.

    With --steps it grows and is promoted by itself, and is taken back as soon as harm is proven: `rollout adjust`,
    which the running stack calls, looks at errors, latency and outcomes.
    """
    if (share is None) == (steps is None):
        raise InvalidRequest(
            "either --share or --steps says how much it answers", path="--share", allowed="one of them"
        )
    changed_by = options.change(reason, override_gates=override_gates, skip_parity=skip_parity)
    plan = None
    if steps is not None:
        plan = options.plan(steps, hold, requests_min=requests_min, outcomes_min=outcomes_min)
    fixed = 0.0 if share is None else options.share(share, option="--share")
    _do(
        lambda deployment: deployment.start_canary(name, changed_by, bundle=bundle, share=fixed, plan=plan),
        as_json=as_json,
    )


@rollout.command("share")
@click.argument("name")
@click.argument("share")
@options.reason
@options.as_json
def set_share(name: str, share: str, reason: str, as_json: bool) -> None:
    """Set the SHARE of endpoint NAME's canary; entities that it answers for stay with it as it grows."""
    changed_by = options.change(reason)
    value = options.share(share, option="SHARE")
    _do(lambda deployment: deployment.set_canary_share(name, changed_by, share=value), as_json=as_json)


@rollout.command("shadow")
@click.argument("name")
@options.bundle
@click.option("--share", default="1", show_default=True, metavar="SHARE", help="Share of live answers that it sees.")
@options.reason
@options.as_json
def shadow(name: str, bundle: str, share: str, reason: str, as_json: bool) -> None:
    """Start a shadow on endpoint NAME: a bundle that scores what live answers, and answers nobody."""
    changed_by = options.change(reason)
    value = options.share(share, option="--share")
    _do(lambda deployment: deployment.start_shadow(name, changed_by, bundle=bundle, share=value), as_json=as_json)


@rollout.command("experiment")
@click.argument("name")
@click.argument("experiment")
@click.option(
    "--arm", "arms", multiple=True, required=True, metavar="ARM=DIGEST[:SHARE]", help="2 to 8; DIGEST may be `live`."
)
@click.option("--success", required=True, metavar="LABEL", help="The outcome that counts as success.")
@click.option(
    "--kind",
    type=click.Choice([kind.value for kind in ExperimentKind]),
    default=ExperimentKind.AB.value,
    show_default=True,
    help="Shares stay as they are (ab), or follow the outcomes (bandit).",
)
@click.option(
    "--traffic", default="1", show_default=True, metavar="SHARE", help="Share of the traffic that takes part."
)
@click.option("--minimise", is_flag=True, help="The success label is what is to be rare.")
@click.option("--half-life", metavar="TIME", help="Of a bandit: the age at which an outcome counts half.")
@click.option("--exploration-min", metavar="SHARE", help="Of a bandit: the least share of each arm [default: 0.05].")
@options.reason
@options.override_gates
@options.skip_parity
@options.as_json
def experiment(
    name: str,
    experiment: str,
    arms: tuple[str, ...],
    success: str,
    kind: str,
    traffic: str,
    minimise: bool,
    half_life: str | None,
    exploration_min: str | None,
    reason: str,
    override_gates: bool,
    skip_parity: str,
    as_json: bool,
) -> None:
    """Start EXPERIMENT on endpoint NAME: bundles compared by the outcomes of what they answered.

    An entity stays with its arm. A name is used once for each endpoint, and its counts are kept.
    """
    changed_by = options.change(reason, override_gates=override_gates, skip_parity=skip_parity)
    is_bandit = kind == ExperimentKind.BANDIT
    least = options.share(exploration_min or ("0.05" if is_bandit else "0"), option="--exploration-min")

    def start_experiment(deployment: Deployment) -> EndpointRecord:
        live = deployment.registry.endpoint(name).route.live
        made = Experiment(
            experiment,
            ExperimentKind(kind),
            options.arms(arms, partial(_digest, deployment, live)),
            traffic=options.share(traffic, option="--traffic"),
            success=success,
            maximise=not minimise,
            exploration_min=least,
            half_life_s=None if half_life is None else options.duration_s(half_life, option="--half-life"),
        )
        return deployment.start_experiment(name, changed_by, experiment=made)

    _do(start_experiment, as_json=as_json)


@rollout.command("promote")
@click.argument("name")
@click.option("--bundle", metavar="DIGEST", help="Digest, or at least its first 8 digits; the canary where not given.")
@click.option("--arm", metavar="ARM", help="The arm of its experiment to promote.")
@options.reason
@options.override_gates
@options.skip_parity
@click.option(
    "--accept-other-instances", is_flag=True, help="Go on although callers have to send other instances then."
)
@options.as_json
def promote(
    name: str,
    bundle: str | None,
    arm: str | None,
    reason: str,
    override_gates: bool,
    skip_parity: str,
    accept_other_instances: bool,
    as_json: bool,
) -> None:
    """Make a bundle live on endpoint NAME: its canary, an arm of its experiment, or any other."""
    changed_by = options.change(
        reason, override_gates=override_gates, skip_parity=skip_parity, accept_other_instances=accept_other_instances
    )
    _do(lambda deployment: deployment.promote(name, changed_by, bundle=bundle, arm=arm), as_json=as_json)


@rollout.command("abort")
@click.argument("name")
@click.argument("part", type=click.Choice([part.value for part in Part]), required=False)
@options.reason
@options.as_json
def abort(name: str, part: str | None, reason: str, as_json: bool) -> None:
    """End the canary, shadow or experiment of endpoint NAME; PART may be left out where only one runs."""
    changed_by = options.change(reason)

    def end(deployment: Deployment) -> EndpointRecord:
        chosen = Part(part) if part is not None else _only_part(deployment.registry.endpoint(name).route)
        return deployment.abort(name, changed_by, part=chosen)

    _do(end, as_json=as_json)


@rollout.command("rollback")
@click.argument("name")
@options.reason
@options.as_json
def rollback(name: str, reason: str, as_json: bool) -> None:
    """Return endpoint NAME to the bundle that was live before; again, to the one before that."""
    changed_by = options.change(reason)
    _do(lambda deployment: deployment.rollback(name, changed_by), as_json=as_json)


@rollout.command("status")
@click.argument("name", required=False)
@options.as_json
def status(name: str | None, as_json: bool) -> None:
    """Show what is live on every endpoint; for endpoint NAME also how what runs beside it is doing."""
    if name is None:
        with Workspace().registry() as registry:
            show_endpoints(registry.endpoints(), as_json=as_json)
        return
    with opened_control(Workspace()) as control:
        standing = control.standing(name)
    if as_json:
        print_json(standing.to_json())
    else:
        show_standing(standing)


@rollout.command("outcomes")
@click.argument("name")
@options.as_json
def outcomes(name: str, as_json: bool) -> None:
    """Count the outcomes that arrived for endpoint NAME's experiment, each once however often this runs."""
    with opened_control(Workspace()) as control:
        counts = control.count_outcomes(name)
    if as_json:
        print_json({arm: each.to_json() for arm, each in counts.items()})
        return
    for arm, each in counts.items():
        click.echo(f"{arm}: {each.successes} successes of {each.trials} outcomes")
    if not counts:
        say(f"endpoint {name} runs no experiment")


@rollout.command("adjust")
@click.argument("name", required=False)
@options.as_json
def adjust(name: str | None, as_json: bool) -> None:
    """Look once at the rollout of endpoint NAME, or of all, and do what follows from what was seen.

    A canary that goes by steps takes its next step, is promoted, or is taken back; a bandit's shares follow its
    outcomes. The running stack does this by itself.
    """
    with opened_control(Workspace()) as control:
        show_adjustments(_adjusted(control, name), as_json=as_json)


@rollout.command("watch")
@click.option("--every", default="10s", show_default=True, metavar="TIME", help="Time between two looks.")
@click.option("--while-needed", is_flag=True, help="End once there is nothing left to adjust.")
def watch(every: str, while_needed: bool) -> None:
    """Do what `rollout adjust` does again and again, until interrupted."""
    every_s = options.duration_s(every, option="--every")
    pause = threading.Event()
    with opened_control(Workspace()) as control:
        while True:
            try:
                for each in _adjusted(control, None):
                    if each.changed:
                        say(f"{each.endpoint}, {each.subject}: {'; '.join(each.words)}")
                if while_needed and not control.needed():
                    return
            except Unavailable as error:
                say(f"looking again in {every}: {error.message}")
            pause.wait(every_s)


def _adjusted(control: RolloutControl, name: str | None) -> list[Adjustment]:
    names = control.needed() if name is None else (name,)
    return [adjustment for each in names for adjustment in control.adjust(each, actor=actor())]


def _do(change: Callable[[Deployment], EndpointRecord], *, as_json: bool) -> None:
    """Make one change and show the endpoint after it."""
    with opened_deployment(Workspace()) as deployment:
        show_endpoints([change(deployment)], as_json=as_json, single=True)


def _digest(deployment: Deployment, live: Digest, prefix: str) -> Digest:
    return live if prefix == "live" else deployment.registry.bundle(prefix).digest


def _only_part(route: Route) -> Part:
    running = {Part.CANARY: route.canary, Part.SHADOW: route.shadow, Part.EXPERIMENT: route.experiment}
    parts = [part for part, each in running.items() if each is not None]
    if len(parts) == 1:
        return parts[0]
    raise InvalidRequest(
        f"endpoint `{route.endpoint}` runs {', '.join(parts) or 'nothing beside its live bundle'}",
        path="PART",
        allowed=", ".join(Part),
    )
