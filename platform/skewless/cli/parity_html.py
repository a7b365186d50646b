"""A parity report as one HTML page that loads nothing: for an artifact of a CI run, or a mail."""

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color: #1b1b1f }
table { border-collapse: collapse; margin: 1rem 0 } th, td { padding: .3rem .8rem; text-align: left }
th { border-bottom: 2px solid #999 } td { border-bottom: 1px solid #ddd; vertical-align: top }
td.number { text-align: right; font-variant-numeric: tabular-nums } code { background: #f2f2f5; padding: 0 .25rem }
.fault { color: #a40000; font-weight: 600 } .timing { color: #8a5a00; font-weight: 600 } .fine { color: #14692c }
.wide { overflow-x: auto }
svg { max-width: 40rem; width: 100%; font-size: 11px; fill: currentColor } .bar { fill: #5b7fb8 }
@media (prefers-color-scheme: dark) { body { background: #18181b; color: #e8e8ea } code { background: #2a2a30 }
.fault { color: #ff8f8f } .timing { color: #ffce7a } .fine { color: #82d49a } td { border-color: #3a3a42 } }
"""
_LEVELS = (
    ("values", "Values"),
    ("statuses_and_ages", "Statuses and ages"),
    ("model_inputs", "Model inputs"),
    ("predictions", "Predictions"),
)


def page(report: Mapping[str, Any]) -> str:
    """The page. Everything of the report is escaped: values come from requests."""
    title = f"Parity of {report['endpoint']}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{escape(report['since'])} to {escape(report['until'])}, checked {escape(report['checked_at'])}: "
        f"{report['predictions']:,} predictions of {report['entities']:,} entities, sample "
        f"{report['sample']:.2%}.</p>",
        "<h2>Levels</h2>",
        table(
            ("level", "compared", "equal", "share"), (_level(report["levels"][name], told) for name, told in _LEVELS)
        ),
        "<h2>Causes</h2>",
        _causes(report["causes"]),
        "<h2>Views</h2>",
        table(
            ("view", "compared", "differing", "rate", "95 % interval"),
            (
                (each["view"], each["units"], each["differing"], f"{each['rate']:.4%}", interval(each))
                for each in report["views"]
            ),
        ),
    ]
    if report["known_later"]:
        parts += [
            "<h2>Known only later</h2><p>No mismatches: the source changed after the moments asked for.</p>",
            table(
                ("view", "what", "predictions", "rate"),
                (
                    (each["view"], each["cause"], each["differing"], f"{each['rate']:.4%}")
                    for each in report["known_later"]
                ),
            ),
        ]
    body = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def _causes(causes: Iterable[Mapping[str, Any]]) -> str:
    sections = []
    for each in causes:
        repair = f" <code>{escape(each['repair'])}</code>" if each["repair"] else ""
        rules = "".join(f"<li>{escape(name)}: {escape(rule)}</li>" for name, rule in each.get("rules", {}).items())
        examples = "".join(f"<li>{example_item(example)}</li>" for example in each["examples"])
        sections.append(
            f'<h3><span class="{escape(each["kind"])}">{escape(each["cause"])}</span> in {escape(each["view"])}</h3>'
            f"<p>{escape(each['meaning'])}. {each['differing']:,} of {each['units']:,} ({each['rate']:.4%}, "
            f"{interval(each)}).</p><p>{escape(each['advice'])}.{repair}</p><ul>{rules}{examples}</ul>"
        )
    return "\n".join(sections) or '<p class="fine">No mismatch.</p>'


def example_item(example: Mapping[str, Any]) -> str:
    """One mismatch, for a list."""
    column = f" {escape(example['column'])}" if "column" in example else ""
    told = example.get("words") or f"served {example['served']}"
    return f"<code>{escape(example['prediction_id'])}</code>{column}: {escape(str(told))}"


def _level(level: Mapping[str, int], title: str) -> tuple[object, ...]:
    share = level["equal"] / level["compared"] if level["compared"] else 1.0
    return title, level["compared"], level["equal"], f"{share:.4%}"


def interval(rate: Mapping[str, float]) -> str:
    """Bounds of a rate."""
    return f"{rate['low']:.4%} to {rate['high']:.4%}"


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A table that a narrow screen can scroll."""
    titles = "".join(f"<th>{escape(each)}</th>" for each in head)
    lines = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return f'<div class="wide"><table><tr>{titles}</tr>{lines}</table></div>'


def _cell(value: object) -> str:
    if isinstance(value, int):
        return f'<td class="number">{value:,}</td>'
    return f"<td>{escape(str(value))}</td>"
