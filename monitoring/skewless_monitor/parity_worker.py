"""`python -m skewless_monitor.parity_worker`: compares sampled predictions, a run for each line that comes in.

A process of its own, because comparing needs Feast, DuckDB over the sources and the models: some hundred megabytes that
the monitor does not want to hold. It ends with its monitor: when nothing more can come in. Settings are the monitor's.
"""

import json
import os
import sys
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from skewless.adapters.log_reader import LogReader, open_log
from skewless.adapters.parity_checker import CheckedBundle, Checker
from skewless.adapters.parity_watch import ParityWatch, Ran, Watched
from skewless.canonical_json import Digest
from skewless.cli.parity_parts import WorkspaceParts
from skewless.cli.workspace import Workspace
from skewless.errors import SkewlessError
from skewless.monitor_limits import PARITY_MEMORY
from skewless.monitor_settings import MonitorSettings
from skewless.registry.database import engine
from skewless.registry.parity_history import ParityHistory
from skewless.registry.repository import Registry
from skewless.serving.log_privacy import LogPrivacy
from skewless.settings import Settings, load_settings

_STATM = Path("/proc/self/statm")


class ParityWork:
    """The monitor's side of a watch: which endpoints there are, and where everything is."""

    def __init__(self, settings: MonitorSettings) -> None:
        assert settings.repo is not None, "without definitions nothing can be compared"
        database = engine(settings.database_url)
        self._settings = settings
        self._registry = Registry(database)
        self._bundles: OrderedDict[Digest, CheckedBundle] = OrderedDict()
        self._watch = ParityWatch(ParityHistory(database), self._open_log, self._open_checker)

    def run(self) -> Ran:
        """One run over all endpoints. Raises SkewlessError where none of them could be compared."""
        watched = [Watched(each.name, each.monitoring.parity) for each in self._registry.endpoints()]
        return self._watch.run(watched, threading.Event())

    @contextmanager
    def _open_log(self) -> Iterator[LogReader]:
        with open_log(self._settings.prediction_log, self._settings.log_store_address) as log:
            yield log

    def _open_checker(self) -> Checker:
        """Over the definitions and materializations of this moment."""
        key, online = self._settings.log_hash_key, self._settings.online_store
        parts = WorkspaceParts(
            Workspace(workspace_settings(self._settings)),
            self._bundles,
            online_store=None if online is None else online.get_secret_value(),
        )
        privacy = LogPrivacy() if key is None else LogPrivacy(key.get_secret_value().encode())
        return Checker(parts, privacy=privacy, memory=PARITY_MEMORY)


def workspace_settings(settings: MonitorSettings) -> Settings:
    """What commands would be set to on the monitor's machine."""
    assert settings.repo is not None, "without definitions nothing can be compared"
    return Settings(
        home=settings.home,
        repo=settings.repo,
        database_url=settings.database_url,
        data=settings.data,
        feast_registry=settings.feast_registry,
        artifacts=settings.artifacts,
        log_store=settings.log_store_address,
        step_packages=settings.step_packages,
    )


def answer(work: ParityWork) -> dict[str, Any]:
    """What one run came to, or why there was none, with what this process holds in memory."""
    try:
        ran = work.run()
    except SkewlessError as error:
        return {"error": error.message, "hint": error.hint, "bytes": resident_bytes()}
    told = {"more": ran.more, "next_s": ran.next_s, "compared": ran.compared, "failed": dict(ran.failed)}
    return {**told, "bytes": resident_bytes()}


def resident_bytes() -> int:
    """Resident memory of this process; 0 where the system does not tell."""
    try:
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0


def serve(work: ParityWork, asked: IO[str], answers: IO[str]) -> None:
    """Answer a JSON line for each line, until nothing more comes."""
    for _ in asked:
        answers.write(json.dumps(answer(work)) + "\n")
        answers.flush()


def main() -> None:
    """Entry of the process."""
    # What libraries print must not be taken for an answer.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    serve(ParityWork(load_settings(MonitorSettings)), sys.stdin, answers)


if __name__ == "__main__":
    main()
