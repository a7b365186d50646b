"""`skewless drift backfill`: a new bundle gets a history out of rows that others answered."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from harness.drift_world import ROWS, START_US, drift_world, newcomer
from harness.replays import ENDPOINT
from harness.shipped_logs import ship
from skewless.cli.main import main
from skewless.monitors import open_monitors
from skewless.statistics.variable import Part
from skewless.timestamps import DAY_US, HOUR_US, format_timestamp


def test_earlier_rows_are_counted_in_the_bins_of_the_new_bundle_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = drift_world(tmp_path, days=2, logged_days=2)
    monkeypatch.setenv("SKEWLESS_HOME", str(world.made.home.root))
    refused = CliRunner().invoke(main, ["drift", "backfill", ENDPOINT])
    assert (refused.exit_code, "skewless endpoint create" in refused.output) == (2, True), refused.output
    new = newcomer(world)
    ship(world.made.home.predictions)

    def backfill(*arguments: str) -> dict[str, object]:
        result = CliRunner().invoke(main, ["drift", "backfill", ENDPOINT, "--json", *arguments])
        assert result.exit_code == 0, result.output
        told: dict[str, object] = json.loads(result.stdout)
        return told

    part = backfill("--since", format_timestamp(START_US + DAY_US))
    assert (part["rows"], part["done"], part["bundle"]) == (24 * ROWS, True, new.bundle.digest)
    whole = backfill("--since", format_timestamp(START_US))
    assert (whole["rows"], whole["from"]) == (2 * 24 * ROWS, format_timestamp(START_US))
    assert backfill("--since", format_timestamp(START_US)) == whole, "what is counted is not counted again"
    with open_monitors(new.url, artifacts=str(new.made.home.artifacts)) as monitors:
        of_old, of_new = (monitors.counted(each.key) for each in (world, new))
        before = {(each.start_us // HOUR_US, each.tally.rows) for each in of_old.windows(None, None)[""]}
        windows = of_new.windows(None, world.end_us)[""]
        assert {(each.start_us // HOUR_US, each.tally.rows) for each in windows} == before
        (own,) = of_new.windows(None, None, own_only=True)[""]
        assert (own.start_us, own.tally.rows) == (world.end_us, ROWS)
        # Means do not depend on bins: those of one window are the same in both bundles'.
        for name in ("weather__temp", "distance"):
            means = []
            for counted in (of_old, of_new):
                first = counted.windows(START_US, START_US + HOUR_US)[""][0]
                variables = counted.layout.counted(first.tally)
                found = next(each for each in variables if each.name == name and each.part is Part.COLUMN)
                means.append((found.nulls, found.moments and found.moments.mean))
            assert means[0][0] == means[1][0]
            assert means[0][1] == pytest.approx(means[1][1], abs=0.05)
