"""What is missing or unhealthy on this machine and in this home, each with what to do about it."""

import asyncio
import importlib.util
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from skewless.adapters.spool import SPOOL, begun_us, sealed_segments
from skewless.errors import NotFound, SkewlessError, Unavailable
from skewless.features import feature_checks
from skewless.registry.database import engine, revision_status
from skewless.registry.feast_tables import FeastTables
from skewless.registry.repository import Registry
from skewless.registry.snapshots import FeatureSnapshot, FeatureSnapshots
from skewless.settings import Home, Settings, mask
from skewless.stack import gateway, ingest, monitor, scheduler, shipper, triton, valkey
from skewless.stack.feature_store_file import FeastAddress, feast_address
from skewless.stack.probes import http_probe, valkey_probe
from skewless.stack.state import ProcessState, StackState, read_last_state, read_state
from skewless.stack.supervision import Health, Phase
from skewless.timestamps import SECOND_US, format_timestamp

GLIBC_MIN = (2, 35)
"""What the Triton wheel (manylinux_2_35) is built for; its own libraries are known to run from 2.34 on."""
SHARED_MEMORY_BYTES_MIN = 128 * 1024 * 1024
"""Triton's python backend takes 1 MiB per instance and grows; a container's 64 MiB runs out at a few models."""
DISK_BYTES_MIN = 1024**3
SEGMENT_LATE_S = 600.0
"""A segment of the prediction log that waits for so long waits for something that is broken."""


