"""Shippers that are killed with SIGKILL lose nothing and ship nothing twice; see tests/harness/killed_shipper.py."""

import os
import subprocess
import sys
from pathlib import Path

from harness.killed_shipper import KILLS

TESTS = Path(__file__).parents[1]
EVERY = int(os.environ.get("SKEWLESS_TEST_SHIPPER_STEPS", "5"))
"""Kills at one step in so many; 1 is all of them."""
SEED = int(os.environ.get("SKEWLESS_TEST_SHIPPER_SEED", "7"))


def killed(how: str, root: Path, number: int) -> int:
    command = [sys.executable, "-m", "harness.killed_shipper", how, str(root), str(number)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=600, env={**os.environ, "PYTHONPATH": str(TESTS)}, check=False
    )
    assert done.returncode == 0, f"seed {SEED}: {done.stderr}"
    return int(done.stdout)


def test_every_row_is_in_the_store_once_whichever_step_a_shipper_was_killed_at(tmp_path: Path) -> None:
    assert killed("steps", tmp_path, EVERY) > 40, "the steps are seen"


def test_every_row_is_in_the_store_once_after_kills_at_any_moment(tmp_path: Path) -> None:
    assert killed("moments", tmp_path, SEED) >= KILLS, "they struck shippers at work"
