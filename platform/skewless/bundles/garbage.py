"""Which kept bundles nobody needs any more, and removing them without ever taking one that somebody needs.

A bundle is put before it is registered, and registered before a route names it. So what is referenced is read first,
and whatever was put within the grace age before that is left alone: it may be on its way. Stores look at the put time
once more at the moment of removal, so that a put in between keeps its bundle.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from skewless.bundles.artifact_store import Artifact, ArtifactStore, Inventory, Leftover
from skewless.canonical_json import Digest
from skewless.errors import InvalidDefinition
from skewless.limits import ARTIFACT_GRACE_S_MIN
from skewless.timestamps import SECOND_US, Micros


@dataclass(frozen=True, slots=True)
class GarbagePlan:
    """What may be removed. `missing` are bundles that are referenced but not kept: something has lost them."""

    artifacts: tuple[Artifact, ...]
    leftovers: tuple[Leftover, ...]
    referenced: int
    """Kept artifacts that something refers to."""
    young: int
    """Artifacts and leftovers that nobody refers to but that were put, or written to, too recently."""
    missing: tuple[Digest, ...]

    @property
    def bytes_freed(self) -> int:
        """Bytes of all that may be removed."""
        return _size_bytes(self.artifacts, self.leftovers)


@dataclass(frozen=True, slots=True)
class GarbageReport:
    """What was removed under a plan. `spared` are wanted again since, or were removed by someone else."""

    plan: GarbagePlan
    removed: tuple[Digest, ...]
    leftovers_removed: int
    spared: tuple[Digest, ...]
    bytes_freed: int


def plan_garbage(inventory: Inventory, referenced: frozenset[Digest], *, before: int) -> GarbagePlan:
    """What of an inventory may be removed: nobody refers to it, and it is from `before` (µs) or earlier.

    >>> old, new = Artifact(Digest("a" * 64), Micros(10), 1), Artifact(Digest("b" * 64), Micros(20), 1)
    >>> plan = plan_garbage(Inventory((old, new), ()), frozenset(), before=15)
    >>> [artifact.digest[0] for artifact in plan.artifacts], plan.young
    (['a'], 1)
    """
    unreferenced = [artifact for artifact in inventory.artifacts if artifact.digest not in referenced]
    artifacts = tuple(artifact for artifact in unreferenced if artifact.put_time <= before)
    leftovers = tuple(leftover for leftover in inventory.leftovers if leftover.modified_time <= before)
    return GarbagePlan(
        artifacts=artifacts,
        leftovers=leftovers,
        referenced=len(inventory.artifacts) - len(unreferenced),
        young=len(unreferenced) - len(artifacts) + len(inventory.leftovers) - len(leftovers),
        missing=tuple(sorted(referenced - {artifact.digest for artifact in inventory.artifacts})),
    )


def collect_garbage(
    store: ArtifactStore,
    referenced: frozenset[Digest],
    *,
    older_than_s: float,
    now: Micros,
    retire: Callable[[Digest], bool],
) -> GarbageReport:
    """Remove what nobody refers to and is older than `older_than_s`. `now` is from before `referenced` was read.

    `retire` is called for each bundle before it goes: from then on nothing may begin to refer to it, and where
    something does already it answers False and the bundle stays. Safe beside puts, opens and other collections; killed
    half-way, it leaves whole artifacts and leftovers only. Raises InvalidDefinition for an age below
    ARTIFACT_GRACE_S_MIN, and what the store and `retire` raise.
    """
    before = grace_begins(older_than_s=older_than_s, now=now)
    plan = plan_garbage(store.inventory(), referenced, before=before)
    removed = [
        each for each in plan.artifacts if retire(each.digest) and store.discard(each.digest, unless_put_after=before)
    ]
    leftovers = [each for each in plan.leftovers if store.discard_leftover(each.name, unless_modified_after=before)]
    return GarbageReport(
        plan=plan,
        removed=tuple(each.digest for each in removed),
        leftovers_removed=len(leftovers),
        spared=tuple(each.digest for each in plan.artifacts if each not in removed),
        bytes_freed=_size_bytes(removed, leftovers),
    )


def grace_begins(*, older_than_s: float, now: Micros) -> Micros:
    """The moment (µs) after which nothing may be removed. Raises InvalidDefinition for too short an age.

    >>> grace_begins(older_than_s=3600, now=Micros(3_600_000_005))
    5
    """
    if not older_than_s >= ARTIFACT_GRACE_S_MIN:
        raise InvalidDefinition(
            f"garbage must be older than {ARTIFACT_GRACE_S_MIN:g} s, not {older_than_s:g} s",
            hint="a bundle is put a while before it is registered and routed to; the age covers that while",
        )
    return Micros(now - int(older_than_s * SECOND_US))


def _size_bytes(artifacts: Sequence[Artifact], leftovers: Sequence[Leftover]) -> int:
    return sum(each.size_bytes for each in artifacts) + sum(each.size_bytes for each in leftovers)
