"""Which bundles a prediction log refers to: a logged prediction is recomputed with the very bundle that answered it."""

from collections.abc import Iterable
from pathlib import Path

from skewless.adapters.prediction_log import SPOOL
from skewless.adapters.prediction_parquet import PREDICTIONS, bundle_of
from skewless.adapters.spool import SUFFIX, read_frames
from skewless.canonical_json import Digest
from skewless.errors import NotFound, Unavailable
from skewless.serving.records import AnsweredBatch, decode


def logged_bundles(folder: Path, among: Iterable[Digest]) -> frozenset[Digest]:
    """Those of the bundles given that any prediction of a log came from, as live or in any other role.

    Sealed files are told by their names and not read, so one more bundle than necessary may be named, never one less.
    Raises NotFound where there is no log, which is no reason to believe that nothing refers to a bundle, and
    Unavailable where it cannot be read.
    """
    try:
        if not folder.is_dir():
            raise NotFound(
                "prediction log",
                str(folder),
                hint="name the folder that the gateways log to, or say that there is none",
            )
        # Spool files first: one that is sealed meanwhile is found as Parquet.
        logged = _spooled(folder)
        sealed = {bundle_of(path) for path in (folder / PREDICTIONS).glob("day=*/endpoint=*/*.parquet")}
    except OSError as error:
        raise Unavailable(
            "the prediction log", f"`{folder}` cannot be read: {error.strerror}", hint="check the folder's permissions"
        ) from error
    return frozenset(each for each in among if each in logged or any(each.startswith(start) for start in sealed))


def _spooled(folder: Path) -> set[Digest]:
    bundles: set[Digest] = set()
    for path in sorted((folder / SPOOL).glob(f"*{SUFFIX}")):
        try:
            frames = read_frames(path)
        except FileNotFoundError:
            continue
        bundles |= {entry.bundle for entry in map(decode, frames) if isinstance(entry, AnsweredBatch)}
    return bundles
