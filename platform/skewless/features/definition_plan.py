"""What registering definitions would change, whom each change reaches, and whether it may be applied.

A change is refused where a bundle that answers somebody reads what would be gone or would mean something else. It is
not refused where a bundle only has the feature in its contract, and neither its transform nor a policy of refusal
looks at it. Words, other data and new features never are.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from skewless.canonical_json import Digest, digest
from skewless.errors import InvalidDefinition
from skewless.features.compiled_registry import CompiledRegistry
from skewless.features.contract import Action as PolicyAction
from skewless.features.contract import FeatureContract, FeatureField, ViewRead, column_name
from skewless.features.contract_changes import Definitions as ContractStanding
from skewless.features.contract_changes import compare_contract
from skewless.features.definition_diff import Action, Change, FieldChange, Impact, Kind, differences
from skewless.features.definition_metadata import DefinitionSet
from skewless.features.feature_checks import Finding, Severity

FORM = 1
"""Version of a saved plan's form."""
ANSWERING = ("live", "canary", "arm", "shadow")
"""Roles whose bundles read features now; `previous` and `fallback` only may have to."""


@dataclass(frozen=True, slots=True)
class Role:
    """What a bundle is to an endpoint: one of `ANSWERING`, `previous` or `fallback`."""

    endpoint: str
    role: str

    def __str__(self) -> str:
        return f"{self.role} of {self.endpoint}"


@dataclass(frozen=True, slots=True)
class BundleReads:
    """What a registered bundle reads. `inputs` are the columns that its transform looks at."""

    digest: Digest
    name: str
    contract: FeatureContract
    inputs: frozenset[str]
    roles: tuple[Role, ...] = ()

    @property
    def is_answering(self) -> bool:
        """Whether it reads features for somebody now."""
        return any(each.role in ANSWERING for each in self.roles)

    @property
    def used(self) -> frozenset[str]:
        """Columns whose values matter: what the transform looks at, also through on-demand views, and what may be
        refused for being absent."""
        used = set(self.inputs)
        for computed in self.contract.on_demand:
            if any(column_name(computed.name, each.name) in used for each in computed.features):
                used |= {column for _, column in computed.inputs}
        used |= {
            column_name(view.name, each.name)
            for view in self.contract.views
            for each in view.features
            if PolicyAction.REJECT in (each.on_missing.action, each.on_stale.action)
        }
        return frozenset(used)


@dataclass(frozen=True, slots=True)
class Touch:
    """A bundle that a change reaches, through these columns; `uses`: of those, the ones whose values matter."""

    bundle: Digest
    name: str
    roles: tuple[Role, ...]
    columns: tuple[str, ...]
    uses: tuple[str, ...]
    is_broken: bool
    """Whether somebody is answered by it, and would be answered with other or no values."""


@dataclass(frozen=True, slots=True)
class PlannedChange:
    """One change and whom it reaches."""

    change: Change
    services: tuple[str, ...]
    touches: tuple[Touch, ...]

    @property
    def is_refused(self) -> bool:
        """Whether it would break a bundle that answers somebody."""
        return any(each.is_broken for each in self.touches)


