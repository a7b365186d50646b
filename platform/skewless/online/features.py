"""Which features to read: a contract, from wherever it is kept."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

from skewless.adapters.step_loader import TransformSteps
from skewless.bundles.bundle import load_bundle
from skewless.bundles.manifest import MANIFEST
from skewless.errors import InvalidDefinition, InvalidRequest, NotFound
from skewless.features.contract import FeatureContract


@dataclass(frozen=True, slots=True)
class FeatureSet:
    """The features of one contract, and how many fields the store's hashes have, where that is known."""

    contract: FeatureContract
    hash_sizes: Mapping[tuple[str, ...], int] = field(default_factory=dict)
    """By the stored names of an entity's join keys, in order; with it, reads of whole hashes become cheaper."""


Features = FeatureSet | FeatureContract | str | PathLike[str]
"""What a reader takes: features, a contract, or the path of a contract's JSON file or of a bundle's folder."""


def load_features(path: str | PathLike[str]) -> FeatureSet:
    """The features of a contract's JSON file, or of a bundle's folder, which is verified.

    Raises NotFound, InvalidDefinition for a file that is no contract, BundleRefused for a folder that is no bundle.
    """
    place = Path(path)
    if place.is_dir() or place.name == MANIFEST:
        return FeatureSet(load_bundle(place if place.is_dir() else place.parent, steps=TransformSteps).contract)
    try:
        data = json.loads(place.read_bytes())
    except FileNotFoundError as error:
        raise NotFound(
            "file", str(path), hint="give the path of a contract's JSON file or a bundle's folder"
        ) from error
    except ValueError as error:
        raise InvalidDefinition(f"`{path}` is not JSON: {error}") from error
    if not isinstance(data, dict):
        raise InvalidDefinition(f"`{path}` holds a JSON {type(data).__name__}; a feature contract is an object")
    return FeatureSet(FeatureContract.from_json(data))


def registered_features(service: str, *, registry: str, project: str = "") -> FeatureSet:
    """The features of a Feast feature service, from the newest snapshot in the registry database.

    `registry` is its SQLAlchemy URL. `project` may be left out where the database has one. Raises NotFound,
    InvalidRequest where it has several, InvalidDefinition where the service cannot be read online, and Unavailable.
    """
    # A reader whose contract is a file needs no database driver in its process.
    from skewless.registry.database import engine
    from skewless.registry.snapshots import FeatureSnapshots

    database = engine(registry)
    try:
        snapshots = FeatureSnapshots(database)
        compiled = snapshots.newest(project or _only_project(snapshots.projects())).registry
    finally:
        database.dispose()
    return FeatureSet(compiled.contract(service), compiled.hash_sizes)


def features_of(features: Features) -> FeatureSet:
    """The features that a reader was given, loaded where they are a path."""
    if isinstance(features, FeatureSet):
        return features
    if isinstance(features, FeatureContract):
        return FeatureSet(features)
    return load_features(features)


def _only_project(projects: tuple[str, ...]) -> str:
    if not projects:
        raise NotFound("registry snapshot", "of any project", known=(), hint="run `skewless apply` first")
    if len(projects) > 1:
        listed = ", ".join(f"`{project}`" for project in projects)
        raise InvalidRequest(
            f"the registry database has {len(projects)} projects, and none is named",
            path="$.project",
            allowed=listed,
            hint=f"give `project=`, one of {listed}",
        )
    return projects[0]
