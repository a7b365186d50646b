"""What `skewless rollout …` commands take, read into what they mean."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace

import click

from skewless.canonical_json import Digest
from skewless.cli.arguments import actor
from skewless.errors import InvalidDefinition, InvalidRequest
from skewless.registry.deployment import Change
from skewless.rollout.progression import ProgressionPlan, Step
from skewless.rollout.routes import Arm

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")
bundle = click.option("--bundle", required=True, metavar="DIGEST", help="Digest, or at least its first 8 digits.")
reason = click.option("--reason", required=True, help="Why; it is kept in the audit trail.")
override_gates = click.option(
    "--override-gates", is_flag=True, help="Go on although a gate of the model is not passed; kept in the audit trail."
)
skip_parity = click.option(
    "--skip-parity",
    metavar="REASON",
    default="",
    help="Make no dry parity run, for this reason; it is kept in the audit trail.",
)
_UNITS = {"s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}


def change(
    reason: str, *, override_gates: bool = False, accept_other_instances: bool = False, skip_parity: str = ""
) -> Change:
    """Who runs this command, and why. Raises InvalidRequest for an empty reason."""
    if not reason.strip():
        raise InvalidRequest(
            "the reason is empty",
            path="--reason",
            allowed="any text that tells others why, for example `AUROC 0.78 against 0.76 in April`",
        )
    return Change(actor(), reason, override_gates, accept_other_instances, skip_parity)


def duration_s(text: str, *, option: str) -> float:
    """Seconds of a duration such as `90s`, `10m`, `2h` or `1d`. Raises InvalidRequest.

    >>> duration_s("1.5h", option="--hold")
    5400.0
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip())
    if found is None:
        raise InvalidRequest(
            f"`{text}` is no duration", path=option, allowed="a number and `s`, `m`, `h` or `d`, such as `10m`"
        )
    return float(found[1]) * _UNITS[found[2]]


def share(text: str, *, option: str) -> float:
    """A share from 0 to 1, also as a percentage such as `5%`. Raises InvalidRequest.

    >>> share("5%", option="--share")
    0.05
    """
    number = text.strip().removesuffix("%")
    try:
        value = float(number) / (100.0 if number != text.strip() else 1.0)
    except ValueError:
        value = math.nan
    if not 0.0 <= value <= 1.0:
        raise InvalidRequest(f"`{text}` is no share", path=option, allowed="0 to 1, or 0% to 100%")
    return value


def plan(steps: str, holds: str, *, requests_min: int | None, outcomes_min: int | None) -> ProgressionPlan:
    """A plan of steps such as `0.01,0.05,0.25,1`, each held as `holds` says, one duration or one per step.

    The promotion after the last step is what a step of 1 means. Raises InvalidRequest or InvalidDefinition.
    """
    shares = [share(each, option="--steps") for each in steps.split(",")]
    if shares[-1] == 1.0:
        del shares[-1]
    durations = [duration_s(each, option="--hold") for each in holds.split(",")]
    if len(durations) == 1:
        durations *= len(shares)
    if len(durations) != len(shares):
        raise InvalidRequest(
            f"{len(durations)} durations for {len(shares)} steps",
            path="--hold",
            allowed="one duration for all steps, or one for each below 1",
        )
    plan = ProgressionPlan(tuple(map(Step, shares, durations)))
    return replace(
        plan,
        requests_min=plan.requests_min if requests_min is None else requests_min,
        outcomes_min=plan.outcomes_min if outcomes_min is None else outcomes_min,
    )


def arms(texts: Sequence[str], digest_of: Callable[[str], Digest]) -> tuple[Arm, ...]:
    """Arms given as `NAME=DIGEST` or `NAME=DIGEST:SHARE`; arms without a share divide what the others leave.

    `digest_of` completes a digest's prefix; `live` stands for the live bundle. Raises InvalidRequest.
    """
    parsed: list[tuple[str, str, float | None]] = []
    for text in texts:
        name, is_given, rest = text.partition("=")
        prefix, _, part = rest.partition(":")
        if not is_given or not prefix:
            raise InvalidRequest(
                f"`{text}` is no arm",
                path="--arm",
                allowed="NAME=DIGEST or NAME=DIGEST:SHARE, NAME=live for the live bundle",
            )
        parsed.append((name, prefix, share(part, option="--arm") if part else None))
    free = [each for each in parsed if each[2] is None]
    left = 1.0 - math.fsum(each[2] for each in parsed if each[2] is not None)
    if left < -1e-9:
        raise InvalidDefinition(f"the arms' shares sum to {1.0 - left:g}; allowed: 1")
    return tuple(
        Arm(name, digest_of(prefix), part if part is not None else max(left, 0.0) / len(free))
        for name, prefix, part in parsed
    )
