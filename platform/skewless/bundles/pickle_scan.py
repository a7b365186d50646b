"""Finding pickles. Whoever reads one runs what its writer put there, so no file of a bundle may be one or hold one.

Found are: names by which pickles go; pickle streams of every protocol, also those that are cut short; object arrays of
NumPy; and the same inside zip and tar archives and streams of gzip, zlib, bzip2 and xz, however nested. What cannot be
looked into is refused too. Not found is code that carries a pickle as text and loads it: the source of a Python model
is looked at for that in `bundles/python_source.py`, and is code in any case.
"""

import bz2
import io
import lzma
import pickletools
import re
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath

from skewless.errors import BundleRefused
from skewless.limits import MIB

SUFFIXES = frozenset({".cloudpickle", ".dill", ".jbl", ".joblib", ".pck", ".pickle", ".pkl"})
ARCHIVE_ERRORS = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    IndexError,
    NotImplementedError,
    OSError,
    RuntimeError,
    ValueError,
)
"""What reading a damaged archive out of memory can raise; most of it was seen by damaging some."""
_PROTOCOL = re.compile(rb"\x80[\x02-\x05]")
_NAMED = re.compile(r"[A-Za-z_][\w.]* [A-Za-z_][\w.]*")
_CALLS = frozenset({"REDUCE", "BUILD", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX"})
_OPCODES_SURE = 64
"""No bytes of another kind begin like a pickle and go on as one for so long."""
_OPCODES_PLAIN = 4
HEAD_BYTES = MIB
"""How much of a compressed stream or an archive's member is looked at: what is no pickle by then is none."""
_MEMBERS_MAX = 10_000
_DEPTH_MAX = 4
_OPAQUE = {b"\x04\x22\x4d\x18": "LZ4", b"\x28\xb5\x2f\xfd": "Zstandard"}
_OBJECT_ARRAY = re.compile(rb"\x93NUMPY.{4,6}\{.{0,10000}?'[|=<>]?O\d*'", re.DOTALL)


def refuse_pickles(path: str, data: bytes) -> None:
    """Raises BundleRefused where the file `path` is a pickle, holds one, or cannot be looked into."""
    if found := _finding(path, data, depth=0):
        raise BundleRefused(
            f"`{path}` {found}; reading a pickle runs code of whoever wrote it",
            hint="save the model in its library's own format or as ONNX, and values as JSON or .npz without objects",
        )


def is_pickle(data: bytes) -> bool:
    """Whether the bytes begin as a pickle that does something, of any protocol, whole or cut short.

    >>> is_pickle(b"cos\\nsystem\\n(S'true'\\ntR."), is_pickle(b"tree\\nversion=v4\\n")
    (True, False)
    """
    with without_warnings_of_escapes():
        return _begins_as_pickle(data)


@contextmanager
def without_warnings_of_escapes() -> Iterator[None]:
    """Inside, `pickletools` says nothing of escapes that Python does not know, of which other bytes are full."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def _begins_as_pickle(data: bytes) -> bool:
    announced = _PROTOCOL.match(data) is not None
    count, strings, imports, end = 0, 0, False, None
    stack: list[bool] = []
    try:
        for opcode, argument, position in pickletools.genops(io.BytesIO(data)):
            count += 1
            strings += isinstance(argument, str)
            imports |= _imports(opcode.name, argument, strings)
            _apply(opcode, stack)
            end = position if opcode.name == "STOP" else None
            if imports and (opcode.name in _CALLS or (announced and count >= _OPCODES_SURE)):
                return True
    except (IndexError, ValueError):
        return announced and (imports or count >= _OPCODES_SURE)
    if end is None:
        return False
    return announced or imports or (count >= _OPCODES_PLAIN and end == len(data) - 1)


def _imports(opcode: str, argument: object, strings: int) -> bool:
    """Whether an opcode looks a thing up by its name, without which a pickle is plain data."""
    if opcode in ("GLOBAL", "INST"):
        return _NAMED.fullmatch(str(argument)) is not None
    return opcode == "STACK_GLOBAL" and strings > 1


def _apply(opcode: pickletools.OpcodeInfo, stack: list[bool]) -> None:
    """What an opcode does to a stack of which only the marks are known. Raises IndexError where a reader would fail."""
    before = opcode.stack_before
    if opcode.name == "POP":
        stack.pop()
        return
    if pickletools.markobject in before:
        while not stack.pop():
            pass
        before = before[: before.index(pickletools.markobject)]
    for _ in before:
        if stack.pop():
            raise IndexError("a mark where a value is needed")
    stack.extend(each is pickletools.markobject for each in opcode.stack_after)


def _finding(path: str, data: bytes, *, depth: int) -> str:
    """What is wrong with a file, as the rest of a sentence; empty where nothing is."""
    if PurePosixPath(path).suffix.lower() in SUFFIXES:
        return "has the name of a pickle"
    if is_pickle(data):
        return "is a pickle"
    if _OBJECT_ARRAY.match(data[:HEAD_BYTES]):
        return "is a NumPy array of pickled objects"
    for magic, kind in _OPAQUE.items():
        if data.startswith(magic):
            return f"is compressed by {kind} and cannot be looked into for pickles"
    try:
        for member, content in _contents(data):
            if depth == _DEPTH_MAX:
                return "holds archives within archives, too many to be looked into for pickles"
            if found := _finding(member or path, content, depth=depth + 1):
                return f"holds `{member}`, which {found}" if member else f"is compressed, and within {found}"
    except _UnreadableArchive as error:
        return f"is an archive that cannot be looked into for pickles: {error}"
    return ""


class _UnreadableArchive(Exception):
    """Its text says why."""


def _contents(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Name and head of every file in an archive, or of what is compressed, whose name is empty; nothing for others."""
    if (plain := _decompressed(data)) is not None:
        yield "", plain
    if zipfile.is_zipfile(io.BytesIO(data)):
        yield from _zip_members(data)
    elif data[257:262] == b"ustar":
        yield from _tar_members(data)


def _decompressed(data: bytes) -> bytes | None:
    """The head of what a compressed stream holds; None for anything else."""
    try:
        if data[:2] == b"\x1f\x8b" or (data[:1] == b"\x78" and data[1:2] in (b"\x01", b"\x5e", b"\x9c", b"\xda")):
            return zlib.decompressobj(wbits=47).decompress(data, HEAD_BYTES)
        if data[:3] == b"BZh":
            return bz2.BZ2Decompressor().decompress(data, HEAD_BYTES)
        if data[:6] == b"\xfd7zXZ\x00" or data[:3] == b"\x5d\x00\x00":
            return lzma.LZMADecompressor().decompress(data, HEAD_BYTES)
    except ARCHIVE_ERRORS:
        return None
    return None


def _zip_members(data: bytes) -> Iterator[tuple[str, bytes]]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [each for each in archive.infolist() if not each.is_dir()]
            _refuse_too_many(len(members))
            for member in members:
                with archive.open(member) as file:
                    yield member.filename, file.read(HEAD_BYTES)
    except ARCHIVE_ERRORS as error:
        raise _UnreadableArchive(error) from error


def _tar_members(data: bytes) -> Iterator[tuple[str, bytes]]:
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            for count, member in enumerate(archive):
                _refuse_too_many(count)
                file = archive.extractfile(member) if member.isreg() else None
                if file is not None:
                    yield member.name, file.read(HEAD_BYTES)
    except ARCHIVE_ERRORS as error:
        raise _UnreadableArchive(error) from error


def _refuse_too_many(count: int) -> None:
    if count > _MEMBERS_MAX:
        raise _UnreadableArchive(f"it has more than {_MEMBERS_MAX:,} files")
