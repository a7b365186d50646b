"""`skewless replay`: logged predictions accounted for, recomputed, and scored by another bundle."""

import sys
from dataclasses import dataclass
from pathlib import Path

import click

from skewless.cli.arguments import moment
from skewless.errors import InvalidRequest
from skewless.limits import REPLAY_DIFFERENCES_MAX, REPLAY_IDS_MAX, REPLAY_PROCESSES_MAX

EXIT_DIFFERENT = 4
EXIT_NOT_DECIDED = 6
_DIFFERENCES_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Asked:
    """Which part of the log is replayed, and how. Times in µs; None: open, all endpoints, all rows."""

    start: int | None
    end: int | None
    endpoint: str | None
    limit: int | None
    processes: int | None
    as_json: bool


@click.command()
@click.argument("prediction_ids", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Recompute every prediction of the log, or of a part of it.")
@click.option("--bundle", metavar="DIGEST", help="Score recorded traffic with this bundle instead, and compare.")
@click.option("--since", metavar="TIME", help="Only predictions asked as of this moment or later.")
@click.option("--until", metavar="TIME", help="Only predictions asked as of a moment before this one.")
@click.option("--endpoint", metavar="NAME", help="Only predictions of this endpoint; --bundle needs one.")
@click.option("--limit", type=click.IntRange(min=1), help="Stop after so many predictions, the earliest first.")
@click.option(
    "--show",
    type=click.IntRange(0, REPLAY_DIFFERENCES_MAX),
    default=_DIFFERENCES_SHOWN,
    show_default=True,
    help="How many differences are told one by one.",
)
@click.option(
    "--fill",
    type=click.Choice(["offline"]),
    help="With --bundle: where features were not recorded, read them from the offline store, point in time.",
)
@click.option("--model", metavar="NAME", help="With --fill: the model whose sources are read; the bundle's by default.")
@click.option(
    "--slice",
    "slices",
    multiple=True,
    metavar="COLUMN[:EDGE,…]",
    help="With --bundle: compare part by part, by the values of a column or by ranges of it. May be repeated.",
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="With --bundle: write every row with both answers to this Parquet file.",
)
@click.option(
    "--processes",
    type=click.IntRange(1, REPLAY_PROCESSES_MAX),
    help="How many processes recompute; by default up to one per processor, where there is enough to do.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")
def replay(
    prediction_ids: tuple[str, ...],
    everything: bool,
    bundle: str | None,
    since: str | None,
    until: str | None,
    endpoint: str | None,
    limit: int | None,
    show: int,
    fill: str | None,
    model: str | None,
    slices: tuple[str, ...],
    output: Path | None,
    processes: int | None,
    as_json: bool,
) -> None:
    """Account for logged predictions, by PREDICTION_IDS or with --all, and recompute them; or score recorded traffic
    with another bundle (--bundle).

    Recomputing takes the record alone: request, features, and the bundle that answered. The tensor must have the
    recorded digest bit for bit, the outputs must be those recorded, bit for bit or within the tolerance that the
    bundle states, and label and probability must follow from them.

    Exit code 4: something is different. Exit code 6: nothing is, but not all could be recomputed, because a field must
    not be kept in the log or a bundle is gone.
    """
    _check_words(prediction_ids, everything=everything, bundle=bundle, fill=fill, model=model)
    if prediction_ids and any(each is not None for each in (since, until, endpoint, limit)):
        raise _refused("PREDICTION_IDS name the predictions; a part of the log is chosen with --all or --bundle")
    if bundle is None and (slices or output is not None):
        raise _refused("--slice and --output are for comparing with another bundle, with --bundle")
    asked = Asked(
        None if since is None else moment(since, option="--since"),
        None if until is None else moment(until, option="--until"),
        endpoint,
        limit,
        processes,
        as_json,
    )
    if bundle is not None:
        from skewless.cli.replay_runs import back_test

        back_test(asked, bundle, fill=fill is not None, model=model, slices=slices, output=output)
        return
    if everything:
        from skewless.cli.replay_runs import recompute_all

        sys.exit(recompute_all(asked, told_max=show))
    from skewless.cli.replay_runs import account_for

    sys.exit(account_for(prediction_ids, as_json=as_json))


def _check_words(
    prediction_ids: tuple[str, ...], *, everything: bool, bundle: str | None, fill: str | None, model: str | None
) -> None:
    """Raise InvalidRequest unless exactly one thing is asked for."""
    if sum((bool(prediction_ids), everything, bundle is not None)) != 1:
        raise _refused("give one of: PREDICTION_IDS, --all, --bundle")
    if len(prediction_ids) > REPLAY_IDS_MAX:
        raise _refused(f"up to {REPLAY_IDS_MAX:,} PREDICTION_IDS at once; --all takes any number")
    if (fill is not None and bundle is None) or (model is not None and fill is None):
        raise _refused("--fill is for --bundle, and --model for --fill")


def _refused(allowed: str) -> InvalidRequest:
    return InvalidRequest("these arguments do not go together", path="replay", allowed=allowed)
