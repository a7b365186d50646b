"""`python -m bench.unsampled`: the gateway as shipped, but that no prediction is marked to be compared.

An endpoint's policy can say so too, but all gateways of a benchmark follow the same routes.
"""

from collections.abc import Mapping

from skewless.serving.log_sampling import LogSampling, SampleShares
from skewless_gateway import composition
from skewless_gateway.main import run


class NoSampling(LogSampling):
    """Whatever the routes say, nothing is sampled."""

    def follow(self, shares: Mapping[str, SampleShares]) -> None:
        """Forget the shares."""


def main() -> None:
    """Entry of the process; settings and options are the gateway's."""
    # In this process only, and before anything is built.
    composition.LogSampling = NoSampling  # type: ignore[attr-defined]  # the composition's own import of it
    run()


if __name__ == "__main__":
    main()
