"""Which bundle answers which row: the one place where traffic is split.

A row's entity keys become one hash, and every decision looks at it through a salt of its own: whether the row takes
part in the experiment, which arm answers it, whether the canary does, whether the shadow sees it. So decisions do not
correlate, and each depends on nothing but the row's keys and the route: not on the process, the batch or the moment.
A share is a threshold on a uniform number, so a share that grows keeps every row it had. Equal routes split alike for
ever; golden values are under test. See ADR 23.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import mmh3
import numpy as np
from numpy.typing import NDArray

from skewless.canonical_json import Digest, digest
from skewless.dtypes import Column, Dtype
from skewless.errors import InvalidDefinition
from skewless.rollout.routes import Experiment, Role, Route
from skewless.rollout.slots import SLOTS

Words = NDArray[np.uint64]

_NULL = b"\xfe"  # neither byte occurs in UTF-8, so no text is taken for a null or for two keys
_BETWEEN = b"\xff"
_digest: Callable[[bytes], bytes] = mmh3.mmh3_x64_128_digest
_MASK = 0xFFFF_FFFF_FFFF_FFFF
_ALL_OF_SPACE = 2**64
_FACTORS = (0xBF58_476D_1CE4_E5B9, 0x94D0_49BB_1331_11EB)
_HASH_BYTES = 16
_LIVE, _CANARY, _FIRST_ARM = 0, 1, 2
_FEW_ROWS = 8


@dataclass(frozen=True, slots=True)
class Assigned:
    """The rows of a request that one bundle answers in one role; `arm` is the arm's name in role `arm`, else None.

    `rows` are indexes of rows, ascending.
    """

    role: Role
    bundle: Digest
    arm: str | None
    rows: NDArray[np.intp]


def assign(route: Route, keys: Mapping[str, Column], rows: int) -> tuple[Assigned, ...]:
    """Who answers each of `rows` rows, given a Column (rows,) per join key; see `Splitter`, which costs less."""
    return Splitter(route).assign(keys, rows)


def mirrored(route: Route, keys: Mapping[str, Column], rows: int) -> NDArray[np.bool_]:
    """Which of `rows` rows the shadow sees, where live answers them; see `Splitter`, which costs less."""
    return Splitter(route).mirrored(keys, rows)


class Splitter:
    """Splits the traffic of one route; made once per version of it, used for every request."""

    __slots__ = (
        "_answerers", "_arm_of_slot", "_canary_below", "_experiment_below", "_keys", "_salt_column", "_salts",
        "_shadow_below", "_shadow_salt",
    )  # fmt: skip

    def __init__(self, route: Route) -> None:
        name, canary, shadow, experiment = route.endpoint, route.canary, route.shadow, route.experiment
        self._keys = _Keys(route)
        self._answerers: list[tuple[Role, Digest, str | None]] = [(Role.LIVE, route.live, None)]
        self._answerers.append((Role.CANARY, route.live if canary is None else canary.bundle, None))
        self._salts = [0 if canary is None else _salt(name, "canary", canary.bundle)]
        self._canary_below = 0 if canary is None else _below(_canary_share(canary.share, experiment))
        self._experiment_below = 0 if experiment is None else _below(experiment.traffic)
        if experiment is not None:
            self._answerers += [(Role.ARM, arm.bundle, arm.name) for arm in experiment.arms]
            salt = experiment.salt or experiment.name
            self._salts += [_salt(name, "traffic", salt), _salt(name, "arm", salt)]
            owners, counts = zip(*experiment.layout, strict=True)
            self._arm_of_slot = np.repeat(np.array(owners, np.intp) + _FIRST_ARM, counts)
        self._salt_column = np.array(self._salts, np.uint64)[:, None]
        self._shadow_salt = np.array([0 if shadow is None else _salt(name, "shadow", shadow.bundle)], np.uint64)
        self._shadow_below = 0 if shadow is None else _below(shadow.share)

    def assign(self, keys: Mapping[str, Column], rows: int) -> tuple[Assigned, ...]:
        """Who answers each of `rows` rows, given a Column (rows,) per join key.

        The groups are disjoint, complete and never empty, but for the one group of no rows. Raises InvalidDefinition
        where `keys` lacks a key of `sticky_by`.
        """
        if rows == 0 or (self._canary_below == 0 and self._experiment_below == 0):
            return (self._group(_LIVE, np.arange(rows)),)
        hashes = self._keys.hashes(keys, rows)
        if rows == 1:
            return (self._group(self._answerer(hashes), np.zeros(1, np.intp)),)
        if rows <= _FEW_ROWS:
            found = np.array([self._answerer(hashes[at:]) for at in range(0, len(hashes), _HASH_BYTES)])
        else:
            found = self._answerers_of(_words(hashes))
        return tuple(self._group(each, np.flatnonzero(found == each)) for each in sorted(set(found.tolist())))

    def mirrored(self, keys: Mapping[str, Column], rows: int) -> NDArray[np.bool_]:
        """Which of `rows` rows the shadow sees, (rows,), as far as the split says; only live answers are compared.

        All False where the route has no shadow. Raises as `assign` does.
        """
        if self._shadow_below in (0, _ALL_OF_SPACE):
            return np.full(rows, self._shadow_below > 0)
        return _mixed_words(_words(self._keys.hashes(keys, rows)), self._shadow_salt) < self._shadow_below

    def _group(self, answerer: int, rows: NDArray[np.intp]) -> Assigned:
        role, bundle, arm = self._answerers[answerer]
        return Assigned(role, bundle, arm, rows)

    def _answerer(self, hashed: bytes) -> int:
        """Index of who answers the row whose hash is first: as `_answerers_of` in Python's integers, which take 3 µs
        for a row where NumPy takes 20 for any array."""
        word = int.from_bytes(hashed[:8], "little")
        if self._experiment_below and _mixed(word, self._salts[1]) < self._experiment_below:
            return int(self._arm_of_slot[(_mixed(word, self._salts[2]) >> 32) * SLOTS >> 32])
        return _CANARY if _mixed(word, self._salts[0]) < self._canary_below else _LIVE

    def _answerers_of(self, words: Words) -> NDArray[np.intp]:
        """Index of who answers each row (rows,). First the experiment chooses, then the canary of what it left."""
        mixed = _mixed_words(words, self._salt_column)  # (decisions, rows)
        found = np.where(mixed[0] < self._canary_below, _CANARY, _LIVE)
        if not self._experiment_below:
            return found
        slots = ((mixed[2] >> np.uint64(32)) * np.uint64(SLOTS)) >> np.uint64(32)
        arms = self._arm_of_slot[slots]
        return np.where(mixed[1] < self._experiment_below, arms, found)


class _Keys:
    """The hash of a row's entity keys: its join keys by name, each as text, nulls apart from every value."""

    __slots__ = ("_endpoint", "_sticky_by")

    def __init__(self, route: Route) -> None:
        self._endpoint = route.endpoint
        self._sticky_by = tuple(sorted(route.sticky_by))

    def hashes(self, keys: Mapping[str, Column], rows: int) -> bytes:
        """`_HASH_BYTES` per row, one row after the other."""
        names = self._sticky_by or sorted(keys)
        try:
            columns = [_texts(keys[name]) for name in names]
        except KeyError as error:
            raise InvalidDefinition(
                f"endpoint `{self._endpoint}` is sticky by `{error.args[0]}`, which is no join key of its bundle. "
                f"Join keys: {', '.join(sorted(keys))}",
                hint="correct `sticky_by` in its route",
            ) from None
        if not columns:
            return _digest(b"") * rows  # without entities every row is the same one
        return b"".join(map(_digest, map(_BETWEEN.join, zip(*columns, strict=True))))