@dataclass(frozen=True, slots=True)
class ContractMove:
    """A bundle whose contract is the registered one now and would not be any more; `detail` says what differs.

    It goes on as it was built. It could not be promoted anew.
    """

    bundle: Digest
    name: str
    roles: tuple[Role, ...]
    detail: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What would change. `now` and `wanted` are digests of all definitions before and after.

    `source` is the fingerprint of Feast's registry that `now` was read from. `kept` are names that are registered and
    not declared; with `prune` there are none, they are removed.
    """

    project: str
    now: Digest
    wanted: Digest
    source: Digest
    prune: bool
    changes: tuple[PlannedChange, ...]
    moves: tuple[ContractMove, ...] = ()
    kept: tuple[tuple[Kind, str], ...] = ()
    findings: tuple[Finding, ...] = field(default=())

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do."""
        return not self.changes

    @property
    def refused(self) -> tuple[PlannedChange, ...]:
        """Changes that would break somebody's answers."""
        return tuple(each for each in self.changes if each.is_refused)

    @property
    def broken(self) -> frozenset[tuple[Kind, str, str, Role]]:
        """Changes that are refused, by kind and name, each with the name and a role of a bundle that it breaks."""
        return frozenset(
            (each.change.kind, each.change.name, touch.name, role)
            for each in self.refused
            for touch in each.touches
            for role in touch.roles
            if touch.is_broken and role.role in ANSWERING
        )

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Findings for which the definitions are refused, whatever they would change."""
        return tuple(each for each in self.findings if each.severity is Severity.ERROR)

    @property
    def digest(self) -> Digest:
        """SHA-256 of all but the findings: two plans with one digest do the same to the same."""
        data = self.to_json()
        return digest({name: data[name] for name in data if name not in ("digest", "findings")})

    def to_json(self) -> dict[str, Any]:
        """Plain data for `canonical_json.encode`."""
        return {
            "form": FORM,
            "project": self.project,
            "now": self.now,
            "wanted": self.wanted,
            "source": self.source,
            "prune": self.prune,
            "changes": [_change_json(each) for each in self.changes],
            "moves": [
                {"bundle": each.bundle, "name": each.name, "roles": _roles_json(each.roles), "detail": each.detail}
                for each in self.moves
            ],
            "kept": [[kind.value, name] for kind, name in self.kept],
            "findings": [
                {"severity": each.severity.value, "code": each.code, "message": each.message, "hint": each.hint}
                for each in self.findings
            ],
        }

    def saved(self) -> dict[str, Any]:
        """As `to_json`, with the digest by which it is known again."""
        return {**self.to_json(), "digest": self.digest}


@dataclass(frozen=True, slots=True)
class SavedPlan:
    """What a saved plan is known by. Raises InvalidDefinition for data that is none."""

    digest: Digest
    project: str
    prune: bool

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The plan that `Plan.saved` made. Its digest is computed anew, so that an edited plan is none."""
        try:
            known = {name: data[name] for name in data if name not in ("digest", "findings")}
            if data["form"] != FORM:
                raise InvalidDefinition(
                    f"the saved plan has form {data['form']!r}; this version reads {FORM}",
                    hint="make it anew with `skewless plan --out`",
                )
            if digest(known) != data["digest"]:
                raise InvalidDefinition(
                    "the saved plan was changed after it was made: its digest is not that of its content",
                    hint="make it anew with `skewless plan --out`",
                )
            return cls(Digest(data["digest"]), str(data["project"]), bool(data["prune"]))
        except (KeyError, TypeError) as error:
            raise InvalidDefinition(
                f"this is no saved plan: {error!r}", hint="`skewless plan --out FILE` makes one"
            ) from error


def make_plan(
    now: DefinitionSet,
    wanted: DefinitionSet,
    *,
    registered: CompiledRegistry,
    compiled: CompiledRegistry,
    source: Digest,
    bundles: Sequence[BundleReads] = (),
    declared: DefinitionSet | None = None,
    prune: bool = False,
    findings: Sequence[Finding] = (),
) -> Plan:
    """The plan from what is registered (`now`, with its contracts) to what is wanted (with its own).

    `declared` is what the module itself says, where less than `wanted`. Bundles of other projects are left out.
    """
    changes = differences(now, wanted)
    bundles = [each for each in bundles if each.contract.project == wanted.project]
    return Plan(
        project=wanted.project,
        now=now.digest,
        wanted=wanted.digest,
        source=source,
        prune=prune,
        changes=tuple(_planned(each, now, wanted, bundles) for each in changes),
        moves=tuple(_moves(bundles, registered, compiled)),
        kept=tuple(_kept(now, declared)) if declared is not None and not prune else (),
        findings=tuple(findings),
    )


