"""A tally as bytes, for a database: most counts of a window are zero or small, and shrink to a tenth.

    header   format, number of counts, number of numbers (three little-endian uint32)
    body     zlib of counts as int64, lows and highs as float64, each with the bytes of one rank side by side

So zlib sees that the upper bytes of most counts are zero.
"""

import struct
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from skewless.canonical_json import Digest
from skewless.errors import InvalidDefinition
from skewless.statistics.tally import Tally, TallyLayout

_HEADER = struct.Struct("<III")
_FORMAT = 1
_BYTES = 8
_LEVEL = 1


def packed(tally: Tally) -> bytes:
    """The bytes of a tally; equal tallies have equal bytes."""
    parts = tally.counts.astype("<i8"), tally.lows.astype("<f8"), tally.highs.astype("<f8")
    body = b"".join(each.view(np.uint8).reshape(-1, _BYTES).T.tobytes() for each in parts)
    return _HEADER.pack(_FORMAT, len(tally.counts), len(tally.lows)) + zlib.compress(body, _LEVEL)


def unpacked(layout: TallyLayout, data: bytes) -> Tally:
    """The tally of a layout from its bytes, with arrays of its own. Raises InvalidDefinition for any others."""
    wanted = (layout.size + 2 * layout.numbers) * _BYTES
    try:
        header = _HEADER.unpack_from(data)
        inflater = zlib.decompressobj()
        body = inflater.decompress(memoryview(data)[_HEADER.size :], wanted + 1)
    except (struct.error, zlib.error) as error:
        raise _no_counts(layout, str(error)) from error
    if header != (_FORMAT, layout.size, layout.numbers) or len(body) != wanted or not inflater.eof:
        raise _no_counts(layout, f"format, counts and numbers are {header}, and {len(body)} bytes follow")
    cut = layout.size * _BYTES, (layout.size + layout.numbers) * _BYTES
    return Tally(
        layout.digest,
        _plain(body[: cut[0]], "<i8").astype(np.int64),
        _plain(body[cut[0] : cut[1]], "<f8").astype(np.float64),
        _plain(body[cut[1] :], "<f8").astype(np.float64),
    )


def added(parts: Sequence[bytes]) -> bytes:
    """Several tallies of one layout, as bytes, added up; whose layout it is need not be known.

    Raises InvalidDefinition where they are of different ones, or not written by `packed`.
    """
    sizes = {part[: _HEADER.size] for part in parts}
    try:
        (header,) = (_HEADER.unpack(each) for each in sizes)
        bodies = [zlib.decompress(memoryview(part)[_HEADER.size :]) for part in parts]
    except (struct.error, ValueError, zlib.error) as error:
        raise InvalidDefinition(f"these are no counts of one layout: {error}") from error
    _, counts, numbers = header
    cut = counts * _BYTES, (counts + numbers) * _BYTES
    tallies = [
        (_plain(each[: cut[0]], "<i8"), _plain(each[cut[0] : cut[1]], "<f8"), _plain(each[cut[1] :], "<f8"))
        for each in bodies
    ]
    whole = Tally(
        Digest(""),
        np.sum([each for each, _, _ in tallies], axis=0, dtype=np.int64),
        np.min([each for _, each, _ in tallies], axis=0).astype(np.float64),
        np.max([each for _, _, each in tallies], axis=0).astype(np.float64),
    )
    assert len(whole.lows) == numbers
    return packed(whole)


def _no_counts(layout: TallyLayout, reason: str) -> InvalidDefinition:
    return InvalidDefinition(
        f"these are no counts of bins {layout.digest[:12]}: {reason}",
        hint="they were written by another version, or damaged; count the window anew",
    )


def _plain(body: bytes, dtype: str) -> NDArray[np.generic]:
    columns = np.frombuffer(body, np.uint8).reshape(_BYTES, -1)
    return np.ascontiguousarray(columns.T).view(dtype).ravel()
