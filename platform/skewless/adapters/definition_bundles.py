"""What registered bundles read: contract and transform out of the artifact store, and their roles out of the registry.

Only small documents are read, and nothing is run: a transform with steps from outside the catalogue is looked at too.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from skewless.bundles.bundle import CONTRACT, SERVING, TRANSFORM
from skewless.bundles.bundle_folder import read_files, read_manifest
from skewless.bundles.serving_profile import ServingProfile
from skewless.canonical_json import Digest
from skewless.errors import BundleRefused, NotFound, SkewlessError
from skewless.features.contract import FeatureContract
from skewless.features.definition_plan import ANSWERING, BundleReads, Role
from skewless.features.feature_checks import Finding, Severity
from skewless.ingest_limits import PLAN_BUNDLES_MAX
from skewless.registry.records import BundleRecord
from skewless.rollout.routes import Route
from skewless.transforms.spec import FittedTransform

_SHORT = 12
Open = Callable[[Digest], Path]


@dataclass(frozen=True, slots=True)
class KnownBundles:
    """What could be read, newest first. `findings` name bundles that could not, and answer nobody.

    `roles` is what routes alone say, of every bundle that one names.
    """

    reads: tuple[BundleReads, ...]
    findings: tuple[Finding, ...] = ()
    roles: Mapping[Digest, tuple[Role, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Read:
    """One bundle's own documents."""

    reads: BundleReads
    fallbacks: frozenset[Digest]


def known_bundles(records: Sequence[BundleRecord], routes: Iterable[Route], open_artifact: Open) -> KnownBundles:
    """What every bundle that a route names reads, and the newest of the others, up to PLAN_BUNDLES_MAX.

    Raises what opening raises for a bundle that answers somebody: nothing is known then of what it needs.
    """
    roles = roles_by_bundle(routes)
    routed = [each for each in records if each.digest in roles]
    others = [each for each in records if each.digest not in roles][: max(0, PLAN_BUNDLES_MAX - len(routed))]
    found: list[_Read] = []
    findings: list[Finding] = []
    for record in [*routed, *others]:
        try:
            found.append(_read(record, roles.get(record.digest, ()), open_artifact))
        except SkewlessError as error:
            if any(each.role in ANSWERING for each in roles.get(record.digest, ())):
                raise
            findings.append(_unread(record, error))
    return KnownBundles(tuple(_with_fallbacks(found)), tuple(findings), roles)


def roles_by_bundle(routes: Iterable[Route]) -> dict[Digest, tuple[Role, ...]]:
    """What each bundle that a route names is to its endpoints.

    >>> roles_by_bundle([])
    {}
    """
    roles: dict[Digest, list[Role]] = {}
    for route in routes:
        for role, bundle in _named(route):
            roles.setdefault(bundle, []).append(Role(route.endpoint, role))
    return {bundle: tuple(found) for bundle, found in roles.items()}


def _named(route: Route) -> Iterator[tuple[str, Digest]]:
    yield "live", route.live
    if route.canary is not None:
        yield "canary", route.canary.bundle
    if route.experiment is not None:
        for bundle in dict.fromkeys(arm.bundle for arm in route.experiment.arms):
            if bundle != route.live:
                yield "arm", bundle
    if route.shadow is not None:
        yield "shadow", route.shadow.bundle
    if route.previous is not None:
        yield "previous", route.previous


def _read(record: BundleRecord, roles: tuple[Role, ...], open_artifact: Open) -> _Read:
    folder = open_artifact(record.digest)
    _, manifest = read_manifest(folder, record.digest)
    files = read_files(folder, manifest, [CONTRACT, TRANSFORM, SERVING])
    documents: Mapping[str, dict[str, object]] = {path: json.loads(data) for path, data in files.items()}
    transform = FittedTransform.from_json(documents[TRANSFORM])
    reads = BundleReads(
        digest=record.digest,
        name=record.name,
        contract=FeatureContract.from_json(documents[CONTRACT]),
        inputs=frozenset(each.name for each in transform.graph.inputs),
        roles=roles,
    )
    return _Read(reads, ServingProfile.from_json(documents[SERVING]).fallbacks)


def _with_fallbacks(found: Sequence[_Read]) -> Iterator[BundleReads]:
    """The bundles, those with a role that stand in for one that answers."""
    stands_in: dict[Digest, list[Role]] = {}
    for each in found:
        for bundle in each.fallbacks if each.reads.is_answering else ():
            named = [Role(role.endpoint, "fallback") for role in each.reads.roles if role.role in ANSWERING]
            stands_in.setdefault(bundle, []).extend(named)
    for each in found:
        extra = stands_in.get(each.reads.digest, [])
        roles = tuple(dict.fromkeys([*each.reads.roles, *extra]))
        yield BundleReads(each.reads.digest, each.reads.name, each.reads.contract, each.reads.inputs, roles)


def _unread(record: BundleRecord, error: SkewlessError) -> Finding:
    gone = isinstance(error, NotFound | BundleRefused)
    return Finding(
        Severity.WARNING,
        "bundle_unread",
        f"what bundle {record.digest[:_SHORT]} ({record.name}) reads is not known: {error.message}",
        "retire it with `skewless artifact gc` where nobody needs it" if gone else "look again later",
    )
