"""Results of quality gates as one HTML page that needs nothing else: no script, no font, no address."""

import html
import json
from collections.abc import Sequence

from skewless.cli.quality_views import TOO_MANY, stops_by_share
from skewless.quality.verdict import DECLARED, Decision
from skewless.registry.quality_results import QuarantineRecord, ResultRecord, RunRecord
from skewless.timestamps import format_timestamp

_STYLE = """
body{font:14px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:75rem;padding:0 1rem;color:#222;background:#fff}
table{border-collapse:collapse;width:100%;display:block;overflow-x:auto}
th,td{padding:.3rem .6rem;text-align:left;border-bottom:1px solid #ddd;vertical-align:top}
td.number{text-align:right;font-variant-numeric:tabular-nums}code{font-size:.92em}
.results td:nth-child(2){min-width:15rem}.results td:nth-child(3){min-width:14rem;overflow-wrap:anywhere}
h2{margin-top:2.2rem}.badge{padding:.1rem .5rem;border-radius:.6rem;font-weight:600}
.pass{background:#dff3e2}.warn{background:#fff0c2}.quarantine{background:#fde0c8}.stop{background:#f6c6c0}
.quiet{color:#777}.hint{color:#555}
@media(prefers-color-scheme:dark){body{background:#16181c;color:#ddd}th,td{border-color:#333}
.pass{background:#1d4426}.warn{background:#4c3f10}.quarantine{background:#5a3513}.stop{background:#6b2a22}
.quiet{color:#999}.hint{color:#bbb}}
"""


def page(runs: Sequence[RunRecord], held: Sequence[QuarantineRecord] = (), *, title: str = "Data quality") -> str:
    """The page's text: an overview of the runs, worst first, then each run with all of its expectations."""
    ordered = sorted(runs, key=lambda each: (-each.decision.rank, each.view))
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        f"<meta name='viewport' content='width=device-width'><title>{_text(title)}</title>",
        f"<style>{_STYLE}</style></head><body><h1>{_text(title)}</h1>",
        _overview(ordered),
        _held(held) if held else "",
        *(_run(each) for each in ordered),
    ]
    return "\n".join(parts) + "\n</body></html>\n"


def _overview(runs: Sequence[RunRecord]) -> str:
    if not runs:
        return "<p class='quiet'>Nothing was judged yet: <code>skewless quality run</code> judges every view.</p>"
    rows = "".join(
        f"<tr><td>{_text(each.view)}</td><td>{_badge(each.decision.value)}</td><td class='number'>{each.rows:,}</td>"
        f"<td class='number'>{each.set_aside:,}</td><td class='number'>{_failed(each)} of {len(each.results)}</td>"
        f"<td>{_text(each.origin)}</td><td>{format_timestamp(each.time)}</td></tr>"
        for each in runs
    )
    return _table(("view", "decision", "rows", "set aside", "not met", "from", "judged"), rows)


def _held(held: Sequence[QuarantineRecord]) -> str:
    rows = "".join(
        f"<tr><td>{_text(each.view)}</td><td><code>{_text(each.id)}</code></td><td class='number'>{each.rows:,}</td>"
        f"<td>{format_timestamp(each.created_time)}</td></tr>"
        for each in held
    )
    told = "<p>Rows that were set aside and wait: <code>skewless quality quarantine show</code> has the reasons.</p>"
    return f"<h2>Quarantine</h2>{told}{_table(('view', 'batch', 'rows', 'since'), rows)}"


def _run(run: RunRecord) -> str:
    ordered = sorted(run.results, key=lambda each: (each.success, -Decision(each.follows).rank, each.position))
    return "\n".join(
        [
            f"<h2>{_text(run.view)} {_badge(run.decision.value)}</h2>",
            f"<p>{run.rows:,} rows from {_text(run.batch)}, judged for {format_timestamp(run.as_of)} in"
            f" {run.duration_us / 1e6:.1f} s by suite <b>{_text(run.suite)}</b>"
            f" <code>{run.suite_digest[:12]}</code>; run <code>{_text(run.id)}</code></p>",
            f"<p><b>stop</b>: {TOO_MANY}</p>" if stops_by_share(run) else "",
            _table(("follows", "result", "expectation", "severity"), "".join(map(_result, ordered)), kind="results"),
        ]
    )


def _result(result: ResultRecord) -> str:
    kwargs = json.dumps(dict(result.kwargs), ensure_ascii=False, default=str)
    name = "columns as declared" if result.type == DECLARED else result.type
    told = _text(result.told) if not result.success else "<span class='quiet'>met</span>"
    hint = f"<br><span class='hint'>{_text(result.hint)}</span>" if result.hint else ""
    return (
        f"<tr><td>{_badge(result.follows)}</td><td>{told}{hint}</td>"
        f"<td>{_text(name)}<br><code>{_text(kwargs)}</code></td><td>{_text(result.severity)}</td></tr>"
    )


def _failed(run: RunRecord) -> int:
    return sum(not each.success for each in run.results)


def _table(titles: Sequence[str], rows: str, *, kind: str = "plain") -> str:
    head = "".join(f"<th>{each}</th>" for each in titles)
    return f"<table class='{kind}'><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _badge(word: str) -> str:
    return f"<span class='badge {word}'>{word}</span>"


def _text(text: str) -> str:
    return html.escape(text)
