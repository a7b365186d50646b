"""A scheduler as a process of its own, whose runs are `scheduled_run.py`: `python scheduling_process.py FOLDER`.

Its settings are variables, as for `python -m skewless_scheduler`.
"""

import sys
from pathlib import Path

from harness.scheduled_run import command
from skewless.adapters.json_log import log_json_lines
from skewless.adapters.stop_signals import stop_by_signal
from skewless.settings import Settings, load_settings
from skewless_scheduler.service import SchedulingService
from skewless_scheduler.settings import SchedulerSettings


def main(folder: Path) -> None:
    """Schedule until SIGTERM."""
    log_json_lines()
    service = SchedulingService(load_settings(Settings), load_settings(SchedulerSettings), command=command(folder))
    stop_by_signal(service.stop)
    service.run()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
