"""The PostgreSQL that tests start: every one on this machine holds a registry, and none outlives its tests."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from harness.postgres import PostgresServer, installations, running_postgres
from harness.servers import wait_until
from skewless.canonical_json import digest
from skewless.registry import database
from skewless.registry.records import BundleRecord
from skewless.registry.repository import Registry
from skewless.timestamps import Micros

TESTS = Path(__file__).parents[1]
# Says where the server is, and is killed by its own hand.
STARTER = """
import os, signal
from harness.postgres import running_postgres
with running_postgres() as server:
    print(server.folder, (server.folder / "data" / "postmaster.pid").read_text().split()[0], flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def _check_registry(server: PostgresServer) -> None:
    """A registry in a new database of the server keeps what it is given."""
    registry = Registry(database.engine(server.new_database()))
    own = digest("a")
    registry.register_bundle(BundleRecord(own, "a", Micros(1), own, own, own, {}))
    registry.create_endpoint("one", description="", bundle=own, actor="ann", reason="start")
    assert registry.routes().route("one").live == own
    registry.close()


@pytest.mark.parametrize("binaries", installations(), ids=str)
def test_every_postgresql_of_this_machine_holds_a_registry(binaries: Path) -> None:
    with running_postgres(binaries) as server:
        _check_registry(server)
        folder = server.folder
    assert not folder.exists()


def test_an_installation_in_a_closed_folder_serves_too(tmp_path: Path) -> None:
    # Where tests run as root, the server's account may enter neither pytest's folders nor, often, the clone's.
    (package,) = {folder.parents[1] for folder in installations() if "site-packages" in folder.parts}
    for each in package.parent.glob(f"{package.name}*"):
        if each.is_dir() and not each.name.endswith(".dist-info"):
            shutil.copytree(each, tmp_path / each.name)
    tmp_path.chmod(0o700)
    (binaries,) = (tmp_path / package.name).glob("pginstall/bin")
    with running_postgres(binaries) as server:
        _check_registry(server)


def test_a_server_ends_with_its_starter_however_that_ends() -> None:
    done = subprocess.run(
        [sys.executable, "-c", STARTER], cwd=TESTS, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    folder, process = done.stdout.split()
    try:
        wait_until(lambda: _has_ended(int(process)), "the server ends")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_a_server_goes_on_with_its_data_after_a_stop() -> None:
    with running_postgres() as server:
        url = server.new_database()
        registry = Registry(database.engine(url))
        own = digest("a")
        registry.register_bundle(BundleRecord(own, "a", Micros(1), own, own, own, {}))
        server.stop()
        server.start()
        assert [bundle.name for bundle in registry.bundles()] == ["a"]
        registry.close()


def _has_ended(process: int) -> bool:
    try:
        return psutil.Process(process).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
