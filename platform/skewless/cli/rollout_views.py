"""Endpoints, their routes and how a rollout is doing, for a terminal."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from skewless.cli.output import print_json, say
from skewless.registry.records import AuditEvent, EndpointRecord
from skewless.registry.rollout_control import Adjustment, Standing
from skewless.rollout.role_counts import RoleCounts
from skewless.rollout.routes import Route
from skewless.serving.monitoring_policy import MonitoringPolicy
from skewless.timestamps import DAY_US, HOUR_US, MINUTE_US, SECOND_US, format_timestamp

_SHORT = 12
_SECONDS = len("2013-05-01T00:00:00")


def show_endpoints(endpoints: Sequence[EndpointRecord], *, as_json: bool, single: bool = False) -> None:
    """A line for each endpoint, or JSON of all of them or of the `single` one."""
    if as_json:
        data = [each.to_json() for each in endpoints]
        print_json(data[0] if single else data)
        return
    if not endpoints:
        say("no endpoints yet: `skewless endpoint create NAME --bundle DIGEST` makes one")
        return
    table = Table("endpoint", "live bundle", "digest", "since", "version", "beside live", "description")
    for each in endpoints:
        route = each.route
        since = _to_second(each.live_since)
        beside = ", ".join(_beside(route)) or "-"
        table.add_row(
            each.name, each.live_name, route.live[:_SHORT], since, str(route.version), beside, route.description
        )
    print_table(table)


def show_route(shown: EndpointRecord) -> None:
    """One endpoint's route, part by part."""
    route = shown.route
    table = Table("field", "value", show_header=False)
    for field, value in (
        ("endpoint", shown.name),
        ("description", route.description),
        ("created", _to_second(shown.created_time)),
        ("version", str(route.version)),
        ("live", f"{shown.live_name} {route.live}"),
        ("live since", _to_second(shown.live_since)),
        ("label horizon", duration(shown.terms.label_horizon_us)),
        ("outcome window", duration(shown.terms.outcome_window_us)),
        *_monitoring(shown.monitoring),
        ("previous", _named(shown, route.previous)),
        ("canary", f"{_named(shown, route.canary.bundle)} ({route.canary.share:.2%})" if route.canary else "none"),
        ("shadow", f"{_named(shown, route.shadow.bundle)} ({route.shadow.share:.2%})" if route.shadow else "none"),
    ):
        table.add_row(field, value)
    if route.experiment is None:
        table.add_row("experiment", "none")
    else:
        experiment = route.experiment
        table.add_row("experiment", f"{experiment.name} ({experiment.kind}, {experiment.traffic:.2%} of the traffic)")
        for arm in experiment.arms:
            table.add_row(f"  arm {arm.name}", f"{_named(shown, arm.bundle)} ({arm.share:.2%})")
    print_table(table)


def _monitoring(policy: MonitoringPolicy) -> list[tuple[str, str]]:
    """A line for each part of a policy: every field of it, as the file has it."""
    return [
        (f"monitoring: {part}", ", ".join(f"{name} {_plain(value)}" for name, value in fields.items()))
        for part, fields in policy.to_json().items()
    ]


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{name}: {_plain(each)}" for name, each in value.items()) or "none"
    if isinstance(value, list):
        return " ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)


def show_standing(standing: Standing) -> None:
    """One endpoint's route and how what runs beside live is doing."""
    show_route(standing.record)
    if standing.canary is not None and standing.live is not None:
        print_table(_counts_table(standing.canary, standing.live))
    if standing.decision is not None:
        progress = standing.decision.progress
        step = f"step {progress.step + 1} of {len(progress.plan.steps)} since {_to_second(progress.since)}"
        _print_lines("canary", [step, f"{standing.decision.kind}: {'; '.join(standing.decision.reasons)}"])
    if standing.shadow is not None:
        dropped = f"; {standing.shadow_dropped_rows} rows were not mirrored" if standing.shadow_dropped_rows else ""
        _print_lines("shadow", [f"{standing.shadow.words}{dropped}"])
    if standing.experiment is not None:
        table = Table("arm", "outcomes", "successes", "rate", "95 % interval", "is best", "expected loss")
        for arm in standing.experiment.arms:
            table.add_row(
                arm.name,
                str(arm.trials),
                str(arm.successes),
                f"{arm.value:.4f}",
                f"{arm.low:.4f} to {arm.high:.4f}",
                f"{arm.probability_best:.1%}",
                f"{arm.expected_loss:.5f}",
            )
        print_table(table)
        _print_lines("experiment", [standing.experiment.words])


def show_history(events: Sequence[AuditEvent]) -> None:
    """Every change, oldest first."""
    table = Table("time", "action", "bundle", "by", "reason", title="history", title_justify="left")
    for each in events:
        bundle = str(each.detail.get("to", ""))[:_SHORT]
        overridden = " (gates overridden)" if each.detail.get("gates_overridden") else ""
        table.add_row(_to_second(each.time), f"{each.action}{overridden}", bundle, each.actor, each.reason)
    print_table(table)


def show_adjustments(adjustments: Sequence[Adjustment], *, as_json: bool) -> None:
    """What a look has led to."""
    if as_json:
        print_json([each.to_json() for each in adjustments])
        return
    for each in adjustments:
        mark = "changed" if each.changed else "same"
        _print_lines(f"{each.endpoint} {each.subject} {mark}", ["; ".join(each.words)])
    if not adjustments:
        say("nothing to adjust: no canary goes by steps, and no experiment runs")


def _beside(route: Route) -> list[str]:
    parts = []
    if route.canary is not None:
        parts.append(f"canary {route.canary.bundle[:_SHORT]} {route.canary.share:.2%}")
    if route.shadow is not None:
        parts.append(f"shadow {route.shadow.bundle[:_SHORT]} {route.shadow.share:.2%}")
    if route.experiment is not None:
        parts.append(f"{route.experiment.kind} {route.experiment.name} {route.experiment.traffic:.2%}")
    return parts


def _named(shown: EndpointRecord, bundle: str | None) -> str:
    return "none" if bundle is None else f"{shown.names.get(bundle, '')} {bundle}".strip()  # type: ignore[call-overload]


def _counts_table(canary: RoleCounts, live: RoleCounts) -> Table:
    table = Table("role", "requests", "errors", "outcomes", "as predicted")
    for role, counts in (("canary", canary), ("live", live)):
        table.add_row(role, str(counts.requests), str(counts.errors), str(counts.outcomes), str(counts.good_outcomes))
    return table


def duration(span_us: int | None) -> str:
    """A span of time in its largest whole unit.

    >>> duration(None), duration(86_400_000_000), duration(5_400_000_000)
    ('not declared', '1d', '90m')
    """
    if span_us is None:
        return "not declared"
    units = ((DAY_US, "d"), (HOUR_US, "h"), (MINUTE_US, "m"))
    return next((f"{span_us // unit}{name}" for unit, name in units if not span_us % unit), f"{span_us / SECOND_US:g}s")


def _to_second(moment: int) -> str:
    return f"{format_timestamp(moment)[:_SECONDS]}Z"


def _print_lines(title: str, lines: Sequence[str]) -> None:
    console = _console()
    for line in lines:
        console.print(f"{title}: {line}", soft_wrap=True)


def print_table(table: Table) -> None:
    """Write a table to standard output; off a terminal its lines are not folded."""
    _console().print(table)


def _console() -> Console:
    # Off a terminal rich would fold lines at 80 columns, and what folds is what other programs search for.
    console = Console(markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        console.width = 240
    return console
