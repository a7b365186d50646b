"""The suites by name, each run in a process of its own: none pays for what another imported or allocated."""

import multiprocessing
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from pathlib import Path

from bench.report import Options, SuiteResult

SUITES = {
    "reads": "bench.reads",
    "transforms": "bench.transforms",
    "fitting": "bench.fitting",
    "counting": "bench.counting",
    "point-in-time": "bench.point_in_time",
    "materialize": "bench.materialize",
    "gateway": "bench.gateway",
    "ingest": "bench.ingest",
    "aggregates": "bench.aggregates",
    "log": "bench.log",
    "monitor": "bench.monitor",
    "peers": "bench.peers.suite",
    "scaling": "bench.scaling",
}
"""Modules with `run(options: Options) -> SuiteResult`, imported only to run."""


def run_apart(name: str, *, quick: bool) -> SuiteResult:
    """Run one suite in a fresh process. Raises what the suite raises."""
    with ProcessPoolExecutor(max_workers=1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(run_here, name, quick=quick).result()


def run_here(name: str, *, quick: bool) -> SuiteResult:
    """Run one suite in this process, with a scratch folder of its own; progress goes to standard error."""

    def progress(text: str) -> None:
        sys.stderr.write(f"{name}: {text}\n")

    with tempfile.TemporaryDirectory(prefix=f"bench-{name}-") as scratch:
        result: SuiteResult = import_module(SUITES[name]).run(Options(Path(scratch), progress, quick=quick))
    return result
