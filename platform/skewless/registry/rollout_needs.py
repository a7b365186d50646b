"""Whether there is anything to adjust, told without NumPy and Arrow, which a look every few seconds can do without."""

from skewless.registry.repository import Registry


def needing_adjustment(registry: Registry) -> tuple[str, ...]:
    """Endpoints whose canary goes by steps, or which run an experiment. Raises Unavailable."""
    return tuple(
        record.name
        for record in registry.endpoints()
        if record.route.experiment is not None
        or (record.route.canary is not None and registry.progress(record.name) is not None)
    )
