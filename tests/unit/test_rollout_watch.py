"""When the embedded stack has rollouts adjusted, and when it leaves them alone."""

from dataclasses import dataclass, field

from skewless.errors import Unavailable
from skewless.stack.rollout_watch import RolloutWatch


@dataclass
class Process:
    """A process whose end a test decides."""

    status: int | None = None
    stopped: bool = False

    def exit_status(self) -> int | None:
        return self.status

    def stop(self) -> int:
        self.stopped = True
        return 0


@dataclass
class Watched:
    """A watch, and everything around it."""

    endpoints: tuple[str, ...] = ()
    failure: Unavailable | None = None
    started: list[Process] = field(default_factory=list)
    told: list[str] = field(default_factory=list)

    def watch(self) -> RolloutWatch:
        return RolloutWatch(self.needed, self.start, self.told.append)

    def needed(self) -> tuple[str, ...]:
        if self.failure is not None:
            raise self.failure
        return self.endpoints

    def start(self) -> Process:
        self.started.append(Process())
        return self.started[-1]


def test_nothing_is_started_while_there_is_nothing_to_adjust() -> None:
    watched = Watched()
    watched.watch().look()
    assert (watched.started, watched.told) == ([], [])


def test_one_process_adjusts_until_it_ends_and_another_when_there_is_more_to_do() -> None:
    watched = Watched(("flight-delay",))
    watch = watched.watch()
    for _ in range(3):
        watch.look()
    assert len(watched.started) == 1
    watched.started[0].status, watched.endpoints = 0, ()
    watch.look()
    assert len(watched.started) == 1
    watched.endpoints = ("other",)
    watch.look()
    assert len(watched.started) == 2
    assert watched.told == ["adjusting the rollouts of flight-delay", "adjusting the rollouts of other"]


def test_a_process_that_failed_is_told_and_started_again_at_the_next_look() -> None:
    watched = Watched(("flight-delay",))
    watch = watched.watch()
    watch.look()
    watched.started[0].status = 3
    watch.look()
    assert len(watched.started) == 1
    assert "logs/rollouts.log" in watched.told[-1]
    watch.look()
    assert len(watched.started) == 2


def test_an_away_registry_is_told_once() -> None:
    watched = Watched(failure=Unavailable("registry database", "gone"))
    watch = watched.watch()
    watch.look()
    watch.look()
    assert len(watched.told) == 1
    assert "gone" in watched.told[0]


def test_stopping_ends_the_process() -> None:
    watched = Watched(("flight-delay",))
    watch = watched.watch()
    watch.look()
    watch.stop()
    assert watched.started[0].stopped
