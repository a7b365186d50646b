"""The locks: up to date with pyproject.toml, hashed, without addresses, and agreeing with each other."""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
MAIN = ROOT / "requirements.lock"
GATEWAY = ROOT / "services/skewless_gateway/requirements.lock"
SHIPPER = ROOT / "services/skewless_shipper/requirements.lock"
MONITOR = ROOT / "monitoring/skewless_monitor/requirements.lock"
INGEST = ROOT / "services/skewless_ingest/requirements.lock"
SCHEDULER = ROOT / "services/skewless_scheduler/requirements.lock"
TRITON = ROOT / "services/skewless_triton/requirements.lock"
OURS = re.compile(r"^\s+#(?: via)?\s+skewless \(pyproject\.toml(?::\w+)?\)$", re.MULTILINE)
STALE = "run `make lock` and commit the locks"


@dataclass(frozen=True, slots=True)
class Pin:
    """One package of a lock. `direct` says that pyproject.toml itself asks for it."""

    name: str
    version: Version
    marker: str
    hashes: frozenset[str]
    direct: bool


def pins(lock: Path) -> list[Pin]:
    """Packages in the order of the file; a package can have one pin for each of several Python versions."""
    found = []
    for block in re.split(r"\n(?=[a-zA-Z0-9])", lock.read_text()):
        if block.startswith("#"):
            continue
        requirement = Requirement(block.split("\\\n")[0].split("\n")[0].strip())
        (specifier,) = requirement.specifier
        assert specifier.operator == "==", f"{lock.name}: {requirement} is not pinned"
        hashes = frozenset(re.findall(r"--hash=(sha256:[0-9a-f]{64})", block))
        found.append(
            Pin(
                canonicalize_name(requirement.name),
                Version(specifier.version),
                str(requirement.marker or ""),
                hashes,
                OURS.search(block) is not None,
            )
        )
    return found


def _group(name: str) -> Iterator[Requirement]:
    entries: list[Any] = PYPROJECT["dependency-groups"][name]
    for entry in entries:
        if isinstance(entry, dict):
            yield from _group(entry["include-group"])
        else:
            yield Requirement(entry)


def declared(*, extras: tuple[str, ...], groups: tuple[str, ...], project: bool = True) -> list[Requirement]:
    """What pyproject.toml asks for, directly."""
    texts = list(PYPROJECT["project"]["dependencies"]) if project else []
    for extra in extras:
        texts += PYPROJECT["project"]["optional-dependencies"][extra]
    return [*map(Requirement, texts), *(each for group in groups for each in _group(group))]


LOCKS = {
    MAIN: declared(extras=tuple(PYPROJECT["project"]["optional-dependencies"]), groups=("dev",)),
    GATEWAY: declared(extras=("gateway", "postgres", "s3", "tracing"), groups=("build",)),
    SHIPPER: declared(extras=("log", "kafka", "s3"), groups=("build",)),
    MONITOR: declared(extras=("monitor", "training", "kafka", "s3", "postgres"), groups=("build",)),
    INGEST: declared(extras=("ingest", "kafka", "s3", "postgres"), groups=("build",)),
    SCHEDULER: declared(extras=("scheduler", "training", "s3", "postgres"), groups=("build",)),
    TRITON: declared(extras=(), groups=("triton",), project=False),
}
each_lock = pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.parent.name)


@each_lock
def test_a_lock_has_a_version_for_each_declared_dependency_and_no_other(lock: Path) -> None:
    asked = {canonicalize_name(each.name) for each in LOCKS[lock]}
    locked = {each.name for each in pins(lock) if each.direct}
    assert locked == asked, f"{STALE}; only in one of the two: {sorted(locked ^ asked)}"


@each_lock
def test_locked_versions_fit_what_is_declared(lock: Path) -> None:
    versions: dict[str, set[Version]] = {}
    for pin in pins(lock):
        versions.setdefault(pin.name, set()).add(pin.version)
    for requirement in LOCKS[lock]:
        for version in versions[canonicalize_name(requirement.name)]:
            assert requirement.specifier.contains(version, prereleases=True), f"{requirement}, not {version}: {STALE}"


@each_lock
def test_extras_of_declared_dependencies_are_locked(lock: Path) -> None:
    locked = {each.name for each in pins(lock)}
    wanted = {"hiredis": "redis", "grpcio": "tritonclient", "psycopg-binary": "psycopg"}
    asked = {canonicalize_name(each.name) for each in LOCKS[lock] if each.extras}
    assert {part for part, package in wanted.items() if package in asked} <= locked, STALE


@each_lock
def test_every_locked_package_has_hashes(lock: Path) -> None:
    bare = [f"{each.name} {each.version}" for each in pins(lock) if not each.hashes]
    assert not bare, f"without a hash: {bare}; {STALE}"


@each_lock
def test_a_lock_holds_no_address_and_no_option(lock: Path) -> None:
    lines = lock.read_text().splitlines()
    found = [line for line in lines if "://" in line or " @ " in line or re.match(r"-(?!-hash)", line)]
    assert not found, f"locks hold names, versions and hashes only: {found}"


@each_lock
def test_markers_of_a_package_do_not_leave_linux_out(lock: Path) -> None:
    platform = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix"}
    here = {each.name for each in pins(lock) if not each.marker or Marker(each.marker).evaluate({**platform})}
    direct = {each.name for each in pins(lock) if each.direct}
    assert direct <= here, f"not installed on Linux: {sorted(direct - here)}"


@pytest.mark.parametrize("lock", [GATEWAY, SHIPPER, MONITOR, TRITON], ids=lambda lock: lock.parent.name)
def test_an_image_gets_the_versions_that_were_tested(lock: Path) -> None:
    tested = {(each.name, each.version) for each in pins(MAIN)}
    others = [f"{each.name} {each.version}" for each in pins(lock) if (each.name, each.version) not in tested]
    assert not others, f"not in requirements.lock: {others}; {STALE}"


def test_what_records_addresses_is_ignored_by_git() -> None:
    assert "/uv.lock" in (ROOT / ".gitignore").read_text().splitlines()
