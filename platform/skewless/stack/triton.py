"""The embedded model server: the Triton binary of the `nvidia-pytriton` wheel, python backend, on loopback."""

import hashlib
import importlib.util
import os
import shutil
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from skewless.errors import StackFailed
from skewless.stack.ports import LOOPBACK
from skewless.stack.probes import http_probe
from skewless.stack.process import ProcessSpec

NAME = "triton"
EXIT_TIMEOUT_S = 5
"""How long Triton finishes requests in flight when stopped; its own default of 30 s would outlast the stack's."""
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  # the kernel's shared memory itself, not a temporary file
_REINSTALL = "install the `embedded` extra: `make setup`, or `pip install 'skewless[embedded]'`"
_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


@dataclass(frozen=True, slots=True)
class TritonPorts:
    """Loopback ports of Triton's three servers."""

    http: int
    grpc: int
    metrics: int


@dataclass(frozen=True, slots=True)
class TritonInstallation:
    """Where the parts of an installed Triton are; every path exists."""

    binary: Path
    backends: Path
    stub: Path
    libraries: tuple[Path, ...]
    """Folders with the wheel's and the interpreter's shared libraries."""
    site_packages: Path


def installation() -> TritonInstallation:
    """What is installed for the running interpreter. Raises StackFailed naming the first part that is missing."""
    found = importlib.util.find_spec("pytriton")
    if found is None or found.origin is None:
        raise StackFailed(
            "the package `nvidia-pytriton`, which holds the Triton server, is not installed", hint=_REINSTALL
        )
    site_packages = Path(found.origin).parent.parent
    server = site_packages / "pytriton" / "tritonserver"
    stub = server / "python_backend_stubs" / _PYTHON / "triton_python_backend_stub"
    libraries = site_packages / "nvidia_pytriton.libs"
    for part in (server / "bin" / "tritonserver", server / "backends" / "python", libraries):
        if not part.exists():
            raise StackFailed(f"the package `nvidia-pytriton` is incomplete: {part} is missing", hint=_REINSTALL)
    if not stub.exists():
        built = ", ".join(sorted(each.name for each in stub.parent.parent.iterdir()))
        raise StackFailed(
            f"Triton's python backend is not built for Python {_PYTHON}. Built for: {built}",
            hint="create the environment with one of these Python versions",
        )
    return TritonInstallation(
        server / "bin" / "tritonserver", server / "backends", stub, (libpython().parent, libraries), site_packages
    )


def libpython() -> Path:
    """The interpreter's shared library, which the python backend links to. Raises StackFailed without one."""
    name = f"libpython{_PYTHON}.so.1.0"
    folders = (
        sysconfig.get_config_var("LIBDIR"),
        str(Path(sys.base_prefix) / "lib"),
        f"/usr/lib/{sysconfig.get_config_var('MULTIARCH')}",
        "/usr/lib64",
        "/usr/lib",
    )
    for folder in folders:
        if folder and (Path(folder) / name).exists():
            return Path(folder) / name
    raise StackFailed(
        f"{name} is not found next to Python {_PYTHON} at {sys.base_prefix}; Triton's python backend needs it",
        hint=f"use a Python built with a shared library (uv's has one), or install the package libpython{_PYTHON}",
    )


def prepare_backends(installed: TritonInstallation, folder: Path) -> None:
    """Make `folder` the backend directory of this interpreter, writing only what differs.

    Triton wants the stub inside the backend, and the installed package is not ours to write to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pairs = [(each, folder / each.relative_to(installed.backends)) for each in installed.backends.rglob("*")]
    pairs.append((installed.stub, folder / "python" / installed.stub.name))
    for source, target in pairs:
        if source.is_dir():
            target.mkdir(exist_ok=True)
        elif not _is_copy(source, target):
            partial = target.with_name(f"{target.name}.partial")
            shutil.copy2(source, partial)
            partial.replace(target)


def triton_spec(*, ports: TritonPorts, models: Path, backends: Path, logs: Path) -> ProcessSpec:
    """How to start Triton on loopback with every model found in `models`, which is created.

    Models are loaded and unloaded over the API. `--load-model=*` brings a restarted server back with all of
    them; with the two options after it a model that cannot load is reported as unavailable by itself, while
    the server is ready and serves the others. Without them Triton 2.51 exits with status 1.
    """
    installed = installation()
    prepare_backends(installed, backends)
    models.mkdir(parents=True, exist_ok=True)
    options = (
        f"--model-repository={models.resolve()}",
        f"--backend-directory={backends.resolve()}",
        "--model-control-mode=explicit",
        "--load-model=*",
        "--exit-on-error=false",
        "--strict-readiness=false",
        f"--exit-timeout-secs={EXIT_TIMEOUT_S}",
        f"--backend-config=python,shm-region-prefix-name={_shared_memory_prefix(models)}",
        f"--http-address={LOOPBACK}",
        f"--http-port={ports.http}",
        f"--grpc-address={LOOPBACK}",
        f"--grpc-port={ports.grpc}",
        f"--metrics-address={LOOPBACK}",
        f"--metrics-port={ports.metrics}",
    )
    libraries = [str(each) for each in installed.libraries]
    return ProcessSpec(
        name=NAME,
        command=(str(installed.binary), *options),
        log_file=logs / f"{NAME}.log",
        probe=http_probe(NAME, ports.http, "/v2/health/ready"),
        environment={
            "LD_LIBRARY_PATH": os.pathsep.join([*libraries, *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]),
            **_python_environment(installed),
        },
        stop_timeout_s=EXIT_TIMEOUT_S + 5.0,
        clean_up=lambda: _remove_shared_memory(models),
    )


def _python_environment(installed: TritonInstallation) -> dict[str, str]:
    """Variables by which the python stubs find the packages of this environment.

    The stubs of Python 3.11 and later start an isolated interpreter, which ignores PYTHONPATH and finds its
    packages from the first `python3` on PATH, as seen with Triton 2.51; the older ones read PYTHONPATH.
    """
    programs = [str(Path(sys.executable).parent), *filter(None, [os.environ.get("PATH")])]
    return {"PATH": os.pathsep.join(programs), "PYTHONPATH": str(installed.site_packages)}


def _shared_memory_prefix(models: Path) -> str:
    """A name of its own in /dev/shm for each model repository, so that two stacks cannot meet there."""
    return f"skewless_{hashlib.sha256(str(models.resolve()).encode()).hexdigest()[:12]}_"


def _remove_shared_memory(models: Path) -> None:
    """Free what a killed Triton of this model repository left in /dev/shm, a megabyte or more per instance."""
    for region in SHARED_MEMORY.glob(f"{_shared_memory_prefix(models)}*"):
        region.unlink(missing_ok=True)


def _is_copy(source: Path, target: Path) -> bool:
    try:
        seen = target.stat()
    except FileNotFoundError:
        return False
    wanted = source.stat()
    return (seen.st_size, seen.st_mtime_ns) == (wanted.st_size, wanted.st_mtime_ns)
