"""Plans and applies a repository's definitions: Feast's registry, the registry snapshot and the version in force.

    begin      the version is written down, with the fingerprint of Feast's registry that it starts from
    register   Feast's registry changes, in one transaction that first looks again at all that the plan was made from
    finish     snapshot, version in force and audit event, in one transaction of the registry database

Killed between any two of them, the next `skewless apply` or `skewless features compile` goes on from there.
"""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from skewless.adapters.definition_bundles import KnownBundles, known_bundles, roles_by_bundle
from skewless.adapters.definition_tag_checks import check_tags
from skewless.canonical_json import Digest, digest
from skewless.cli.arguments import actor
from skewless.errors import BundleRefused, Conflict, InvalidDefinition
from skewless.features.compiled_registry import CompiledRegistry
from skewless.features.definition_diff import differences
from skewless.features.definition_metadata import DefinitionSet
from skewless.features.definition_metadata_checks import check_metadata
from skewless.features.definition_plan import Plan, SavedPlan, make_plan
from skewless.features.feature_checks import Finding, Severity, check_definitions
from skewless.registry.definitions import Compiled, Definitions
from skewless.registry.feast_tables import FeastTables
from skewless.registry.snapshot_heads import SnapshotHead
from skewless.settings import Settings
from skewless.stack.feature_store_file import feast_address

if TYPE_CHECKING:
    # Importing Feast takes seconds; it is imported when a repository is opened.
    from skewless.adapters.definition_registration import Proposal
    from skewless.adapters.feast_repository import Applied, FeatureRepository
    from skewless.cli.workspace import Workspace

_NEW_VERSION = (
    "make a new version instead: declare what is changed under a new name beside the old one, train and promote a "
    "bundle that reads it, and remove the old one when no endpoint names a bundle that reads it. "
    "`--allow-breaking` applies it all the same"
)
_NAMED_MAX = 5


@dataclass(frozen=True)
class Prepared:
    """A plan with all that applying it needs; nothing is registered yet."""

    plan: Plan
    proposal: "Proposal"
    repository: "FeatureRepository"
    registered: CompiledRegistry
    bundles: KnownBundles

    def plan_anew(self, bundles: KnownBundles) -> Plan:
        """The plan that these bundles would have made of it."""
        return _plan(self.proposal, self.registered, self.plan.source, bundles, prune=self.plan.prune)


def prepare(workspace: "Workspace", *, prune: bool = False) -> Prepared:
    """The plan from what is registered to what the repository's `features` module declares.

    Raises InvalidDefinition for a module that cannot be registered at all, and Unavailable where the registry, or what
    a bundle that answers somebody reads, cannot be looked at.
    """
    module = workspace.definitions("features")
    with workspace.kept(Definitions, create=True) as versions:
        current = versions.current(feast_address(workspace.settings).project)
    repository = workspace.features(connected=False)
    source = fingerprint(workspace.settings, repository)
    registration = repository.registration
    streams = () if current is None else tuple(current.definitions.streams.values())
    proposal = registration.propose(module, prune=prune, streams=streams)
    bundles, registered = read_bundles(workspace), repository.compiled()
    plan = _plan(proposal, registered, source, bundles, prune=prune)
    return Prepared(plan, proposal, repository, registered, bundles)


def refuse_unless_allowed(plan: Plan, *, allow_breaking: bool) -> None:
    """Raise InvalidDefinition for definitions with errors, BundleRefused for a change that breaks an answer."""
    if plan.errors:
        listed = "\n".join(f"{each.message} ({each.code}). {each.hint}" for each in plan.errors)
        raise InvalidDefinition(
            f"the definitions are refused, {len(plan.errors)} of them wrong:\n{listed}",
            hint="correct them in the repository; nothing was registered",
        )
    if plan.refused and not allow_breaking:
        told = [f"{each.change.kind} `{each.change.name}`" for each in plan.refused[:_NAMED_MAX]]
        broken = {touch.name: touch for each in plan.refused for touch in each.touches if touch.is_broken}
        answers = ", ".join(f"`{name}` ({', '.join(map(str, touch.roles))})" for name, touch in sorted(broken.items()))
        raise BundleRefused(
            f"{', '.join(told)} would break {answers}: what is read would be gone or mean something else",
            hint=_NEW_VERSION,
        )