def _texts(column: Column) -> list[bytes]:
    """The column's values as bytes; equal values give equal bytes whatever the width of their dtype."""
    texts = list(map(_WRITERS[column.dtype], column.values.tolist()))
    valid = column.valid.tolist()
    if False in valid:
        return [text if given else _NULL for text, given in zip(texts, valid, strict=True)]
    return texts


def _integer(value: int) -> bytes:
    return b"%d" % value


def _number(value: float) -> bytes:
    return repr(value + 0.0).encode()  # -0.0 + 0.0 is 0.0


def _bytes(value: bytes) -> bytes:
    return value.hex().encode()


_WRITERS: dict[Dtype, Callable[..., bytes]] = {
    Dtype.BOOL: _integer,
    Dtype.INT32: _integer,
    Dtype.INT64: _integer,
    Dtype.FLOAT32: _number,
    Dtype.FLOAT64: _number,
    Dtype.STRING: str.encode,
    Dtype.BYTES: _bytes,
    Dtype.TIMESTAMP: _integer,
}
"""Entity keys are scalars."""


def _salt(*purpose: str) -> int:
    return int(digest(["skewless rollout", *purpose])[:16], 16)


def _canary_share(share: float, experiment: Experiment | None) -> float:
    """The share to take of what an experiment leaves, so that `share` of the endpoint's traffic is taken."""
    left = 1.0 if experiment is None else 1.0 - experiment.traffic
    return min(share / left, 1.0) if left > 0.0 else 0.0


def _below(share: float) -> int:
    """The share of the hash's space, exact: a float has 53 digits and the space is a power of two."""
    return int(share * _ALL_OF_SPACE)


def _words(hashes: bytes) -> Words:
    """The first half of each row's hash, (rows,)."""
    return np.frombuffer(hashes, "<u8")[::2]


def _mixed(word: int, salt: int) -> int:
    """A hash of `word` by `salt`: SplitMix64's finaliser (Steele et al. 2014, with Stafford's mix 13)."""
    word = (word + salt) & _MASK
    word = ((word ^ (word >> 30)) * _FACTORS[0]) & _MASK
    word = ((word ^ (word >> 27)) * _FACTORS[1]) & _MASK
    return word ^ (word >> 31)


def _mixed_words(words: Words, salts: Words) -> Words:
    """`_mixed` of each word by each salt, where they broadcast; whole numbers of arrays wrap by themselves."""
    mixed: Words = words + salts
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(_FACTORS[0])
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(_FACTORS[1])
    return mixed ^ (mixed >> np.uint64(31))