class Condition(StrEnum):
    """How a check came out."""

    OK = "ok"
    WARNING = "warning"
    """Worth knowing; nothing fails of it today."""
    MISSING = "missing"
    UNHEALTHY = "unhealthy"


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: what was seen, and what to do where it is not ok."""

    check: str
    condition: Condition
    seen: str
    remedy: str = ""

    @property
    def line(self) -> str:
        """The finding in one line.

        >>> Finding("valkey", Condition.MISSING, "not installed", "run make setup").line
        'missing   valkey: not installed. To do: run make setup'
        """
        remedy = f". To do: {self.remedy}" if self.remedy else ""
        return f"{self.condition:<9} {self.check}: {self.seen}{remedy}"


def examine(
    settings: Settings, registered: Sequence[feature_checks.Finding] | None = None, *, runs_triton: bool = True
) -> list[Finding]:
    """Every check in order: the machine, what is kept in the home, the running stack.

    Without `runs_triton` models run in the gateway, and what Triton needs is not looked for. `registered` is what the
    registration checks found in Feast's registry just now; None asks the registry snapshot.
    """
    home = settings.folders
    return [
        _python(),
        *(_for_triton() if runs_triton else [_without_triton()]),
        _found("Valkey server", valkey.binary),
        _disk(home),
        _database(settings),
        _definitions(settings),
        *_registrations(settings, registered),
        _log_store(settings),
        *_stack(home),
        *_endpoints(settings),
    ]


def _for_triton() -> list[Finding]:
    return [
        _found("libpython", triton.libpython),
        _glibc(),
        _found("Triton server", lambda: triton.installation().binary),
        _shared_memory(),
    ]


def _without_triton() -> Finding:
    """Said as a warning: what is served here is served otherwise than in production."""
    seen = f"none: models run in the gateway itself, ONNX models only ({platform.system()})"
    remedy = "nothing; Triton's wheel exists for Linux, where SKEWLESS_STACK_MODEL_SERVER=triton runs it"
    return Finding("Triton server", Condition.WARNING, seen, remedy)


def _python() -> Finding:
    # Older versions cannot even install the package, so there is nothing to refuse here.
    return Finding("Python", Condition.OK, f"{platform.python_version()} at {sys.executable}")


def _found(check: str, find: Callable[[], Path]) -> Finding:
    try:
        return Finding(check, Condition.OK, str(find()))
    except SkewlessError as error:
        return Finding(check, Condition.MISSING, error.message, error.hint)


def _glibc() -> Finding:
    name, version = platform.libc_ver()
    wanted = ".".join(map(str, GLIBC_MIN))
    if name != "glibc":
        seen = name or "another C library"
        return Finding("glibc", Condition.MISSING, seen, f"use a Linux with glibc {wanted} or newer for Triton")
    if tuple(map(int, version.split("."))) < GLIBC_MIN:
        return Finding("glibc", Condition.UNHEALTHY, version, f"use a Linux with glibc {wanted} or newer for Triton")
    return Finding("glibc", Condition.OK, version)


def _shared_memory() -> Finding:
    check = "shared memory"
    if not os.access(triton.SHARED_MEMORY, os.W_OK):
        return Finding(check, Condition.MISSING, f"{triton.SHARED_MEMORY} is not writable", "mount it; Triton needs it")
    free = shutil.disk_usage(triton.SHARED_MEMORY).free
    seen = f"{free // 1024**2} MiB free in {triton.SHARED_MEMORY}"
    if free < SHARED_MEMORY_BYTES_MIN:
        remedy = f"give it {SHARED_MEMORY_BYTES_MIN // 1024**2} MiB, in a container with shm_size"
        return Finding(check, Condition.UNHEALTHY, seen, remedy)
    return Finding(check, Condition.OK, seen)


def _disk(home: Home) -> Finding:
    folder = next(each for each in (home.root, *home.root.parents) if each.exists())
    free = shutil.disk_usage(folder).free
    seen = f"{free / 1024**3:.1f} GiB free for {home.root}"
    if not os.access(folder, os.W_OK):
        return Finding(
            "disk", Condition.UNHEALTHY, f"{folder} is not writable", "set SKEWLESS_HOME to a folder of yours"
        )
    if free < DISK_BYTES_MIN:
        return Finding("disk", Condition.UNHEALTHY, seen, "free 1 GiB, or set SKEWLESS_HOME to another disk")
    return Finding("disk", Condition.OK, seen)


def _database(settings: Settings) -> Finding:
    check = "registry database"
    try:
        current, newest = revision_status(settings.registry_url)
    except SkewlessError as error:
        return Finding(check, Condition.UNHEALTHY, error.message, error.hint)
    if current is None:
        return Finding(check, Condition.MISSING, "not created yet", "run `skewless up`, which creates it")
    if current != newest:
        remedy = "run `skewless down` and `skewless up`, which migrates it"
        return Finding(check, Condition.UNHEALTHY, f"at migration {current}, newest is {newest}", remedy)
    return Finding(check, Condition.OK, f"at the newest migration, {current}")


def _definitions(settings: Settings) -> Finding:
    if settings.feast_registry is not None:
        return Finding(
            "feature definitions", Condition.OK, f"in the configured registry {mask(settings.feast_registry)}"
        )
    registry = settings.folders.feast_registry
    if registry.exists():
        return Finding("feature definitions", Condition.OK, f"applied, in {registry}")
    return Finding("feature definitions", Condition.MISSING, "not applied yet", "run `skewless apply`")


def _registrations(settings: Settings, asked: Sequence[feature_checks.Finding] | None) -> Iterator[Finding]:
    """The registry snapshot, and what the registration checks found."""
    check = "registry snapshot"
    findings = asked
    try:
        address = feast_address(settings)
    except SkewlessError as error:
        yield Finding(check, Condition.WARNING, error.message, error.hint)
        return
    try:
        snapshot = _snapshot(settings, address.project)
        if snapshot is not None:
            yield _compared(check, snapshot, address)
            findings = snapshot.findings if asked is None else asked
    except NotFound:
        yield Finding(check, Condition.MISSING, "nothing compiled yet", "run `skewless apply`")
    except SkewlessError as error:
        yield Finding(check, Condition.UNHEALTHY, error.message, error.hint or "run `skewless features compile`")
    for each in findings or ():
        is_error = each.severity is feature_checks.Severity.ERROR
        condition = Condition.UNHEALTHY if is_error else Condition.WARNING
        yield Finding(f"definitions {each.code}", condition, each.message, each.hint)


def _snapshot(settings: Settings, project: str) -> FeatureSnapshot | None:
    """The stored snapshot of a project; None where the database is not ready, which is told by its own check."""
    current, newest = revision_status(settings.registry_url)
    if current != newest:
        return None
    with closing(FeatureSnapshots(engine(settings.registry_url))) as snapshots:
        return snapshots.newest(project)


def _compared(check: str, snapshot: FeatureSnapshot, address: FeastAddress) -> Finding:
    """Whether a snapshot is of what Feast's registry holds at this moment."""
    head, refusals = snapshot.head, snapshot.registry.refusals
    seen = (
        f"version {head.version} of {format_timestamp(head.compiled_at)}, {len(snapshot.registry.contracts)} feature "
        f"services, last compared with Feast's registry at {format_timestamp(head.checked_at)}"
    )
    if address.sql_url is not None:
        with closing(FeastTables(address.sql_url)) as feast:
            if feast.fingerprint(address.project) != head.source:
                remedy = "run `skewless features compile`, or leave it to the running stack"
                return Finding(check, Condition.UNHEALTHY, f"{seen}; the definitions have changed since", remedy)
    if refusals:
        name, reason = next(iter(sorted(refusals.items())))
        told = f"{seen}; {len(refusals)} services cannot be read, such as `{name}`: {' '.join(reason.split())}"
        return Finding(check, Condition.WARNING, told, "`skewless features list` shows all of them")
    return Finding(check, Condition.OK, seen)


