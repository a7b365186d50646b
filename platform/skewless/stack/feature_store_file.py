"""What a repository's `feature_store.yaml` says about its registry, read without Feast."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from skewless.errors import InvalidDefinition
from skewless.settings import Settings

FILE = "feature_store.yaml"
_VARIABLE = "${SKEWLESS_FEAST_REGISTRY}"
_SQL = "sql"


@dataclass(frozen=True, slots=True)
class FeastAddress:
    """A Feast project, and the registry that it is in."""

    project: str
    registry_type: str
    sql_url: str | None
    """SQLAlchemy URL of the registry; None where it is no SQL database, and cannot be looked at without Feast."""


def feast_address(settings: Settings) -> FeastAddress:
    """The project of the settings' repository. Raises InvalidDefinition where the file is missing or unreadable."""
    config = _read(settings.repo / FILE)
    registry = config.get("registry")
    # Feast takes a bare path for a registry in a file.
    options: Mapping[str, object] = registry if isinstance(registry, Mapping) else {}
    kind = str(options.get("registry_type", "file"))
    url = str(options.get("path", "")).replace(_VARIABLE, settings.feast_registry_url) if kind == _SQL else None
    return FeastAddress(str(config.get("project", "")), kind, url)


def _read(path: Path) -> Mapping[str, object]:
    try:
        config = yaml.safe_load(path.read_text())
    except OSError as error:
        raise InvalidDefinition(
            f"`{path}` cannot be read: {error.strerror}", hint="set SKEWLESS_REPO to the folder of a Feast repository"
        ) from error
    except (ValueError, yaml.YAMLError) as error:
        raise InvalidDefinition(f"`{path}` is not YAML: {error}") from error
    if not isinstance(config, Mapping):
        raise InvalidDefinition(f"`{path}` is not a Feast configuration: it holds no mapping")
    return config
