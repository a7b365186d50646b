"""`skewless transform show|diff|verify|schema` as a user runs them."""

import json
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from harness.bundles import build_bundle, sample_columns
from skewless.adapters.arrow_columns import column_to_arrow
from skewless.bundles.bundle import Bundle
from skewless.canonical_json import encode
from skewless.cli.main import main
from skewless.cli.workspace import Workspace
from skewless.dtypes import Dtype, column_of
from skewless.transforms import Transform, column
from skewless.transforms.schema import transform_schema


@dataclass(frozen=True, slots=True)
class Home:
    """A home with one registered bundle, and files beside it."""

    bundle: Bundle
    other: Path
    """A transform.json of the same inputs, with one thing otherwise."""
    folder: Path


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    folder = tmp_path_factory.mktemp("transforms")
    built = build_bundle(folder / "built")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SKEWLESS_HOME", str(folder / "home"))
        (folder / "home").mkdir()
        bundle = Workspace().register(built.folder)
        changed = Transform({"temp": column("weather__temp", Dtype.FLOAT32).impute_mean()})
        fitted = changed.fit({"weather__temp": column_of(Dtype.FLOAT32, [1.0, 2.0])}, 2)
        other = folder / "other.json"
        other.write_bytes(encode(fitted.to_json()))
        yield Home(bundle, other, folder)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["transform", *arguments])


def done(*arguments: str) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


def test_a_target_is_a_file_a_bundle_folder_or_the_digest_of_a_bundle_or_its_transform(home: Home) -> None:
    by_digest = done("show", home.bundle.digest[:10])
    assert by_digest.startswith(f"transform {home.bundle.transform.digest[:12]}, semantics version 1: 7 inputs")
    assert done("show", str(home.bundle.folder)) == by_digest
    assert done("show", str(home.bundle.folder / "transform.json")) == by_digest
    assert done("show", home.bundle.transform.digest[:8]) == by_digest


def test_show_says_in_words_what_each_output_is(home: Home) -> None:
    lines = done("show", home.bundle.digest).splitlines()
    assert len(lines) == 1 + len(home.bundle.transform.output_names)
    assert lines[1] == "0  temp          weather__temp → impute_mean 4"
    steps = done("show", home.bundle.digest, "temp")
    assert "reads    weather__temp (float32, may be null)" in steps
    assert "1. impute_mean 4 of weather__temp" in steps
    assert "A statistic of the training values where null." in steps
    data = json.loads(done("show", home.bundle.digest, "--json"))
    assert [each["name"] for each in data["outputs"]] == list(home.bundle.transform.output_names)


def test_show_plots_the_outputs_over_rows(home: Home) -> None:
    rows, plot = home.folder / "rows.parquet", home.folder / "plot.svg"
    pq.write_table(pa.table({name: column_to_arrow(each) for name, each in sample_columns().items()}), rows)
    result = run("show", home.bundle.digest, "--rows", str(rows), "--plot", str(plot))
    assert result.exit_code == 0
    assert "8 columns over 4 rows" in result.stderr
    texts = [each.text for each in ET.fromstring(plot.read_text()).iter("{http://www.w3.org/2000/svg}text")]  # noqa: S314
    assert set(home.bundle.transform.output_names) <= set(texts)
    assert run("show", home.bundle.digest, "--plot", str(plot)).exit_code == 2


def test_diff_explains_two_targets_of_any_sort(home: Home) -> None:
    said = done("diff", home.bundle.digest, str(home.other))
    assert "`party` (int32) is read no more" in said
    assert "`seats` is gone" in said
    assert "impute_mean of weather__temp: value 4 → 1.5 (-2.5, -62.5 %)  [temp]" in said
    data = json.loads(done("diff", home.bundle.digest, str(home.other), "--json"))
    assert {change["subject"] for change in data["changes"]} == {"inputs", "outputs", "learned"}
    assert "no difference" in done("diff", home.bundle.digest, str(home.bundle.folder))


def test_verify_compares_every_execution(home: Home) -> None:
    result = run("verify", home.bundle.digest, "--rows", "64")
    assert result.exit_code == 0, result.output
    assert "row alone" in result.stdout
    assert "ONNX" in result.stdout
    data: dict[str, Any] = json.loads(done("verify", str(home.other), "--rows", "32", "--seed", "5", "--json"))
    assert (data["rows"], data["seed"], data["equal"], data["onnx_not_compared"]) == (32, 5, True, "")


def test_verify_says_why_there_is_no_onnx_to_compare_with(home: Home, tmp_path: Path) -> None:
    lower = Transform({"n": column("s", Dtype.STRING).lower().length().impute(0)})
    path = tmp_path / "transform.json"
    path.write_bytes(encode(lower.fit({"s": column_of(Dtype.STRING, ["a"])}, 1).to_json()))
    result = run("verify", str(path), "--rows", "16")
    assert result.exit_code == 0
    assert "not compared with ONNX" in result.stderr


def test_schema_prints_the_published_schema() -> None:
    assert json.loads(done("schema")) == transform_schema()


@pytest.mark.parametrize("command", ["show", "verify"])
def test_a_target_that_is_none_or_was_changed_is_refused_with_its_path(
    command: str, home: Home, tmp_path: Path
) -> None:
    nothing = run(command, "no-such-thing")
    assert nothing.exit_code == 2
    assert "file, folder or digest `no-such-thing` does not exist" in nothing.stderr
    assert run(command, "0123456789").exit_code == 2
    edited = tmp_path / "edited.json"
    edited.write_bytes(home.other.read_bytes().replace(b"1.5", b"2.5"))
    refused = run(command, str(edited))
    assert refused.exit_code == 2
    assert "edited.json" in refused.stderr
    assert "states the digest" in refused.stderr
    assert run(command, str(tmp_path)).exit_code == 2
    unknown = run("show", home.bundle.digest, "nonesuch")
    assert unknown.exit_code == 2
    assert "`temp`" in unknown.stderr
