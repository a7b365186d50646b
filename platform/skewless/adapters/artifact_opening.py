"""Opening the artifact store that a setting names. The client of S3-compatible storage is loaded only for a bucket."""

from pathlib import Path

from skewless.adapters.artifact_address import parse_artifacts_url
from skewless.adapters.folder_artifact_store import FolderArtifactStore
from skewless.bundles.artifact_store import ArtifactStore
from skewless.errors import InvalidSettings


def open_artifact_store(url: str, *, cache: Path) -> ArtifactStore:
    """The store at a folder, `file:///…` or `s3://…`; `cache` is the folder for bundles opened from a bucket.

    Nothing is connected yet. Raises InvalidSettings where the address or the credentials' variables cannot be used.
    """
    address = parse_artifacts_url(url)
    if isinstance(address, Path):
        return FolderArtifactStore(address)
    try:
        from skewless.adapters.s3_artifact_store import S3ArtifactStore
        from skewless.adapters.s3_objects import S3Objects
    except ImportError as error:
        raise InvalidSettings(
            f"artifacts lie at {address}, and the client for it is not installed",
            hint="install skewless with its extra `s3`",
        ) from error
    return S3ArtifactStore(S3Objects(address), FolderArtifactStore(cache))
