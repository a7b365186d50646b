"""Five times more than a gateway can answer, with real processes; what it can answer is measured in the same run.

The model is slowed down inside Triton, so that it is what there is too little of, and the machine has time for the load
itself. `make overload` runs it for longer.
"""

import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from bench.load_block import LoadBlock
from bench.load_http import request_bytes
from bench.load_loops import Aim, ClosedLoop, OpenLoop
from bench.load_timing import Generator, load_generator
from harness.attempts import holds_once
from harness.bundles import flights_at, instance
from harness.gateways import ENDPOINT
from harness.machines import AS_OF, NOW, Machine, running_machine
from harness.servers import wait_until

BURST_S = float(os.environ.get("SKEWLESS_TEST_OVERLOAD_S", "2"))
"""How long each flood lasts."""
GOODPUT_MIN = 0.9 if "SKEWLESS_TEST_OVERLOAD_S" in os.environ else 0.6
"""Of the capacity. On a quiet machine all of it is left; other tests beside this one take of the capacity too."""
BESIDE_FLOOD_MIN = 0.5 if "SKEWLESS_TEST_OVERLOAD_S" in os.environ else 0.1
"""Of what callers of another endpoint get alone. Three quarters on a quiet machine: the processor is shared."""
DEADLINE_MS = 1_000
CALLERS = 64
CONNECTIONS = 400
FAST = "fast"
"""An endpoint whose model is not slowed down."""


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with running_machine(tmp_path_factory.mktemp("overload"), LOG_FLUSH_MS="200") as running:
        slow, fast = running.build(0), running.build(1)
        _slow_down(running.folder / "models", str(slow.digest))
        for name, built in ((ENDPOINT, slow), (FAST, fast)):
            running.registry.create_endpoint(name, description="", bundle=built.digest, actor="test", reason="test")
        running.fill(flights_at(NOW))
        running.wait_until_ready()
        wait_until(lambda: running.predict().status_code == 200, "the endpoint answers", timeout_s=60)
        yield running


@pytest.fixture(scope="module")
def generator() -> Iterator[Generator]:
    with load_generator() as running:
        yield running


def _slow_down(models: Path, digest: str) -> None:
    """Let a call take 20 ms and each of its rows 8 ms more: at most 125 rows a second, and fewer in small calls."""
    (script,) = (path for path in models.glob("*/1/model.py") if digest[:8] in path.parts[-3])
    text = script.read_text()
    score = "        return dict(zip(self._outputs, self._session.run"
    assert text.count(score) == 1, "the model's script has changed: slow it down another way"
    script.write_text(text.replace(score, f"        __import__('time').sleep(0.020 + 0.008 * len(rows))\n{score}"))


@pytest.fixture
def quick_machine(tmp_path: Path) -> Iterator[Machine]:
    """A gateway with its model in its own process, so that its own processor is what there is too little of."""
    with running_machine(tmp_path, tritons=0, LOG_FLUSH_MS="200", TRITON="in-process") as running:
        running.serve(0)
        yield running


def _aim(machine: Machine, *, endpoint: str = ENDPOINT, deadline_ms: int = DEADLINE_MS) -> Aim:
    host, _, port = machine.url.rpartition("//")[2].partition(":")
    body = msgspec.json.encode({"instances": [instance()], "options": {"as_of": AS_OF}})
    path, timeout = f"/v1/endpoints/{endpoint}/predict", {"X-Request-Timeout-Ms": str(deadline_ms)}
    return Aim(host, int(port), (request_bytes(path, body, host=f"{host}:{port}", headers=timeout),))


def _closed(machine: Machine, generator: Generator, *, callers: int, seconds: float = 3.0) -> LoadBlock:
    """What becomes of callers of whom each asks again once it is answered."""
    aim = _aim(machine, deadline_ms=10_000)
    return generator.run(ClosedLoop(aim, callers=callers, warm_up_s=min(1.0, seconds), duration_s=seconds))


def _flood(
    machine: Machine, generator: Generator, *, per_s: float, warm_up_s: float = 2.0, burst_s: float = BURST_S
) -> LoadBlock:
    """What becomes of so many a second, once the gateway's limit has had the time to follow."""
    aim = _aim(machine)
    return generator.run(OpenLoop(aim, per_s=per_s, connections=CONNECTIONS, warm_up_s=warm_up_s, duration_s=burst_s))


def _told(machine: Machine, metric: str) -> float:
    """The sum of the endpoint's series of a metric."""
    found = re.findall(rf"^{metric}\{{[^}}]*endpoint=\"{ENDPOINT}\"[^}}]*\}} (\S+)$", machine.metrics(), re.MULTILINE)
    return sum(map(float, found))


