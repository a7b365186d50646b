"""What is wrong with owners, units, ranges and other tags of definitions: pure functions over plain data."""

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence

from skewless.dtypes import NUMERIC
from skewless.errors import InvalidDefinition
from skewless.features.definition_metadata import (
    FRESHNESS,
    PERSONAL,
    RANGE,
    SCHEDULE,
    UNIT,
    DefinitionSet,
    FeatureMetadata,
    OnDemandMetadata,
    read_duration,
    read_flag,
    read_range,
)
from skewless.features.feature_checks import Finding, Severity

_DURATION = "a whole number above 0 and `s`, `m`, `h` or `d`, such as `2h`"
_FLAG = "`true` or `false`"
_OWN_PREFIX = "skewless."
_CLOSE = 0.8
"""How alike a tag must be to a known one to be taken for a slip of it: `freshnes` is, `fresh_fruit` is not."""

Reads = Callable[[str], object]
"""Reads a tag's text; None where it means nothing."""


def _text(text: str) -> str | None:
    return text.strip() or None


VIEW_TAGS: Mapping[str, tuple[Reads, str]] = {
    FRESHNESS: (read_duration, _DURATION),
    SCHEDULE: (_text, "five fields of cron, in UTC, such as `5 * * * *`"),
    "late": (_text, "what is to happen to late rows, such as `7d:quarantine`"),
    "future": (_text, "what is to happen to rows of the future, such as `5m:refuse`"),
}
"""Tags of a feature view that mean something: how each is read, and what is allowed. Where only the text is looked at,
its own reader has the last word, see `adapters/definition_tag_checks.py`."""
FIELD_TAGS: Mapping[str, tuple[Reads, str]] = {
    UNIT: (_text, "the unit as text, such as `km/h`"),
    RANGE: (read_range, "two numbers, or one, with `..` between them, the smaller first, such as `0..100` or `0..`"),
    PERSONAL: (read_flag, _FLAG),
}
ENTITY_TAGS: Mapping[str, tuple[Reads, str]] = {PERSONAL: (read_flag, _FLAG)}
KNOWN_OF_OURS = ("skewless.log", "skewless.near_cache", "skewless.function", "skewless.source_digest")
"""Tags whose own readers refuse what is wrong with them."""
_LOG_OF_FEATURE = "skewless.log."
_SAID_OTHERWISE = ("owner", "description")
"""What Feast has an argument for: as a tag it is read by nobody."""


def check_metadata(definitions: DefinitionSet) -> list[Finding]:
    """Everything wrong with what is said about definitions; errors come first.

    >>> check_metadata(DefinitionSet("prod"))
    []
    """
    findings: list[Finding] = []
    for entity in definitions.entities.values():
        findings += _tags(f"entity `{entity.name}`", entity.tags, ENTITY_TAGS)
    for view in definitions.views.values():
        findings += _tags(f"feature view `{view.name}`", view.tags, VIEW_TAGS)
        for feature in view.features:
            where = f"feature `{view.name}:{feature.name}`"
            findings += [*_tags(where, feature.tags, FIELD_TAGS), *_range_of_text(where, feature)]
        findings += _misplaced(f"feature view `{view.name}`", view.tags)
        if view.freshness_us is not None and 0 < view.ttl_us < view.freshness_us:
            findings.append(_never_fresh(view.name))
    for computed in definitions.on_demand.values():
        findings += _tags(f"on-demand view `{computed.name}`", computed.tags, {})
        findings += _made_of_personal(computed, definitions)
    for service in definitions.services.values():
        findings += _tags(f"feature service `{service.name}`", service.tags, {})
    findings += _streams(definitions)
    return sorted(findings, key=lambda finding: finding.severity is not Severity.ERROR)


def _tags(where: str, tags: Mapping[str, str], known: Mapping[str, tuple[Reads, str]]) -> Iterator[Finding]:
    for name, text in tags.items():
        if name in known:
            read, allowed = known[name]
            if read(text) is None:
                yield Finding(Severity.ERROR, "bad_tag", f"{where} has the tag {name}={text!r}", f"allowed: {allowed}")
        else:
            yield from _unknown(where, name, sorted(known))


