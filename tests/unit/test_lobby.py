"""While requests are refused, new ones are looked at in a pace, newest first; nobody is forgotten."""

import asyncio
from dataclasses import dataclass, field

from harness.virtual_time import in_virtual_time
from skewless_http.lobby import Lobby


@dataclass
class Door:
    """A process that is crowded or not, and who was looked at."""

    crowded: bool = True
    answered: int = 0
    looked_at: list[int] = field(default_factory=list)

    def lobby(self, *, per_s: float = 100.0) -> Lobby:
        return Lobby(is_crowded=lambda: self.crowded, answered=lambda: self.answered, per_s=per_s)


@dataclass(eq=False)
class Guest:
    door: Door
    number: int

    def go_on(self) -> None:
        self.door.looked_at.append(self.number)

    def arrive(self, lobby: Lobby) -> None:
        if not lobby.keeps(self):
            self.go_on()


def _crowd(door: Door, lobby: Lobby, count: int) -> list[Guest]:
    guests = [Guest(door, number) for number in range(count)]
    for guest in guests:
        guest.arrive(lobby)
    return guests


def test_nobody_waits_while_nobody_is_refused() -> None:
    async def story() -> None:
        door = Door(crowded=False)
        lobby = door.lobby()
        _crowd(door, lobby, 5_000)
        assert (len(door.looked_at), len(lobby)) == (5_000, 0)

    in_virtual_time(story())


def test_a_crowd_is_looked_at_in_a_pace_and_as_fast_as_answers_are_given() -> None:
    async def story() -> None:
        door = Door()
        lobby = door.lobby(per_s=100.0)
        _crowd(door, lobby, 1_000)
        at_once = len(door.looked_at)
        assert at_once <= 64, "what a quiet moment has saved up"
        await asyncio.sleep(1.0)
        assert 95 <= len(door.looked_at) - at_once <= 105
        before = len(door.looked_at)
        for _ in range(100):
            door.answered += 2
            await asyncio.sleep(0.01)
        assert 290 <= len(door.looked_at) - before <= 310

    in_virtual_time(story())


def test_who_came_last_is_looked_at_first() -> None:
    async def story() -> None:
        door = Door()
        lobby = door.lobby(per_s=100.0)
        _crowd(door, lobby, 500)
        kept = [number for number in range(500) if number not in door.looked_at]
        at_once = len(door.looked_at)
        await asyncio.sleep(0.5)
        assert door.looked_at[at_once:] == kept[::-1][: len(door.looked_at) - at_once]

    in_virtual_time(story())


def test_when_the_crowd_is_over_everybody_is_looked_at_soon() -> None:
    async def story() -> None:
        door = Door()
        lobby = door.lobby(per_s=10.0)
        _crowd(door, lobby, 500)
        door.crowded = False
        await asyncio.sleep(0.2)
        assert sorted(door.looked_at) == list(range(500))
        assert len(lobby) == 0

    in_virtual_time(story())


def test_who_goes_away_is_not_looked_at() -> None:
    async def story() -> None:
        door = Door()
        lobby = door.lobby(per_s=1_000.0)
        guests = _crowd(door, lobby, 300)
        waiting = [guest for guest in guests if guest.number not in door.looked_at]
        for guest in waiting[::2]:
            lobby.leaves(guest)
            lobby.leaves(guest)
        await asyncio.sleep(2.0)
        gone = {guest.number for guest in waiting[::2]}
        assert sorted(door.looked_at) == sorted(set(range(300)) - gone)

    in_virtual_time(story())
