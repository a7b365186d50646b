"""Replays for a terminal: the account of one prediction, and what many recomputed ones came to."""

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from skewless.cli.replay_bulk import BulkCheck
from skewless.replays.account import Account, ValueTold, answered_time, rung_meaning
from skewless.replays.recheck import Difference, Verdict
from skewless.timestamps import format_timestamp

_SHORT = 12
_FEEDS_SHOWN = 3
_WIDTH_OFF_TERMINAL = 200
"""Off a terminal rich would fold at 80 columns, and what folds is what other programs search for."""
_VERDICTS: dict[Verdict, tuple[str, str]] = {
    Verdict.EXACT: ("equal bit for bit", "green"),
    Verdict.WITHIN_BOUND: ("equal within the bundle's bound", "green"),
    Verdict.DIFFERENT: ("DIFFERENT", "bold red"),
    Verdict.NOT_DECIDED: ("not decided", "yellow"),
}


def console() -> Console:
    """Standard output, without markup: values of records are shown as they are."""
    shown = Console(markup=False, emoji=False, highlight=False)
    if not shown.is_terminal:
        shown.width = _WIDTH_OFF_TERMINAL
    return shown


def show_account(account: Account, shown: Console) -> None:
    """One prediction, part by part, its verdict last."""
    told = Table(show_header=False, box=None, pad_edge=False)
    told.add_column(style="bold", no_wrap=True)
    told.add_column(overflow="fold")
    for name, text in _facts(account):
        told.add_row(name, text)
    shown.print(told)
    if account.values:
        shown.print(_values_table(account.values))
    computed = Table("", "served", "recomputed", "")
    for row in _computed(account):
        computed.add_row(*row)
    shown.print(computed)
    words, style = _VERDICTS[account.verdict]
    shown.print(Text(f"verdict: {words}", style=style))
    if account.bound and account.verdict is not Verdict.NOT_DECIDED:
        shown.print(f"outputs must be reproduced {account.bound}")
    if account.not_decided:
        shown.print(f"cannot be rebuilt: {account.not_decided}")
    if account.difference is not None:
        shown.print(_difference(account.difference))


def show_check(found: BulkCheck, shown: Console) -> None:
    """What recomputing many predictions came to."""
    table = Table("recomputed", "predictions")
    table.columns[1].justify = "right"
    for verdict in Verdict:
        if found.verdicts[verdict] or verdict in (Verdict.EXACT, Verdict.DIFFERENT):
            words, style = _VERDICTS[verdict]
            table.add_row(Text(words, style=style if found.verdicts[verdict] else ""), f"{found.verdicts[verdict]:,}")
    table.add_section()
    table.add_row("all", f"{found.rows:,}")
    shown.print(table)
    for reason, rows in found.not_decided.most_common():
        shown.print(f"not decided, {rows:,}: {reason}")
    for difference in found.differences:
        shown.print(f"differs  {difference.prediction_id} ({difference.bundle[:_SHORT]}) {_difference(difference)}")
    hidden = found.verdicts[Verdict.DIFFERENT] - len(found.differences)
    if hidden > 0:
        shown.print(f"and {hidden:,} more that differ")


def _facts(account: Account) -> Iterator[tuple[str, str]]:
    """Who asked, where it went and what answered."""
    facts = account.facts
    yield "prediction", facts.prediction_id
    answered = answered_time(facts.prediction_id)
    yield "asked", f"as of {format_timestamp(facts.as_of)}" + (f", answered {answered}" if answered else "")
    yield "by", f"{facts.caller or 'nobody that was recorded'}, request {facts.request_id}, row {facts.row}"
    arm = f", arm {facts.arm} of experiment {facts.experiment}" if facts.arm else ""
    beside = f", beside {facts.live_prediction_id}" if facts.live_prediction_id else ""
    yield "route", f"endpoint {facts.endpoint}, role {facts.role}{arm}{beside}"
    yield "rung", f"{facts.rung}: {rung_meaning(facts.rung)}"
    trained = f", trained on {account.model_trained}" if account.model_trained else ""
    yield "bundle", f"{account.model_name or '(gone)'} {facts.bundle[:_SHORT]}{trained}"
    if account.transform_digest:
        yield "transform", f"{account.transform_digest[:_SHORT]}, {account.tensor_columns} columns"
    if facts.stage_ms:
        yield "stages", ", ".join(f"{name} {value:.2f} ms" for name, value in facts.stage_ms.items())
    if account.outcome is None:
        yield "outcome", "none has arrived"
    else:
        happened = f"happened {account.outcome.outcome_time}, " if account.outcome.outcome_time else ""
        yield "outcome", f"{account.outcome.label}, {happened}received {account.outcome.received_time}"


