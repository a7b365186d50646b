"""Plans for a terminal: what would change, whom it reaches, and why it matters."""

import shutil
import textwrap
from collections.abc import Iterator, Sequence
from itertools import groupby

from skewless.features.definition_diff import Action, FieldChange, Impact
from skewless.features.definition_plan import ContractMove, Plan, PlannedChange, Role, Touch
from skewless.features.feature_checks import Finding

_SIGNS = {Action.CHANGE: "~", Action.REMOVE: "-"}
_SHORT = 12
_WIDTH_MIN = 60
_WIDTH_WHERE_UNKNOWN = 100
_NAMED_MAX = 8
"""Columns that are named of one bundle; of the others only the count is told."""

_PERSONAL = (
    "personal data: bundles built from now on keep only a keyed hash of it in the prediction log; gateways need "
    "SKEWLESS_GATEWAY_LOG_HASH_KEY to serve them, and `skewless entity delete` finds a person by it"
)


def plan_lines(plan: Plan, *, width: int | None = None) -> list[str]:
    """A plan, each line at most `width` characters; None: as wide as the terminal."""
    columns = max(_WIDTH_MIN, width or terminal_width())
    lines = [_summary(plan)]
    for action, changes in groupby(plan.changes, key=lambda each: each.change.action):
        for number, planned in enumerate(changes):
            # What is added takes one line; only what needs explaining stands apart.
            is_apart = action is not Action.ADD or number == 0
            lines += [*([""] if is_apart else []), *_change(planned, columns)]
    if plan.moves:
        lines += ["", *_moves(plan.moves, columns)]
    if plan.kept:
        named = ", ".join(f"{kind.value} {name}" for kind, name in plan.kept)
        lines += ["", *_wrapped(f"registered and not declared here (kept; --prune removes them): {named}", columns)]
    if _has_personal(plan):
        lines += ["", *_wrapped(_PERSONAL, columns)]
    for finding in plan.findings:
        lines += ["", *finding_lines(finding, width=columns)]
    return lines


def finding_lines(finding: Finding, *, width: int | None = None) -> list[str]:
    """A finding of the checks, wrapped."""
    columns = max(_WIDTH_MIN, width or terminal_width())
    text = f"{finding.severity.value}: {finding.message} ({finding.code}). {finding.hint}"
    return _wrapped(text, columns, indent="  ")


def terminal_width() -> int:
    """Characters of a line of the terminal, or what is readable where there is none."""
    return shutil.get_terminal_size((_WIDTH_WHERE_UNKNOWN, 24)).columns


def counts(plan: Plan) -> str:
    """How many definitions are added, changed and removed."""
    number = {action: sum(each.change.action is action for each in plan.changes) for action in Action}
    return f"{number[Action.ADD]} to add, {number[Action.CHANGE]} to change, {number[Action.REMOVE]} to remove"


def _summary(plan: Plan) -> str:
    if plan.is_empty:
        return f"project {plan.project}: nothing to do, what is declared is registered"
    return f"project {plan.project}: {counts(plan)}"


def _change(planned: PlannedChange, columns: int) -> Iterator[str]:
    change = planned.change
    verdict = ", REFUSED" if planned.is_refused else ""
    impact = f"  [{change.impact.value}{verdict}]"
    if change.action is Action.ADD:
        yield from _wrapped(f"+ {change.kind.value} {change.name}: {change.fields[0].after}", columns)
        return
    yield f"{_SIGNS[change.action]} {change.kind.value} {change.name}{impact}"
    if change.action is Action.REMOVE:
        if change.fields[0].why:
            yield from _wrapped(change.fields[0].why, columns, indent="    ")
    else:
        feature = ""
        for each in change.fields:
            if each.feature != feature:
                feature = each.feature
                yield f"    {feature}" if feature else "    (of all of it)"
            yield from _field(each, columns)
    if planned.services and change.impact is not Impact.WORDS:
        yield from _wrapped(f"in feature services {', '.join(planned.services)}", columns, indent="    ")
    for touch in sorted(planned.touches, key=lambda touch: (not touch.is_broken, not touch.roles, touch.name)):
        yield from _touch(touch, columns)


def _field(change: FieldChange, columns: int) -> Iterator[str]:
    indent = "      " if change.feature else "    "
    if change.before is None:
        told = f"{change.what} + {change.after}"
    elif change.after is None:
        told = f"{change.what} - {change.before}"
    else:
        told = f"{change.what}: {change.before} → {change.after}"
    mark = "" if change.impact is Impact.WORDS else f"  [{change.impact.value}] {change.why}"
    if change.impact is Impact.WORDS and change.why:
        mark = f"  {change.why}"
    yield from _wrapped(f"{told}{mark}", columns, indent=indent)


def _touch(touch: Touch, columns: int) -> Iterator[str]:
    verb = "breaks" if touch.is_broken else "reaches"
    used = f"uses {_named(touch.uses)}" if touch.uses else f"reads {_named(touch.columns)}, uses none of it"
    yield from _wrapped(
        f"{verb} bundle {touch.bundle[:_SHORT]} {touch.name} ({roles_text(touch.roles)}): {used}",
        columns,
        indent="    ",
    )


def roles_text(roles: Sequence[Role]) -> str:
    """What a bundle is to endpoints, in words."""
    return ", ".join(map(str, roles)) or "answers nobody"


def _moves(moves: Sequence[ContractMove], columns: int) -> Iterator[str]:
    yield from _wrapped(
        "contracts that would not be the registered ones any more; such a bundle goes on as it was built, and could "
        "not be promoted anew:",
        columns,
    )
    for move in moves:
        told = f"bundle {move.bundle[:_SHORT]} {move.name} ({roles_text(move.roles)}): {move.detail}"
        yield from _wrapped(told, columns, indent="    ")


def _has_personal(plan: Plan) -> bool:
    """Whether something is marked as personal data, from which follows what nobody sees in a contract."""
    fields = [field for each in plan.changes for field in each.change.fields]
    return any(each.what == "personal" and each.after == "true" for each in fields)


def _named(columns: Sequence[str]) -> str:
    more = len(columns) - _NAMED_MAX
    return ", ".join(columns[:_NAMED_MAX]) + (f" and {more} more" if more > 0 else "")


def _wrapped(text: str, columns: int, *, indent: str = "") -> list[str]:
    # A word longer than a line, such as a path, is left whole, so that it can be copied.
    return textwrap.wrap(
        text,
        columns,
        initial_indent=indent,
        subsequent_indent=f"{indent}    ",
        break_long_words=False,
        break_on_hyphens=False,
    )
