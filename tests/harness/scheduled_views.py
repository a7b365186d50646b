"""Feature definitions with schedules, put in force without Feast."""

from collections.abc import Mapping

from sqlalchemy import Engine

from skewless.canonical_json import digest
from skewless.features.compiled_registry import CompiledRegistry
from skewless.features.definition_metadata import DefinitionSet, SourceMetadata, ViewMetadata
from skewless.registry.definitions import Compiled, Definitions


def define(engine: Engine, schedules: Mapping[str, str]) -> None:
    """Put definitions in force whose views have these cron expressions; none where empty."""
    put_in_force(engine, *(view(name, {"schedule": each} if each else {}) for name, each in schedules.items()))


def put_in_force(engine: Engine, *views: ViewMetadata) -> None:
    """Put definitions of these views in force."""
    definitions = DefinitionSet("prod", views={each.name: each for each in views})
    compiled = Compiled(definitions, CompiledRegistry("prod", {}, {}, {}), (), digest(definitions.to_json()))
    Definitions(engine).follow(compiled, plan={}, actor="ann", reason="")


def view(name: str, tags: Mapping[str, str], path: str = "somewhere.parquet") -> ViewMetadata:
    """A view of one key over a source that need not exist."""
    source = SourceMetadata(f"{name}_source", "FileSource", path, "parquet", "event_time", "created_time")
    return ViewMetadata(name, ("station",), (("station", "String"),), (), 0, source, tags=tags)
