"""`skewless artifact …`: what the artifact store keeps, whether it is whole, and what of it nobody needs any more."""

import asyncio
import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import click

from skewless.adapters.folder_artifact_store import FolderArtifactStore
from skewless.adapters.logged_bundles import logged_bundles
from skewless.bundles.artifact_store import Artifact, ArtifactStore
from skewless.bundles.bundle import SERVING
from skewless.bundles.garbage import GarbagePlan, GarbageReport, collect_garbage, grace_begins, plan_garbage
from skewless.bundles.model_repository import model_name, retire
from skewless.bundles.serving_profile import ServingProfile
from skewless.canonical_json import Digest
from skewless.cli.arguments import actor
from skewless.cli.output import print_json, say, step
from skewless.cli.workspace import Workspace
from skewless.errors import BundleRefused, Conflict, InvalidRequest, InvalidSettings, NotFound, Unavailable
from skewless.limits import MIB
from skewless.registry.repository import Registry, system_clock
from skewless.settings import log_store_of
from skewless.stack.state import read_state
from skewless.timestamps import DAY_US, SECOND_US, Micros, format_timestamp

_SHORT = 12
_DIGEST_PREFIX_MIN = 8
_LISTED_MAX = 10
_REASON = "nothing refers to it any more"
_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")


@click.group()
def artifact() -> None:
    """The files of bundles: where they are kept, whether they are whole, and which are garbage."""


@artifact.command("list")
@_as_json
def list_artifacts(as_json: bool) -> None:
    """List every kept bundle with the time of its last put, and what unfinished work left."""
    workspace = Workspace()
    inventory = workspace.artifacts.inventory()
    with workspace.registry() as registry:
        names = {record.digest: record.name for record in registry.bundles(include_retired=True)}
    if as_json:
        print_json(
            {
                "artifacts": [{**_json(each), "name": names.get(each.digest)} for each in inventory.artifacts],
                "leftovers": [
                    {
                        "name": each.name,
                        "modified_time": format_timestamp(each.modified_time),
                        "size_bytes": each.size_bytes,
                    }
                    for each in inventory.leftovers
                ],
            }
        )
        return
    for each in sorted(inventory.artifacts, key=lambda artifact: -artifact.put_time):
        name = names.get(each.digest, "(not registered)")
        click.echo(f"{each.digest[:_SHORT]}  {format_timestamp(each.put_time)}  {_size(each.size_bytes)}  {name}")
    if inventory.leftovers:
        say(f"{len(inventory.leftovers)} leftovers of unfinished puts or removals; `skewless artifact gc` removes them")


@artifact.command("verify")
@click.argument("digests", nargs=-1)
def verify(digests: tuple[str, ...]) -> None:
    """Read every file of the bundles with DIGESTS (or their first 8 digits or more) and compare it with its SHA-256.

    Without DIGESTS every kept bundle is read. What this machine has kept of a bucket's bundles is not asked.
    Exit code 4: at least one bundle is torn or was changed; each is named with its file.
    """
    store = Workspace().artifacts
    with step("Verifying artifacts") as progress:
        wanted = _wanted(digests, store.digests())
        refused: list[str] = []
        size_bytes = 0
        for number, digest in enumerate(wanted, start=1):
            progress.note(f"{number} of {len(wanted)}: {digest[:_SHORT]}")
            try:
                size_bytes += store.verify(digest)
            except BundleRefused as error:
                refused.append(f"{digest}: {error.message}")
        if refused:
            raise BundleRefused(
                f"{len(refused)} of {len(wanted)} bundles are not whole:\n" + "\n".join(refused),
                hint="put them again from where they were built: `skewless bundle register FOLDER`",
            )
        progress.note(f"{len(wanted)} bundles, {_size(size_bytes)}, every file as its manifest says")


