"""A reader of the prediction log that looks again and again while everything around it breaks."""

import threading
from collections import Counter

from harness.gateways import ENDPOINT
from harness.log_crash_model import CrashModel
from harness.log_crashes import LogMachine
from skewless.adapters.log_reader import LogReader, open_log
from skewless.errors import Unavailable

LOOK_S = 0.3
"""Between two looks."""


class Looker(threading.Thread):
    """Looks into the log again and again while everything happens, as any reader does."""

    def __init__(self, log_machine: LogMachine, model: CrashModel, over: threading.Event) -> None:
        super().__init__(name="looker", daemon=True)
        self._machine = log_machine
        self._model = model
        self._over = over
        self.looks = 0
        self.failure: Exception | None = None

    def run(self) -> None:
        """Until it is over, or something is not as it must be."""
        try:
            while not self._over.wait(LOOK_S):
                self.look()
        except Exception as error:  # noqa: BLE001  # a thread's boundary: the test raises it
            self.failure = error

    def look(self) -> None:
        """What was answered before must be found now, and nothing twice. Nothing is while the store is away."""
        switched = self._machine.store.switched
        safe = self._model.safe_ids()
        try:
            with opened_log(self._machine) as reader:
                found = Counter(reader.predictions(ENDPOINT, columns=["prediction_id"]).column(0).to_pylist())
        except Unavailable:
            if switched % 2 and switched == self._machine.store.switched:
                raise
            return
        missing = safe - found.keys()
        assert not missing, f"{len(missing)} answered predictions are not found, such as {sorted(missing)[:3]}"
        twice = [id_ for id_, count in found.items() if count > 1]
        assert not twice, f"{len(twice)} predictions are found more than once, such as {twice[:3]}"
        self.looks += 1


def opened_log(log_machine: LogMachine) -> LogReader:
    """The log of a machine, as it is now."""
    return open_log(log_machine.machine.log, str(log_machine.store.path))
