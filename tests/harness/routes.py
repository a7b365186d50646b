"""Routes of every kind, drawn at random."""

from hypothesis import strategies as st

from skewless.canonical_json import Digest
from skewless.rollout.changes import set_arm_shares
from skewless.rollout.routes import Arm, Canary, Experiment, ExperimentKind, Route, Shadow

digests = st.integers(0, 2**256 - 1).map(lambda number: Digest(f"{number:064x}"))
names = st.text("abz", min_size=1, max_size=8)
texts = st.text(' aZ0"\\\n\x00é→😀', max_size=8)


@st.composite
def arm_shares(draw: st.DrawFn, arms: int, least: float = 0.0) -> list[float]:
    """Shares of `arms` arms that sum to 1, none below `least`."""
    weights = draw(st.lists(st.integers(0, 1_000), min_size=arms, max_size=arms).filter(any))
    free = 1.0 - least * arms
    return [least + free * weight / sum(weights) for weight in weights]


@st.composite
def experiments(draw: st.DrawFn, traffic_max: float = 1.0) -> Experiment:
    """An experiment, sometimes after its shares were changed, so that its layout has many runs."""
    kind = draw(st.sampled_from(ExperimentKind))
    count = draw(st.integers(2, 8))
    least = draw(st.floats(0.001, 0.1)) if kind is ExperimentKind.BANDIT else 0.0
    shares = draw(arm_shares(count, least))
    arms = tuple(Arm(f"arm-{index}", draw(digests), share) for index, share in enumerate(shares))
    traffic = draw(st.floats(0.0, traffic_max))
    maximise = draw(st.booleans())
    half_life_s = draw(st.none() | st.floats(1.0, 1e9)) if kind is ExperimentKind.BANDIT else None
    experiment = Experiment(
        draw(names), kind, arms, traffic, "yes", maximise, least, draw(texts), half_life_s=half_life_s
    )
    return draw(moved_experiments(experiment, least))


@st.composite
def moved_experiments(draw: st.DrawFn, experiment: Experiment, least: float) -> Experiment:
    """The experiment after up to three changes of its shares."""
    route = Route("one", "", Digest("0" * 64), experiment=experiment)
    for shares in draw(st.lists(arm_shares(len(experiment.arms), least), max_size=3)):
        named = {arm.name: share for arm, share in zip(experiment.arms, shares, strict=True)}
        route = set_arm_shares(route, named)
    assert route.experiment is not None
    return route.experiment


@st.composite
def routes(draw: st.DrawFn) -> Route:
    """A route with any of its parts."""
    live, previous, canary, shadow = draw(st.lists(digests, min_size=4, max_size=4, unique=True))
    share = draw(st.floats(0.0, 1.0))
    return Route(
        draw(names),
        draw(texts),
        live,
        draw(st.none() | st.just(previous)),
        draw(st.none() | st.just(Canary(canary, share))),
        draw(st.none() | st.builds(Shadow, st.just(shadow), st.floats(0.0, 1.0))),
        draw(st.none() | experiments(1.0 - share)),
        draw(st.integers(1)),
        tuple(draw(st.lists(names, max_size=2, unique=True))),
    )
