"""The rungs on which a prediction can be answered, as receipts, records and metrics name them."""

from enum import StrEnum


class Rung(StrEnum):
    """How an answer came about, from what everybody wants to what is better than nothing."""

    NORMAL = "normal"
    IN_PROCESS = "in_process"
    """The gateway ran the model itself: the same model, the same inputs."""
    LAST_KNOWN = "last_known"
    """Features as they were last read, some time ago."""
    DEFAULTS = "defaults"
    """Features that could not be read were counted as missing."""
    FALLBACK = "fallback"
    """Another bundle answered, the one that the live one names."""
    CONSTANT = "constant"
    """The probability that the live bundle names; no model was asked."""


_FEATURES = (Rung.NORMAL, Rung.LAST_KNOWN, Rung.DEFAULTS)
_MODELS = (Rung.NORMAL, Rung.IN_PROCESS, Rung.FALLBACK)


def joined(features: Rung, model: Rung) -> str:
    """The name of what was done about features and about the model together.

    >>> joined(Rung.NORMAL, Rung.NORMAL), joined(Rung.LAST_KNOWN, Rung.NORMAL), joined(Rung.LAST_KNOWN, Rung.IN_PROCESS)
    ('normal', 'last_known', 'last_known+in_process')
    """
    return _NAMES[features, model]


def lowest(names: list[str]) -> str:
    """The rung that is furthest from normal.

    >>> lowest(["normal", "last_known+in_process", "in_process"])
    'last_known+in_process'
    """
    return max(names, key=RUNG_NAMES.index)


_NAMES = {
    (features, model): str(
        model if features is Rung.NORMAL else features if model is Rung.NORMAL else f"{features}+{model}"
    )
    for model in _MODELS
    for features in _FEATURES
}
RUNG_NAMES: tuple[str, ...] = (
    *(_NAMES[features, model] for features in _FEATURES for model in _MODELS if model is not Rung.FALLBACK),
    *(_NAMES[features, Rung.FALLBACK] for features in _FEATURES),
    str(Rung.CONSTANT),
)
"""Every name there can be, the best first."""
