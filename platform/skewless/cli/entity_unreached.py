"""What a deletion does not reach, named with what to do; looked into as far as that tells something."""

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from skewless.adapters.entity_erasure import Unreached
from skewless.adapters.entity_rows import EntityRows
from skewless.adapters.offline_erasure import OfflineErasure
from skewless.cli.workspace import Workspace
from skewless.errors import SkewlessError
from skewless.features.chosen_entities import ChosenEntities
from skewless.features.point_in_time import OfflineSource

_FOR_EVER = (1 << 63) - 1
_WORD_CHARACTERS_MIN = 3
_BUNDLES = "bundles: golden vectors, vocabularies and baselines of training"
_TABLES = "tables in the data folder that no view reads"


def unreached(
    workspace: Workspace, entities: ChosenEntities, read_files: Collection[str], *, damaged: int
) -> tuple[Unreached, ...]:
    """Every such place; `read_files` are tables that are deleted from, `damaged` segments that cannot be read."""
    return (
        _bundles(workspace, entities),
        _tables(workspace, entities, read_files),
        _suites(workspace, entities),
        Unreached(
            "prediction log: damaged segments, segments on other machines, parts that a stream still holds",
            "they cannot be read, or not from here",
            "remove `predictions/spool/damaged`; run this on each machine that has a spool; a stream drops what all of "
            "its groups have read",
            damaged,
        ),
        Unreached(
            "streams that ingestion reads: records that wait, and records that were refused",
            "they are bytes as somebody sent them, of many entities at once, on a server that only ingestion knows",
            "wait until those that wait are taken; then for each view and stream `DEL "
            "{skewless.ingest}:rows:VIEW:refused` (`…:events:STREAM:refused`), or on Kafka `kafka-delete-records` of "
            "`skewless.ingest.rows.VIEW` (`….events.STREAM`) and of the same with `.refused`; run this again",
        ),
        Unreached(
            "models trained on the rows, data sets exported, outputs of back-tests and `--out` files",
            "nobody keeps where they are",
            "train anew on what is left, and delete the files",
        ),
        Unreached(
            "backups, replicas' files, snapshots, older versions of objects, PostgreSQL's dead rows and archived log",
            "they are outside of what Skewless writes to",
            "let them expire by their own retention; VACUUM; on a restore run the deletions since again, which "
            "`skewless entity receipts` lists",
        ),
        Unreached(
            "the systems that rows come from",
            "they are other people's",
            "delete there first, or what they send anew counts as new; `--for-ever` keeps it out all the same",
        ),
    )


def unreached_sources(paths: Mapping[str, str], unreadable: Mapping[str, str]) -> tuple[Unreached, ...]:
    """Sources of views, by the views' names, that are not on a file system of this machine, or why they are unknown."""
    elsewhere = {name: "it is not on a file system of this machine" for name, path in paths.items() if "://" in path}
    hint = "delete its rows there by its own means"
    return tuple(Unreached(f"source of {view}", why, hint) for view, why in sorted({**unreadable, **elsewhere}.items()))


def _bundles(workspace: Workspace, entities: ChosenEntities) -> Unreached:
    """Which bundles have a value as a word in one of their texts; of numbers and short values nobody can tell."""
    words = [each for each in entities.texts if len(each) >= _WORD_CHARACTERS_MIN and not each.isdigit()]
    found = []
    if len(words) == len(entities.texts):
        found = [digest[:12] for digest, folder in _folders(workspace) if _holds(folder, words)]
    told = f"found in {', '.join(found)}; " if found else ""
    return Unreached(
        _BUNDLES,
        "a bundle never changes, or nothing that it predicted could be shown to be right",
        f"{told}train anew, promote, and retire the old ones: `skewless artifact gc --delete`",
        len(found) if len(words) == len(entities.texts) else None,
    )


def _suites(workspace: Workspace, entities: ChosenEntities) -> Unreached:
    """Which reviewed suites name a value, as sets of allowed ones do."""
    words = [re.compile(rf"(?<![\w.]){re.escape(each)}(?![\w.])") for each in entities.texts]
    folder = workspace.settings.repo / "quality"
    found = [
        path.name for path in sorted(folder.glob("*.yaml")) if all(each.search(path.read_text()) for each in words)
    ]
    return Unreached(
        "quality suites, and other files of the feature repository",
        "they are code, and their history is kept",
        f"take the values out of {', '.join(found)}" if found else "see that nobody wrote a value into them",
        len(found),
    )


def _folders(workspace: Workspace) -> Iterator[tuple[str, Path]]:
    with workspace.registry() as registry:
        digests = [each.digest for each in registry.bundles()]
    for digest in digests:
        try:
            yield digest, workspace.artifacts.open(digest)
        except SkewlessError:  # retired, and its files are gone
            continue


def _holds(folder: Path, words: Collection[str]) -> bool:
    texts = (path.read_bytes() for path in sorted(folder.rglob("*.json")))
    quoted = [f'"{word}"'.encode() for word in words]
    return any(all(word in text for word in quoted) for text in texts)


def _tables(workspace: Workspace, entities: ChosenEntities, read_files: Collection[str]) -> Unreached:
    rows = EntityRows(entities, {name: name for name in entities.names}, _FOR_EVER)
    found: dict[str, int] = {}
    for path in sorted(workspace.settings.data_folder.glob("*.parquet")):
        if str(path) not in read_files:
            with suppress(SkewlessError):  # what cannot be read as Parquet is nobody's table
                found[path.name] = OfflineErasure(OfflineSource(path.name, str(path), "", None), rows).look()
    found = {name: count for name, count in found.items() if count}
    told = "".join(f"`--also {name}` ({count:,} rows), " for name, count in found.items())
    return Unreached(
        _TABLES,
        "nobody has declared what their rows are about; tables of labels are among them",
        f"{told}or rewrite them where they are made" if told else "rewrite them where they are made",
        sum(found.values()),
    )
