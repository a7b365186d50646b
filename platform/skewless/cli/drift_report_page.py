"""The drift report as HTML that needs nothing else: no script, no font, no address."""

import html
from collections.abc import Iterable, Iterator, Mapping, Sequence

from skewless.cli.drift_advice import Step, next_steps
from skewless.cli.drift_plots import STYLE as PLOT_STYLE
from skewless.cli.drift_plots import level_svg, minute, shares_svg, told_number, trend_svg
from skewless.drift.alarms import Alarm, Moved
from skewless.drift.check import Severity
from skewless.drift.streams import Kind
from skewless.monitors.window_report import Beside, Finding, WindowReport
from skewless.statistics.comparison import Difference, Pair
from skewless.statistics.variable import Part

CARDS_MAX = 24
"""Variables that have plots; those that moved less are lines of the table."""
SLICES_MAX = 32
WORDS_MAX = 40
STYLE = """
:root{color-scheme:light dark}
body{font:15px/1.5 system-ui,sans-serif;margin:0 auto;max-width:72rem;padding:1rem;color:#1d2126;background:#fff}
h1{font-size:1.5rem;margin:.2rem 0}h2{font-size:1.15rem;margin:2rem 0 .5rem}code{font-size:.9em;overflow-wrap:anywhere}
.wide{overflow-x:auto}table{border-collapse:collapse;width:100%}
th,td{padding:.3rem .6rem;text-align:right;border-bottom:1px solid #dde1e6;white-space:nowrap}
th:first-child,td:first-child,.words th,.words td{text-align:left}.words td{white-space:normal}
.quiet{color:#66707a}.badge{border-radius:.6rem;padding:.05rem .55rem;font-size:.85em}
.badge.quiet{background:#eef0f3}.badge.small{background:#fff0c2}.badge.large{background:#fbd9d5}
.badge.broken{background:#b3261e;color:#fff}
.verdict{border-left:.35rem solid #2e7d4f;padding:.4rem .8rem;background:#f3f8f5}
.verdict.open{border-color:#b3261e;background:#fdf1f0}.verdict.unsure{border-color:#b8860b;background:#fdf8ea}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(19rem,1fr));gap:.8rem}
.card{border:1px solid #dde1e6;border-radius:.5rem;padding:.7rem;min-width:0}.card h3{margin:0 0 .3rem;font-size:1rem;
overflow-wrap:anywhere}
.card p{margin:.25rem 0;font-size:.9em}svg{max-width:100%;display:block}
.key i{display:inline-block;width:.8em;height:.8em;margin:0 .3em 0 .8em;vertical-align:-.05em}
@media(prefers-color-scheme:dark){body{color:#d9dde2;background:#15181c}th,td,.card{border-color:#333a42}
.quiet{color:#98a2ad}.badge.quiet{background:#2a3038}.badge.small{background:#4a3f14}.badge.large{background:#5c2a25}
.verdict{background:#17231c}.verdict.open{background:#2b1816}.verdict.unsure{background:#262114}a{color:#8ab4f8}}
"""
POLICY = "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'; style-src 'unsafe-inline'\">"


def report_page(report: WindowReport, files: Mapping[str, str], notes: Sequence[str]) -> str:
    """The page's text. `files` are the report's other files by name, with what each is; `notes` what is missing."""
    scope = report.scope
    span = f"{minute(scope.since_us)} to {minute(scope.until_us)} UTC"
    body = [
        f"<h1>Drift of {_text(scope.endpoint)}</h1>",
        f"<p>{span} · {report.rows:,} predictions in the role <b>{_text(scope.role)}</b> of bundle"
        f" <code>{_text(scope.bundle[:12])}</code>"
        f"{f' · {report.late_rows:,} came late' if report.late_rows else ''}</p>",
        _verdict(report),
        "<h2>What to do next</h2>",
        _steps(next_steps(report)),
        *_level(report),
        *_breaks(report),
        *_variables(report),
        *_slices(report),
        *_words(report),
        *_further(report, files, notes),
    ]
    return document(f"Drift of {scope.endpoint}", body)


def document(title: str, body: Iterable[str]) -> str:
    """A page of a report."""
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        f"<meta name='viewport' content='width=device-width,initial-scale=1'>{POLICY}<title>{_text(title)}</title>"
        f"<style>{STYLE}{PLOT_STYLE}</style></head><body>\n" + "\n".join(body) + "\n</body></html>\n"
    )


def badge(severity: str) -> str:
    """A severity in its colour."""
    return f"<span class='badge {severity}'>{severity}</span>"


def table(titles: Sequence[str], rows: Iterable[Sequence[str]], *, name: str = "") -> str:
    """A table that can be scrolled sideways; cells are HTML."""
    head = "".join(f"<th>{each}</th>" for each in titles)
    lines = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<div class='wide'><table class='{name}'><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>"


