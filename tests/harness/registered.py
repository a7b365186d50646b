"""Bundles as `skewless bundle register` leaves them: kept in a home's artifact store, recorded in its registry."""

from dataclasses import replace
from pathlib import Path

from harness.bundles import content
from skewless.adapters.folder_artifact_store import FolderArtifactStore
from skewless.bundles.bundle import write_bundle
from skewless.canonical_json import Digest, digest
from skewless.dtypes import Dtype, column_of
from skewless.features.contract import FeatureContract, RequestField
from skewless.registry.records import BundleRecord
from skewless.registry.repository import Registry
from skewless.settings import Home
from skewless.timestamps import Micros
from skewless.transforms import Transform, column


def register(home: Home, registry: Registry, folder: Path, number: int, *, asks_more: bool = False) -> Digest:
    """A small bundle `model-<number>`, whose model differs by number; one that `asks_more` needs another field."""
    columns = {"distance": column_of(Dtype.FLOAT32, [1.5, None])}
    fitted = Transform({"distance": column("distance", Dtype.FLOAT32).impute(0.0)}).fit(columns, 2)
    asked = FeatureContract("tests", (), (RequestField("distance", Dtype.FLOAT32, nullable=True),), digest("none"))
    if asks_more:
        asked = replace(asked, request_fields=(*asked.request_fields, RequestField("luggage", Dtype.INT32)))
        columns["luggage"] = column_of(Dtype.INT32, [1, 2])
    made = content(name=f"model-{number}", given=asked, fitted=fitted, columns=columns, scale=2.0 ** -(12 + number))
    bundle = write_bundle(made, folder)
    artifact = FolderArtifactStore(home.artifacts).put(folder, bundle)
    registry.register_bundle(BundleRecord(bundle, made.name, Micros(number), artifact, asked.digest, fitted.digest, {}))
    return bundle
