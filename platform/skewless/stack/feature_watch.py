"""Notices that Feast's registry changed, and has the registry snapshot compiled again.

Whoever runs plain `feast apply`, in another process or on another machine, tells nobody. So the registry is looked at
every few seconds, without Feast: 2 ms, and 2 MB in a process that has SQLAlchemy loaded. Compiling needs Feast, seconds
and 260 MB, so it is done in a process that ends.

    marks as before, or the fingerprint is the snapshot's   → note it, so that the snapshot's age stays small
    another fingerprint, and the same again at the next look → compile
"""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from skewless.canonical_json import Digest
from skewless.errors import InvalidDefinition, SkewlessError, StackFailed
from skewless.registry.database import engine
from skewless.registry.feast_tables import FeastTables, Marks
from skewless.registry.snapshot_heads import SnapshotHead, SnapshotHeads
from skewless.settings import Settings, as_environment
from skewless.stack.beside import beside
from skewless.stack.feature_store_file import feast_address
from skewless.stack.process import ProcessSpec, describe_exit, set_log_aside, start, tail

EVERY_S = 5.0
"""Between two looks; a change is compiled once it was seen twice, so that half an `apply` is not."""
RETRY_S = 60.0
"""Before definitions that could not be compiled are tried again unchanged."""
COMPILE_TIMEOUT_S = 120.0
"""Feast's import and a registry of hundreds of views take some seconds; this is for one that hangs."""
_MARKS_SETTLE_S = 2.0
"""Marks tell time in whole seconds: only after this long can no further change carry the same ones."""
_POLL_S = 0.1
_LOG = "features"

Report = Callable[[str], None]


class FeatureWatch:
    """One watcher of one project. `compile_snapshot` says whether the snapshot is stored, or raises why it is not."""

    def __init__(
        self,
        project: str,
        feast: FeastTables,
        snapshots: SnapshotHeads,
        compile_snapshot: Callable[[], bool],
        report: Report,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._project = project
        self._feast = feast
        self._snapshots = snapshots
        self._compile = compile_snapshot
        self._report = report
        self._clock = clock
        self._marks: Marks = ()
        self._marks_since_s = 0.0
        self._fingerprint: Digest | None = None
        self._fingerprint_at_s = 0.0
        self._failed: Digest | None = None
        self._retry_at_s = 0.0
        self._told = ""

    def run(self, stop: threading.Event, *, every_s: float = EVERY_S) -> None:
        """Look until `stop` is set. What goes wrong is reported, once as long as it stays the same."""
        while not stop.is_set():
            try:
                self.look()
                self._told = ""
            except SkewlessError as error:
                if error.message != self._told:
                    self._report(f"the registry snapshot of {self._project} cannot be kept up: {error.message}")
                self._told = error.message
            stop.wait(every_s)

    def look(self) -> bool:
        """Look once; whether the snapshot was compiled. Raises what looking and compiling raise."""
        before = self._fingerprint
        fingerprint = self._seen()
        if fingerprint is None:
            return False
        head = self._head()
        if head is not None and head.source == fingerprint:
            self._snapshots.checked(head)
            return False
        if fingerprint != before or (fingerprint == self._failed and self._clock() < self._retry_at_s):
            return False
        self._report(f"the definitions of {self._project} changed; compiling them")
        try:
            is_stored = self._compile()
        except SkewlessError:
            self._failed, self._retry_at_s = fingerprint, self._clock() + RETRY_S
            raise
        if is_stored:
            self._report(f"the registry snapshot of {self._project} says what its definitions say")
        return is_stored

    def _seen(self) -> Digest | None:
        """The fingerprint of the definitions, read anew only where marks leave room for a change."""
        now_s = self._clock()
        marks = self._feast.marks(self._project)
        if marks != self._marks:
            self._marks, self._marks_since_s = marks, now_s
        elif self._fingerprint_at_s - self._marks_since_s >= _MARKS_SETTLE_S:
            return self._fingerprint
        self._fingerprint, self._fingerprint_at_s = self._feast.fingerprint(self._project), now_s
        return self._fingerprint

    def _head(self) -> SnapshotHead | None:
        return next((head for head in self._snapshots.heads() if head.project == self._project), None)


def watch(settings: Settings, stop: threading.Event, report: Report, *, every_s: float = EVERY_S) -> None:
    """Watch the repository of these settings until `stop` is set; compiling happens in processes of its own.

    Raises InvalidDefinition where the repository has no SQL registry, InvalidSettings for a wrong URL.
    """
    address = feast_address(settings)
    if address.sql_url is None:
        raise InvalidDefinition(
            f"Feast's registry of project `{address.project}` is of type `{address.registry_type}`; only one of type "
            "`sql` can be watched",
            hint="run `skewless features compile` after each `feast apply`, or move the registry into a database",
        )
    feast = FeastTables(address.sql_url)
    snapshots = SnapshotHeads(engine(settings.registry_url))
    try:
        watcher = FeatureWatch(address.project, feast, snapshots, lambda: compile_apart(settings, stop), report)
        watcher.run(stop, every_s=every_s)
    finally:
        snapshots.close()
        feast.close()


@contextmanager
def watching(settings: Settings, report: Report) -> Iterator[None]:
    """Inside, a thread of this process watches. Where there is nothing to watch, that is reported and all goes on."""

    def watch_or_tell(stop: threading.Event) -> None:
        try:
            watch(settings, stop, report)
        except SkewlessError as error:
            report(f"the feature definitions are not watched: {error.message}")

    with beside("feature-watch", watch_or_tell):
        yield


def compile_apart(settings: Settings, stop: threading.Event) -> bool:
    """Run `skewless features compile` and return True when it has ended well; False where `stop` was set meanwhile.

    Raises InvalidDefinition with the last lines of its log when it refused, StackFailed when it hangs.
    """
    log_file = settings.folders.logs / f"{_LOG}.log"
    # What a message quotes from the log is then of this run.
    set_log_aside(log_file)
    command = (sys.executable, "-P", "-m", "skewless.cli.main", "features", "compile")
    running = start(ProcessSpec(_LOG, command, log_file, _unprobed, environment=as_environment(settings)))
    give_up_s = time.monotonic() + COMPILE_TIMEOUT_S
    while (status := running.exit_status()) is None:
        if stop.wait(_POLL_S):
            running.stop()
            return False
        if time.monotonic() > give_up_s:
            running.stop()
            raise StackFailed(
                f"compiling the definitions took longer than {COMPILE_TIMEOUT_S:g} s", hint=f"see {log_file}"
            )
    if status != 0:
        raise InvalidDefinition(
            f"the definitions cannot be compiled ({describe_exit(status)}): {tail(log_file)}",
            hint="the last good snapshot stays; correct the definitions and apply them again",
        )
    return True


async def _unprobed() -> None:
    """A process that ends by itself is not asked for its health."""
