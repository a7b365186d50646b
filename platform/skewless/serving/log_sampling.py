"""Which predictions the log marks to be compared with the offline store: chosen when they are written, for good.

Two samples are drawn side by side, each by a hash, so that every gateway, today and tomorrow, chooses alike:

    entity     all predictions of some of the entities: keeps histories, so that causes and entities can be told
    uniform    some of all predictions, whatever their entity: its rates are those of the traffic

It is decided for a whole block at once, on the log's own thread, where no caller waits for it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import mmh3
import numpy as np
from numpy.typing import NDArray

from skewless.dtypes import Column
from skewless.parity.sampling import chosen, entity_hashes

SAMPLES: Final = (None, "entity", "uniform", "both")
"""What the log's column `sampled` says, by code; None: not sampled."""
ENTITY: Final = np.uint8(1)
UNIFORM: Final = np.uint8(2)
Codes = NDArray[np.uint8]

_hash32: Callable[[str, int, bool], int] = mmh3.hash
_WHOLE_32 = 2**32


@dataclass(frozen=True, slots=True)
class SampleShares:
    """Of one endpoint: the share of entities, and that of predictions, 0 to 1."""

    entity: float
    uniform: float


class LogSampling:
    """The shares of every endpoint, followed by the log's thread while another replaces them."""

    def __init__(self, shares: Mapping[str, SampleShares] | None = None) -> None:
        self._shares: Mapping[str, SampleShares] = dict(shares or {})

    def follow(self, shares: Mapping[str, SampleShares]) -> None:
        """From the next block on these hold; of an endpoint that is not among them nothing is sampled."""
        self._shares = dict(shares)

    def codes(self, endpoint: str, keys: Mapping[str, Column], prediction_ids: Sequence[str]) -> Codes | None:
        """A code (rows,) of SAMPLES per prediction, `keys` being its join keys as they were given; None: all are 0."""
        shares = self._shares.get(endpoint)
        if shares is None or not (shares.entity or shares.uniform):
            return None
        rows = len(prediction_ids)
        codes = np.zeros(rows, dtype=np.uint8)
        if shares.entity:
            codes[chosen(entity_hashes(keys, rows), shares.entity)] |= ENTITY
        if shares.uniform:
            codes[_uniform(prediction_ids, shares.uniform)] |= UNIFORM
        return codes if codes.any() else None


NO_SAMPLING = LogSampling()


def _uniform(prediction_ids: Sequence[str], share: float) -> NDArray[np.bool_]:
    """Which predictions a uniform sample has, by their ids."""
    hashes = np.array([_hash32(each, 0, False) for each in prediction_ids], dtype=np.uint64)
    return np.asarray(hashes < np.uint64(round(share * _WHOLE_32)), dtype=np.bool_)
