"""What is known of each arm as a distribution, and by it which arm is best. By integration, so without any sampling."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.polynomial.legendre import leggauss, legvander
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_NODES = 16
_EXACT = 1e-9
"""A loss below this is a rounding error."""
_DEVIATIONS = np.array([0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 11.0, 15.0, 22.0, 35.0, 60.0])
"""Where panels end, in standard deviations from the mean. The far ones are for the tail of a rate close to 0 or 1."""


class Posterior(Protocol):
    """What is known of one arm's rate or mean."""

    @property
    def mean(self) -> float: ...

    @property
    def deviation(self) -> float: ...

    @property
    def support(self) -> tuple[float, float]: ...

    def log_density(self, points: Floats) -> Floats:
        """The logarithm of the density at points inside the support."""
        ...


@dataclass(frozen=True, slots=True)
class RatePosterior:
    """A Beta distribution of a rate: from a uniform prior, `a` - 1 successes and `b` - 1 failures. Both are above 0."""

    a: float
    b: float

    @property
    def mean(self) -> float:
        return self.a / (self.a + self.b)

    @property
    def deviation(self) -> float:
        total = self.a + self.b
        return math.sqrt(self.a * self.b / (total + 1.0)) / total

    @property
    def support(self) -> tuple[float, float]:
        return 0.0, 1.0

    def log_density(self, points: Floats) -> Floats:
        log_beta = math.lgamma(self.a) + math.lgamma(self.b) - math.lgamma(self.a + self.b)
        shaped: Floats = (self.a - 1.0) * np.log(points) + (self.b - 1.0) * np.log1p(-points) - log_beta
        return shaped


@dataclass(frozen=True, slots=True)
class MeanPosterior:
    """A normal distribution: of the mean of many outcomes. `deviation` is the standard error, above 0."""

    mean: float
    deviation: float

    @property
    def support(self) -> tuple[float, float]:
        return -math.inf, math.inf

    def log_density(self, points: Floats) -> Floats:
        scaled = (points - self.mean) / self.deviation
        shaped: Floats = -0.5 * np.square(scaled) - math.log(self.deviation * math.sqrt(2.0 * math.pi))
        return shaped


@dataclass(frozen=True, slots=True)
class BestArm:
    """By which probability each arm has the largest value, and how much below the largest it is in expectation."""

    probabilities: tuple[float, ...]
    losses: tuple[float, ...]


def best_arm(posteriors: Sequence[Posterior]) -> BestArm:
    """Which of some independent arms has the largest value.

    An arm is best with probability ∫ f(x) Π F(x) dx, with its density f and the distribution functions F of the others.
    Panels are laid around the mean of every arm and integrated by Gauss's rule: right to about 1e-9. With k arms it
    handles arrays (k, 32 k panels, 16 nodes).

    >>> best_arm([RatePosterior(31.0, 71.0), RatePosterior(31.0, 71.0)]).probabilities
    (0.5, 0.5)
    """
    panels = _Panels(posteriors)
    densities = np.stack([panels.density(each) for each in posteriors])
    below = np.stack([panels.integrated(density) for density in densities])
    shares = []
    for arm, density in enumerate(densities):
        others = np.prod(np.delete(below, arm, axis=0), axis=0)
        shares.append(density * others)
    probabilities = np.array([panels.integral(share) for share in shares])
    best = math.fsum(panels.integral(share * panels.points) for share in shares)
    means = [panels.integral(density * panels.points) for density in densities]
    scaled = probabilities / probabilities.sum()  # to 12 digits: what is beyond is rounding, and differs by machine
    losses = tuple(loss if (loss := best - mean) > _EXACT else 0.0 for mean in means)
    return BestArm(tuple(round(float(each), 12) for each in scaled), losses)


def credible_interval(posterior: Posterior, share: float) -> tuple[float, float]:
    """The values between which the posterior's middle `share` lies."""
    panels = _Panels([posterior])
    below = panels.integrated(panels.density(posterior)).ravel()
    low, high = np.interp([(1.0 - share) / 2, (1.0 + share) / 2], below, panels.points.ravel())
    return float(low), float(high)


class _Panels:
    """Points (panels, nodes) at which the distributions are looked at, with what integrates values at them."""

    def __init__(self, posteriors: Sequence[Posterior]) -> None:
        lowest, highest = posteriors[0].support
        ends = [each.mean + sign * each.deviation * _DEVIATIONS for each in posteriors for sign in (-1.0, 1.0)]
        edges = np.unique(np.clip(np.concatenate([*ends, [lowest, highest]]), lowest, highest))
        edges = edges[np.isfinite(edges)]
        nodes, self._weights = leggauss(_NODES)
        self._half = (edges[1:] - edges[:-1])[:, None] / 2.0
        self.points: Floats = edges[:-1, None] + self._half * (nodes + 1.0)
        self._partial = _partial_integrals(nodes, self._weights)

    def density(self, posterior: Posterior) -> Floats:
        """The density at the points, scaled so that it integrates to 1."""
        density: Floats = np.exp(posterior.log_density(self.points))
        return density / self.integral(density)

    def integral(self, values: Floats) -> float:
        """The integral over all panels."""
        return float(np.sum(values * self._weights * self._half))

    def integrated(self, values: Floats) -> Floats:
        """The integral up to each of the points."""
        whole = np.sum(values * self._weights * self._half, axis=1)
        before = np.concatenate([[0.0], np.cumsum(whole)[:-1]])
        integrals: Floats = np.clip(before[:, None] + (values @ self._partial.T) * self._half, 0.0, 1.0)
        return integrals


def _partial_integrals(nodes: Floats, weights: Floats) -> Floats:
    """A matrix (nodes, nodes) from values at the nodes to integrals from -1 to each node.

    The values are taken for a polynomial; of Legendre's polynomial P_k the integral is (P_k+1 - P_k-1) / (2 k + 1).
    """
    polynomials = legvander(nodes, len(nodes))
    degrees = np.arange(len(nodes))
    integrals = np.empty((len(nodes), len(nodes)))
    integrals[:, 0] = nodes + 1.0
    integrals[:, 1:] = (polynomials[:, 2:] - polynomials[:, :-2]) / (2.0 * degrees[1:] + 1.0)
    to_coefficients = (degrees + 0.5)[:, None] * polynomials[:, :-1].T * weights
    matrix: Floats = integrals @ to_coefficients
    return matrix
