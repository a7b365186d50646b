"""Pickles are found in whatever they are wrapped, real ones of every writer, and other files are left alone."""

import bz2
import gzip
import io
import lzma
import os
import pickle
import random
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import joblib  # type: ignore[import-untyped]  # it ships no types
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from skewless.bundles.model_files import ModelFiles, ModelFormat, check_model
from skewless.bundles.pickle_scan import is_pickle, refuse_pickles
from skewless.bundles.torchscript import check_torchscript
from skewless.errors import BundleRefused
from skewless.serving.ports import ModelSignature

STORED = Path(__file__).parent / "stored_models"
PROTOCOLS = pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))


class Harmful:
    """Something whose pickle runs a command when it is read."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("true",)


@pytest.fixture(scope="module")
def classifier() -> LogisticRegression:
    rows = np.random.default_rng(7).random((40, 3))
    return LogisticRegression().fit(rows, rows[:, 0] > 0.5)


def zipped(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def tarred(name: str, data: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


@PROTOCOLS
def test_a_pickled_model_is_found_at_every_protocol_whole_and_torn(
    classifier: LogisticRegression, protocol: int
) -> None:
    data = pickle.dumps(classifier, protocol)
    for found in (data, data[: len(data) // 2]):
        with pytest.raises(BundleRefused, match=r"`weights\.bin` is a pickle"):
            refuse_pickles("weights.bin", found)
    assert is_pickle(pickle.dumps(Harmful(), protocol))
    assert is_pickle(pickle.dumps({"plain": [1.5, "data"]}, protocol))


def test_a_pickle_that_announces_no_protocol_is_found() -> None:
    announced = pickle.dumps(Harmful(), 4)
    assert announced[:2] == b"\x80\x04"
    assert is_pickle(announced[2:])


@PROTOCOLS
def test_a_pickle_that_runs_something_before_it_turns_out_to_be_torn_is_found(protocol: int) -> None:
    whole = pickle.dumps(Harmful(), protocol)
    assert is_pickle(whole[:-1] + b"\xff\xff garbage")


@pytest.mark.parametrize("compressed", [0, ("zlib", 3), ("gzip", 3), ("bz2", 3), ("lzma", 3), ("xz", 3)])
def test_what_joblib_writes_is_found_however_it_is_compressed(
    classifier: LogisticRegression, compressed: int | tuple[str, int]
) -> None:
    buffer = io.BytesIO()
    joblib.dump({"model": classifier, "large": np.zeros(100_000)}, buffer, compress=compressed)
    with pytest.raises(BundleRefused, match="is a pickle"):
        refuse_pickles("weights.bin", buffer.getvalue())


WRAPPERS: dict[str, Callable[[bytes], bytes]] = {
    "zip": lambda data: zipped(**{"inner/x": data}),
    "tar": lambda data: tarred("inner/x", data),
    "gzip": gzip.compress,
    "zlib": zlib.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "tar.gz": lambda data: gzip.compress(tarred("x", data)),
    "zip in zip": lambda data: zipped(a=zipped(b=data)),
    "behind other bytes": lambda data: b"\x08\x07" + bytes(500) + zipped(x=data),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_pickle_is_found_in_whatever_it_is_wrapped_and_other_bytes_are_not(wrapper: str) -> None:
    wrap = WRAPPERS[wrapper]
    with pytest.raises(BundleRefused, match=r"`weights\.bin`.*is a pickle"):
        refuse_pickles("weights.bin", wrap(pickle.dumps(Harmful())))
    refuse_pickles("weights.bin", wrap(b"tree\nversion=v4\n"))


def test_the_file_within_an_archive_is_named() -> None:
    with pytest.raises(BundleRefused, match=r"`assets\.zip` holds `notes/x\.txt`, which is a pickle"):
        refuse_pickles("assets.zip", zipped(**{"notes/x.txt": pickle.dumps(Harmful())}))


@pytest.mark.parametrize("suffix", ["pkl", "pickle", "joblib", "dill", "PKL"])
def test_a_name_by_which_pickles_go_is_refused(suffix: str) -> None:
    with pytest.raises(BundleRefused, match="has the name of a pickle"):
        refuse_pickles(f"model.{suffix}", b"")


def test_arrays_of_objects_are_refused_and_arrays_of_numbers_are_not() -> None:
    numbers, objects, archive = io.BytesIO(), io.BytesIO(), io.BytesIO()
    np.save(numbers, np.zeros((3, 2), dtype=np.float32))
    np.save(objects, np.array([{}], dtype=object))
    np.savez_compressed(archive, names=np.array(["a", "bc"]), weights=np.zeros(1000))
    refuse_pickles("weights.npy", numbers.getvalue())
    refuse_pickles("weights.npz", archive.getvalue())
    with pytest.raises(BundleRefused, match="NumPy array of pickled objects"):
        refuse_pickles("weights.npy", objects.getvalue())


def test_what_cannot_be_looked_into_is_refused() -> None:
    for magic in (b"\x04\x22\x4d\x18", b"\x28\xb5\x2f\xfd"):
        with pytest.raises(BundleRefused, match="cannot be looked into"):
            refuse_pickles("weights.bin", magic + bytes(50))
    nested = b"x"
    for _ in range(6):
        nested = zipped(x=nested)
    with pytest.raises(BundleRefused, match="too many to be looked into"):
        refuse_pickles("weights.bin", nested)
    broken = bytearray(zipped(x=b"hello" * 100))
    broken[40:60] = bytes(20)
    with pytest.raises(BundleRefused, match=r"`weights\.bin` is an archive that cannot be looked into"):
        refuse_pickles("weights.bin", bytes(broken))


def test_random_bytes_and_texts_are_taken_for_no_pickles() -> None:
    generator = random.Random(7)
    wrong = sum(is_pickle(generator.randbytes(64)) for _ in range(20_000))
    assert wrong == 0
    announced = sum(is_pickle(b"\x80\x04" + generator.randbytes(64)) for _ in range(5_000))
    assert announced / 5_000 < 0.02, "a file begins so by chance once in 16,384 times, and then this seldom counts"
    for source in Path(__file__).parent.glob("*.py"):
        refuse_pickles("a.txt", source.read_bytes())
    refuse_pickles("words.txt", b"cat\ndog\nbird\n")
    refuse_pickles("words.txt", b"cat\ndog\nRat\n.")


MAGICS = (
    b"",
    b"PK\x03\x04",
    b"\x1f\x8b\x08",
    b"BZh9",
    b"\xfd7zXZ\x00",
    b"x\x9c",
    b"\x80\x04",
    b"\x93NUMPY\x01\x00",
    b"\x5d\x00\x00",
)


@pytest.mark.parametrize("value", [0, 8, 12, 14, 127, 255])
def test_a_zip_archive_with_any_one_byte_changed_is_refused_or_let_through(value: int) -> None:
    whole = zipped(x=b"weights")
    for at in range(len(whole)):
        with suppress(BundleRefused):
            refuse_pickles("weights.bin", whole[:at] + bytes([value]) + whole[at + 1 :])


@given(st.sampled_from(MAGICS), st.binary(max_size=400))
def test_any_bytes_are_refused_or_let_through_and_nothing_else_happens(magic: bytes, rest: bytes) -> None:
    with suppress(BundleRefused):
        refuse_pickles("weights.bin", magic + rest)


@given(st.sampled_from(sorted(WRAPPERS)), st.integers(0, 10_000), st.integers(1, 255))
def test_a_damaged_archive_is_refused_or_let_through_and_nothing_else_happens(name: str, at: int, flip: int) -> None:
    data = bytearray(WRAPPERS[name](b"weights " * 40))
    data[at % len(data)] ^= flip
    with suppress(BundleRefused):
        refuse_pickles("weights.bin", bytes(data))


# TorchScript --------------------------------------------------------------------------------------------------------


def changed(path: Path, **members: bytes) -> bytes:
    """An archive with members replaced or added; a name is the end of the member's own."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(path) as before, zipfile.ZipFile(buffer, "w") as after:
        root = before.namelist()[0].partition("/")[0]
        for member in before.namelist():
            own = member.partition("/")[2]
            after.writestr(member, members.pop(own) if own in members else before.read(member))
        for name, data in members.items():
            after.writestr(f"{root}/{name}", data)
    return buffer.getvalue()


