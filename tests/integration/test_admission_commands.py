"""`skewless bundle verify|register|show` as a user runs them, over a real registry with real snapshots."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from harness import tampering
from harness.bundles import build_bundle, content, contract
from skewless.bundles.bundle import write_bundle
from skewless.bundles.serving_profile import ServingProfile
from skewless.canonical_json import digest
from skewless.cli.main import main
from skewless.cli.workspace import Workspace
from skewless.features.compiled_registry import CompiledRegistry
from skewless.features.contract import FeatureContract
from skewless.timestamps import HOUR_US


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_bundle(tmp_path_factory.mktemp("built")).folder


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SKEWLESS_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def _run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["bundle", *arguments])


def _json(*arguments: str, code: int = 0) -> Any:
    result = _run(*arguments, "--json")
    assert result.exit_code == code, (result.output, result.exception)
    return json.loads(result.stdout)


def _results(told: Any) -> dict[str, str]:
    return {check["name"]: check["result"] for check in told["checks"]}


def _registered_definitions(registered: FeatureContract) -> None:
    """What Feast's registry says, as `skewless apply` compiles it."""
    compiled = CompiledRegistry(registered.project, {"service": registered}, {}, {})
    with Workspace().snapshots(create=True) as snapshots:
        snapshots.store(compiled, findings=(), source=digest("feast"), actor="ann", reason="apply")


def test_a_folder_is_verified_where_there_is_no_registry_yet(home: Path, built: Path) -> None:
    told = _json("verify", str(built))
    assert told["admitted"] is True
    assert told["digest"] == built.name
    assert set(_results(told).values()) == {"passed", "skipped"}
    assert [name for name, result in _results(told).items() if result == "skipped"] == ["definitions"]
    assert list(home.iterdir()) == [], "looking at a bundle makes nothing"


def test_the_checks_are_printed_as_lines_with_what_each_looked_at(home: Path, built: Path) -> None:
    _registered_definitions(contract())
    result = _run("verify", str(built))
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert [line.split()[1] for line in lines] == [
        "manifest", "files", "parts", "fit", "golden", "functions", "transform", "model", "signature", "outputs",
        "definitions",
    ]  # fmt: skip
    assert all(line.split()[0] == "ok" for line in lines)
    assert "4 golden rows, bit for bit" in lines[9]
    assert f"bundle {built.name[:12]} is admitted" in result.stderr


def test_a_refusal_names_file_and_reason_and_exits_with_4(home: Path, built: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(built, tmp_path / "bundle"))
    tampering.flip(folder, "baseline.json", 20)
    result = _run("verify", str(folder))
    assert result.exit_code == 4
    assert "error: bundle" in result.stderr
    assert "is refused by the check `files`: `baseline.json` was changed" in result.stderr
    assert "`baseline.json` was changed" in result.stdout
    assert "hint: " in result.stdout
    told = _json("verify", str(folder), code=4)
    assert told["admitted"] is False
    assert _results(told)["outputs"] == "skipped"


def test_a_folder_named_by_a_digest_must_have_it(home: Path, built: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(built, tmp_path / ("0" * 64)))
    told = _json("verify", str(folder), code=4)
    assert "the digest asked for is 0000" in told["checks"][0]["message"]


def test_what_is_refused_is_not_registered(home: Path, built: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(built, tmp_path / "bundle"))
    tampering.replace(folder, "model/model.onnx", content(scale=2.0**-10).model.files["model.onnx"])
    result = _run("register", str(folder))
    assert result.exit_code == 4
    assert "is refused by the check `outputs`: model output `probabilities` differs" in result.stderr
    assert not Workspace().home.artifacts.exists() or not list(Workspace().home.artifacts.iterdir())


def test_a_registered_bundle_is_verified_by_the_beginning_of_its_digest(home: Path, built: Path) -> None:
    _registered_definitions(contract())
    assert _run("register", str(built)).exit_code == 0
    told = _json("verify", built.name[:10])
    assert told["digest"] == built.name
    assert set(_results(told).values()) == {"passed"}


def test_a_bundle_whose_definitions_changed_is_not_registered_and_says_what_differs(home: Path, built: Path) -> None:
    weather, *others = contract().views
    changed = (dataclasses.replace(weather, ttl_us=HOUR_US), *others)
    _registered_definitions(dataclasses.replace(contract(), views=changed, definitions_digest=digest("others")))
    result = _run("register", str(built))
    assert result.exit_code == 4
    assert "ttl of view `weather` was 14400 s, is 3600 s" in result.stderr
    assert "hint: train the model on today's definitions" in result.stderr


def test_a_bundle_is_shown_with_its_model_and_post_processing(home: Path, tmp_path: Path) -> None:
    write_bundle(dataclasses.replace(content(), serving=ServingProfile(instances=2)), tmp_path / "bundle")
    assert _run("register", str(tmp_path / "bundle")).exit_code == 0
    (listed,) = _json("list")
    shown = _json("show", listed["digest"][:8])
    assert (shown["model"]["format"], shown["model"]["files"]) == ("onnx", ["model.onnx"])
    assert "embedded-cpu" in shown["model"]["targets"]
    assert shown["serving"]["instances"] == 2
    assert shown["post_processing"]["labels"]["positive"] == "late"
    text = _run("show", listed["digest"]).stdout
    assert "answers   `late` from 0.5 on, else `on_time`; calibration none" in text
    assert "weather [origin]: temp, wind_dir" in text
    assert "golden    4 rows" in text
    assert "runs on embedded-cpu" in text


def test_a_gateway_s_checks_load_no_training_library(built: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path\n"
        "from skewless.adapters.step_loader import TransformSteps\n"
        "from skewless.bundles.admission import Surroundings, admit\n"
        "admission = admit(Path(sys.argv[1]), None, Surroundings(clock=time.monotonic_ns, steps=TransformSteps))\n"
        "assert admission.require()\n"
        "print(sorted({'feast', 'onnx', 'onnxruntime', 'pandas', 'sklearn', 'sqlalchemy'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(built)], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")