@artifact.command("gc")
@click.option(
    "--keep-days",
    type=click.FloatRange(min=1),
    default=30.0,
    show_default=True,
    help="Keep what was put, or named by a route, within so many days.",
)
@click.option(
    "--log",
    "logs",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Folder of a prediction log; once for each. The home's where not given.",
)
@click.option("--no-log", is_flag=True, help="There is no prediction log whose predictions are ever replayed.")
@click.option("--delete", is_flag=True, help="Remove what is listed; without it nothing is removed.")
@_as_json
def gc(keep_days: float, logs: tuple[Path, ...], no_log: bool, delete: bool, as_json: bool) -> None:
    """List, and with --delete remove, the bundles that nothing refers to, and leftovers of unfinished work.

    Kept is what a route, a running experiment or a roll-back names, what those fall back to, what the prediction logs
    refer to, and what was put or routed to within --keep-days. A removed bundle is retired first: no route can name it
    from then on.
    """
    if no_log and logs:
        raise InvalidRequest("--no-log contradicts --log", path="--no-log", allowed="one of them")
    workspace = Workspace()
    now = system_clock()
    folders = () if no_log else logs or (workspace.home.predictions,)
    shared = workspace.settings.log_store
    with step("Looking for garbage") as progress, workspace.registry() as registry:
        kept = workspace.artifacts.digests()
        _refuse_foreign_registry(registry, kept)
        routed = registry.referenced_bundles(since=Micros(now - int(keep_days * DAY_US)))
        referenced = (
            routed | named_fallbacks(workspace.artifacts, routed & frozenset(kept)) | _logged(kept, folders, shared)
        )
        older_than_s = keep_days * DAY_US / SECOND_US
        if not delete:
            plan = plan_garbage(
                workspace.artifacts.inventory(), referenced, before=grace_begins(older_than_s=older_than_s, now=now)
            )
            progress.note("nothing was removed; --delete removes it" if plan.artifacts or plan.leftovers else "none")
            report = GarbageReport(plan, (), 0, (), 0)
        else:
            report = collect_garbage(
                workspace.artifacts,
                referenced,
                older_than_s=older_than_s,
                now=now,
                retire=lambda digest: _retire(registry, digest),
            )
            _tidy_home(workspace, referenced, older_than_s=older_than_s, now=now)
            progress.note(f"{len(report.removed)} bundles removed, {_size(report.bytes_freed)} freed")
    _show(report, as_json=as_json)


def _wanted(prefixes: Iterable[str], kept: tuple[Digest, ...]) -> tuple[Digest, ...]:
    """The kept digests that begin so, all where nothing is asked for. Raises InvalidRequest and NotFound."""
    found: list[Digest] = []
    for prefix in prefixes:
        matching = [digest for digest in kept if digest.startswith(prefix)]
        if len(prefix) < _DIGEST_PREFIX_MIN or len(matching) > 1:
            raise InvalidRequest(
                f"`{prefix}` does not name one bundle",
                path="DIGESTS",
                allowed=f"at least the first {_DIGEST_PREFIX_MIN} digits of a kept digest, and enough to tell it apart",
            )
        if not matching:
            raise NotFound("bundle artifact", prefix, known=kept[:_LISTED_MAX], hint="`skewless artifact list`")
        found += matching
    return tuple(found) or kept


def named_fallbacks(artifacts: ArtifactStore, routed: Iterable[Digest]) -> frozenset[Digest]:
    """The bundles that kept bundles fall back to while a part is away. Raises BundleRefused for one that is torn."""
    found: set[Digest] = set()
    for digest in sorted(routed):
        profile = artifacts.open(digest) / SERVING
        if profile.exists():  # bundles of the first format have none
            found |= ServingProfile.from_json(json.loads(profile.read_bytes())).fallbacks
    return frozenset(found)


def _logged(kept: tuple[Digest, ...], folders: Iterable[Path], shared: str | None) -> frozenset[Digest]:
    """What logs refer to: their spools, the stores in their folders, and the one `shared` store that is configured."""
    referenced: frozenset[Digest] = frozenset()
    for folder in folders:
        try:
            # Both: a folder was shipped to its own store until another one was configured.
            for store in {str(log_store_of(folder)), shared or str(log_store_of(folder))}:
                referenced |= logged_bundles(folder, kept, store=store)
        except NotFound as error:
            raise NotFound(
                "prediction log",
                str(folder),
                hint="bundles of logged predictions must stay: give the folder of each gateway's log with --log, or "
                "say --no-log where there is none",
            ) from error
    return referenced


