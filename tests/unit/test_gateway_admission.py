"""Who is let in, who waits, who is refused, and that every place is given back."""

import asyncio

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from harness.virtual_time import in_virtual_time, virtual_clock
from skewless.errors import DeadlineExceeded, Overloaded, Rejected, Unavailable
from skewless.limits import ENDPOINT_QUEUE_MAX, REQUESTS_IN_FLIGHT_MAX, ROWS_IN_FLIGHT_MAX
from skewless.serving.deadline import Deadline
from skewless.timestamps import Micros
from skewless_gateway.admission import Admission
from skewless_gateway.admission_metrics import AdmissionMetrics


class Desk:
    """An admission, and requests that stay inside until they are told to leave."""

    def __init__(self, **settings: int) -> None:
        self.registry = CollectorRegistry()
        self.admission = Admission(
            clock=virtual_clock,
            now=lambda: Micros(0),
            random=lambda: 0.5,
            metrics=AdmissionMetrics(self.registry),
            **settings,
        )
        self.inside: list[str] = []

    def deadline(self, ms: int = 1_000) -> Deadline:
        return Deadline(virtual_clock, started_ns=virtual_clock(), deadline_ms=ms)

    def ask(
        self, name: str, *, takes_s: float = 10.0, ms: int = 60_000, rows: int = 1, endpoint: str = "e",
        background: bool = False,
    ) -> asyncio.Task[None]:  # fmt: skip
        async def stay() -> None:
            admitted = self.admission.admitted(endpoint, self.deadline(ms), rows=rows, background=background)
            async with admitted:
                self.inside.append(name)
                await asyncio.sleep(takes_s)

        return asyncio.create_task(stay())

    async def teach(self, takes_s: float, endpoint: str = "e") -> None:
        """Let the endpoint learn how long its answers take."""
        for _ in range(8):
            await self.ask("lesson", takes_s=takes_s, endpoint=endpoint)
        self.inside.clear()


async def pause(seconds: float = 0.001) -> None:
    await asyncio.sleep(seconds)


def test_a_request_beyond_the_limit_waits_and_gets_the_place_that_is_given_back() -> None:
    async def story() -> None:
        desk = Desk(in_flight_max=1, queue_ms=1_000)
        await desk.teach(0.1)
        first, second = desk.ask("first", takes_s=0.1), desk.ask("second", takes_s=0.1)
        await pause()
        assert (desk.inside, desk.admission.in_flight, desk.admission.waiting) == (["first"], 1, 1)
        await asyncio.gather(first, second)
        assert desk.inside == ["first", "second"]
        assert (desk.admission.in_flight, desk.admission.waiting) == (0, 0)

    in_virtual_time(story())


def test_without_a_queue_one_too_many_is_refused_at_once() -> None:
    async def story() -> None:
        desk = Desk(in_flight_max=1, queue_ms=0)
        stays = desk.ask("stays")
        await pause()
        with pytest.raises(Overloaded):
            desk.admission.refuse_if_full("e")
        with pytest.raises(Overloaded, match=r"`e` is unavailable: 1 predictions are computed and 0 wait"):
            await desk.ask("refused")
        desk.admission.refuse_if_full("other")
        stays.cancel()

    in_virtual_time(story())


def test_who_would_wait_longer_than_planned_is_refused_before_the_body_is_read() -> None:
    async def story() -> None:
        desk = Desk(in_flight_max=1, queue_ms=250)
        await desk.teach(0.1)
        asked = [desk.ask(str(number), takes_s=0.1) for number in range(3)]
        await pause()
        with pytest.raises(Overloaded) as refused:
            desk.admission.refuse_if_full("e")
        assert 1.0 <= refused.value.retry_after_s <= 30.0
        await asyncio.gather(*asked)
        desk.admission.refuse_if_full("e")

    in_virtual_time(story())


