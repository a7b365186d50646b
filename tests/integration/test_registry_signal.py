"""The signal of a change: it comes soon, also from another process, is never an error, and ends when it is closed."""

import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url

from harness.postgres import PostgresServer
from harness.servers import wait_until
from skewless.canonical_json import digest
from skewless.errors import InvalidRequest, InvalidSettings
from skewless.registry import database
from skewless.registry.change_signal import ChangeSignal, PostgresChangeSignal, open_change_signal
from skewless.registry.records import BundleRecord
from skewless.registry.repository import Registry
from skewless.timestamps import Micros

SOON_S = 60.0
REGISTER = """
import sys
from skewless.canonical_json import digest
from skewless.registry.database import engine
from skewless.registry.records import BundleRecord
from skewless.registry.repository import Registry
from skewless.timestamps import Micros
own = digest("from elsewhere")
registry = Registry(engine(sys.argv[1]))
registry.register_bundle(BundleRecord(own, "b", Micros(1), own, own, own, {}))
registry.close()
"""


@pytest.fixture
def registry(registry_url: str) -> Iterator[Registry]:
    made = Registry(database.engine(registry_url))
    yield made
    made.close()


@pytest.fixture
def signal(registry_url: str) -> Iterator[ChangeSignal]:
    """A signal that is listening and has nothing to tell."""
    with closing(open_change_signal(registry_url)) as made:
        _settle(made)
        yield made


def _settle(signal: ChangeSignal) -> None:
    if isinstance(signal, PostgresChangeSignal):
        wait_until(lambda: signal.listening, "somebody listens")
        assert signal.wait(SOON_S), "what was missed before"


def _register(registry: Registry, name: str) -> None:
    own = digest(name)
    registry.register_bundle(BundleRecord(own, "b", Micros(1), own, own, own, {}))


def test_nothing_is_told_while_nothing_changes(signal: ChangeSignal, registry: Registry) -> None:
    registry.routes()
    started = time.monotonic()
    assert not signal.wait(0.2)
    assert 0.2 <= time.monotonic() - started < SOON_S
    assert not signal.wait(0.0)


def test_each_change_is_told_once_also_one_that_came_before_the_wait(signal: ChangeSignal, registry: Registry) -> None:
    for number in range(5):
        _register(registry, str(number))
        assert signal.wait(SOON_S)
    assert not signal.wait(0.2)


def test_a_change_ends_a_wait_that_has_begun(signal: ChangeSignal, registry: Registry) -> None:
    told: list[bool] = []
    waiter = threading.Thread(target=lambda: told.append(signal.wait(SOON_S)))
    waiter.start()
    _register(registry, "new")
    waiter.join(SOON_S)
    assert told == [True]


def test_a_change_by_another_process_is_told(signal: ChangeSignal, registry_url: str) -> None:
    subprocess.run([sys.executable, "-c", REGISTER, registry_url], check=True, timeout=60)
    assert signal.wait(SOON_S)


def test_closing_ends_a_wait_and_every_later_one(signal: ChangeSignal) -> None:
    told: list[bool] = []
    waiter = threading.Thread(target=lambda: told.append(signal.wait(3 * SOON_S)))
    waiter.start()
    signal.close()
    waiter.join(SOON_S)
    assert told == [False]
    assert not signal.wait(SOON_S)
    signal.close()


def test_postgresql_tells_which_subject_changed_to_which_version_and_only_when_it_did(
    postgres_server: PostgresServer,
) -> None:
    url = postgres_server.empty_database()
    registry = Registry(database.engine(url))
    _register(registry, "a")
    _register(registry, "b")
    with psycopg.connect(_conninfo(url), autocommit=True) as listener:
        listener.execute(f"LISTEN {database.CHANGES_CHANNEL}")
        create = {"description": "", "bundle": digest("a"), "reason": "start"}
        with pytest.raises(InvalidRequest):
            registry.create_endpoint("two", **create, actor="")  # type: ignore[arg-type]  # a mapping of two types
        registry.create_endpoint("one", **create, actor="ann")  # type: ignore[arg-type]  # a mapping of two types
        registry.set_live("one", digest("b"), actor="ann", reason="better")
        told = [json.loads(each.payload) for each in listener.notifies(timeout=SOON_S, stop_after=2)]
    assert told == [{"subject": "endpoint/one", "version": 1}, {"subject": "endpoint/one", "version": 2}]
    registry.close()


def test_a_listener_that_lost_its_server_finds_it_again_and_tells_that_it_may_have_missed_something(
    postgres_server: PostgresServer,
) -> None:
    url = postgres_server.empty_database()
    with closing(PostgresChangeSignal(database.engine(url))) as signal:
        _settle(signal)
        postgres_server.stop()
        try:
            wait_until(lambda: not signal.listening, "the loss is noticed")
            assert not signal.wait(0.1)
        finally:
            postgres_server.start()
        assert signal.wait(SOON_S)
        assert signal.listening


def test_a_listener_whose_server_was_never_there_can_be_closed(postgres_server: PostgresServer) -> None:
    nobody = make_url(postgres_server.url()).set(port=1).render_as_string(hide_password=False)
    signal = open_change_signal(nobody)
    started = time.monotonic()
    assert not signal.wait(0.1)
    signal.close()
    assert time.monotonic() - started < SOON_S


def test_a_sqlite_signal_creates_no_file_and_tells_when_one_comes_or_is_another(
    sqlite_registry: Path, tmp_path: Path
) -> None:
    file = tmp_path / "registry.db"
    with closing(open_change_signal(f"sqlite:///{file}")) as signal:
        assert not signal.wait(0.1)
        assert not file.exists()
        shutil.copy(sqlite_registry, file)
        assert signal.wait(SOON_S)
        aside = file.rename(tmp_path / "aside.db")
        assert not signal.wait(0.1), "a file that is away is no change"
        aside.rename(file)
        assert not signal.wait(0.1), "it is the same as before"
        Path(shutil.copy(file, tmp_path / "other.db")).replace(file)
        assert signal.wait(SOON_S), "it is another file"
        registry = Registry(database.engine(f"sqlite:///{file}"))
        _register(registry, "new")
        assert signal.wait(SOON_S)
        registry.close()


def test_a_signal_of_no_registry_is_refused() -> None:
    with pytest.raises(InvalidSettings):
        open_change_signal("mysql://host/database")


def _conninfo(url: str) -> str:
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