def refuse_other_plan(saved: SavedPlan, plan: Plan) -> None:
    """Raise Conflict unless the saved plan is the one that would be made now."""
    if saved.digest != plan.digest:
        raise Conflict(
            f"the saved plan ({saved.digest[:12]}) is not what applying would do now ({plan.digest[:12]}): the "
            "repository, what is registered, or an endpoint's bundles changed since",
            hint="look at `skewless plan` again, and save it with --out",
        )


def apply_prepared(workspace: "Workspace", prepared: Prepared, *, reason: str) -> "Applied":
    """Register a plan's definitions and put them in force. Nothing, or all of it, also where the process is killed.

    Raises Conflict, with nothing registered, where what is registered changed since the plan was made, or a bundle
    that answers somebody since then would be broken.
    """
    from skewless.adapters.feast_repository import applied

    repository, proposal, plan = prepared.repository, prepared.proposal, prepared.plan
    with workspace.kept(Definitions, create=True) as versions:
        number = versions.begin(
            proposal.wanted, plan=plan.to_json(), before=plan.source, actor=actor(), reason=reason or "apply"
        )
        try:
            repository.registration.register(
                proposal, check=lambda: refuse_outdated(workspace, versions, prepared, number)
            )
        except (Conflict, InvalidDefinition):
            versions.abandon(number)
            raise
        _finish(workspace.settings, versions, repository, number, proposal.wanted, reason=reason or "apply")
    return applied(proposal)


def refuse_outdated(workspace: "Workspace", versions: Definitions, prepared: Prepared, number: int) -> None:
    """Raise Conflict where the plan of a begun version was made from what is not so any more.

    Looked at while nobody else can register. Streams are in force and not in Feast's registry, so that its fingerprint
    does not tell of them; of two applies that have only begun, the one that began earlier goes on.
    """
    project = prepared.repository.project
    if fingerprint(workspace.settings, prepared.repository) != prepared.plan.source:
        raise _outdated("somebody else registered definitions since the plan was made")
    begun = versions.unfinished(project)
    if number not in {each.number for each in begun}:
        raise _outdated("a command that began later took this one for cut off")
    earlier = [each for each in begun if each.number < number]
    if earlier:
        raise _outdated(f"version {earlier[0].number}, begun by {earlier[0].actor}, is being applied, or was cut off")
    current = versions.current(project)
    if ({} if current is None else current.definitions.streams) != prepared.proposal.now.streams:
        raise _outdated("somebody else put other streams in force since the plan was made")
    with workspace.registry() as registry:
        roles = roles_by_bundle(registry.routes().routes)
    if roles == prepared.bundles.roles:
        return
    broken = prepared.plan_anew(read_bundles(workspace)).broken - prepared.plan.broken
    if broken:
        kind, name, bundle, role = min(broken, key=str)
        raise _outdated(f"{kind} `{name}` would now break `{bundle}` ({role}), which the plan does not say")


def finish_cut_off(workspace: "Workspace") -> tuple[str, ...]:
    """Finish or abandon what killed commands left behind; a sentence for each."""
    settings = workspace.settings
    with workspace.kept(Definitions, create=True) as versions:
        left = versions.unfinished(feast_address(settings).project)
        if not left:
            return ()
        repository = workspace.features(connected=False)
        now = fingerprint(settings, repository)
        told = []
        for head in left:
            whose = f"version {head.number} of the definitions, begun by {head.actor}, was cut off"
            if head.before == now:
                versions.abandon(head.number)
                told.append(f"{whose} before anything was registered; it is abandoned")
            else:
                wanted = versions.version(head.number).definitions
                _finish(settings, versions, repository, head.number, wanted, reason=head.reason)
                told.append(f"{whose} after it was registered; it is finished now")
        return tuple(told)


