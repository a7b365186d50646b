"""Which bundles a prediction log refers to: a logged prediction is recomputed with the very bundle that answered it."""

from collections.abc import Iterable
from pathlib import Path

from skewless.adapters.log_reader import open_log
from skewless.canonical_json import Digest
from skewless.errors import NotFound


def logged_bundles(folder: Path, among: Iterable[Digest], *, store: str | None = None) -> frozenset[Digest]:
    """Those of the bundles given that any prediction of a log came from, as live or in any other role.

    `store` is the address of the log's store, None for the one in its folder. Raises NotFound where there is no log,
    which is no reason to believe that nothing refers to a bundle, and Unavailable where it cannot be read.
    """
    if not folder.is_dir():
        raise NotFound(
            "prediction log",
            str(folder),
            hint="name the folder that the gateways log to, or say that there is none",
        )
    with open_log(folder, store) as log:
        logged = log.bundles()
    return frozenset(each for each in among if each in logged)
