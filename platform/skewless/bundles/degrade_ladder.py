"""What a gateway may answer while a part that a bundle needs is away. Part of the serving profile, so of the digest.

    features   normal → last known → defaults
    model      normal → in the gateway itself
    neither    fallback bundle → constant → refused

A rung on which the answer is still what the model says to values that once held is allowed unless it is forbidden. One
that gives another answer (features left away, another model, a number) has to be declared. See docs/degrading.md.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from skewless.canonical_json import Digest
from skewless.errors import InvalidDefinition
from skewless.limits import LAST_KNOWN_S_MAX

_DIGEST = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class DegradeLadder:
    """The rungs that a bundle allows. Raises InvalidDefinition for a value that is out of bounds.

    The defaults hold for every bundle that declares none, and for all that were built before there was a ladder: they
    are never changed.
    """

    last_known_s: int = 600
    """How long ago features may have been read at most that stand in while the store is away; 0 forbids it. Of views
    that are kept near. Their ttl decides as ever what is stale."""
    defaults: bool = False
    """Whether features that cannot be read count as missing: policies fill them, the transform imputes the rest."""
    in_process: bool = True
    """Whether the gateway runs the model itself while its servers are away; ONNX models only."""
    fallback: Digest | None = None
    """The bundle that answers where this one cannot: registered, ONNX, asking no more of callers than this one."""
    constant: float | None = None
    """The probability that is answered where nothing else can be."""

    def __post_init__(self) -> None:
        if type(self.last_known_s) is not int or not 0 <= self.last_known_s <= LAST_KNOWN_S_MAX:
            raise _refused("last_known_s", self.last_known_s, f"whole seconds from 0 to {LAST_KNOWN_S_MAX}")
        for name in ("defaults", "in_process"):
            if type(getattr(self, name)) is not bool:
                raise _refused(name, getattr(self, name), "true or false")
        if not _is_digest_or_none(self.fallback):
            raise _refused("fallback", self.fallback, "null, or a bundle's digest: 64 hexadecimal digits")
        if self.constant is not None and not _is_probability(self.constant):
            raise _refused("constant", self.constant, "null, or a number from 0.0 to 1.0")

    @property
    def goes_on_without_features(self) -> bool:
        """Whether some rung may answer while features cannot be read."""
        return bool(self.last_known_s) or self.defaults or self.goes_on_without_itself

    @property
    def goes_on_without_itself(self) -> bool:
        """Whether something else may answer where the bundle's own model cannot."""
        return self.fallback is not None or self.constant is not None

    def to_json(self) -> dict[str, Any]:
        """Plain data for `canonical_json.encode`: every field."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    @classmethod
    def from_json(cls, data: object) -> "DegradeLadder":
        """The inverse of `to_json`. Raises InvalidDefinition naming the field that is missing, unknown or wrong."""
        expected = {each.name for each in fields(cls)}
        if not isinstance(data, Mapping):
            raise _refused("the whole", data, "an object")
        if odd := sorted(data.keys() ^ expected):
            what = "does not know" if odd[0] in data else "lacks"
            raise InvalidDefinition(f"a degrade ladder {what} `{odd[0]}`. Fields: {', '.join(sorted(expected))}")
        constant = data["constant"]
        is_number = isinstance(constant, int | float) and not isinstance(constant, bool)
        return cls(**{**data, "constant": float(constant) if is_number else constant})


def _is_digest_or_none(value: object) -> bool:
    return value is None or (isinstance(value, str) and _DIGEST.fullmatch(value) is not None)


def _is_probability(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0.0 <= value <= 1.0  # false for NaN too


def _refused(name: str, value: object, allowed: str) -> InvalidDefinition:
    return InvalidDefinition(f"`{name}` of a degrade ladder is {value!r}; allowed: {allowed}")


DEFAULT_LADDER = DegradeLadder()
