"""How parity stands, as one HTML page that loads nothing: the last day in numbers, the last two weeks as bars."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from skewless.cli.parity_html import STYLE, example_item, interval, table

_BAR, _GAP, _HEIGHT = 36, 6, 90
_LEVELS = {
    "values": "Values",
    "statuses_and_ages": "Statuses and ages",
    "model_inputs": "Model inputs",
    "predictions": "Predictions",
}


def status_page(found: Sequence[Mapping[str, Any]]) -> str:
    """The page. Everything is escaped: values come from requests."""
    body = "\n".join(_endpoint(each) for each in found) or "<p>Nothing was compared yet.</p>"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><title>Parity</title>'
        f"<style>{STYLE}</style></head>\n<body>\n<h1>Parity</h1>\n{body}\n</body></html>\n"
    )


def _endpoint(found: Mapping[str, Any]) -> str:
    progress = found["progress"]
    levels = (
        (title, found["levels"][name]["stratum"], found["levels"][name]["compared"], _equal(found["levels"][name]))
        for name, title in _LEVELS.items()
    )
    views = (
        (each["view"], each["stratum"], each["units"], each["differing"], f"{each['rate']:.4%}", interval(each))
        for each in found["views"]
    )
    steps = "".join(f"<li>{escape(text)}</li>" for text in found["next"])
    verdict = "" if progress["verdict_s"] is None else f"; last verdict after {progress['verdict_s']:,.0f} s"
    return "\n".join(
        (
            f"<h2>{escape(found['endpoint'])}</h2>",
            f"<p>As of {escape(found['now'])}, the last day: {found['predictions']['entity']:,} predictions of whole "
            f"entities, {found['predictions']['uniform']:,} of the uniform sample; {progress['backlog']:,} wait"
            f"{verdict}.</p>",
            f"<ul>{steps}</ul>" if steps else '<p class="fine">Nothing to do.</p>',
            _days(found["days"]),
            table(("level", "sample", "compared", "equal"), levels),
            _causes(found["causes"]),
            table(("view", "sample", "compared", "differing", "rate", "95 % interval"), views),
        )
    )


def _days(days: Sequence[Mapping[str, Any]]) -> str:
    """Bars of the worst view's rate by day, as inline SVG."""
    top = max((each["worst_rate"] or 0.0 for each in days), default=0.0)
    if not top:
        return '<p class="fine">Nothing differed on any of the last days.</p>'
    bars = []
    for place, each in enumerate(days):
        share = (each["worst_rate"] or 0.0) / top
        height, left = max(1.0, share * (_HEIGHT - 30)), place * (_BAR + _GAP)
        told = f"{each['day']}: {each['predictions']:,} predictions"
        told += f", {each['worst_rate']:.4%} of {each['worst_view']}" if each["worst_view"] else ""
        bars.append(
            f'<g><title>{escape(told)}</title><rect class="bar" x="{left}" y="{_HEIGHT - 16 - height:.1f}" '
            f'width="{_BAR}" height="{height:.1f}"/>'
            f'<text x="{left}" y="{_HEIGHT - 3}">{escape(each["day"][5:])}</text></g>'
        )
    width = len(days) * (_BAR + _GAP)
    return (
        f"<p>Share of predictions that differ in the worst view, by day; the highest bar is {top:.4%}.</p>"
        f'<svg viewBox="0 0 {width} {_HEIGHT}" role="img" aria-label="differences by day">{"".join(bars)}</svg>'
    )


def _causes(causes: Sequence[Mapping[str, Any]]) -> str:
    sections = []
    for each in causes:
        repair = f" <code>{escape(each['repair'])}</code>" if each["repair"] else ""
        examples = "".join(f"<li>{example_item(example)}</li>" for example in each["examples"])
        sections.append(
            f'<h3><span class="{escape(each["kind"])}">{escape(each["cause"])}</span> in {escape(each["view"])}</h3>'
            f"<p>{escape(each['meaning'])}. {each['differing']:,} of {each['units']:,} ({each['rate']:.4%}, "
            f"{interval(each)}), {escape(each['stratum'])} sample.</p><p>{escape(each['advice'])}.{repair}</p>"
            f"<ul>{examples}</ul>"
        )
    return "\n".join(sections) or '<p class="fine">No mismatch.</p>'


def _equal(level: Mapping[str, Any]) -> str:
    return f"{level['equal'] / level['compared']:.4%}" if level["compared"] else "-"