def _log_store(settings: Settings) -> Finding:
    """Whether the prediction log reaches its store: whatever is wrong with that, segments that wait tell of it."""
    check = "log store"
    address = mask(settings.log_store_address)
    if importlib.util.find_spec("deltalake") is None:
        return Finding(check, Condition.MISSING, "its client is not installed", "install skewless with its extra `log`")
    segments = sealed_segments(settings.folders.predictions / SPOOL)
    if not segments:
        return Finding(check, Condition.OK, f"{address}; no segment waits for it")
    oldest_s = time.time() - begun_us(segments[0]) / SECOND_US
    seen = f"{address}; {len(segments)} segments wait, the oldest for {oldest_s:.0f} s"
    if oldest_s > SEGMENT_LATE_S:
        return Finding(check, Condition.WARNING, seen, "`skewless log status` says why, `skewless log ship` tries now")
    return Finding(check, Condition.OK, seen)


def _stack(home: Home) -> Iterator[Finding]:
    state = read_state(home)
    if state is None:
        last = read_last_state(home)
        failed = f", the last start failed: {last.failure.splitlines()[0]}" if last and last.failure else ""
        yield Finding("stack", Condition.MISSING, f"not running{failed}", "run `skewless up`")
        return
    condition = Condition.OK if state.phase is Phase.UP else Condition.UNHEALTHY
    remedy = "" if condition is Condition.OK else "see the processes below; `skewless down` and `up` start afresh"
    yield Finding("stack", condition, state.summary, remedy)
    for each in state.processes:
        yield _process(each, state)
    yield from _monitor(state)


def _process(process: ProcessState, state: StackState) -> Finding:
    check = f"process {process.name}"
    seen = f"process {process.pid}, restarted {process.restarts} times"
    last = f"; last failure: {process.last_failure}" if process.last_failure else ""
    if process.health is not Health.HEALTHY:
        return Finding(check, Condition.UNHEALTHY, f"{process.health}{last}", f"look at {process.log}")
    try:
        # Asked here and now as well, because the supervisor itself could be the one that hangs.
        asyncio.run(_ask(process.name, state))
    except Unavailable as error:
        return Finding(check, Condition.UNHEALTHY, error.message, f"look at {process.log}")
    return Finding(check, Condition.OK, f"{seen}{last}")


async def _ask(name: str, state: StackState) -> None:
    addresses = {
        valkey.NAME: state.valkey_url,
        triton.NAME: state.triton_http,
        gateway.NAME: state.gateway_url,
        shipper.NAME: state.shipper_url,
        monitor.NAME: state.monitor_url,
        scheduler.NAME: state.scheduler_url,
        ingest.NAME: state.ingest_url,
    }
    port = int(addresses[name].rpartition(":")[2])
    path = "/v2/health/ready" if name == triton.NAME else "/healthz"
    await (valkey_probe(name, port) if name == valkey.NAME else http_probe(name, port, path))()


def _monitor(state: StackState) -> Iterator[Finding]:
    """How each job of the monitor is doing. Warnings at most: without them it still serves as it should."""
    if not state.monitor_url:
        yield Finding("monitor", Condition.WARNING, "none runs in this stack", "unset SKEWLESS_STACK_MONITOR")
        return
    try:
        jobs = monitor.told_jobs(state.monitor_url)
    except Unavailable as error:
        yield Finding("monitor", Condition.WARNING, error.message, "`skewless down` and `up` start it afresh")
        return
    for each in jobs:
        check = f"monitor job {each.job}"
        if each.failures_in_a_row:
            remedy = "what it says is away is tried again by itself; the monitor's log has more"
            yield Finding(check, Condition.WARNING, f"fails: {each.last_failure}", remedy)
        else:
            yield Finding(check, Condition.OK, each.summary(time.time()))


def _endpoints(settings: Settings) -> Iterator[Finding]:
    try:
        current, newest = revision_status(settings.registry_url)
        if current != newest:
            yield Finding("endpoints", Condition.MISSING, "the registry database is not ready", "run `skewless up`")
            return
        database = engine(settings.registry_url)
        try:
            endpoints = Registry(database).endpoints()
        finally:
            database.dispose()
    except SkewlessError as error:
        yield Finding("endpoints", Condition.UNHEALTHY, error.message, error.hint)
        return
    if not endpoints:
        yield Finding("endpoints", Condition.MISSING, "none exists", "run `skewless endpoint create`, see --help")
    for each in endpoints:
        yield Finding(f"endpoint {each.name}", Condition.OK, f"live bundle {each.live_name}, {each.route.live[:12]}")