def _unknown(where: str, name: str, known: Sequence[str]) -> Iterator[Finding]:
    """A tag that nobody reads, where it looks as if somebody was meant to."""
    if name in _SAID_OTHERWISE:
        yield Finding(
            Severity.WARNING,
            "unread_tag",
            f"{where} has a tag `{name}`, which nobody reads",
            f"give it as `{name}=…`, to the feature view where it is of a feature",
        )
        return
    if name in KNOWN_OF_OURS or name.startswith(_LOG_OF_FEATURE):
        return
    looked_for = [*known, *KNOWN_OF_OURS] if name.startswith(_OWN_PREFIX) else known
    close = difflib.get_close_matches(name.lower(), looked_for, n=1, cutoff=_CLOSE)
    if close or name.startswith(_OWN_PREFIX):
        told = f"did you mean `{close[0]}`?" if close else f"allowed: {', '.join(looked_for)}"
        yield Finding(Severity.WARNING, "unknown_tag", f"{where} has a tag `{name}`, which nobody reads", told)


def _misplaced(where: str, tags: Mapping[str, str]) -> Iterator[Finding]:
    """Tags of fields that stand at their view, where they would say something of all of them or of none."""
    for name in sorted(FIELD_TAGS.keys() & tags.keys()):
        yield Finding(
            Severity.ERROR if name == PERSONAL else Severity.WARNING,
            "misplaced_tag",
            f"{where} has the tag `{name}`, which is read of its fields only",
            f'give it to the fields: Field(…, tags={{"{name}": …}})',
        )


def _range_of_text(where: str, feature: FeatureMetadata) -> Iterator[Finding]:
    if RANGE not in feature.tags:
        return
    try:
        numeric = feature.dtype in NUMERIC
    except InvalidDefinition:
        return  # an undeclared or unreadable type is a finding of its own
    if not numeric:
        yield Finding(
            Severity.ERROR,
            "bad_tag",
            f"{where} is `{feature.feast_type}` and has the tag {RANGE}={feature.tags[RANGE]!r}",
            "ranges are of numbers; leave it out, or expect a set of values in the view's quality suite",
        )


def _made_of_personal(computed: OnDemandMetadata, definitions: DefinitionSet) -> Iterator[Finding]:
    """What is computed from a person's data is as personal, and Feast takes no tags on its fields."""
    read = [definitions.views[name] for name in computed.inputs if name in definitions.views]
    personal = sorted(f"{view.name}:{each.name}" for view in read for each in view.features if each.is_personal)
    unmarked = [each.name for each in computed.features if f"{_LOG_OF_FEATURE}{each.name}" not in computed.tags]
    if personal and unmarked:
        tag = f"{_LOG_OF_FEATURE}{unmarked[0]}"
        yield Finding(
            Severity.WARNING,
            "unmarked_personal",
            f"on-demand view `{computed.name}` can read {', '.join(personal)}, which is personal, "
            f"and the prediction log keeps its own `{unmarked[0]}` as it is",
            f'tag the view with {{"{tag}": "hash"}}, or with "keep" where it says nothing of a person',
        )


def _never_fresh(view: str) -> Finding:
    return Finding(
        Severity.WARNING,
        "freshness_beyond_ttl",
        f"feature view `{view}` may be older than its ttl before it counts as not fresh: rows are stale before anybody "
        "is told",
        "give it a freshness below its ttl",
    )


def _streams(definitions: DefinitionSet) -> Iterator[Finding]:
    for stream in definitions.streams.values():
        if stream.view not in definitions.views:
            yield Finding(
                Severity.ERROR,
                "unknown_view",
                f"stream `{stream.name}` feeds feature view `{stream.view}`, which is not declared",
                f"declare it, or name one of: {', '.join(sorted(definitions.views)) or 'none'}",
            )
