"""What a prediction request costs stage by stage, in instructions and calls, on a gateway over real servers.

Counted and not timed: a slow-down fails here whoever else uses the machine. `hot_path_budgets.json` has what each stage
may take, for each Python, which compile to instructions of their own.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from harness.counted_gateway import STAGES, counted_gateway
from harness.instruction_counts import Cost
from harness.servers import TritonServer, ValkeyServer

BUDGETS = Path(__file__).with_name("hot_path_budgets.json")
PYTHON = "{}.{}".format(*sys.version_info)
ACCEPT = "SKEWLESS_TEST_ACCEPT_BUDGETS" in os.environ
SLACK = 0.10
"""By which a stage may exceed its budget: patch releases of Python and libraries differ a little."""
SLACK_LEAST = Cost(instructions=40, calls=4)
"""What a small stage may exceed it by."""
CHEAPER = 0.25
"""Below its budget by more than this, a stage has become so much cheaper that the budget guards it no more."""
HOW = "where that is meant, accept it with `make budgets` and commit tests/integration/hot_path_budgets.json"
CASES = {"in process, 1 row": ("in-process", 1), "Triton, 1 row": ("triton", 1), "Triton, 100 rows": ("triton", 100)}

CostsOf = Callable[[str, int], dict[str, Cost]]


@pytest.fixture(scope="module")
def costs_of(
    tmp_path_factory: pytest.TempPathFactory,
    valkey_server: ValkeyServer,
    triton_server: TritonServer,
    sqlite_registry: Path,
) -> Iterator[CostsOf]:
    """What a request of so many rows costs where the model runs in the gateway's process, or in Triton."""
    addresses = {
        "in-process": "in-process",
        "triton": f"http://{triton_server.http_address}?grpc={triton_server.grpc_address}",
    }
    with ExitStack() as stack:
        opened = {
            name: stack.enter_context(
                counted_gateway(
                    tmp_path_factory.mktemp("gateway") / name,
                    valkey=valkey_server,
                    registry=sqlite_registry,
                    model_server=address,
                    models=triton_server.model_repository,
                )
            )
            for name, address in addresses.items()
        }
        yield lambda name, rows: opened[name].costs_of(rows)


def budgets(case: str, found: Mapping[str, Cost]) -> dict[str, Cost]:
    """What was accepted for a case under this Python; what was found, where it is accepted now."""
    known: dict[str, dict[str, dict[str, list[int]]]] = json.loads(BUDGETS.read_text())
    if ACCEPT:
        known.setdefault(PYTHON, {})[case] = {stage: list(found[stage]) for stage in sorted(found)}
        BUDGETS.write_text(text_of(known))
    if PYTHON not in known:
        pytest.skip(f"no budget for Python {PYTHON}; `make budgets` makes one")
    return {stage: Cost(*cost) for stage, cost in known[PYTHON][case].items()}


def text_of(known: Mapping[str, Mapping[str, object]]) -> str:
    """A line for each case, so that a change of budgets shows where it is."""
    pythons = [
        f' "{python}": {{\n'
        + ",\n".join(f'  "{case}": {json.dumps(stages)}' for case, stages in sorted(cases.items()))
        + "\n }"
        for python, cases in sorted(known.items())
    ]
    return "{\n" + ",\n".join(pythons) + "\n}\n"


def complaints(found: Mapping[str, Cost], accepted: Mapping[str, Cost]) -> list[str]:
    """A line for each stage that costs more than it may, or so much less that its budget has to follow."""
    said = []
    for stage in sorted(found.keys() | accepted.keys()):
        costs, allowed = found.get(stage, Cost(0, 0)), accepted.get(stage, Cost(0, 0))
        for unit, count, budget, least in zip(Cost._fields, costs, allowed, SLACK_LEAST, strict=True):
            if count > budget + max(least, SLACK * budget):
                said.append(f"{stage}: {count} {unit} where {budget} are its budget")
            elif count < budget - max(least, CHEAPER * budget):
                said.append(f"{stage}: only {count} {unit} where {budget} are its budget; guard what was won")
    return said


@pytest.mark.skipif(PYTHON == "3.12", reason="Python 3.12 crashes where instructions are traced")
@pytest.mark.parametrize("case", CASES)
def test_no_stage_of_a_request_costs_more_than_its_budget(costs_of: CostsOf, case: str) -> None:
    found = costs_of(*CASES[case])
    assert found.keys() == STAGES, "every stage has work of its own"
    said = complaints(found, budgets(case, found))
    assert not said, "\n".join([f"{case}, under Python {PYTHON}:", *said, HOW])


def test_budgets_are_written_as_they_are_kept() -> None:
    assert text_of(json.loads(BUDGETS.read_text())) == BUDGETS.read_text()


def test_a_stage_is_named_when_it_grows_and_when_it_shrinks_and_not_within_slack() -> None:
    accepted = {"features": Cost(1_000, 100), "model": Cost(300, 10)}
    assert complaints({"features": Cost(1_099, 109), "model": Cost(335, 13)}, accepted) == []
    grown = complaints({"features": Cost(1_101, 100), "model": Cost(300, 15), "log": Cost(50, 0)}, accepted)
    assert [each.split(" where")[0] for each in grown] == [
        "features: 1101 instructions",
        "log: 50 instructions",
        "model: 15 calls",
    ]
    (shrunk,) = complaints({"features": Cost(700, 100), "model": Cost(300, 10)}, accepted)
    assert shrunk.startswith("features: only 700 instructions")
