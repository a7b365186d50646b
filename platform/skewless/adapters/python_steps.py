"""Functions of installed packages as steps of a transform, pinned by version and source.

::

    def haversine_km(lat1, lon1, lat2, lon2): ...      # in an installed package `our_geo`, over arrays (rows,)

    distance = python_step(our_geo.distances.haversine_km, [lat1, lon1, lat2, lon2], package="our-geo")

What is pinned is the version of the distribution and the digest of every Python source of the function's top-level
package: a helper in another of its modules is covered, another package that it imports is not. Reading a stored
transform runs nothing of a package that is not allowed by name, and compares the sources before it imports them.
"""

import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skewless.canonical_json import Digest
from skewless.errors import InvalidDefinition
from skewless.transforms.expressions import Expression, declare
from skewless.transforms.step_operations import PythonStep, StepRun

SOURCES_MAX = 5_000
"""Python files of one package that are read for its digest: less than a second. A larger package is no feature code."""

ArrayFunction = Callable[..., Any]
"""Takes one read-only array (rows,) per operand, none of them null: float64, object (str), or int64 microseconds.
Returns numbers (rows,), or for several outputs (outputs, rows)."""


def python_step(
    function: ArrayFunction, operands: Sequence[Expression], *, package: str, outputs: Sequence[str] | None = None
) -> Expression:
    """An expression of the function's result: one number, or several where `outputs` names them.

    `package` is the name of the installed distribution that the function comes from. A row with a null in any
    operand never reaches the function, and is null. Fitting checks that a row's result has the same bits alone and in
    a batch. Raises InvalidDefinition for a function that cannot be pinned.
    """
    name = getattr(function, "__qualname__", "")
    module = getattr(function, "__module__", None) or ""
    if not inspect.isfunction(function) or getattr(importlib.import_module(module), name, None) is not function:
        raise InvalidDefinition(
            f"`{name or function!r}` of module `{module}` is no Python function that can be found again by its name",
            hint="give a function that is written in Python at the top level of a module of an installed package",
        )
    settings = {
        "package": package,
        "version": _version(package, module),
        "function": f"{module}:{name}",
        "source_sha256": source_digest(module),
        "operands": [str(each.kind) for each in operands],
        "outputs": None if outputs is None else list(outputs),
    }
    return declare(PythonStep(_run(function, f"{module}:{name}", several=outputs is not None)), *operands, **settings)


def load_python_step(settings: Mapping[str, Any], *, allowed: Collection[str]) -> StepRun:
    """The function of a stored step. Raises InvalidDefinition unless its package is in `allowed` and what it was."""
    package, (module, _, name) = settings["package"], settings["function"].partition(":")
    if package not in allowed:
        raise InvalidDefinition(
            f"a `python` step runs `{settings['function']}` of package `{package}`, which is not allowed here;"
            f" allowed: {', '.join(sorted(allowed)) or 'none'}",
            hint="allow the package by name where transforms are loaded, if its code may run here",
        )
    version, digest = _version(package, module), source_digest(module)
    if (version, digest) != (settings["version"], settings["source_sha256"]):
        raise InvalidDefinition(
            f"a `python` step is pinned to `{package}` {settings['version']} with the sources"
            f" {settings['source_sha256'][:12]}; installed is {version} with {digest[:12]}",
            hint="install the version that the transform was fitted with, or fit it again with this one",
        )
    function = getattr(importlib.import_module(module), name, None)
    if not callable(function):
        raise InvalidDefinition(f"package `{package}` {version} has no function `{settings['function']}`")
    return _run(function, settings["function"], several=settings["outputs"] is not None)


def source_digest(module: str) -> Digest:
    """SHA-256 over path and content of every Python source of the module's top-level package, which is not imported."""
    top = module.partition(".")[0]
    spec = importlib.util.find_spec(top) if top else None
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        raise InvalidDefinition(
            f"module `{module}` has no Python source that could be pinned",
            hint="give a function that is written in Python, in a package with an __init__.py",
        )
    origin = Path(spec.origin)
    folder = origin.parent
    sources = sorted(folder.rglob("*.py")) if origin.name == "__init__.py" else [origin]
    if len(sources) > SOURCES_MAX:
        raise InvalidDefinition(
            f"package `{top}` has {len(sources):,} Python files; at most {SOURCES_MAX:,} are pinned"
        )
    digest = hashlib.sha256()
    for source in sources:
        data = source.read_bytes()
        digest.update(f"{source.relative_to(folder).as_posix()}\0{len(data)}\0".encode())
        digest.update(data)
    return Digest(digest.hexdigest())


def _version(package: str, module: str) -> str:
    """The version of the installed distribution. Raises InvalidDefinition where the module is not known to be its."""
    try:
        distribution = importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError as error:
        raise InvalidDefinition(
            f"no package `{package}` is installed, so a `python` step of it cannot be pinned",
            hint="install the code as a package with a version; give its distribution's name",
        ) from error
    top = module.partition(".")[0]
    files = distribution.files or []
    if not any(file.parts[0] in (top, f"{top}.py") for file in files) and not _is_editable(distribution):
        raise InvalidDefinition(
            f"module `{module}` does not belong to the installed package `{package}`",
            hint="give the name of the distribution that installed the module",
        )
    return distribution.version


def _is_editable(distribution: importlib.metadata.Distribution) -> bool:
    """An editable installation does not list its modules, so ownership of a module cannot be looked up."""
    text = distribution.read_text("direct_url.json")
    return text is not None and bool(json.loads(text).get("dir_info", {}).get("editable", False))


def _run(function: ArrayFunction, title: str, *, several: bool) -> StepRun:
    def run(operands: Sequence[NDArray[Any]]) -> NDArray[np.float64]:
        try:
            result = np.asarray(function(*operands), dtype=np.float64)
        except Exception as error:  # a boundary: the function is anyone's, and may raise anything
            raise InvalidDefinition(
                f"the `python` step {title} failed on {len(operands[0])} rows: {error!r}"
            ) from error
        return np.ascontiguousarray(result if several else result[np.newaxis])

    return run