def test_an_archive_of_torch_save_is_refused_with_what_to_write_instead() -> None:
    with pytest.raises(BundleRefused, match="an archive without a TorchScript program") as caught:
        check_torchscript("model.pt", (STORED / "state_dict.pt").read_bytes())
    assert "torch.jit.script(model).save(file)" in caught.value.hint


@PROTOCOLS
@pytest.mark.parametrize("member", ["data.pkl", "constants.pkl"])
def test_a_torchscript_pickle_that_names_anything_else_is_refused(member: str, protocol: int) -> None:
    data = changed(STORED / "torchscript.pt", **{member: pickle.dumps(Harmful(), protocol)})
    with pytest.raises(BundleRefused, match=rf"model\.pt/torchscript/{member}` names .*TorchScript never does"):
        check_torchscript("model.pt", data)


def test_another_pickle_within_a_torchscript_archive_is_refused() -> None:
    for name in ("extra/x", "data/9", "more.pkl"):
        with pytest.raises(BundleRefused, match=rf"{name}` (is a pickle|has the name)"):
            check_torchscript("model.pt", changed(STORED / "torchscript.pt", **{name: pickle.dumps(Harmful())}))


def test_a_torchscript_pickle_is_whole_and_the_only_one_in_its_file() -> None:
    with zipfile.ZipFile(STORED / "torchscript.pt") as archive:
        own = archive.read("torchscript/data.pkl")
    with pytest.raises(BundleRefused, match=r"data\.pkl` is torn"):
        check_torchscript("model.pt", changed(STORED / "torchscript.pt", **{"data.pkl": own[:-5]}))
    with pytest.raises(BundleRefused, match="goes on after the end"):
        check_torchscript("model.pt", changed(STORED / "torchscript.pt", **{"data.pkl": own + pickle.dumps(Harmful())}))


@given(st.sampled_from(["torchscript.pt", "traced.pt"]), st.integers(0, 10_000), st.integers(1, 255))
def test_a_damaged_torchscript_archive_is_refused_or_let_through(name: str, at: int, flip: int) -> None:
    data = bytearray((STORED / name).read_bytes())
    data[at % len(data)] ^= flip
    with suppress(BundleRefused):
        check_torchscript("model.pt", bytes(data))


def test_a_torchscript_file_is_refused_in_any_other_format() -> None:
    data = (STORED / "torchscript.pt").read_bytes()
    model = ModelFiles(ModelFormat.ONNX, {"model.onnx": data}, "model.onnx")
    with pytest.raises(BundleRefused, match="pickle"):
        check_model(model, ModelSignature("features", 3, (("p", 2),)))
