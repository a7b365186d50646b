"""Fixtures that every kind of test may use: real servers, started on first use, one of each per run."""

import os
from collections.abc import Iterator

# Before any test module can import Feast, which would turn this package's counters into files (see the fixture below).
import prometheus_client  # noqa: F401
import pytest

from harness.servers import TritonServer, ValkeyServer, running_triton, running_valkey


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


@pytest.fixture(scope="session", autouse=True)
def no_inherited_metrics_folder() -> None:
    """Importing Feast points prometheus_client at a folder; gateways that tests start must not inherit that."""
    for name in ("PROMETHEUS_MULTIPROC_DIR", "PROMETHEUS_MULTIPROCESS_DIR"):
        os.environ.pop(name, None)
