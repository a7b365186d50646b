"""Where the artifact store is, read out of one setting; what is refused never shows a secret."""

from pathlib import Path

import pytest

from skewless.adapters.artifact_address import BucketAddress, parse_artifacts_url
from skewless.adapters.artifact_opening import open_artifact_store
from skewless.adapters.folder_artifact_store import FolderArtifactStore
from skewless.errors import InvalidSettings

SECRET = "wJalrXUtnFEMI"


@pytest.mark.parametrize(
    ("url", "folder"),
    [
        ("artifacts", "artifacts"),
        ("/var/lib/artifacts", "/var/lib/artifacts"),
        ("file:///var/lib/artifacts", "/var/lib/artifacts"),
        ("file:///with%20space", "/with space"),
    ],
)
def test_a_folder_is_a_path_or_a_file_url(url: str, folder: str, tmp_path: Path) -> None:
    assert parse_artifacts_url(url) == Path(folder)
    store = open_artifact_store(url, cache=tmp_path)
    assert isinstance(store, FolderArtifactStore)
    assert store.root == Path(folder)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("s3://models", BucketAddress("models")),
        ("s3://models/", BucketAddress("models")),
        ("s3://models/team/prod/", BucketAddress("models", "team/prod")),
        (
            "s3://models/p?endpoint=http://127.0.0.1:9000/&region=eu-west-1",
            BucketAddress("models", "p", "http://127.0.0.1:9000", "eu-west-1", path_style=True),
        ),
        (
            "s3://models?endpoint=https%3A%2F%2Fmodels.storage.example&addressing=virtual",
            BucketAddress("models", "", "https://models.storage.example", ""),
        ),
        ("s3://models?addressing=path", BucketAddress("models", path_style=True)),
        (
            "s3://models?endpoint=http://[::1]:9000",
            BucketAddress("models", endpoint="http://[::1]:9000", path_style=True),
        ),
    ],
)
def test_a_bucket_has_a_prefix_and_may_have_an_endpoint(url: str, address: BucketAddress) -> None:
    assert parse_artifacts_url(url) == address


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "it is empty"),
        ("file://host/folder", "no host"),
        ("file:relative", "no folder and begins with neither"),
        ("s3:models", "no folder and begins with neither"),
        (f"https://key:{SECRET}@host/bucket", "neither file:// nor s3://"),
        (f"gs://{SECRET}", "neither file:// nor s3://"),
        (f"s3://key:{SECRET}@models/p", "credentials do not belong"),
        (f"s3://models?endpoint=http://key:{SECRET}@host", "credentials do not belong"),
        (f"s3://models?secret_access_key={SECRET}", "an option that s3:// does not take"),
        ("s3://models?region=a&region=b", "one twice"),
        ("s3://", "no bucket name"),
        ("s3://UPPER", "no bucket name"),
        ("s3://ab", "no bucket name"),
        ("s3://models/../other", "no prefix"),
        ("s3://models/a//b", "no prefix"),
        ("s3://models/a%2F..%2Fb", "no prefix"),
        ("s3://models?endpoint=host:9000", "endpoint is no URL"),
        ("s3://models?endpoint=ftp://host", "endpoint is no URL"),
        ("s3://models?endpoint=http://host:x", "endpoint is no URL"),
        ("s3://models?endpoint=http://host/path", "endpoint is no URL"),
        ("s3://models?addressing=dns", "neither `path` nor `virtual`"),
        ("s3://models?region=Europe!", "region is no name"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_with_what_is_allowed(url: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match=reason) as refused:
        open_artifact_store(url, cache=tmp_path)
    assert "s3://bucket" in refused.value.hint
    assert SECRET not in str(refused.value)
