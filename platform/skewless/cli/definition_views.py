"""Definitions for a terminal: tables of services, views and features, and one of them in full."""

import sys
from collections.abc import Iterator, Sequence

from skewless.cli.plan_views import terminal_width
from skewless.features.compiled_registry import CompiledRegistry
from skewless.features.contract import FeatureContract
from skewless.features.definition_metadata import (
    FRESHNESS,
    DefinitionSet,
    EntityMetadata,
    FeatureMetadata,
    OnDemandMetadata,
    StreamMetadata,
    ViewMetadata,
)
from skewless.registry.definitions import DefinitionHead
from skewless.registry.snapshots import FeatureSnapshot
from skewless.timestamps import DAY_US, HOUR_US, MINUTE_US, SECOND_US, format_timestamp

_SHORT = 12
_ELLIPSIS = "…"
_LAST_MIN = 20
"""Characters that the last column keeps however narrow the terminal is."""
Rows = list[tuple[str, ...]]


def aligned(rows: Sequence[tuple[str, ...]], *, width: int | None = None) -> str:
    """Rows of cells as one text, each column as wide as its widest cell.

    The last one is cut at the terminal's edge, or after `width` characters; nothing is cut for a file or a pipe.
    """
    if not rows:
        return ""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    edge = width or (terminal_width() if sys.stdout.isatty() else sys.maxsize)
    room = max(_LAST_MIN, edge - sum(widths[:-1]) - 2 * (len(widths) - 1))
    lines = []
    for row in rows:
        *first, last = row
        cells = [cell.ljust(each) for cell, each in zip(first, widths, strict=False)]
        lines.append("  ".join([*cells, last if len(last) <= room else f"{last[: room - 1]}{_ELLIPSIS}"]).rstrip())
    return "\n".join(lines)


def service_rows(registry: CompiledRegistry) -> Rows:
    """Feature services: what each reads and what it asks callers for."""
    rows: Rows = [("service", "views", "features", "join keys", "request fields")]
    for name, contract in sorted(registry.contracts.items()):
        rows.append((name, *_counts(contract), *_asked(contract)))
    return rows


def view_rows(definitions: DefinitionSet) -> Rows:
    """Feature views with what is declared about each."""
    rows: Rows = [("view", "keys", "features", "ttl", "fresh within", "owner", "description")]
    for view in sorted(definitions.views.values(), key=lambda each: each.name):
        keys = ", ".join(name for name, _ in view.join_keys) or "-"
        ttl = duration(view.ttl_us) if view.ttl_us else "-"
        fresh = view.tags.get(FRESHNESS, "-")
        rows.append((view.name, keys, str(len(view.features)), ttl, fresh, view.owner or "-", view.description))
    for computed in sorted(definitions.on_demand.values(), key=lambda each: each.name):
        owner = computed.owner or "-"
        rows.append((computed.name, "on demand", str(len(computed.features)), "-", "-", owner, computed.description))
    return rows


def feature_rows(definitions: DefinitionSet) -> Rows:
    """Every feature with its type, unit, range, and whether it is personal."""
    rows: Rows = [("feature", "type", "unit", "range", "personal", "description")]
    for name, features in _all_features(definitions):
        rows += [(f"{name}:{each.name}", *_feature_cells(each)) for each in features]
    return rows


def entity_rows(definitions: DefinitionSet) -> Rows:
    """Entities with their keys."""
    rows: Rows = [("entity", "join key", "type", "personal", "owner", "description")]
    for each in sorted(definitions.entities.values(), key=lambda each: each.name):
        personal = "yes" if each.is_personal else "-"
        rows.append((each.name, each.join_key, each.feast_type, personal, each.owner or "-", each.description))
    return rows


def version_rows(versions: Sequence[DefinitionHead]) -> Rows:
    """Versions of definitions, as given."""
    rows: Rows = [("version", "state", "time", "digest", "by", "reason")]
    for each in versions:
        time = format_timestamp(each.applied_time or each.started_time)
        rows.append((str(each.number), each.state.value, time, each.digest[:_SHORT], each.actor, each.reason or "-"))
    return rows


def contract_lines(contract: FeatureContract) -> Iterator[str]:
    """What a feature service reads: views with their keys and ttl, and every feature's dtype."""
    for view in contract.views:
        keys = ", ".join(f"{key.name} {key.dtype}" for key in view.join_keys) or "no entity"
        ttl = f"ttl {view.ttl_us / SECOND_US:g} s" if view.ttl_us else "no ttl"
        yield f"{view.name} [{keys}], {ttl}"
        yield aligned([(f"  {feature.name}", str(feature.dtype)) for feature in view.features])
    for computed in contract.on_demand:
        yield f"{computed.name}, on demand: {computed.function} of {', '.join(each for _, each in computed.inputs)}"
        yield aligned([(f"  {feature.name}", str(feature.dtype)) for feature in computed.features])
    if contract.request_fields:
        yield "request fields"
        yield aligned([(f"  {field.name}", str(field.dtype)) for field in contract.request_fields])


