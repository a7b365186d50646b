"""The tutorial docs/transforms.md: its blocks run, and what it shows is what they give."""

import io
import re
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from skewless.cli.transform_plot import outputs_svg

DOCS = Path(__file__).parents[2] / "docs"
TUTORIAL = (DOCS / "transforms.md").read_text()
PLOT = DOCS / "images" / "transform-outputs.svg"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """The names that the blocks leave, and what they print; in a folder of their own."""
    names: dict[str, Any] = {}
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(printed):
        patch.chdir(tmp_path_factory.mktemp("tutorial"))
        for number, block in enumerate(re.findall(r"^```python\n(.*?)^```", TUTORIAL, re.DOTALL | re.MULTILINE)):
            exec(compile(block, f"block {number}", "exec"), names)  # noqa: S102  # the tutorial's own code
    return names, printed.getvalue()


def test_what_the_blocks_print_is_what_the_tutorial_shows(run: tuple[dict[str, Any], str]) -> None:
    shown = re.findall(r"^```text\n(.*?)^```", TUTORIAL, re.DOTALL | re.MULTILINE)
    assert len(shown) == 2
    for text in shown:
        assert _without_digests(text) in _without_digests(run[1]), run[1]


def _without_digests(text: str) -> str:
    """Digests cover the tables of a time zone, and these come from the machine's tz database."""
    return re.sub(r"\b[0-9a-f]{12}\b", "digest", text)


def test_the_refusals_that_the_tutorial_promises_happen(run: tuple[dict[str, Any], str]) -> None:
    assert "can be null" in run[1]
    assert "states the digest" in run[1]


def test_the_plot_is_current(run: tuple[dict[str, Any], str], tmp_path: Path) -> None:
    names = run[0]
    plot = outputs_svg(names["fitted"].output_names, names["tensor"])
    written = tmp_path / "transform-outputs.svg"
    written.write_text(plot)
    assert PLOT.read_text() == plot, f"copy {written} to {PLOT}"


def test_the_counts_of_the_example_are_right(run: tuple[dict[str, Any], str]) -> None:
    transform = run[0]["flight_delay"].transform
    kinds = len(run[0]["operations"] - {"column", "constant", "local_time"})
    assert f"{kinds} kinds of operations over {len(transform.inputs)} columns" in TUTORIAL
