"""Deletions of entities for a reader: what would go, receipts, and lists of them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from skewless.adapters.entity_erasure import Looked, Unreached
from skewless.registry.entity_deletions import DeletionRecord


def looked_json(looked: Looked, not_reached: Sequence[Unreached]) -> dict[str, Any]:
    """What a dry run found, as plain data."""
    return {
        "rows": looked.count,
        "places": {place: dict(rows) for place, rows in looked.rows.items()},
        "problems": dict(looked.failures),
        "not_reached": [each.to_json() for each in not_reached],
    }


def looked_lines(looked: Looked, not_reached: Sequence[Unreached]) -> Iterator[str]:
    """What a dry run found."""
    for place, rows in looked.rows.items():
        told = ", ".join(f"{name} {count:,}" for name, count in rows.items() if name != place)
        yield f"{sum(rows.values()):>8,}  {place}{f' ({told})' if told else ''}"
    for place, problem in looked.failures.items():
        yield f"{'?':>8}  {place}: {problem}"
    yield from _unreached_lines([each.to_json() for each in not_reached])


def receipt_lines(record: DeletionRecord) -> Iterator[str]:
    """A deletion with its receipt, where it has one."""
    told = record.to_json()
    yield f"deletion {record.id}: {record.state.value}"
    yield f"of       {', '.join(told['keys'])}, known until {told['before']}{', for ever' if record.for_ever else ''}"
    yield f"views    {'all' if told['views'] is None else ', '.join(told['views'])}"
    yield f"by       {told['actor']} at {told['requested_time']}{f': {record.reason}' if record.reason else ''}"
    if record.lifted_time is not None:
        yield f"lifted   {told['lifted_time']}"
    if record.receipt is None:
        yield "not finished; run the same command again, and it goes on"
        return
    for place in record.receipt["places"]:
        left = f", {place['left']:,} left" if place["left"] else ""
        yield f"{place['found']:>8,}  {place['place']}{left}{_problem(place)}"
    for files in record.receipt["cleaned"]:
        yield f"{'':>8}  {files['files']}{_problem(files) or ' written anew'}"
    for writer in record.receipt["not_waiting"]:
        yield f"{'':>8}  written meanwhile: {writer}"
    yield from _unreached_lines(record.receipt["not_reached"])
    yield f"digest   {record.receipt['digest']}"


def list_lines(records: Sequence[DeletionRecord]) -> Iterator[str]:
    """One line per deletion."""
    for each in records:
        told = each.to_json()
        rows = f"{told['rows']:,} rows"
        keys = ", ".join(told["keys"])
        yield f"{each.id}  {told['requested_time'][:19]}  {each.state.value:<6}  {rows:>12}  {keys}  {told['actor']}"


def _unreached_lines(places: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield "not reached:"
    for each in places:
        found = "" if each["found"] is None else f" [{each['found']:,} found]"
        yield f"  {each['place']}{found}: {each['why']}"
        yield f"    {each['hint']}"


def _problem(told: Mapping[str, Any]) -> str:
    return f": {told['problem']}" if told["problem"] else ""
