"""Manifests: what they may say, and that every other one is refused in words."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skewless import canonical_json
from skewless.bundles.manifest import NAME_PATTERN, Manifest, check_digest, check_size, entry_of, parse_manifest
from skewless.canonical_json import Digest
from skewless.errors import BundleRefused
from skewless.registry.bundles import BUNDLE_NAME_PATTERN

ENTRY = {"bytes": 3, "sha256": "0" * 64}


def _manifest(**changes: Any) -> bytes:
    return canonical_json.encode({"files": {"a.json": ENTRY}, "format": 2, "name": "demo", **changes})


def test_what_is_encoded_is_parsed_again() -> None:
    made = Manifest("flight-delay", {"a/b.json": entry_of(b"abc"), "c.bin": entry_of(b"")})
    assert parse_manifest(made.encode()) == made
    assert made.bytes_total == 3


def test_format_1_is_refused_with_what_to_do() -> None:
    with pytest.raises(BundleRefused, match="has bundle format 1; this version reads format 2") as refused:
        parse_manifest(canonical_json.encode({"format": 1, "name": "a", "files": {"labels.json": "0" * 64}}))
    assert "train the model again" in refused.value.hint


@pytest.mark.parametrize("form", [0, 3, "2", None, 2.0, True, [2]])
def test_an_unknown_format_is_refused(form: object) -> None:
    with pytest.raises(BundleRefused, match="this version reads format 2"):
        parse_manifest(_manifest(format=form))


@pytest.mark.parametrize(
    "data", [b"", b"not json", b"[]", b"3", b"\xff", b'{"format":2,"name":"a","files":{}', b"[" * 100_000]
)
def test_what_is_no_manifest_is_refused(data: bytes) -> None:
    with pytest.raises(BundleRefused, match=r"`manifest.json` is not a bundle manifest"):
        parse_manifest(data)


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd", "../outside", "a/../../b", "a/./b", "a//b", "", ".", "..", ".hidden", "a/.hidden", "a\\b",
        "C:/a", "a b", "a\nb", "é.json", "-rf", "a/", "manifest.json", "x" * 300,
    ],
)  # fmt: skip
def test_a_path_that_could_mean_anything_else_is_refused(path: str) -> None:
    data = _manifest(files={path: ENTRY})
    with pytest.raises(BundleRefused, match="which no file of a bundle may have"):
        parse_manifest(data)
    with pytest.raises(BundleRefused, match="which no file of a bundle may have"):
        Manifest("demo", {path: entry_of(b"")}).encode()


def test_two_paths_that_are_one_file_elsewhere_are_refused() -> None:
    with pytest.raises(BundleRefused, match="one file where case does not count"):
        parse_manifest(_manifest(files={"a/Model.onnx": ENTRY, "A/model.onnx": ENTRY}))
    with pytest.raises(BundleRefused, match="`a` as a file and as the folder of `a/b`"):
        parse_manifest(_manifest(files={"a": ENTRY, "a/b": ENTRY}))


@pytest.mark.parametrize(
    "entry",
    [
        "0" * 64, {}, {"bytes": 3}, {**ENTRY, "bytes": -1}, {**ENTRY, "bytes": 3.0}, {**ENTRY, "bytes": True},
        {**ENTRY, "sha256": "0" * 63}, {**ENTRY, "sha256": "A" * 64}, {**ENTRY, "mode": 1}, None, [3, "0" * 64],
    ],
)  # fmt: skip
def test_an_entry_without_size_and_digest_is_refused(entry: object) -> None:
    with pytest.raises(BundleRefused, match=r"of `a.json`, where the size in bytes and the SHA-256 belong"):
        parse_manifest(_manifest(files={"a.json": entry}))


@pytest.mark.parametrize("name", ["", "a\nb", "a b", "-a", "é", "x" * 101, 3, None])
def test_a_name_that_the_registry_would_not_keep_is_refused(name: object) -> None:
    with pytest.raises(BundleRefused, match="the bundle's name is"):
        parse_manifest(_manifest(name=name))


def test_the_registry_keeps_every_name_that_a_bundle_may_have() -> None:
    assert NAME_PATTERN == BUNDLE_NAME_PATTERN


def test_unknown_and_missing_fields_are_refused() -> None:
    with pytest.raises(BundleRefused, match="must have the fields"):
        parse_manifest(_manifest(signed="yes"))
    with pytest.raises(BundleRefused, match="must have the fields"):
        parse_manifest(canonical_json.encode({"format": 2, "name": "a"}))
    with pytest.raises(BundleRefused, match="`files` must be an object"):
        parse_manifest(_manifest(files=[]))


@pytest.mark.parametrize(
    "data",
    [
        _manifest() + b"\n",
        json.dumps(json.loads(_manifest()), indent=1).encode(),
        _manifest().replace(b'"format":2', b'"format":2,"format":2'),
        _manifest().replace(b'"bytes":3', b'"bytes":3,"bytes":3'),
        _manifest().replace(b"demo", b"d\\u0065mo"),
    ],
)
def test_json_that_is_not_canonical_is_refused(data: bytes) -> None:
    with pytest.raises(BundleRefused, match="is not canonical JSON"):
        parse_manifest(data)


def test_too_many_files_are_refused() -> None:
    with pytest.raises(BundleRefused, match="names 10,001 files; at most 10,000"):
        parse_manifest(_manifest(files={f"f{number}": ENTRY for number in range(10_001)}))
    with pytest.raises(BundleRefused, match="at most 4,194,304 are read"):
        parse_manifest(b" " * 5_000_000)


def test_a_torn_file_is_told_from_a_changed_one() -> None:
    entry = entry_of(b"abcdef")
    check_size("a.json", 6, entry)
    check_digest("a.json", entry.sha256, entry)
    with pytest.raises(BundleRefused, match=r"`a.json` is torn: it has 2 of the 6 bytes"):
        check_size("a.json", 2, entry)
    with pytest.raises(BundleRefused, match=r"`a.json` has 9 bytes, 3 more than the 6"):
        check_size("a.json", 9, entry)
    with pytest.raises(BundleRefused, match=r"`a.json` was changed: it has SHA-256 1111"):
        check_digest("a.json", Digest("1" * 64), entry)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_manifest_or_refused(data: bytes) -> None:
    try:
        parsed = parse_manifest(data)
    except BundleRefused:
        return
    assert parsed.encode() == data


@given(st.integers(min_value=0), st.integers(0, 255))
def test_any_byte_of_a_manifest_changed_is_refused_or_says_something_else(position: int, byte: int) -> None:
    data = _manifest()
    place = position % len(data)
    changed = data[:place] + bytes([byte]) + data[place + 1 :]
    try:
        parsed = parse_manifest(changed)
    except BundleRefused:
        return
    assert (parsed == parse_manifest(data)) == (changed == data)