def _refuse_foreign_registry(registry: Registry, kept: tuple[Digest, ...]) -> None:
    """Raise InvalidSettings where the registry knows none of many: then it is hardly the one of this store."""
    known = {record.digest for record in registry.bundles(include_retired=True)}
    if kept and not known & set(kept):
        raise InvalidSettings(
            f"the registry knows none of the {len(kept)} bundles in the artifact store, so all would be garbage",
            hint="check that SKEWLESS_DATABASE_URL and SKEWLESS_ARTIFACTS belong together; a store serves one registry",
        )


def _retire(registry: Registry, digest: Digest) -> bool:
    """Whether the registry has given a bundle up; False where a route has come to name it."""
    try:
        registry.retire_bundles([digest], actor=actor(), reason=_REASON)
    except Conflict:
        return False
    return True


def _tidy_home(workspace: Workspace, referenced: frozenset[Digest], *, older_than_s: float, now: Micros) -> None:
    """Remove this machine's copies of bundles, and models at its model server, that nothing refers to."""
    copies = FolderArtifactStore(workspace.home.artifact_cache)
    collect_garbage(copies, referenced, older_than_s=older_than_s, now=now, retire=lambda _digest: True)
    keep = frozenset(model_name(digest) for digest in referenced)
    retired = retire(workspace.home.triton_models, keep, older_than_s=older_than_s, now_s=now / SECOND_US)
    state = read_state(workspace.home)
    if retired and state is not None and state.triton_grpc:
        # A server that is away has nothing loaded, and no longer finds the files when it is back.
        with suppress(Unavailable):
            asyncio.run(unload_models(state.triton_grpc, retired))


async def unload_models(address: str, names: Iterable[str]) -> None:
    """Have the Triton at `host:port` forget models that it may have loaded. Raises Unavailable."""
    from skewless.adapters.triton_backend import TritonBackend

    backend = TritonBackend(address)
    try:
        for name in names:
            await backend.unload(name)
    finally:
        await backend.close()


def _show(report: GarbageReport, *, as_json: bool) -> None:
    plan = report.plan
    if as_json:
        print_json(
            {
                "garbage": [_json(each) for each in plan.artifacts],
                "leftovers": [each.name for each in plan.leftovers],
                "removed": list(report.removed),
                "leftovers_removed": report.leftovers_removed,
                "spared": list(report.spared),
                "bytes_freed": report.bytes_freed,
                "referenced": plan.referenced,
                "young": plan.young,
                "missing": list(plan.missing),
            }
        )
        return
    for each in plan.artifacts:
        told = "removed" if each.digest in report.removed else "wanted again" if each.digest in report.spared else ""
        click.echo(
            f"{each.digest[:_SHORT]}  {format_timestamp(each.put_time)}  {_size(each.size_bytes)}  {told}".rstrip()
        )
    say(_summary(plan))
    for digest in plan.missing:
        say(f"missing: bundle {digest[:_SHORT]} is referred to, but the artifact store does not keep it")


def _summary(plan: GarbagePlan) -> str:
    return (
        f"{len(plan.artifacts)} bundles and {len(plan.leftovers)} leftovers are garbage ({_size(plan.bytes_freed)}); "
        f"{plan.referenced} are referred to, {plan.young} are too young"
    )


def _json(artifact: Artifact) -> dict[str, object]:
    return {
        "digest": artifact.digest,
        "put_time": format_timestamp(artifact.put_time),
        "size_bytes": artifact.size_bytes,
    }


def _size(size_bytes: int) -> str:
    """Bytes as people read them.

    >>> _size(1536 * 1024)
    '1.5 MiB'
    """
    return f"{size_bytes / MIB:.1f} MiB"
