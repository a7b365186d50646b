"""Fixtures that every kind of test may use: real servers, started on first use, one of each per run."""

from collections.abc import Iterator

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
