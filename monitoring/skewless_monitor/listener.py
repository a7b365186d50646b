"""What a monitor answers over HTTP: its metrics, whether it is well, and how each job is doing."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from http import HTTPStatus

from skewless.adapters.status_listener import Answer, health_answer
from skewless_monitor.monitor_collector import CONTENT_TYPE, MonitorCollector
from skewless_monitor.running_job import RunningJob

_JSON = "application/json"


def answers(jobs: Sequence[RunningJob], collector: MonitorCollector) -> Mapping[str, Answer]:
    """What each path answers."""
    return {
        "/metrics": lambda: (HTTPStatus.OK, CONTENT_TYPE, collector.page()),
        "/healthz": lambda: health_answer(problem_of(jobs)),
        "/jobs": lambda: (HTTPStatus.OK, _JSON, told(jobs)),
    }


def problem_of(jobs: Sequence[RunningJob]) -> str:
    """What only a new process would put right, nothing where all is well; a job that fails is tried again, and is told
    by `/jobs` and by metrics.
    """
    return "; ".join(filter(None, (job.problem() for job in jobs)))


def told(jobs: Sequence[RunningJob]) -> bytes:
    """The state of every job, as JSON for people and for `skewless doctor`."""
    found = []
    for job in jobs:
        state = asdict(job.state)
        del state["running_since_s"]  # of a clock that only this process knows
        found.append({"job": job.name, **state, "running_s": round(job.running_s(), 3), "lag_s": job.lag_s})
    return json.dumps({"jobs": found}, ensure_ascii=False).encode() + b"\n"