def compile_registered(
    versions: Definitions, repository: "FeatureRepository", source: Digest, *, reason: str
) -> tuple[SnapshotHead, Compiled]:
    """Put in force what is registered with Feast now, whoever registered it.

    Raises InvalidDefinition for errors, and Conflict where somebody applied definitions meanwhile.
    """
    cut_off = [each for each in versions.unfinished(repository.project) if each.before != source]
    if cut_off:
        number = cut_off[-1].number
        compiled = _compiled(repository, source, versions.version(number).definitions)
        _refuse_errors(compiled.findings)
        return versions.finish(number, compiled, actor=actor(), reason=reason), compiled
    current = versions.current(repository.project)
    before = DefinitionSet(repository.project) if current is None else current.definitions
    compiled = _compiled(repository, source, before)
    _refuse_errors(compiled.findings)
    changed = [
        {"action": each.action.value, "kind": each.kind.value, "name": each.name, "impact": each.impact.value}
        for each in differences(before, compiled.definitions)
    ]
    plan: Mapping[str, Any] = {"changes": changed}
    after = 0 if current is None else current.number
    return versions.follow(compiled, plan=plan, after=after, actor=actor(), reason=reason), compiled


def read_bundles(workspace: "Workspace") -> KnownBundles:
    """What registered bundles read, with their roles; nothing where there is no registry database yet."""
    with workspace.registry(create=True) as registry:
        records, routes = registry.bundles(), registry.routes().routes
    return known_bundles(records, routes, workspace.artifacts.open)


def registered_findings(repository: "FeatureRepository") -> list[Finding]:
    """Everything that is wrong with what is registered now."""
    found = check_definitions(repository.definitions(), repository.projects())
    definitions = repository.registration.definitions()
    return [*found, *check_metadata(definitions), *check_tags(definitions)]


def fingerprint(settings: Settings, repository: "FeatureRepository") -> Digest:
    """Of the definitions that are registered with Feast, also where there are none yet."""
    address = feast_address(settings)
    if address.sql_url is None:
        return repository.registration.definitions().digest
    with closing(FeastTables(address.sql_url)) as feast:
        return feast.fingerprint(address.project) or digest(None)


def _plan(
    proposal: "Proposal", registered: CompiledRegistry, source: Digest, bundles: KnownBundles, *, prune: bool
) -> Plan:
    return make_plan(
        proposal.now,
        proposal.wanted,
        registered=registered,
        compiled=proposal.contracts,
        source=source,
        bundles=bundles.reads,
        declared=proposal.declared,
        prune=prune,
        findings=[*proposal.findings, *bundles.findings],
    )


def _outdated(why: str) -> Conflict:
    return Conflict(f"{why}; nothing was registered", hint="look at `skewless plan` again")


def _finish(
    settings: Settings,
    versions: Definitions,
    repository: "FeatureRepository",
    number: int,
    wanted: DefinitionSet,
    *,
    reason: str,
) -> None:
    source = fingerprint(settings, repository)  # before all is read: what changes meanwhile then differs from it
    versions.finish(number, _compiled(repository, source, wanted), actor=actor(), reason=reason)


def _compiled(repository: "FeatureRepository", source: Digest, known: DefinitionSet) -> Compiled:
    """What follows from what is registered; streams are not Feast's, and are as they are known."""
    return Compiled(
        definitions=repository.registration.definitions(tuple(known.streams.values())),
        registry=repository.compiled(),
        findings=tuple(registered_findings(repository)),
        source=source,
    )


def _refuse_errors(findings: Any) -> None:
    errors = [finding for finding in findings if finding.severity is Severity.ERROR]
    if errors:
        listed = "\n".join(f"{finding.message} ({finding.code}). {finding.hint}" for finding in errors)
        raise InvalidDefinition(
            f"{len(errors)} registered definitions are wrong:\n{listed}",
            hint="correct them and run `skewless apply`; the last good registry snapshot stays",
        )
