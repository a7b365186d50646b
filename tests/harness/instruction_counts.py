"""What a thread executes, counted in Python's own instructions and calls: the same on every machine, however busy.

Instructions say what our own code does, calls of C functions how often it has others do something; neither says how
long a C function takes, which `bench` and `test_read_cost.py` measure.
"""

import sys
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any, NamedTuple

StageOf = Callable[[str], str | None]
"""The stage of a module by its name; None where its caller's module says it."""
NOBODY = "server"
"""Whose is what no module of ours has called: what the event loop and the server's library do by themselves."""


class Cost(NamedTuple):
    """Of one stage. Not for other Pythons: each compiles to instructions of its own."""

    instructions: int
    calls: int
    """Of C functions."""


class InstructionCounter:
    """Counts, in the thread that starts it, by stages."""

    def __init__(self, stage_of: StageOf) -> None:
        self._stage_of = stage_of
        self._known: dict[str, str | None] = {}
        self._instructions: dict[str, int] = {}
        self._calls: dict[str, int] = {}
        self._tallies: dict[str, Callable[..., Any]] = {}

    def start(self) -> None:
        """Count from the next call in this thread on; what runs already is not counted until it is resumed."""
        sys.settrace(self._entered)
        sys.setprofile(self._called)

    def stop(self) -> None:
        """Count no more in this thread."""
        sys.settrace(None)
        sys.setprofile(None)

    def costs(self) -> dict[str, Cost]:
        """Until now, by stage."""
        stages = self._instructions.keys() | self._calls.keys()
        return {each: Cost(self._instructions.get(each, 0), self._calls.get(each, 0)) for each in stages}

    def _entered(self, frame: FrameType, _event: str, _arg: object) -> Callable[..., Any]:
        """For each call of a function, and each time that a coroutine goes on: who counts what it executes."""
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        stage = self._stage(frame)
        return self._tallies.get(stage) or self._tallies.setdefault(stage, self._tally(stage))

    def _tally(self, stage: str) -> Callable[..., Any]:
        instructions = self._instructions
        instructions[stage] = 0

        def tally(_frame: FrameType, event: str, _arg: object) -> Callable[..., Any]:
            if event == "opcode":
                instructions[stage] += 1
            return tally

        return tally

    def _called(self, frame: FrameType, event: str, _arg: object) -> None:
        if event == "c_call":
            stage = self._stage(frame)
            self._calls[stage] = self._calls.get(stage, 0) + 1

    def _stage(self, frame: FrameType) -> str:
        """That of the innermost function of a module that has one."""
        at: FrameType | None = frame
        while at is not None:
            module = at.f_globals.get("__name__", "")
            if module not in self._known:
                self._known[module] = self._stage_of(module)
            stage = self._known[module]
            if stage is not None:
                return stage
            at = at.f_back
        return NOBODY


def added(before: Mapping[str, Cost], after: Mapping[str, Cost]) -> dict[str, Cost]:
    """What came to each stage between two looks."""
    nothing = Cost(0, 0)
    return {
        stage: Cost(*(new - old for new, old in zip(cost, before.get(stage, nothing), strict=True)))
        for stage, cost in after.items()
    }
