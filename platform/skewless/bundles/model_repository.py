"""Triton's model repository: a folder with a model for each deployed bundle, written whole and taken away whole.

    <models>/bundle_<16 hex>/…    see bundles/triton_model.py

Several processes on one machine may deploy and retire at once; others may read the folder, a Triton server among them.
"""

import fcntl
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from skewless.bundles.bundle import LoadSteps, load_bundle
from skewless.bundles.serving_profile import Target
from skewless.bundles.triton_model import triton_files
from skewless.canonical_json import Digest

_DIGEST_CHARACTERS = 16
_INCOMING = ".incoming-"
_MODEL = re.compile(rf"bundle_[0-9a-f]{{{_DIGEST_CHARACTERS}}}")


def model_name(digest: str) -> str:
    """What a bundle is called at the model server.

    >>> model_name("0123456789abcdef" * 4)
    'bundle_0123456789abcdef'
    """
    return f"bundle_{digest[:_DIGEST_CHARACTERS]}"


def deploy(
    bundle_folder: Path,
    digest: str,
    models_folder: Path,
    *,
    target: Target = Target.EMBEDDED_CPU,
    steps: LoadSteps | None = None,
) -> str:
    """Write a bundle's model for a target into a model repository and return its name there; nothing is loaded yet.

    The model is there completely or not at all, and deploying again changes no file. `steps` as for `load_bundle`.
    Raises BundleRefused for a bundle that does not verify, or whose model the target cannot run.
    """
    bundle = load_bundle(bundle_folder, Digest(digest), steps=steps)
    name = model_name(digest)
    content = triton_files(name, bundle.read_model(), bundle.signature, bundle.serving, bundle.golden.tensor, target)
    _place(content, models_folder, name)
    return name


def retire(models_folder: Path, keep: frozenset[str], *, older_than_s: float, now_s: float) -> tuple[str, ...]:
    """Take away every model that is not to be kept and was deployed, again or at first, long enough ago.

    `keep` has model names, `now_s` is seconds since 1970. Returns the names of the models taken away; a server that
    has loaded one goes on serving it until it is told to unload it. Also clears what a killed deployment left behind.
    The age protects a model that was deployed for a route that is about to name it.
    """
    if not models_folder.is_dir():
        return ()
    with _alone_in(models_folder):
        old = [
            each for each in models_folder.iterdir() if each.is_dir() and now_s - each.stat().st_mtime > older_than_s
        ]
        retired = [each for each in old if _MODEL.fullmatch(each.name) and each.name not in keep]
        outgoing = [each for each in old if each.name.startswith(_INCOMING)]
        outgoing += [each.rename(models_folder / f"{_INCOMING}{each.name}-{uuid.uuid4().hex}") for each in retired]
    for each in outgoing:
        shutil.rmtree(each, ignore_errors=True)
    return tuple(sorted(each.name for each in retired))


def _place(content: Mapping[str, bytes], models_folder: Path, name: str) -> None:
    target = models_folder / name
    models_folder.mkdir(parents=True, exist_ok=True)
    with _alone_in(models_folder):
        if _is_deployed(target, content):
            os.utime(target)  # wanted again: `retire` counts its age from now on
            return
    incoming, outgoing = (models_folder / f"{_INCOMING}{name}-{uuid.uuid4().hex}" for _ in range(2))
    try:
        for path, data in content.items():
            _write(incoming / path, data)
        with _alone_in(models_folder):
            if _is_deployed(target, content):
                return
            if target.exists():
                # Left by another version of the templates. The server keeps what it has loaded until it loads again.
                target.rename(outgoing)
            incoming.rename(target)
    finally:
        shutil.rmtree(incoming, ignore_errors=True)
        shutil.rmtree(outgoing, ignore_errors=True)


def _is_deployed(target: Path, content: Mapping[str, bytes]) -> bool:
    """Whether exactly these files are there, besides what Python compiled of them."""
    paths = (each for each in target.rglob("*") if not each.is_dir() and each.parent.name != "__pycache__")
    there = {each.relative_to(target).as_posix() for each in paths}
    try:
        return there == content.keys() and all((target / path).read_bytes() == data for path, data in content.items())
    except OSError:
        return False


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, so that one process at a time looks at what is there and replaces it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
