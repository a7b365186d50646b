"""The summary of what training lets expect of served rows, as plain data and as HTML that needs nothing else."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from skewless.cli.drift_plots import minute
from skewless.cli.drift_report_page import badge, document, table
from skewless.monitors.window_report import Scope
from skewless.quality.results import ExpectationResult
from skewless.quality.suite import Suite
from skewless.timestamps import format_timestamp, parse_timestamp

_BADGES = {"critical": "broken", "warning": "large", "info": "small"}
_MISSED = "missed"


def expectations_json(suite: Suite, results: Sequence[ExpectationResult], scope: Scope) -> dict[str, Any]:
    """Plain data: every expectation with what came of it, those that are missed first, the worst of them first."""
    listed = [
        {
            **suite.expectations[each.position].to_json(),
            "met": each.success,
            "rows": each.rows,
            "unexpected": each.unexpected,
            "unexpected_share": each.unexpected_share,
            "observed": each.observed,
            "examples": list(each.examples),
            "error": each.error,
        }
        for each in results
    ]
    order = list(_BADGES)
    listed.sort(key=lambda each: (each["met"], order.index(each["severity"])))
    return {
        "suite": suite.name,
        "digest": suite.digest,
        "endpoint": scope.endpoint,
        "bundle": scope.bundle,
        "role": scope.role,
        "since": format_timestamp(scope.since_us),
        "until": format_timestamp(scope.until_us),
        "expectations": len(listed),
        "missed": sum(not each["met"] for each in listed),
        "results": listed,
    }


def expectations_page(found: Mapping[str, Any]) -> str:
    """The page of a summary as `expectations_json` makes it."""
    missed = found["missed"]
    verdict = f"{missed} of {found['expectations']} expectations are not met" if missed else "Every expectation is met"
    body = [
        f"<h1>What training lets expect of {escape(found['endpoint'])}</h1>",
        f"<p>{_minute(found['since'])} to {_minute(found['until'])} UTC · role <b>{escape(found['role'])}</b> · bundle"
        f" <code>{escape(found['bundle'][:12])}</code> · judged by Great Expectations on sampled rows</p>",
        f"<div class='verdict{' unsure' if missed else ''}'><p>{verdict}.</p></div>",
        "<p class='quiet'>Ranges, words, ages and shares of nulls are those of training, with some room: 5 % more"
        " nulls, 1 % beyond the range. A sample cannot see what is rarer than it is large; counts of all rows are in"
        " <a href='index.html'>index.html</a>.</p>",
        table(
            ("column", "", "expected", "seen", "not met by"), (_line(each) for each in found["results"]), name="words"
        ),
    ]
    return document(f"Expectations of {found['endpoint']}", body)


def _minute(text: str) -> str:
    return minute(parse_timestamp(text))


def _line(each: Mapping[str, Any]) -> tuple[str, ...]:
    kwargs = each["kwargs"]
    state = badge("quiet").replace("quiet</span>", "met</span>") if each["met"] else _missed(each["severity"])
    share = each["unexpected_share"]
    examples = ", ".join(str(value) for value in each["examples"])
    seen = each["error"] or ("" if each["observed"] is None else str(each["observed"])) or examples
    return (
        escape(str(kwargs.get("column", "the table"))),
        state,
        escape(_expected(each)),
        escape(seen),
        "" if share is None or each["met"] else f"{share:.1%} of the rows",
    )


def _missed(severity: str) -> str:
    return badge(_BADGES[severity]).replace(f"{_BADGES[severity]}</span>", f"{_MISSED}: {severity}</span>")


def _expected(each: Mapping[str, Any]) -> str:
    kwargs = each["kwargs"]
    what = each["type"].removeprefix("expect_").replace("_", " ")
    bounds = [f"{kwargs[name]:.6g}" for name in ("min_value", "max_value") if kwargs.get(name) is not None]
    told = f" {' to '.join(bounds)}" if bounds else ""
    if "value_set" in kwargs:
        told = f" of {len(kwargs['value_set'])} values"
    mostly = f", {kwargs['mostly']:.1%} of the rows" if "mostly" in kwargs else ""
    return f"{what}{told}{mostly} ({each['meta']['reason']})"
