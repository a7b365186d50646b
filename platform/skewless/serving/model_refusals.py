"""Which models a replica has failed so often in a row that it is to be tried whether it can still run them. Pure."""

from dataclasses import dataclass, field

from skewless.limits import MODEL_RELOAD_EVERY_S

REFUSALS_MAX = 3
"""In a row, of one model: a caller's odd rows are refused once or twice, a model whose process is gone refuses all."""


@dataclass(slots=True)
class ModelRefusals:
    """The memory of calls that one replica refused or left unanswered. Times: seconds of a clock that never goes back.

    >>> refusals = ModelRefusals()
    >>> [refusals.refused("sums") for _ in range(4)]  # true once, when there is something to be tried
    [False, False, True, False]
    >>> refusals.due(5.0)
    ['sums']
    >>> refusals.tried("sums", 5.0); refusals.due(5.1)
    []
    >>> for _ in range(REFUSALS_MAX): _ = refusals.refused("sums")
    >>> refusals.due(5.1), refusals.due(5.0 + MODEL_RELOAD_EVERY_S)  # once in a while, however much is refused
    ([], ['sums'])
    """

    in_a_row: dict[str, int] = field(default_factory=dict)
    """By model, up to now; a model that answers is not in it."""
    _again_s: dict[str, float] = field(default_factory=dict)
    """By model, from when on it may be tried or loaded again."""

    def refused(self, model: str) -> bool:
        """A call of a model was refused, or not answered in time. Whether that made it one to be tried."""
        times = self.in_a_row[model] = self.in_a_row.get(model, 0) + 1
        return times == REFUSALS_MAX

    def due(self, now_s: float) -> list[str]:
        """The models to be tried now."""
        return sorted(
            model for model, times in self.in_a_row.items() if times >= REFUSALS_MAX and self.may_reload(model, now_s)
        )

    def may_reload(self, model: str, now_s: float) -> bool:
        """Whether the last time is long enough ago."""
        return now_s >= self._again_s.get(model, now_s)

    def tried(self, model: str, now_s: float) -> None:
        """It is known what became of a model: it runs, or it was loaded again."""
        self.in_a_row.pop(model, None)
        self._again_s[model] = now_s + MODEL_RELOAD_EVERY_S

    def forget(self, model: str) -> None:
        """The model is not wanted any more."""
        self.in_a_row.pop(model, None)
        self._again_s.pop(model, None)
