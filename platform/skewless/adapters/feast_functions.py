"""Functions of on-demand feature views, named and pinned when they are registered.

Feast pickles a function into its registry. Here the registry also gets, as tags of the view, the name under which the
function is imported and a digest of its source, so that a server needs neither the pickle nor Feast.
"""

import importlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from skewless.adapters.feast_contract import DIGEST_TAG, FUNCTION_TAG, function_contract
from skewless.adapters.feast_definitions import Registered
from skewless.errors import InvalidDefinition
from skewless.features.contract import Mode
from skewless.features.function_source import OWN_MODULE, digest_of, function_name
from skewless.features.on_demand import OnDemandPlan

_IMPORT_TIMEOUT_S = 120
_TRY_IMPORTS = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
    if "feast" in sys.modules:
        sys.exit(f"imports Feast: {name}")
"""


def name_functions(views: Sequence[Any]) -> None:
    """Write name and source digest of each on-demand view's function into the view's tags.

    Raises InvalidDefinition for a view or function that cannot be served, and for a module that imports Feast.
    """
    names = {}
    for view in views:
        _refuse_unsupported(view)
        try:
            names[view.name] = function_name(view.feature_transformation.udf)
            digest = digest_of(names[view.name], importlib.import_module)
        except InvalidDefinition as error:
            raise InvalidDefinition(f"on-demand view `{view.name}`: {error.message}", hint=error.hint) from error
        view.tags = {**view.tags, FUNCTION_TAG: names[view.name], DIGEST_TAG: digest}
    _refuse_feast(sorted({name.partition(":")[0] for name in names.values()}))


def try_functions(registered: Registered, views: Sequence[Any]) -> None:
    """Refuse functions that cannot take a null, or whose result for a row depends on others: InvalidDefinition."""
    for view in views:
        OnDemandPlan.compile(function_contract(registered, view), importlib.import_module)


def _refuse_unsupported(view: Any) -> None:
    modes = [mode.value for mode in Mode]
    sources = [str(each.name) for each in view.sources]
    refusals = {
        "singleton=True": (view.singleton, "Feast transforms only the first row of it online; take whole columns"),
        "aggregations": (bool(view.aggregations), "aggregate in the source table, or in the function"),
        "write_to_online_store=True": (
            view.write_to_online_store,
            "Feast stores it under the time of writing, which no training set can repeat; compute it in the source "
            "table, or leave this out",
        ),
        f"mode={view.mode!r}": (view.mode not in modes, f"allowed: {', '.join(map(repr, modes))}"),
        "no schema": (not view.features, "declare every feature with its dtype"),
        "two sources of one name": (
            len(set(sources)) < len(sources),
            "Feast keeps only the last of them; read the view once, or register it twice under two names",
        ),
    }
    for what, (found, hint) in refusals.items():
        if found:
            raise InvalidDefinition(f"on-demand view `{view.name}` has {what}, which cannot be served", hint=hint)


def _refuse_feast(modules: Sequence[str]) -> None:
    """Import the modules in a process of their own, as a server would that has no Feast loaded."""
    if not modules:
        return
    search = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
    command = [sys.executable, "-W", "ignore", "-c", _TRY_IMPORTS, *modules]
    try:
        done = subprocess.run(
            command,
            env={**os.environ, "PYTHONPATH": search},
            capture_output=True,
            text=True,
            timeout=_IMPORT_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise InvalidDefinition(
            f"modules {', '.join(modules)} of on-demand functions took more than {_IMPORT_TIMEOUT_S} s to import",
            hint="do no work when the module is imported",
        ) from error
    if done.returncode:
        reason = done.stderr.strip().rpartition("\n")[2]
        raise InvalidDefinition(
            f"the modules of on-demand functions ({', '.join(modules)}) cannot be loaded by a server: {reason}",
            hint=OWN_MODULE,
        )
