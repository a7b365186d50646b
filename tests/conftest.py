"""Fixtures that every kind of test may use: real servers, started on first use, one of each per run."""

import gc
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

# Before any test module can import Feast, which would turn this package's counters into files (see the fixture below).
import prometheus_client  # noqa: F401
import pytest

from harness.command_forks import CommandForks, running_command_forks
from harness.examples import load_profile
from harness.postgres import PostgresServer, running_postgres
from harness.servers import TritonServer, ValkeyServer, running_triton, running_valkey
from skewless.registry import database

# A worker of a parallel run has a main module without a file, which Feast's dill takes for somebody's keyboard: it then
# looks for the source of functions in a history of typed lines.
sys.modules["__main__"].__dict__.setdefault("__file__", pytest.__file__)

if "PYTEST_XDIST_WORKER" in os.environ:
    # A worker collects every file, some of which import Feast: by its adapter, that costs half as much.
    import skewless.adapters.feast_import  # noqa: F401

load_profile()

# Collecting makes millions of objects that stay: looking through them again and again would take a third of the time.
gc.disable()


@pytest.fixture(scope="session")
def valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    """A real Valkey. Tests share it: use keys of your own, or flush it first."""
    with running_valkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture(scope="session")
def triton_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """A real Triton with an empty model repository. Tests share it: use model names of your own."""
    with running_triton(tmp_path_factory.mktemp("triton")) as server:
        yield server


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A real PostgreSQL. Tests share it: make databases of your own."""
    with running_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def command_forks() -> Iterator[CommandForks]:
    """Runs commands of `skewless` as processes that need not import Feast first."""
    with running_command_forks() as forks:
        yield forks


@pytest.fixture(scope="session")
def sqlite_registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty registry database of the newest schema, to be copied: migrating takes longer than most tests."""
    file = tmp_path_factory.mktemp("registry") / "registry.db"
    database.upgrade(f"sqlite:///{file}")
    return file


@pytest.fixture(params=["sqlite", "postgresql"])
def registry_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty registry database of the newest schema, once for each kind of database.

    A test that changes the schema makes a database of its own.
    """
    if request.param == "postgresql":
        server: PostgresServer = request.getfixturevalue("postgres_server")
        return server.empty_database()
    file = shutil.copy(request.getfixturevalue("sqlite_registry"), tmp_path / "registry.db")
    return f"sqlite:///{file}"


@pytest.fixture(autouse=True)
def no_inherited_metrics_folder() -> Iterator[None]:
    """Importing Feast points prometheus_client at a folder; gateways that tests start must not inherit that.

    Also afterwards: what a test imports must not reach the servers that the next file's fixtures start.
    """
    _forget_metrics_folder()
    yield
    _forget_metrics_folder()


def pytest_collection_finish() -> None:
    """So must not what test modules have imported until now; and what they made is never garbage."""
    _forget_metrics_folder()
    gc.freeze()
    gc.enable()


def pytest_unconfigure() -> None:
    """Libraries that count what is left of theirs at the end are to find it gone."""
    gc.unfreeze()


def _forget_metrics_folder() -> None:
    for name in ("PROMETHEUS_MULTIPROC_DIR", "PROMETHEUS_MULTIPROCESS_DIR"):
        os.environ.pop(name, None)