def test_who_could_not_be_answered_in_time_is_refused_and_others_are_not() -> None:
    async def story() -> None:
        desk = Desk(in_flight_max=1, queue_ms=10_000)
        await desk.teach(0.1)
        asked = [desk.ask(str(number), takes_s=0.1) for number in range(4)]
        await pause()
        with pytest.raises(Overloaded):
            desk.admission.refuse_if_full("e", 200)
        with pytest.raises(Overloaded):
            await desk.ask("hasty", ms=200)
        desk.admission.refuse_if_full("e", 5_000)
        await asyncio.gather(*asked, desk.ask("patient", takes_s=0.1, ms=5_000))
        assert desk.inside[-1] == "patient"

    in_virtual_time(story())


def test_a_deadline_shorter_than_any_answer_ever_took_is_refused_before_work_is_spent() -> None:
    async def story() -> None:
        desk = Desk()
        await desk.teach(0.1)
        with pytest.raises(DeadlineExceeded, match=r"takes 100\.0 ms at least"):
            await desk.ask("hopeless", ms=50)
        assert desk.inside == []
        await pause(30.0)
        await desk.ask("tried again", ms=50, takes_s=0.01)
        assert desk.inside == ["tried again"], "what was learned is forgotten, or nobody would ever know better"

    in_virtual_time(story())


def test_who_waits_in_vain_is_refused_and_never_let_in() -> None:
    async def story() -> None:
        desk = Desk(in_flight_max=1, queue_ms=100)
        await desk.teach(0.01)
        stuck = desk.ask("stuck", takes_s=5.0)
        await pause()
        began_s = asyncio.get_running_loop().time()
        with pytest.raises(Overloaded):
            await desk.ask("waits")
        assert asyncio.get_running_loop().time() - began_s == pytest.approx(0.2, abs=0.01)
        await stuck
        assert desk.inside == ["stuck"]

    in_virtual_time(story())


def test_in_a_line_that_stands_the_newest_goes_first() -> None:
    async def story() -> None:
        desk = Desk(in_flight_max=1, queue_ms=100)
        await desk.teach(0.01)
        asked = [desk.ask("stuck", takes_s=0.18)]
        await pause()
        for name in ("old", "newer", "newest"):
            asked.append(desk.ask(name, takes_s=0.001))
            await pause(0.01)
        await asyncio.gather(*asked, return_exceptions=True)
        assert desk.inside[:3] == ["stuck", "newest", "newer"]

    in_virtual_time(story())


@pytest.mark.parametrize("error", [Rejected("x", path="$"), Unavailable("model", "x"), RuntimeError("x")])
def test_the_place_of_who_fails_is_given_back(error: Exception) -> None:
    async def story() -> None:
        desk = Desk(in_flight_max=1)
        with pytest.raises(type(error)):
            async with desk.admission.admitted("e", desk.deadline()):
                raise error
        assert desk.admission.in_flight == 0
        await desk.ask("next", takes_s=0.0)

    in_virtual_time(story())


def test_who_hangs_up_gives_place_and_turn_back() -> None:
    async def story() -> None:
        desk = Desk(in_flight_max=1, queue_ms=10_000)
        await desk.teach(0.1)
        inside, gone, last = (desk.ask(name, takes_s=0.1) for name in ("inside", "gone", "last"))
        await pause()
        gone.cancel()
        inside.cancel()
        await pause()
        assert desk.inside == ["inside", "last"]
        await last
        assert (desk.admission.in_flight, desk.admission.waiting) == (0, 0)

    in_virtual_time(story())


def test_who_hangs_up_in_the_moment_of_its_turn_hands_the_place_on() -> None:
    async def story() -> None:
        desk = Desk(in_flight_max=1, queue_ms=10_000)
        await desk.teach(0.1)
        async with desk.admission.admitted("e", desk.deadline()):
            gone, last = desk.ask("gone", takes_s=0.1), desk.ask("last", takes_s=0.1)
            await pause()
        gone.cancel()  # it has its turn, and does not know yet
        await asyncio.wait([gone, last])
        assert gone.cancelled()
        assert desk.inside == ["last"]
        assert (desk.admission.in_flight, desk.admission.waiting) == (0, 0)

    in_virtual_time(story())