def view_lines(view: ViewMetadata, definitions: DefinitionSet) -> Iterator[str]:
    """A feature view in full."""
    facts = [("view", view.name), ("description", view.description), ("owner", view.owner)]
    facts.append(("keys", ", ".join(f"{name} {kind}" for name, kind in view.join_keys) or "no entity"))
    facts += [("entities", ", ".join(view.entities)), ("ttl", duration(view.ttl_us) if view.ttl_us else "unlimited")]
    facts += [("fresh within", view.tags.get(FRESHNESS, "")), ("schedule", view.schedule or "")]
    if view.source is not None:
        source = view.source
        facts += [("source", f"{source.name} ({source.kind}{f', {source.format}' if source.format else ''})")]
        facts += [("path", source.path), ("event time", source.event_time), ("created time", source.created_time)]
    fed = [each.name for each in definitions.streams.values() if each.view == view.name]
    facts += [("fed by stream", ", ".join(fed)), *_other_tags(view)]
    yield from _facts(facts)
    yield ""
    rows: Rows = [("feature", "type", "unit", "range", "personal", "description")]
    yield aligned([*rows, *((each.name, *_feature_cells(each)) for each in view.features)])


def on_demand_lines(view: OnDemandMetadata) -> Iterator[str]:
    """An on-demand view in full."""
    yield from _facts(
        [
            ("on-demand view", view.name),
            ("description", view.description),
            ("owner", view.owner),
            ("function", view.function),
            ("mode", view.mode),
            ("reads", ", ".join(view.inputs)),
            ("request fields", ", ".join(f"{name} {kind}" for name, kind in view.request_fields)),
        ]
    )
    yield ""
    yield aligned([("feature", "type", "description"), *((e.name, e.feast_type, e.description) for e in view.features)])


def feature_lines(view: ViewMetadata | OnDemandMetadata, feature: FeatureMetadata) -> Iterator[str]:
    """A feature in full."""
    yield from _facts(
        [
            ("feature", f"{view.name}:{feature.name}"),
            ("description", feature.description),
            ("type", feature.feast_type),
            ("unit", feature.unit),
            ("range", str(feature.range or "")),
            ("personal", "yes" if feature.is_personal else "no"),
            ("owner", view.owner),
            *((name, text) for name, text in sorted(feature.tags.items()) if name not in ("unit", "range", "personal")),
        ]
    )


def entity_lines(entity: EntityMetadata) -> Iterator[str]:
    """An entity in full."""
    yield from _facts(
        [
            ("entity", entity.name),
            ("description", entity.description),
            ("owner", entity.owner),
            ("join key", f"{entity.join_key} {entity.feast_type}"),
            ("personal", "yes" if entity.is_personal else "no"),
        ]
    )


def stream_lines(stream: StreamMetadata) -> Iterator[str]:
    """A stream in full."""
    facts = [("stream", stream.name), ("description", stream.description), ("owner", stream.owner)]
    facts.append(("feeds view", stream.view))
    known = ("name", "view", "description", "owner")
    facts += [(name, str(value)) for name, value in sorted(stream.declaration.items()) if name not in known]
    yield from _facts(facts)


def head_text(snapshot: FeatureSnapshot) -> str:
    """Which snapshot it is, in words."""
    head = snapshot.head
    return (
        f"project {head.project}, snapshot {head.version} of {format_timestamp(head.compiled_at)}, "
        f"last compared with Feast's registry at {format_timestamp(head.checked_at)}"
    )


def duration(span_us: int) -> str:
    """A span of time in the largest unit that divides it.

    >>> duration(7_200_000_000), duration(90_000_000)
    ('2 h', '90 s')
    """
    for unit, unit_us in (("d", DAY_US), ("h", HOUR_US), ("min", MINUTE_US)):
        if span_us % unit_us == 0:
            return f"{span_us // unit_us} {unit}"
    return f"{span_us / SECOND_US:g} s"


def _all_features(definitions: DefinitionSet) -> Iterator[tuple[str, Sequence[FeatureMetadata]]]:
    for view in sorted(definitions.views.values(), key=lambda each: each.name):
        yield view.name, view.features
    for computed in sorted(definitions.on_demand.values(), key=lambda each: each.name):
        yield computed.name, computed.features


def _feature_cells(feature: FeatureMetadata) -> tuple[str, str, str, str, str]:
    personal = "yes" if feature.is_personal else "-"
    return feature.feast_type, feature.unit or "-", str(feature.range or "-"), personal, feature.description


def _other_tags(view: ViewMetadata) -> list[tuple[str, str]]:
    return [(name, text) for name, text in sorted(view.tags.items()) if name not in (FRESHNESS, "schedule")]


def _facts(facts: Sequence[tuple[str, str]]) -> Iterator[str]:
    """A line per fact that is known."""
    known = [(name, text) for name, text in facts if text]
    width = max(len(name) for name, _ in known)
    return (f"{name.ljust(width)}  {text}" for name, text in known)


def _counts(contract: FeatureContract) -> tuple[str, str]:
    """How many views and features a contract reads."""
    features = [view.features for view in contract.views] + [view.features for view in contract.on_demand]
    return str(len(features)), str(sum(map(len, features)))


def _asked(contract: FeatureContract) -> tuple[str, str]:
    """What a caller gives: join keys and request fields."""
    keys, fields = (key.name for key in contract.join_keys), (field.name for field in contract.request_fields)
    return ", ".join(keys) or "-", ", ".join(fields) or "-"
