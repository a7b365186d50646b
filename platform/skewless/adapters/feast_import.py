"""What the library uses of Feast, imported so that the environment stays as it was.

Importing Feast takes seconds, so only command-line jobs import this module.
"""

import contextlib
import functools
import io
import os
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import typeguard

__all__ = [
    "DUMMY_ENTITY_FIELD",
    "DUMMY_ENTITY_ID",
    "DUMMY_ENTITY_NAME",
    "DUMMY_ENTITY_VAL",
    "DeltaFormat",
    "Entity",
    "FeastError",
    "FeatureService",
    "FeatureStore",
    "FeatureView",
    "FileSource",
    "OnDemandFeatureView",
    "RepoConfig",
    "ValueType",
    "compute_versioned_name",
    "convert_arrow_to_proto",
    "from_value_type",
    "make_tzaware",
    "quiet",
]

_MULTIPROCESS_VARIABLES = ("PROMETHEUS_MULTIPROC_DIR", "PROMETHEUS_MULTIPROCESS_DIR")


@contextlib.contextmanager
def _environment_kept() -> Iterator[None]:
    """Undo what importing Feast does to the environment.

    Feast points prometheus_client at a temporary folder; every process started after that would inherit it and
    silently count into files instead of memory.
    """
    before = {name: os.environ.get(name) for name in _MULTIPROCESS_VARIABLES}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _checks_made_late() -> Iterator[None]:
    """Have Feast's classes prepare the checks of their arguments' types at their first object, not when defined.

    Feast marks nineteen classes so that typeguard compiles their methods anew while they are defined: 3.1 of the 5.6
    seconds of processor time that importing Feast took (Python 3.11, Feast 0.67, 2026-11-22). A command makes objects
    of few of them.
    """
    checked = typeguard.typechecked
    typeguard.typechecked = functools.partial(_checked_late, checked)
    try:
        yield
    finally:
        typeguard.typechecked = checked


def _checked_late(checked: Callable[[Any], Any], target: Any) -> Any:
    """A class whose first object has `checked` prepare it; what makes no objects is prepared at once."""
    if "__init__" not in vars(target):
        return checked(target)
    made = target.__init__

    @functools.wraps(made)
    def first(self: Any, *arguments: Any, **named: Any) -> None:
        if target.__init__ is first:  # and not of a subclass that has been prepared before
            target.__init__ = made
            checked(target)
        target.__init__(self, *arguments, **named)

    target.__init__ = first
    return target


with _environment_kept(), _checks_made_late():
    import feast.metrics  # noqa: F401  # it sets the variables; imported here so that it cannot do so later
    from feast import Entity, FeatureService, FeatureStore, FeatureView, ValueType
    from feast.data_format import DeltaFormat
    from feast.errors import FeastError
    from feast.feature_view import DUMMY_ENTITY_FIELD, DUMMY_ENTITY_ID, DUMMY_ENTITY_NAME, DUMMY_ENTITY_VAL
    from feast.infra.offline_stores.file_source import FileSource
    from feast.infra.online_stores.helpers import compute_versioned_name
    from feast.on_demand_feature_view import OnDemandFeatureView
    from feast.repo_config import RepoConfig
    from feast.types import from_value_type
    from feast.utils import _convert_arrow_to_proto as convert_arrow_to_proto
    from feast.utils import make_tzaware


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Feast prints its progress to standard output, which here carries data only, and warns of its younger parts."""
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", category=RuntimeWarning, message=".*experimental feature.*")
        yield
