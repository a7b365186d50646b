"""`skewless top` on a terminal: one frame as a table, with what is wrong in colour and in words."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from skewless.cli.top_frame import EndpointLine, Frame

WIDE = 110
"""Columns of a terminal from which on everything is shown."""
_COLUMNS = ("bundle", "req/s", "rows/s", "5xx", "refused/s", "degraded", "not ok", "busy", "drift", "parity")
_WIDE_ONLY = ("bundle", "rows/s", "busy")
_NAME_WIDTH = 12
_NONE = "-"
_BAD, _SLOW = "bold red", "yellow"


def rendered(frame: Frame, *, home: str, width: int = WIDE) -> RenderableType:
    """The frame as rich shows it on a terminal of so many columns; on a narrow one the table has fewer."""
    parts: list[RenderableType] = [_head(frame, home)]
    if frame.endpoints:
        parts.append(_table(frame, is_wide=width >= WIDE))
    else:
        parts.append(Text("no endpoint has answered or has a live bundle yet; see `skewless endpoint create`", "dim"))
    wrong = [
        *frame.notes,
        *(f"{part} does not answer and is left alone; it is tried again by itself" for part in frame.circuits),
        *(f"{name} does not answer its metrics; run `skewless doctor`" for name in frame.silent),
    ]
    return Group(*parts, *(Text(f"! {each}", _BAD) for each in wrong))


def _head(frame: Frame, home: str) -> Text:
    rows = sum(line.rows_per_s for line in frame.endpoints)
    head = Text(f"{rows:,.0f} predictions/s", "bold")
    head.append(f"   p50 {_ms(frame.p50_ms)}   p99 {_ms(frame.p99_ms)}", "")
    if frame.stages_ms:
        stages = "  ".join(f"{stage} {_ms(value)}" for stage, value in frame.stages_ms.items())
        head.append(f"\np99 of stages: {stages}", "dim")
    head.append(f"\n{home}, over the last {frame.seconds:.1f} s", "dim")
    return head


def _table(frame: Frame, *, is_wide: bool) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("endpoint", overflow="fold", min_width=_NAME_WIDTH)
    names = [name for name in _COLUMNS if is_wide or name not in _WIDE_ONLY]
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for line in frame.endpoints:
        cells = _cells(line)
        table.add_row(line.name, *(cells[name] for name in names))
    return table


def _cells(line: EndpointLine) -> dict[str, str | Text]:
    """By the names of the columns."""
    drift = _NONE if line.drift_level is None else f"{line.drift_level:.2f}"
    return {
        "bundle": line.bundle[:8] or _NONE,
        "req/s": f"{line.requests_per_s:,.1f}",
        "rows/s": f"{line.rows_per_s:,.1f}",
        "5xx": _percent(line.failed, bad_from=0.01),
        "refused/s": Text(f"{line.refused_per_s:,.1f}", _BAD if line.refused_per_s > 0 else ""),
        "degraded": _percent(line.degraded, bad_from=0.01),
        "not ok": _percent(line.not_ok, bad_from=0.2),
        "busy": f"{line.computed}+{line.waiting}/{line.places}" if line.places else _NONE,
        "drift": Text(f"{drift} ALARM" if line.is_alarmed else drift, _BAD if line.is_alarmed else ""),
        "parity": _equal(line.equal),
    }


def _percent(share: float | None, *, bad_from: float) -> Text:
    if share is None:
        return Text(_NONE, "dim")
    return Text(f"{share:.1%}", _BAD if share >= bad_from else _SLOW if share > 0 else "")


def _equal(share: float | None) -> Text:
    if share is None:
        return Text(_NONE, "dim")
    return Text("equal") if share == 1 else Text(f"{share:.3%}", _BAD)


def _ms(value: float | None) -> str:
    return _NONE if value is None else f"{value:,.1f} ms"