def _verdict(report: WindowReport) -> str:
    calibration = "" if report.calibration is None else _text(report.calibration.words)
    moved = [each for each in report.of() if each.severity is not Severity.QUIET]
    if report.alarms:
        told = "".join(f"<p>{_alarm(each)}</p>" for each in report.alarms)
        return f"<div class='verdict open'>{told}<p class='quiet'>{calibration}</p></div>"
    if report.broken:
        told = ", ".join(_text(f"{each['rule']} {each['name']}".strip()) for each in report.broken)
        return (
            f"<div class='verdict open'><p><b>Contracts broke:</b> {told}.</p><p class='quiet'>{calibration}</p></div>"
        )
    if moved:
        told = f"No alarm in this window; {len(moved)} of {len(report.of())} variables differ from their references."
        return f"<div class='verdict unsure'><p>{told}</p><p class='quiet'>{calibration}</p></div>"
    return f"<div class='verdict'><p>Quiet: no alarm, and nothing differs.</p><p class='quiet'>{calibration}</p></div>"


def _alarm(alarm: Alarm) -> str:
    until = "still open" if alarm.closed_us is None else f"closed {minute(alarm.closed_us)}"
    mark = "" if alarm.calibrated else " (uncalibrated)"
    moved = ", ".join(_moved(each) for each in alarm.named)
    return (
        f"<b>Alarm{mark}</b> since about {minute(alarm.since_us)}, raised"
        f" {minute(alarm.opened_us)}, {until}, at most {alarm.peak:.1f} times its height. Moved: {moved}."
    )


def _moved(moved: Moved) -> str:
    how = {Kind.RISE: " ↑", Kind.FALL: " ↓"}.get(moved.stream.kind, "")
    place = f" in {_text(moved.stream.slice)}" if moved.stream.slice else ""
    since = f"<span class='quiet'>since {minute(moved.since_us)}</span>"
    return f"<b>{_text(moved.stream.name)}</b>{how}{place} {since}"


def _steps(steps: Sequence[Step]) -> str:
    items = "".join(
        f"<li>{_marked(each.text)}{f'<br><code>{_text(each.command)}</code>' if each.command else ''}</li>"
        for each in steps
    )
    return f"<ol>{items}</ol>"


def _marked(text: str) -> str:
    """Text whose names in backticks are shown as code."""
    parts = _text(text).split("`")
    return "".join(f"<code>{part}</code>" if place % 2 else part for place, part in enumerate(parts))


def _level(report: WindowReport) -> Iterator[str]:
    if not report.levels:
        return
    yield "<h2>Level of windows</h2>"
    yield "<p class='quiet'>How far everything that is watched has climbed, in heights of an alarm (red line).</p>"
    yield level_svg(report.levels)


def _breaks(report: WindowReport) -> Iterator[str]:
    if not report.broken:
        return
    yield "<h2>Broken contracts</h2>"
    rows = [
        (_text(each["rule"]), f"<code>{_text(each['name'])}</code>", f"{each['share']:.1%}", f"{each['usual']:.1%}")
        if each["name"]
        else (_text(each["rule"]), "", f"{each['share']:g} rows", f"{each['usual']:.0f} rows")
        for each in report.broken
    ]
    yield table(("rule", "of", "now", "usually"), rows, name="words")


def _variables(report: WindowReport) -> Iterator[str]:
    told = [each for each in report.of() if each.current.part is not Part.OUTPUT]
    cards = [each for each in told if each.severity is not Severity.QUIET][:CARDS_MAX]
    grey = f"<i class='key1' style='background:#9aa5b1'></i>{_text(report.recent)}" if report.recent else ""
    if cards:
        yield "<h2>What differs</h2>"
        yield (
            "<p class='key quiet'>Shares of the bins:<i style='background:#b8860b'></i>training"
            f"{grey}<i style='background:#3b6fb6'></i>now. Then the mean over this window, nulls in red.</p>"
        )
        yield f"<div class='cards'>{''.join(_card(each) for each in cards)}</div>"
    yield f"<h2>All {len(told)} variables</h2>"
    yield (
        "<p class='quiet'>PSI: the stability index in the bins of training, and in brackets what chance alone gives;"
        f" above 0.1 small, above 0.25 large. Recently: {_text(report.recent or 'no rows to compare with')}.</p>"
    )
    yield table(_TITLES, (_line(each) for each in told))
    outputs = [each for each in report.of() if each.current.part is Part.OUTPUT]
    if outputs:
        lines = table(_TITLES, (_line(each) for each in outputs))
        yield f"<details><summary>{len(outputs)} outputs of the transform</summary>{lines}</details>"


