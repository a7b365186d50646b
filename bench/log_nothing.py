"""`python -m bench.log_nothing`: the gateway as shipped, but for its prediction log, which keeps nothing.

No setting of a gateway turns the log off, so what logging costs is measured beside this process. Everything of a
request goes on as ever, up to the append and the commit of its record.
"""

from collections.abc import Sequence

from skewless.adapters.prediction_log import FolderPredictionLog
from skewless.serving.records import AnsweredBatch, Outcome
from skewless.serving.role_tally import RoleTally
from skewless_gateway import composition
from skewless_gateway.main import run


class NothingLog(FolderPredictionLog):
    """Forgets what it is given. Its folder and its thread are there, and have nothing to do."""

    def append(self, batch: AnsweredBatch) -> None:
        """Forget the predictions of a request."""

    def append_outcomes(self, outcomes: Sequence[Outcome]) -> None:
        """Forget outcomes."""

    def append_tallies(self, tallies: Sequence[RoleTally]) -> None:
        """Forget tallies."""

    async def commit(self) -> None:
        """Return at once."""


def main() -> None:
    """Entry of the process; settings and options are the gateway's."""
    # In this process only, and before anything is built.
    composition.FolderPredictionLog = NothingLog  # type: ignore[attr-defined]  # the composition's own import of it
    run()


if __name__ == "__main__":
    main()