def _planned(
    change: Change, now: DefinitionSet, wanted: DefinitionSet, bundles: Sequence[BundleReads]
) -> PlannedChange:
    views = _views_of(change, now)
    names = {change.name} if change.kind is Kind.ON_DEMAND else views
    services = {
        each.name
        for definitions in (now, wanted)
        for each in definitions.services.values()
        if any(use.view in names for use in each.uses)
    }
    touches = () if change.action is Action.ADD else tuple(_touches(change, views, bundles))
    return PlannedChange(change, tuple(sorted(services)), touches)


def _views_of(change: Change, now: DefinitionSet) -> frozenset[str]:
    """The stored views whose features a change is about."""
    if change.kind is Kind.VIEW:
        return frozenset([change.name])
    if change.kind is Kind.ENTITY:
        return frozenset(each.name for each in now.views.values() if change.name in each.entities)
    if change.kind is Kind.STREAM and change.name in now.streams:
        return frozenset([now.streams[change.name].view])
    return frozenset()


def _touches(change: Change, views: frozenset[str], bundles: Sequence[BundleReads]) -> Iterator[Touch]:
    matters = [each for each in change.fields if each.impact is not Impact.WORDS]
    for bundle in bundles:
        columns = {column: each for each in matters for column in _columns(bundle.contract, change, each, views)}
        if not columns:
            continue
        broken = {
            column
            for each in matters
            if each.impact is Impact.BREAKING
            for column in _columns(bundle.contract, change, each, views)
        }
        used = bundle.used
        yield Touch(
            bundle=bundle.digest,
            name=bundle.name,
            roles=bundle.roles,
            columns=tuple(sorted(columns)),
            uses=tuple(sorted(used & columns.keys())),
            is_broken=bundle.is_answering and not used.isdisjoint(broken),
        )


def _columns(contract: FeatureContract, change: Change, what: FieldChange, views: frozenset[str]) -> Iterator[str]:
    """The columns of a contract that one field's change is about."""
    read: Iterable[tuple[str, Sequence[FeatureField]]]
    if change.kind is Kind.ON_DEMAND:
        read = [(each.name, each.features) for each in contract.on_demand if each.name == change.name]
    else:
        read = [(each.name, each.features) for each in contract.views if each.view in views and not _is_pinned(each)]
    for name, features in read:
        for feature in features:
            if what.feature in ("", feature.name):
                yield column_name(name, feature.name)


def _is_pinned(view: ViewRead) -> bool:
    """Whether it reads an older version of its view, which stays as it is."""
    return view.name.startswith(f"{view.view}@v")


def _moves(
    bundles: Sequence[BundleReads], registered: CompiledRegistry, compiled: CompiledRegistry
) -> Iterator[ContractMove]:
    for bundle in bundles:
        if compare_contract(bundle.contract, registered).definitions is not ContractStanding.CURRENT:
            continue
        after = compare_contract(bundle.contract, compiled)
        if after.definitions is not ContractStanding.CURRENT:
            yield ContractMove(bundle.digest, bundle.name, bundle.roles, after.detail)


def _kept(now: DefinitionSet, declared: DefinitionSet) -> Iterator[tuple[Kind, str]]:
    for change in differences(now, declared):
        if change.action is Action.REMOVE:
            yield change.kind, change.name


def _change_json(planned: PlannedChange) -> dict[str, Any]:
    change = planned.change
    return {
        "action": change.action.value,
        "kind": change.kind.value,
        "name": change.name,
        "impact": change.impact.value,
        "refused": planned.is_refused,
        "fields": [
            {
                "what": each.what,
                "feature": each.feature,
                "before": each.before,
                "after": each.after,
                "impact": each.impact.value,
                "why": each.why,
            }
            for each in change.fields
        ],
        "services": list(planned.services),
        "bundles": [
            {
                "bundle": each.bundle,
                "name": each.name,
                "roles": _roles_json(each.roles),
                "columns": list(each.columns),
                "uses": list(each.uses),
                "broken": each.is_broken,
            }
            for each in planned.touches
        ],
    }


def _roles_json(roles: Sequence[Role]) -> list[dict[str, str]]:
    return [{"endpoint": each.endpoint, "role": each.role} for each in roles]