def _share_within_deadline(machine: Machine) -> float:
    """Of all answers, as the gateway counts: a generator whose connections were all refused waits in itself."""
    text = machine.metrics()
    bucket = re.search(
        r'^skewless_stage_seconds_bucket\{[^}]*le="1.0"[^}]*stage="total"[^}]*\} (\S+)$', text, re.MULTILINE
    )
    count = re.search(r'^skewless_stage_seconds_count\{[^}]*stage="total"[^}]*\} (\S+)$', text, re.MULTILINE)
    assert bucket is not None, "the gateway tells how long requests took"
    assert count is not None
    return float(bucket.group(1)) / float(count.group(1))


@pytest.fixture(scope="module")
def capacity_per_s(machine: Machine, generator: Generator) -> float:
    """Answers per second for callers of whom 64 always wait."""
    block = _closed(machine, generator, callers=CALLERS)
    assert set(block.errors) <= {"503"}, block.errors
    return block.per_s


def test_five_times_the_capacity_is_refused_but_for_what_can_be_answered_in_time(
    machine: Machine, generator: Generator, capacity_per_s: float
) -> None:
    def measure() -> None:
        block = _flood(machine, generator, per_s=5 * capacity_per_s)
        # The machine may have become busier or quieter with others' work meanwhile.
        after_per_s = _closed(machine, generator, callers=CALLERS).per_s
        told = (
            f"capacity {capacity_per_s:.0f}/s before and {after_per_s:.0f}/s after, "
            f"good {block.per_s:.0f}/s, p99 {block.percentile_us(99):.0f} us from when "
            f"it was due; {dict(block.errors)}; limit {_told(machine, 'skewless_admission_limit'):.0f}"
        )
        assert block.per_s >= GOODPUT_MIN * min(capacity_per_s, after_per_s), told
        assert _share_within_deadline(machine) >= 0.97, told
        assert set(block.errors) <= {"503", "504"}, told
        assert block.errors.get("504", 0) <= 0.1 * block.answers, told
        refused = _told(machine, "skewless_admission_refused_total")
        assert refused >= 0.9 * block.errors["503"], "all of it by admission"

    holds_once(measure)


def test_after_a_burst_it_is_as_fast_as_before_at_once(
    machine: Machine, generator: Generator, capacity_per_s: float
) -> None:
    def measure() -> None:
        before = _closed(machine, generator, callers=2, seconds=2.0)
        _flood(machine, generator, per_s=5 * capacity_per_s)
        after = _closed(machine, generator, callers=2, seconds=2.0)
        assert not after.failed, after.errors
        assert after.percentile_us(50) <= 3 * before.percentile_us(50)

    holds_once(measure)


def test_the_flood_of_one_endpoint_refuses_no_caller_of_another(
    machine: Machine, generator: Generator, capacity_per_s: float
) -> None:
    def measure() -> None:
        calm = ClosedLoop(_aim(machine, endpoint=FAST), callers=2, warm_up_s=1.0, duration_s=2.0)
        before = generator.run(calm)
        with load_generator() as other, ThreadPoolExecutor(1) as beside:
            flood = beside.submit(_flood, machine, other, per_s=5 * capacity_per_s)
            during = generator.run(calm)
            flood.result()
        assert "503" not in during.errors, during.errors
        # They share the gateway's processor, and on this machine the generator's too, but not the line.
        told = f"{during.per_s:.0f}/s beside a flood, {before.per_s:.0f}/s alone"
        assert during.per_s >= BESIDE_FLOOD_MIN * before.per_s, told

    holds_once(measure)


def test_refusing_takes_no_time_from_answers_where_the_gateway_itself_is_the_bottleneck(
    quick_machine: Machine, generator: Generator
) -> None:
    def measure() -> None:
        before = _closed(quick_machine, generator, callers=32, seconds=0.6)
        block = _flood(quick_machine, generator, per_s=4 * before.per_s, warm_up_s=1.0, burst_s=BURST_S / 2)
        after = _closed(quick_machine, generator, callers=32, seconds=0.6)
        told = f"{before.per_s:.0f}/s before, {block.per_s:.0f}/s beside the flood, {after.per_s:.0f}/s after"
        # Without the lobby a fiftieth is left; a quarter allows for what else runs on two cores.
        assert block.per_s >= 0.25 * min(before.per_s, after.per_s), f"{told}; {dict(block.errors)}"
        assert after.percentile_us(50) <= 4 * before.percentile_us(50), told

    holds_once(measure)