def test_all_endpoints_together_are_bounded_by_requests_and_by_rows() -> None:
    async def story() -> None:
        desk = Desk(in_flight_max=REQUESTS_IN_FLIGHT_MAX, queue_ms=60_000)
        large = [desk.ask(str(number), rows=1_000, endpoint=str(number)) for number in range(20)]
        await pause()
        assert len(desk.inside) == ROWS_IN_FLIGHT_MAX // 1_000
        for task in large:
            task.cancel()
        await pause()
        many = [desk.ask("one", endpoint=str(number)) for number in range(REQUESTS_IN_FLIGHT_MAX + 5)]
        await pause()
        assert desk.admission.in_flight == REQUESTS_IN_FLIGHT_MAX
        assert desk.admission.waiting == 5
        for task in many:
            task.cancel()
        await pause()
        assert (desk.admission.in_flight, desk.admission.waiting) == (0, 0)

    in_virtual_time(story())


def test_a_line_is_bounded_however_fast_it_moves() -> None:
    async def story() -> None:
        desk = Desk(in_flight_max=1, queue_ms=10_000)
        asked = [desk.ask(str(number)) for number in range(ENDPOINT_QUEUE_MAX + 3)]
        await pause()
        assert desk.admission.waiting == ENDPOINT_QUEUE_MAX
        assert sum(task.done() for task in asked) == 2
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)

    in_virtual_time(story())


def test_background_work_takes_half_of_the_places_and_only_while_nobody_else_wants_them() -> None:
    async def story() -> None:
        desk = Desk(in_flight_max=4, queue_ms=10_000)
        background = [desk.ask(f"batch {number}", takes_s=1.0, background=True) for number in range(3)]
        await pause()
        assert desk.inside == ["batch 0", "batch 1"]
        online = [desk.ask(f"online {number}", takes_s=1.5) for number in range(3)]
        await pause()
        assert desk.inside[2:] == ["online 0", "online 1"]
        await pause(1.2)
        assert desk.inside[4:] == ["online 2"], "who waits online goes before who came first in the background"
        await asyncio.gather(*background, *online)
        assert desk.inside[5:] == ["batch 2"]

    in_virtual_time(story())


def test_background_work_waits_until_its_deadline() -> None:
    async def story() -> None:
        desk = Desk(in_flight_max=1, queue_ms=0)
        stays = desk.ask("stays", takes_s=5.0)
        await pause()
        with pytest.raises(Overloaded):
            await desk.ask("batch", ms=2_000, background=True)
        await desk.ask("batch", ms=5_000, takes_s=0.1, background=True)
        assert desk.inside == ["stays", "batch"]
        await stays

    in_virtual_time(story())


def test_metrics_tell_limit_places_line_waits_and_refusals_of_known_endpoints() -> None:
    async def story() -> None:
        desk = Desk(in_flight_max=1, queue_ms=150)
        await desk.teach(0.1)
        desk.admission.refuse_if_full("made-up")
        asked = [desk.ask("a", takes_s=0.1), desk.ask("b", takes_s=0.1)]
        await pause()
        with pytest.raises(Overloaded):
            desk.admission.refuse_if_full("e")
        told = generate_latest(desk.registry).decode()
        for line in (
            'skewless_admission_limit{endpoint="e"} 1.0',
            'skewless_admission_in_flight{endpoint="e"} 1.0',
            'skewless_admission_queued{endpoint="e"} 1.0',
            'skewless_admission_refused_total{endpoint="e",reason="queue_full"} 1.0',
        ):
            assert line in told, told
        assert "made-up" not in told
        await asyncio.gather(*asked)
        assert 'skewless_admission_wait_seconds_count{endpoint="e"} 1.0' in generate_latest(desk.registry).decode()
        desk.admission.keep_only({"e"})
        assert 'limit{endpoint="e"}' in generate_latest(desk.registry).decode()
        desk.admission.keep_only(())
        assert 'endpoint="e"' not in generate_latest(desk.registry).decode()

    in_virtual_time(story())


def test_an_endpoint_that_is_still_asked_is_not_forgotten() -> None:
    async def story() -> None:
        desk = Desk(in_flight_max=1)
        stays = desk.ask("stays", takes_s=1.0)
        await pause()
        desk.admission.keep_only(())
        await stays
        assert [each.in_flight for each in desk.admission.readings()] == [0]

    in_virtual_time(story())
