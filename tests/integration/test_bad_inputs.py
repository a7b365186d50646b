"""More than a thousand wrong requests, each refused with the status, the code and the place that it must be.

Over fakes every call of the back is counted: there is none. Over real servers a sample of the same requests moves none
of Valkey's and Triton's own counters.
"""

import re
from collections.abc import Iterator

import httpx
import pytest
import redis

from harness import http_calls
from harness.bad_inputs import BadInput, bad_inputs
from harness.bundles import instance
from harness.gateways import GatewayOverFakes
from harness.machines import Machine, running_machine
from harness.protocols import GatewayOfEveryProtocol, by_rest
from harness.servers import wait_until

EVERY = bad_inputs()
KINDS = sorted({each.name.split(":")[0] for each in EVERY})
SAMPLE_STEP = 7


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayOverFakes]:
    with GatewayOfEveryProtocol.build(tmp_path_factory.mktemp("gateway")).running() as running:
        yield running


def post(client: httpx.Client, bad: BadInput) -> httpx.Response:
    headers = {"Content-Type": bad.content_type, **(bad.headers or {})}
    return client.post(bad.target, content=bad.body, headers=headers)


def refused_wrongly(client: httpx.Client, bad: BadInput) -> str:
    """What is wrong about the answer to a wrong request; empty where it is what it must be."""
    response = post(client, bad)
    try:
        told = response.json()
    except ValueError:
        return f"{bad.name}: {response.status_code} {response.text[:200]}"
    seen = (response.status_code, told.get("code"), told.get("path"))
    if seen != (bad.status, bad.code, bad.path):
        return f"{bad.name}: {seen}, not {(bad.status, bad.code, bad.path)}: {str(told)[:300]}"
    lacks = [name for name in ("request_id", "code") if not told.get(name)]
    return f"{bad.name}: without {lacks}" if lacks or not (told.get("detail") or told.get("error")) else ""


def test_there_are_more_than_a_thousand_and_no_two_are_the_same() -> None:
    assert len(EVERY) > 1_000
    names = [each.name for each in EVERY]
    assert len(names) == len(set(names)), sorted(name for name in names if names.count(name) > 1)[:5]


@pytest.mark.parametrize("kind", KINDS)
def test_each_is_refused_with_its_code_and_place_and_reaches_nothing(gateway: GatewayOverFakes, kind: str) -> None:
    before = (len(gateway.store.reads), gateway.backend.calls, len(gateway.log.entries))
    wrong = [told for bad in EVERY if bad.name.split(":")[0] == kind if (told := refused_wrongly(gateway.client, bad))]
    assert not wrong, f"{len(wrong)} of them:\n" + "\n".join(wrong[:40])
    assert (len(gateway.store.reads), gateway.backend.calls, len(gateway.log.entries)) == before
    assert by_rest(gateway.client, [instance()]).labels == ["on_time"], "the next right request is answered"


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    folder = tmp_path_factory.mktemp("machine")
    with running_machine(folder, VERTEX_ENDPOINT="flight-delay", VERTEX_PREDICT_ROUTE="/vertex/predict") as running:
        running.serve(0)
        # While Triton loads and warms the model up, the gateway answers by itself.
        wait_until(lambda: rung(running) == "normal", "Triton answers", timeout_s=60)
        yield running


def rung(machine: Machine) -> str:
    """Of a right request; empty where it has no answer."""
    response = machine.predict()
    return str(response.json()["receipt"]["rung"]) if response.status_code == 200 else ""


def reads(machine: Machine) -> int:
    """Reads of hashes that Valkey has answered."""
    with redis.Redis(port=machine.valkey_port) as client:
        stats = client.info("commandstats")
    return sum(int(each["calls"]) for name, each in stats.items() if name in ("cmdstat_hmget", "cmdstat_hgetall"))


def inferences(machine: Machine) -> int:
    """Rows that Triton has inferred."""
    (port,) = re.findall(r"--metrics-port[= ](\d+)", " ".join(machine.specs["triton"].command))
    text = http_calls.get(f"http://127.0.0.1:{port}/metrics", timeout=10).text
    return sum(int(float(found)) for found in re.findall(r"^nv_inference_count\{.*\} (\S+)$", text, re.MULTILINE))


def test_none_of_a_sample_moves_the_counters_of_real_servers(machine: Machine) -> None:
    sample = [bad for bad in EVERY[::SAMPLE_STEP] if bad.code != "as_of_not_allowed"]
    before = reads(machine), inferences(machine)
    with http_calls.client(base_url=machine.url, timeout=30) as client:
        statuses = {bad.name: post(client, bad).status_code for bad in sample}
    assert {status // 100 for status in statuses.values()} == {4}, statuses
    assert (reads(machine), inferences(machine)) == before
    assert machine.predict().status_code == 200
    assert reads(machine) > before[0]
    assert inferences(machine) > before[1]