def _values_table(values: Sequence[ValueTold]) -> Table:
    """Values with status and age; what is not ok says what it feeds."""
    table = Table("made of", "value", "status", "age", "filled by, or what it feeds")
    table.columns[0].overflow = table.columns[1].overflow = table.columns[4].overflow = "fold"
    table.columns[3].justify = "right"
    for each in values:
        status = each.status or each.kind
        style = "" if each.status in ("", "ok") else "yellow"
        value = f"({each.note})" if each.note else "null" if each.value is None else str(each.value)
        table.add_row(each.name, value, Text(status, style=style), _age(each.age_s), _beside(each))
    return table


def _beside(value: ValueTold) -> str:
    if value.status in ("", "ok") and not value.note:
        return ""
    fed = ", ".join(value.feeds[:_FEEDS_SHOWN])
    more = f" and {len(value.feeds) - _FEEDS_SHOWN} more" if len(value.feeds) > _FEEDS_SHOWN else ""
    feeds = f"feeds {fed}{more}" if fed else "feeds nothing"
    return f"{value.filled_by}; {feeds}" if value.filled_by else feeds


def _age(age_s: float | None) -> str:
    """An age for people.

    >>> _age(5_400.0), _age(None)
    ('1 h 30 min', '')
    """
    if age_s is None:
        return ""
    for unit, name, below, smaller in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s")):
        if age_s >= unit:
            rest = int(age_s % unit // below)
            return f"{int(age_s // unit):,} {name}" + (f" {rest} {smaller}" if rest else "")
    return f"{age_s:.3g} s"


def _computed(account: Account) -> Iterator[tuple[str, str, str, str]]:
    """Name, served, recomputed, and how they compare."""
    facts = account.facts
    recomputed = account.tensor_recomputed
    kept = "" if facts.tensor_kept else "; the tensor itself was left out of the log"
    same = "" if not recomputed else "equal" if recomputed == facts.tensor_digest else "DIFFERENT"
    yield "tensor (SHA-256)", facts.tensor_digest[: 2 * _SHORT], recomputed[: 2 * _SHORT], same + kept
    for output in account.outputs:
        if output.recomputed is None:
            yield f"output {output.name}", _numbers(output.served), "", ""
            continue
        apart = "" if output.difference is None else f"{output.difference:.3g} apart"
        equal = "equal" if output.served == output.recomputed else apart
        yield f"output {output.name}", _numbers(output.served), _numbers(output.recomputed), equal
    served = f"{facts.label}, {facts.probability!r}"
    if account.probability_recomputed is None:
        yield "answer", served, "", ""
        return
    again = f"{account.label_recomputed}, {account.probability_recomputed!r}"
    yield "answer", served, again, "equal" if served == again else "DIFFERENT"


def _numbers(values: Sequence[object]) -> str:
    return ", ".join(str(each) for each in values)


def _difference(difference: Difference) -> str:
    """What differs, and what it points at."""
    if not difference.inputs:
        return f"{difference.level}: {difference.told}"
    suspects = ", ".join(f"`{name}`" for name in difference.inputs)
    return f"{difference.level}: {difference.told}; in the record look at {suspects}"
