"""A calibration as bytes, so that a process that is started anew goes on with the very numbers of the one before.

header   length of the facts (little-endian uint32)
facts    JSON: format, grade, layout, promise, names of slices, shapes and types of the arrays
arrays   zlib of each array's bytes, those of one rank side by side, one array after the other
"""

import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skewless.drift.calibration import WATCHED, Calibration, SliceReference
from skewless.drift.contract_breaks import ContractRules, Runs
from skewless.drift.scales import Scales
from skewless.drift.season import Grade, Season
from skewless.drift.streams import Ruler
from skewless.drift.threshold import Threshold
from skewless.errors import InvalidDefinition
from skewless.statistics.tally import TallyLayout

_FORMAT = 1
_LENGTH = struct.Struct("<I")
_LEVEL = 1
_SLICE_ARRAYS = 6


@dataclass(frozen=True, slots=True, eq=False)
class Calibrated:
    """What a detector is made of: how the weeks of history were, and for how long contracts were broken in them."""

    calibration: Calibration
    rules: ContractRules


def to_bytes(calibrated: Calibrated) -> bytes:
    """The bytes of a calibration."""
    calibration = calibrated.calibration
    threshold = calibration.threshold
    arrays = list(_arrays(calibration))
    facts = {
        "format": _FORMAT,
        "layout": calibration.ruler.layout.digest,
        "grade": calibration.grade.value,
        "window_us": calibration.season.window_us,
        "slices": list(calibration.slices),
        "threshold": [threshold.height, threshold.days, threshold.drawn],
        "usual": calibrated.rules.usual.to_json(),
        "arrays": [[each.dtype.str, list(each.shape)] for each in arrays],
    }
    head = json.dumps(facts).encode()
    return b"".join([_LENGTH.pack(len(head)), head, zlib.compress(b"".join(map(_shuffled, arrays)), _LEVEL)])


def from_bytes(layout: TallyLayout, data: bytes) -> Calibrated:
    """The calibration of a layout from its bytes. Raises InvalidDefinition for one of another layout or version."""
    try:
        (length,) = _LENGTH.unpack_from(data)
        facts = json.loads(data[_LENGTH.size : _LENGTH.size + length])
        body = zlib.decompress(memoryview(data)[_LENGTH.size + length :])
        is_ours = facts["format"] == _FORMAT and facts["layout"] == layout.digest
    except (struct.error, ValueError, KeyError, zlib.error) as error:
        raise _unknown(str(error)) from error
    if not is_ours:
        raise _unknown(f"it is of format {facts['format']} and layout {facts['layout'][:12]}")
    arrays = list(_read(facts["arrays"], body))
    grade = Grade(facts["grade"])
    ruler = Ruler(layout, WATCHED)
    slices = {
        name: _reference(arrays[_SLICE_ARRAYS * place : _SLICE_ARRAYS * (place + 1)])
        for place, name in enumerate(facts["slices"])
    }
    history_sums, weights = arrays[-2:]
    height, days, drawn = facts["threshold"]
    calibration = Calibration(
        grade,
        Season.of(grade, facts["window_us"]),
        ruler,
        slices,
        tuple(stream for name in slices for stream in ruler.streams(name)),
        history_sums,
        Threshold(height, weights, days, drawn),
    )
    return Calibrated(calibration, ContractRules(layout, WATCHED, Runs.from_json(facts["usual"])))


def _arrays(calibration: Calibration) -> Iterator[NDArray[Any]]:
    for reference in calibration.slices.values():
        scales = reference.scales
        yield reference.profile
        yield reference.windows
        yield from (scales.excesses, scales.wanders, scales.centres, scales.widths)
    yield calibration.history_sums
    yield calibration.threshold.weights


def _reference(arrays: list[NDArray[Any]]) -> SliceReference:
    profile, windows, excesses, wanders, centres, widths = arrays
    return SliceReference(profile, windows, Scales(excesses, wanders, centres, widths))


def _shuffled(array: NDArray[Any]) -> bytes:
    plain = np.ascontiguousarray(array)
    return plain.view(np.uint8).reshape(-1, plain.itemsize).T.tobytes()


def _read(shapes: list[tuple[str, list[int]]], body: bytes) -> Iterator[NDArray[Any]]:
    at = 0
    for code, shape in shapes:
        dtype = np.dtype(code)
        end = at + dtype.itemsize * int(np.prod(shape))
        columns = np.frombuffer(body[at:end], np.uint8).reshape(dtype.itemsize, -1)
        yield np.ascontiguousarray(columns.T).view(dtype).reshape(shape)
        at = end


def _unknown(reason: str) -> InvalidDefinition:
    return InvalidDefinition(
        f"this is no calibration that can be gone on with: {reason}", hint="it is calibrated anew with the next day"
    )
