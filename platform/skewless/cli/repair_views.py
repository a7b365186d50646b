"""Shows what a repair of the online store found and did."""

from typing import Any

import click

from skewless.cli.output import say

_COLUMNS_SHOWN = 3


def show_repair(report: dict[str, Any]) -> None:
    """Print a line per view and reason, with an example below each."""
    for each in report["reasons"]:
        click.echo(f"{each['view']}  {each['reason']}  {_counts(each)}")
        click.echo(f"  {_remedy(each)}")
        if each["examples"]:
            click.echo(f"  e.g. {_example(each['examples'][0])}")
    for each in report["views"]:
        if each["not_a_hash"]:
            say(f"{each['view']}: {each['not_a_hash']:,} keys hold something else than a hash, and were left alone")
    for view, why in report["unreadable"].items():
        say(f"{view}: not compared, because {why}")
    if not report["reasons"]:
        say(f"every row is as the offline store has it at {report['as_of']}")


def _counts(each: dict[str, Any]) -> str:
    named = {"written": "written", "removed": "removed", "changed_meanwhile": "changed meanwhile", "left": "left alone"}
    done = [f"{each[key]:,} {words}" for key, words in named.items() if each[key]]
    return f"{each['found']:,} found" + (f": {', '.join(done)}" if done else "")


def _remedy(each: dict[str, Any]) -> str:
    comes_back = "" if each["lasting"] else "; it comes back unless the writer is mended"
    return f"repair {each['repair']}{comes_back}"


def _example(example: dict[str, Any]) -> str:
    entity = ", ".join(f"{name} {value!r}" for name, value in example["entity"].items()) or "the row without an entity"
    if "fields" in example:
        return f"{entity}: fields {', '.join(example['fields'][:_COLUMNS_SHOWN])}"
    shown = example["columns"][:_COLUMNS_SHOWN]
    values = "; ".join(f"{each['column']} online {each['online']}, offline {each['offline']}" for each in shown)
    more = len(example["columns"]) - len(shown)
    online, offline = (example[f"{side}_event_time"] or "none" for side in ("online", "offline"))
    rest = f" and {more} more" if more else ""
    return f"{entity}: {values}{rest} (rows: online {online}, offline {offline})"
