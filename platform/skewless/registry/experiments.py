"""What the arms of experiments have counted, and how far canaries have come."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session

from skewless.errors import InvalidDefinition, NotFound
from skewless.registry.endpoints import endpoint_row, refuse_other_version
from skewless.registry.route_rows import write_progress
from skewless.registry.rows import route_of
from skewless.registry.tables import ArmCountRow, ArmRow, EndpointRow, ExperimentRow, RolloutProgressRow
from skewless.registry.transactions import RegistryPart
from skewless.rollout.counts import ArmCounts
from skewless.timestamps import Micros


class Experiments(RegistryPart):
    """The part of the registry that knows how experiments and canaries are doing.

    Counts and progress are what was observed, not what somebody decided: they are not audited. What is decided from
    them is a change of the route.
    """

    def experiment_counts(self, endpoint: str, experiment: str) -> dict[str, ArmCounts]:
        """What each arm has counted, in the declared order of arms; also of an experiment that has ended.

        Raises NotFound for an experiment that the endpoint never had.
        """
        here = (ArmCountRow.endpoint_name == endpoint, ArmCountRow.experiment_name == experiment)
        counted = (func.sum(ArmCountRow.trials), func.sum(ArmCountRow.successes))
        measured = (func.sum(ArmCountRow.total), func.sum(ArmCountRow.squares))
        wanted = select(ArmCountRow.arm_name, *counted, *measured).where(*here).group_by(ArmCountRow.arm_name)
        with self._transactions.read() as session:
            counts = dict.fromkeys(_arms(session, endpoint, experiment), ArmCounts())
            for arm, trials, successes, total, squares in session.execute(wanted):
                counts[arm] = ArmCounts(int(trials), int(successes), total, squares)
            return counts

    def experiment_segments(self, endpoint: str, experiment: str) -> tuple[tuple[Micros, Mapping[str, ArmCounts]], ...]:
        """What each arm has counted in each segment, with the segment's time, oldest first; so old ones can be given
        less weight. Raises NotFound for an experiment that the endpoint never had."""
        wanted = select(ArmCountRow).where(
            ArmCountRow.endpoint_name == endpoint, ArmCountRow.experiment_name == experiment
        )
        segments: dict[tuple[int, str], dict[str, ArmCounts]] = {}
        with self._transactions.read() as session:
            _arms(session, endpoint, experiment)
            for row in session.scalars(wanted.order_by(ArmCountRow.time, ArmCountRow.segment)):
                counts = ArmCounts(row.trials, row.successes, row.total, row.squares)
                segments.setdefault((row.time, row.segment), {})[row.arm_name] = counts
        return tuple((Micros(time), counts) for (time, _), counts in segments.items())

    def counted_segments(self, endpoint: str, experiment: str) -> frozenset[str]:
        """The segments whose outcomes are in the counts."""
        here = (ArmCountRow.endpoint_name == endpoint, ArmCountRow.experiment_name == experiment)
        with self._transactions.read() as session:
            return frozenset(session.scalars(select(ArmCountRow.segment).where(*here).distinct()))

    def add_counts(
        self,
        endpoint: str,
        experiment: str,
        segment: str,
        counts: Mapping[str, ArmCounts],
        *,
        time: Micros | None = None,
    ) -> bool:
        """Add what the arms counted in one segment of the outcomes; an arm that is left out counted nothing.

        `time` is the segment's own, None for now. False where that segment was added before, by whomever; nothing
        changes then. Raises NotFound for an unknown experiment, InvalidDefinition for an arm that it does not have.
        """
        with self._transactions.write() as session:
            # Whoever adds to this experiment waits here, so that a segment is looked for and added as one.
            session.get(ExperimentRow, (endpoint, experiment), with_for_update=True)
            arms = _arms(session, endpoint, experiment)
            unknown = sorted(counts.keys() - set(arms))
            if unknown:
                raise InvalidDefinition(
                    f"experiment `{experiment}` of endpoint `{endpoint}` has no arm {', '.join(unknown)}; "
                    f"arms: {', '.join(arms)}"
                )
            if session.scalar(_segment_exists(endpoint, experiment, segment)):
                return False
            shared = {"endpoint_name": endpoint, "experiment_name": experiment, "segment": segment}
            moment = self._clock() if time is None else time
            session.add_all(
                ArmCountRow(**shared, arm_name=arm, time=moment, **counts.get(arm, ArmCounts()).to_json())
                for arm in arms
            )
            return True

    def progress(self, endpoint: str) -> Mapping[str, Any] | None:
        """How far the endpoint's canary has come by its steps; None where none goes by steps.

        Raises NotFound for an unknown endpoint.
        """
        with self._transactions.read() as session:
            endpoint_row(session, endpoint)
            row = session.get(RolloutProgressRow, endpoint)
            return None if row is None else row.state

    def set_progress(
        self, endpoint: str, state: Mapping[str, Any] | None, *, expected_version: int | None = None
    ) -> None:
        """Keep how far the canary has come, None to forget it; it is forgotten by itself when the canary ends.

        Raises Conflict where the endpoint has no canary, or changed since `expected_version`; NotFound where there is
        no such endpoint.
        """
        with self._transactions.write() as session:
            # Locked first, so that no canary ends between the look at the route and the commit.
            session.execute(select(EndpointRow.name).where(EndpointRow.name == endpoint).with_for_update())
            row = endpoint_row(session, endpoint)
            refuse_other_version(row, expected_version)
            write_progress(session, route_of(row), state, now=self._clock())


def _arms(session: Session, endpoint: str, experiment: str) -> list[str]:
    """Names of an experiment's arms in their order. Raises NotFound, with the endpoint's experiments."""
    wanted = select(ArmRow.name).where(ArmRow.endpoint_name == endpoint, ArmRow.experiment_name == experiment)
    arms = list(session.scalars(wanted.order_by(ArmRow.position)))
    if not arms:
        had = select(ExperimentRow.name).where(ExperimentRow.endpoint_name == endpoint)
        known = tuple(session.scalars(had.order_by(ExperimentRow.started_time)))
        raise NotFound(f"experiment of endpoint `{endpoint}`", experiment, known=known)
    return arms


def _segment_exists(endpoint: str, experiment: str, segment: str) -> Any:
    return select(
        exists().where(
            ArmCountRow.endpoint_name == endpoint,
            ArmCountRow.experiment_name == experiment,
            ArmCountRow.segment == segment,
        )
    )
