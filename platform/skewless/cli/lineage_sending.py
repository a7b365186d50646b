"""Tells a catalogue of lineage what has happened since it was told last; commands do so when they are done.

Changes come out of the audit trail and the runs of materialization, so that nothing is lost while the catalogue is
away, and also what other commands and processes did is told by the next one.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from skewless.adapters.definition_bundles import KnownBundles
from skewless.adapters.openlineage_client import LineageReceiver
from skewless.canonical_json import Digest
from skewless.cli.definition_apply import read_bundles
from skewless.cli.output import say
from skewless.cli.workspace import Workspace
from skewless.errors import InvalidSettings, SkewlessError
from skewless.features.definition_metadata import DefinitionSet
from skewless.features.lineage_events import (
    Event,
    bundle_event,
    declared_events,
    endpoint_event,
    materialization_events,
    removed_event,
)
from skewless.ingest_limits import LINEAGE_EVENTS_MAX, LINEAGE_SEND_S
from skewless.registry.definitions import Definitions
from skewless.registry.lineage_events import LineagePosition, LineagePositions
from skewless.registry.records import AuditEvent
from skewless.rollout.routes import Route
from skewless.settings import Settings, load_settings
from skewless.stack.feature_store_file import feast_address


@dataclass(frozen=True, slots=True)
class Told:
    """One event, and how far the receiver has been told once it took it."""

    event: Event
    position: LineagePosition


def send_pending(workspace: Workspace, *, within_s: float = LINEAGE_SEND_S) -> int:
    """Send what the configured receiver has not been told, oldest first; how many events it took.

    Sends LINEAGE_EVENTS_MAX at most. Raises InvalidSettings where no receiver is configured, and Unavailable where it
    does not take an event; what it took before stays told.
    """
    url = workspace.settings.openlineage_url
    if url is None:
        raise InvalidSettings(
            "no receiver of lineage is configured", hint="set SKEWLESS_OPENLINEAGE_URL to the URL events are posted to"
        )
    receiver = LineageReceiver(url)
    key = hashlib.sha256(receiver.address.encode()).hexdigest()
    with workspace.kept(LineagePositions, create=True) as positions:
        before = positions.position(key)
        pending, end = _pending(workspace, positions, before)
        now = pending[:LINEAGE_EVENTS_MAX]
        last, count = before, 0
        try:
            for count in receiver.send([each.event for each in now], within_s=within_s):
                last = now[count - 1].position
            if len(now) == len(pending):
                last = end  # also past what there is nothing to tell of
        finally:
            if last != before:
                positions.told(key, last)
    return count


def send_afterwards() -> None:
    """As `send_pending`, after a command that is done: what goes wrong is told in a line, and changes nothing."""
    try:
        send_pending(Workspace(load_settings(Settings)))
    except SkewlessError as error:
        say(f"lineage was not sent, and will be by a later command: {error.message}")


def current_events(definitions: DefinitionSet, bundles: KnownBundles, time: int) -> Iterator[Event]:
    """What is declared and served at a moment (µs), as events that stand for no run."""
    yield from declared_events(definitions, sorted(definitions.views), time)
    endpoints: dict[str, dict[Digest, str]] = {}
    for bundle in bundles.reads:
        for role in bundle.roles:
            endpoints.setdefault(role.endpoint, {})[bundle.digest] = bundle.name
    for endpoint, named in sorted(endpoints.items()):
        yield endpoint_event(definitions.project, endpoint, named, time)


def _pending(
    workspace: Workspace, positions: LineagePositions, before: LineagePosition
) -> tuple[list[Told], LineagePosition]:
    """What is to be told, and the position behind all that was looked at."""
    project = feast_address(workspace.settings).project
    with workspace.kept(Definitions, create=True) as versions:
        current = versions.current(project)
    definitions = DefinitionSet(project) if current is None else current.definitions
    with workspace.registry(create=True) as registry:
        trail = registry.audit(after=before.audit, limit=LINEAGE_EVENTS_MAX)
        names = {each.digest: each.name for each in registry.bundles(include_retired=True)}
    bundles = _bundles_for(workspace, trail)
    told: list[Told] = []
    position = before
    for change in trail:
        after = replace(position, audit=change.number)
        told += _steps(_events_of(change, definitions, bundles, names), position, after)
        position = after
    for run in positions.ended_runs(after=before.run_ended_time, limit=LINEAGE_EVENTS_MAX):
        after = replace(position, run_ended_time=run.ended_time)
        told += _steps(materialization_events(definitions, run), position, after)
        position = after
    return told, position


def _steps(events: Iterable[Event], before: LineagePosition, after: LineagePosition) -> Iterator[Told]:
    """Events of one change, which is told once the last of them is: one that is told in part is told again."""
    listed = list(events)
    return (Told(event, after if number == len(listed) else before) for number, event in enumerate(listed, start=1))


def _bundles_for(workspace: Workspace, trail: tuple[AuditEvent, ...]) -> KnownBundles:
    """What registered bundles read, where one was registered: reading them takes milliseconds each."""
    if any(each.subject.startswith("bundle/") and each.action == "register" for each in trail):
        return read_bundles(workspace)
    return KnownBundles(())


def _events_of(
    change: AuditEvent, definitions: DefinitionSet, bundles: KnownBundles, names: dict[Digest, str]
) -> Iterator[Event]:
    """The events of one change; none for what has no lineage, or is gone by now."""
    kind, _, name = change.subject.partition("/")
    project = definitions.project
    if kind == "definitions" and name == project:
        views = [each["name"] for each in change.detail["changes"] if each["kind"] == "feature view"]
        yield from declared_events(definitions, [each for each in views if each in definitions.views], change.time)
        yield from (removed_event(project, each, change.time) for each in views if each not in definitions.views)
    elif kind == "bundle" and change.action == "register":
        found = [each for each in bundles.reads if each.digest == name and each.contract.project == project]
        yield from (bundle_event(project, each, change.number, change.time) for each in found)
    elif kind == "endpoint" and change.detail.get("after"):
        route = Route.from_json(change.detail["after"])
        named = {digest: names[digest] for digest in sorted(route.bundles()) if digest in names}
        yield endpoint_event(project, name, named, change.time)
