"""TorchScript archives: the one kind of model file that holds pickles by nature, and which of them are let through.

`torch.jit.save` writes a zip: the program as text in `code/`, tensors as raw bytes, and `data.pkl`, `constants.pkl`,
`traced_inputs.pkl` and `*.debug_pkl`, which say what is where. Triton reads them with libtorch's own reader, which
makes tensors, containers and objects of classes that the archive itself declares in `code/`, and runs no Python. The
same file given to Python's `pickle` would run what it names. So these pickles are walked, without being read, and may
name only what `torch.jit.save` names: then neither reader can be made to do anything else. Any other pickle in the
archive, and an archive without a program (`torch.save`), is refused.
"""

import io
import pickletools
import re
import zipfile

from skewless.bundles.pickle_scan import ARCHIVE_ERRORS, HEAD_BYTES, refuse_pickles, without_warnings_of_escapes
from skewless.errors import BundleRefused
from skewless.limits import MIB

_OWN_PICKLE = re.compile(r"[^/]+/(data\.pkl|constants\.pkl|traced_inputs\.pkl|code/.*\.debug_pkl)")
_PROGRAM = re.compile(r"[^/]+/code/__torch__.*\.py")
_PICKLE_BYTES_MAX = 64 * MIB
"""They hold names and shapes, not weights."""
_OPCODES_REFUSED = frozenset({"STACK_GLOBAL", "INST", "OBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4", "PERSID"})
_NAMES = frozenset(
    {
        "builtins complex",
        "collections OrderedDict",
        "torch device",
        "torch per_channel_affine",
        "torch per_channel_affine_float_qparams",
        "torch per_tensor_affine",
        "torch._utils _rebuild_qtensor",
        "torch._utils _rebuild_sparse_tensor",
        "torch._utils _rebuild_tensor_v2",
    }
)
_NAME_FORMS = re.compile(
    r"__torch__(\.\w+)* \w+"  # a class that the archive's own program declares
    r"|torch \w+Storage"
    r"|torch\.jit\._pickle (build_\w+|restore_type_tag)"
)


def check_torchscript(path: str, data: bytes) -> None:
    """Raises BundleRefused where the file is no TorchScript archive, or holds a pickle that names anything else."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = [each.filename for each in archive.infolist()]
            if not any(_PROGRAM.fullmatch(name) for name in names):
                raise BundleRefused(
                    f"`{path}` is an archive without a TorchScript program",
                    hint="`torch.save` writes a pickle of Python objects; use torch.jit.script(model).save(file)",
                )
            for member in archive.infolist():
                _check_member(path, archive, member)
    except ARCHIVE_ERRORS as error:
        raise BundleRefused(
            f"`{path}` is no TorchScript archive: {error}", hint="write it with torch.jit.script(model).save(file)"
        ) from error


def _check_member(archive_path: str, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    path = f"{archive_path}/{member.filename}"
    if not _OWN_PICKLE.fullmatch(member.filename):
        with archive.open(member) as file:
            refuse_pickles(path, file.read(HEAD_BYTES))
        return
    if member.file_size > _PICKLE_BYTES_MAX:
        raise BundleRefused(f"`{path}` has {member.file_size:,} bytes; at most {_PICKLE_BYTES_MAX:,} are looked at")
    data = archive.read(member)
    try:
        with without_warnings_of_escapes():
            end = _checked_end(path, data)
    except ValueError as error:
        raise BundleRefused(f"`{path}` is torn: {error}") from error
    if end != len(data) - 1:
        raise BundleRefused(f"`{path}` goes on after the end of its pickle")


def _checked_end(path: str, data: bytes) -> int | None:
    """Where the pickle ends. Raises BundleRefused for a name that is not TorchScript's, ValueError for no pickle."""
    end = None
    for opcode, argument, position in pickletools.genops(io.BytesIO(data)):
        if opcode.name in _OPCODES_REFUSED or (opcode.name == "GLOBAL" and not _is_torchscript(str(argument))):
            raise BundleRefused(
                f"`{path}` names `{argument or opcode.name}`, which TorchScript never does; reading it as a pickle"
                " would run code of whoever wrote it",
                hint="write the file again with torch.jit.script(model).save(file)",
            )
        end = position
    return end


def _is_torchscript(name: str) -> bool:
    return name in _NAMES or _NAME_FORMS.fullmatch(name) is not None
