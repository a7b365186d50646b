"""A batch through a real gateway: the bits of single requests, every row logged, and memory that no body fills."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet

from harness.bundles import instance
from harness.gateways import ENDPOINT
from harness.machines import AS_OF, running_machine
from skewless.adapters.log_reader import open_log
from skewless.cli.file_prediction import predict_file
from skewless.timestamps import parse_timestamp

ROWS = 30_000
MEMORY_MIB_MAX = 60
"""Growth over the first batches; Arrow's library itself is 30 of it."""
GROWTH_MIB_MAX = 25
"""Growth over as many rows again, most of which are in the buffers of the prediction log."""
NOON = datetime(2013, 5, 1, 12, 30, tzinfo=UTC)


def test_files_are_answered_with_the_bits_of_single_requests_in_memory_that_they_do_not_fill(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        instance(origin="LGA" if row % 2 else "JFK", tailnum="N1" if row % 3 else None, party=row)
        for row in range(ROWS)
    ]
    (tmp_path / "in.ndjson").write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = pa.Table.from_pylist([{**row, "scheduled_departure": NOON} for row in rows])
    pa.parquet.write_table(table, tmp_path / "in.parquet")
    with running_machine(tmp_path / "machine") as machine:
        machine.serve(0)
        gateway = psutil.Process(machine.processes["gateway"].pid)
        held = [_held_mib(gateway)]
        for turn in range(2):
            for form in ("ndjson", "parquet"):
                given, output = tmp_path / f"in.{form}", tmp_path / f"out{turn}.{form}"
                as_of = parse_timestamp(AS_OF)
                predict_file(machine.url, ENDPOINT, given, output, on_error="fail", as_of=as_of)
            held.append(_held_mib(gateway))
        singles = {
            row: machine.predict(**rows[row]).json()["predictions"][0]["probability"] for row in range(0, ROWS, 997)
        }
        machine.stop("gateway")
        logged = open_log(machine.log).predictions(ENDPOINT)
    told = [json.loads(line) for line in (tmp_path / "out0.ndjson").read_text().splitlines()]
    arrow = pa.parquet.read_table(tmp_path / "out1.parquet")
    assert [each["probability"] for each in told] == arrow["probability"].to_pylist()
    assert {row: told[row]["probability"] for row in singles} == singles
    assert {each["prediction_id"] for each in told} <= set(logged["prediction_id"].to_pylist())
    assert len(set(logged["prediction_id"].to_pylist())) >= 4 * ROWS + len(singles)
    assert held[1] - held[0] <= MEMORY_MIB_MAX, held
    assert held[2] - held[1] <= GROWTH_MIB_MAX, held


def _held_mib(process: psutil.Process) -> float:
    return float(process.memory_info().rss) / (1 << 20)