def _card(finding: Finding) -> str:
    now, training, recent = finding.current, finding.training, finding.recent
    plot = shares_svg(training.reference, None if recent is None else recent.reference, now)
    trend = trend_svg(now, [each.mean for each in finding.points], [each.null_share or 0.0 for each in finding.points])
    lines = [f"<p>beside training: {_psi(training)}</p>"]
    if recent is not None:
        lines.append(f"<p>beside recent weeks: {_psi(recent)}</p>")
    for what, pair in (("nulls", training.difference.null_share), ("unseen", training.difference.unseen_share)):
        if pair.second:
            lines.append(f"<p>{what}: {_pair(pair, percent=True)}</p>")
    if words := training.difference.new_words:
        lines.append(f"<p>new words: {_text(', '.join(words))}</p>")
    return (
        f"<section class='card'><h3>{_text(now.name)} {badge(finding.severity.value)}"
        f" <small class='quiet'>{now.part.value}</small></h3>{plot}{''.join(lines)}{trend}</section>"
    )


_TITLES = (
    "variable",
    "",
    "PSI training",
    "PSI recently",
    "mean: training → recently → now",
    "nulls",
    "unseen",
    "missing",
    "stale",
)


def _line(finding: Finding) -> tuple[str, ...]:
    training, recent = finding.training.difference, None if finding.recent is None else finding.recent.difference
    name, part = _text(finding.current.name), finding.current.part
    means = [training.mean.first, *([] if recent is None else [recent.mean.first]), training.mean.second]
    told = [told_number(finding.current, each) if each is not None else "none" for each in means]
    return (
        f"{name}{'' if part is Part.COLUMN else f' <small class=quiet>{part.value}</small>'}",
        badge(finding.severity.value),
        _beside_chance(training),
        "" if recent is None else _beside_chance(recent),
        "" if all(each is None for each in means) else " → ".join(told),
        _pair(training.null_share, percent=True),
        _pair(training.unseen_share, percent=True),
        _status(finding, "missing"),
        _status(finding, "stale"),
    )


def _slices(report: WindowReport) -> Iterator[str]:
    if not report.slices:
        return
    yield "<h2>Slices</h2>"
    rows = []
    for name in report.slices[:SLICES_MAX]:
        findings = report.of(name)
        differ = [each for each in findings if each.severity is not Severity.QUIET]
        moved = [each for each in differ if each.current.part is not Part.OUTPUT][:6]
        worst = max((each.severity for each in findings), key=lambda each: each.rank)
        told = ", ".join(f"{_text(each.current.name)} {_number(_nearest(each).difference.psi)}" for each in moved)
        told = told if findings[0].recent is not None else "no rows of recent weeks to compare with"
        rows.append((_text(name), badge(worst.value), f"{findings[0].current.total:,}", told or "nothing"))
    yield table(("slice", "", "rows", "moved furthest from its recent weeks (PSI)"), rows, name="words")
    if len(report.slices) > SLICES_MAX:
        yield f"<p class='quiet'>and {len(report.slices) - SLICES_MAX} more in report.json</p>"


def _nearest(finding: Finding) -> Beside:
    return finding.training if finding.recent is None else finding.recent


def _words(report: WindowReport) -> Iterator[str]:
    if not report.words:
        return
    yield "<h2>Words that training never saw</h2>"
    rows = [
        (
            f"<code>{_text(each.feature)}</code>",
            f"<code>{_text(each.word)}</code>",
            f"{each.rows - each.over:,}" + (f" to {each.rows:,}" if each.over else ""),
            minute(each.first_us),
            minute(each.last_us),
        )
        for each in report.words[:WORDS_MAX]
    ]
    yield table(("feature", "word", "times", "first", "last"), rows, name="words")


def _further(report: WindowReport, files: Mapping[str, str], notes: Sequence[str]) -> Iterator[str]:
    yield "<h2>More about this window</h2><ul>"
    yield "".join(f"<li><a href='{_text(name)}'>{_text(name)}</a>: {_text(what)}</li>" for name, what in files.items())
    yield "</ul>"
    left_out = [f"`{name}` is not told: {why}" for name, why in report.hidden.items()]
    if lines := [*notes, *left_out]:
        yield "<ul class='quiet'>" + "".join(f"<li>{_text(each)}</li>" for each in lines) + "</ul>"


def _psi(beside: Beside) -> str:
    difference = beside.difference
    if difference.psi is None:
        return "nothing to compare"
    chance = _number(difference.psi_floor)
    return f"PSI <b>{_number(difference.psi)}</b> (by chance {chance}) {badge(beside.severity.value)}"


def _beside_chance(difference: Difference) -> str:
    if difference.psi is None:
        return ""
    return f"{_number(difference.psi)} <small class='quiet'>({_number(difference.psi_floor)})</small>"


def _status(finding: Finding, status: str) -> str:
    pair = finding.training.difference.status_shares.get(status)
    return "" if pair is None else _pair(pair, percent=True)


def _pair(pair: Pair, *, percent: bool = False) -> str:
    told = [
        "none" if each is None else f"{each:.1%}" if percent else f"{each:.4g}" for each in (pair.first, pair.second)
    ]
    if pair.second is None or (told[0] == told[1] and not pair.second):
        return ""
    return told[0] if told[0] == told[1] else f"{told[0]} → {told[1]}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2g}"


def _text(text: str) -> str:
    return html.escape(text, quote=True)
