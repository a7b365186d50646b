"""Whether the outcomes of a period are complete enough for its metrics to be held against anybody.

The fast outcomes are not like the slow ones. So a period is judged once it is over and all its predictions are older
than the label horizon (`serving/label_maturity.py`), or MATURE_SHARE of them have their outcome, whatever their age.
One whose outcomes stay far behind what is usual at its age is late, and not judged: what is there is no fair sample.
"""

from dataclasses import dataclass

from skewless.serving.label_maturity import LabelMaturity

MATURE_SHARE = 0.95
"""With nineteen of twenty outcomes there, the missing ones move a rate by a twentieth at most."""
LATE_SHARE = 0.8
"""A period with less than this part of the outcomes that are usual at its age is late."""


@dataclass(frozen=True, slots=True)
class PeriodMaturity:
    """`expected` is the share of predictions that have an outcome at this age, None where no prediction is that old;
    `due_us` is when time alone may make it mature, None where it cannot any more."""

    share: float
    expected: float | None
    mature: bool
    due_us: int | None


def period_maturity(*, rows: int, told: int, end_us: int, made_us: int | None, known: LabelMaturity) -> PeriodMaturity:
    """Of `rows` predictions, `told` of them with an outcome, of a period that ends at `end_us`.

    The youngest prediction was made at `made_us`, None: not known.
    """
    share = told / rows if rows else 0.0
    horizon = known.horizon_us
    due = end_us if made_us is None or horizon is None else max(end_us, int(made_us + horizon))
    is_over = end_us <= known.now_us
    age = None if made_us is None else known.now_us - made_us
    reached = [] if age is None else [each for each in known.ages if each.age_us <= age]
    expected = reached[-1].share if reached else None
    is_old = made_us is not None and horizon is not None and due <= known.now_us
    is_late = expected is not None and share < LATE_SHARE * expected
    mature = is_over and (share >= MATURE_SHARE or (is_old and not is_late))
    return PeriodMaturity(share, expected, mature, due if due > known.now_us else None)
