"""How a gateway keeps its prediction log: what is chosen by its settings, and the defaults of it."""

from enum import StrEnum
from typing import Final

from skewless.limits import MIB

FLUSH_MS: Final = 200
SEGMENT_BYTES_MAX: Final = 32 * MIB
"""About 40,000 rows of 44 features; whoever ships a segment holds it in memory a few times over."""
SEGMENT_AGE_S: Final = 5.0
"""A segment with anything in it is sealed after this long, so that monitors see traffic soon."""
SPOOL_BYTES_MAX: Final = 8 * 1_024 * MIB
"""What may wait to be shipped: some ten million predictions of 44 features."""


class WhenFull(StrEnum):
    """What the log does with records that it has no room for."""

    REFUSE = "refuse"
    """Nobody is answered whose record cannot be kept."""
    DROP = "drop"
    """Everybody is answered; what is not kept is counted."""
