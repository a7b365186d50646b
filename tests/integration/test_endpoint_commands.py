"""`skewless endpoint …` and `skewless rollout …` over a real registry, artifact store and model repository."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from harness.registered import register
from skewless.adapters.folder_artifact_store import FolderArtifactStore
from skewless.bundles.model_repository import model_name
from skewless.canonical_json import Digest
from skewless.cli.endpoint_commands import endpoint
from skewless.cli.rollout_commands import rollout
from skewless.errors import BundleRefused, Conflict, InvalidRequest, NotFound, SkewlessError, Unavailable
from skewless.registry import database
from skewless.registry.deployment import Change, Deployment
from skewless.registry.repository import Registry
from skewless.settings import Home, Settings, load_settings

REASON = "AUROC 0.78 against 0.76"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home whose registry is at the newest migration, and the settings that name it."""
    monkeypatch.setenv("SKEWLESS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LOGNAME", "ann")
    settings = load_settings(Settings)
    database.upgrade(settings.registry_url)
    return settings.folders


@pytest.fixture
def registry(home: Home) -> Iterator[Registry]:
    made = Registry(database.engine(load_settings(Settings).registry_url))
    yield made
    made.close()


@pytest.fixture
def bundles(home: Home, registry: Registry, tmp_path: Path) -> list[Digest]:
    """Three registered bundles, which differ in their model."""
    return [register(home, registry, tmp_path / f"built{number}", number) for number in range(3)]


def _say(command: click.Command, *arguments: str) -> str:
    """Standard output of a command that succeeds; what it raises comes out as it is."""
    done = CliRunner().invoke(command, list(arguments), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def _json(command: click.Command, *arguments: str) -> Any:
    return json.loads(_say(command, *arguments, "--json"))


def _create(bundle: str) -> Any:
    return _json(endpoint, "create", "one", "--bundle", bundle, "--description", "Is it late?")


def test_a_created_endpoint_has_its_model_in_the_repository_and_its_route_in_the_registry(
    home: Home, registry: Registry, bundles: list[Digest]
) -> None:
    created = _create(bundles[0][:8])
    assert (created["endpoint"], created["live"], created["live_name"]) == ("one", bundles[0], "model-0")
    assert (home.triton_models / model_name(bundles[0]) / "1" / "model.onnx").is_file()
    assert registry.routes().route("one").live == bundles[0]
    assert registry.audit("one")[0].actor == "ann"


def test_a_promotion_and_a_rollback_change_what_is_live(registry: Registry, bundles: list[Digest]) -> None:
    _create(bundles[0])
    promoted = _json(rollout, "promote", "one", "--bundle", bundles[1], "--reason", REASON)
    assert (promoted["live"], promoted["version"]) == (bundles[1], 2)
    assert registry.routes().route("one").live == bundles[1]
    back = _json(rollout, "rollback", "one", "--reason", "late alerts")
    assert (back["live"], back["version"]) == (bundles[0], 3)
    history = _json(endpoint, "show", "one")["history"]
    assert [(each["action"], each["reason"]) for each in history][1:] == [
        ("promote", REASON), ("rollback", "late alerts"),
    ]  # fmt: skip


def test_a_rollback_brings_a_model_back_that_left_the_repository(home: Home, bundles: list[Digest]) -> None:
    _create(bundles[0])
    _say(rollout, "promote", "one", "--bundle", bundles[1], "--reason", REASON)
    gone = home.triton_models / model_name(bundles[0])
    gone.rename(home.root / "elsewhere")
    _say(rollout, "rollback", "one", "--reason", "late alerts")
    assert (gone / "config.pbtxt").is_file()


def test_status_and_list_say_what_is_live_in_a_table_and_as_json(bundles: list[Digest]) -> None:
    _create(bundles[0])
    for shown in (_say(endpoint, "list"), _say(rollout, "status"), _say(rollout, "status", "one")):
        for part in ("one", "model-0", bundles[0][:12], "Is it late?"):
            assert part in shown
    assert [each["endpoint"] for each in _json(endpoint, "list")] == ["one"]
    shown = _json(rollout, "status", "one")
    assert _json(rollout, "status") == [{name: shown[name] for name in _json(rollout, "status")[0]}]
    assert bundles[0] in _say(endpoint, "show", "one")


def test_text_of_a_user_is_shown_as_it_is(bundles: list[Digest]) -> None:
    description = "[bold]not markup[/nor] :smile:"
    _say(endpoint, "create", "one", "--bundle", bundles[0], "--description", description)
    assert description in _say(endpoint, "show", "one")


def test_without_endpoints_the_list_is_empty_and_says_what_to_do(home: Home) -> None:
    assert _json(endpoint, "list") == []
    done = CliRunner().invoke(endpoint, ["list"])
    assert (done.exit_code, done.stdout) == (0, "")
    assert "skewless endpoint create" in done.stderr


@pytest.mark.parametrize("command", ["promote", "abort", "rollback"])
def test_a_change_needs_a_reason(home: Home, command: str) -> None:
    done = CliRunner().invoke(rollout, [command, "one"])
    assert done.exit_code == 2
    assert "--reason" in done.stderr


def test_what_cannot_be_done_is_a_typed_error_and_changes_nothing(registry: Registry, bundles: list[Digest]) -> None:
    _create(bundles[0])
    before = registry.endpoints(), registry.audit()
    refused: dict[tuple[str, ...], type[SkewlessError]] = {
        ("promote", "one", "--bundle", bundles[1], "--reason", " "): InvalidRequest,
        ("promote", "one", "--bundle", "12345678", "--reason", REASON): NotFound,
        ("promote", "two", "--bundle", bundles[1], "--reason", REASON): NotFound,
        ("rollback", "one", "--reason", REASON): Conflict,
        ("status", "two"): NotFound,
    }
    for arguments, error in refused.items():
        with pytest.raises(error):
            _say(rollout, *arguments)
    with pytest.raises(Conflict):
        _create(bundles[1])
    assert (registry.endpoints(), registry.audit()) == before


def test_a_bundle_whose_files_changed_is_refused_and_the_route_stays(
    home: Home, registry: Registry, bundles: list[Digest]
) -> None:
    _create(bundles[0])
    (home.artifacts / bundles[1] / "model" / "model.onnx").write_bytes(b"another model")
    with pytest.raises(BundleRefused, match=r"model/model\.onnx"):
        _say(rollout, "promote", "one", "--bundle", bundles[1], "--reason", REASON)
    assert registry.routes().route("one").live == bundles[0]
    assert not (home.triton_models / model_name(bundles[1])).exists()


def test_a_bundle_whose_files_are_gone_is_not_found_and_the_route_stays(
    home: Home, registry: Registry, bundles: list[Digest]
) -> None:
    _create(bundles[0])
    FolderArtifactStore(home.artifacts).delete(bundles[1])
    with pytest.raises(NotFound, match="bundle artifact"):
        _say(rollout, "promote", "one", "--bundle", bundles[1], "--reason", REASON)
    assert registry.routes().route("one").live == bundles[0]


def test_a_promotion_during_another_is_refused(home: Home, registry: Registry, bundles: list[Digest]) -> None:
    _create(bundles[0])

    class Overtaken(FolderArtifactStore):
        """A store that is slow enough for someone else to promote meanwhile."""

        def open(self, digest: Digest) -> Path:
            registry.set_live("one", bundles[2], actor="ben", reason="first")
            return super().open(digest)

    deployment = Deployment(registry, Overtaken(home.artifacts), home.triton_models)
    with pytest.raises(Conflict, match="the change was meant for version 1"):
        deployment.promote("one", Change("ann", REASON), bundle=bundles[1])
    assert registry.routes().route("one").live == bundles[2]


def test_a_registry_that_was_never_created_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKEWLESS_HOME", str(tmp_path / "nothing"))
    with pytest.raises(Unavailable) as refused:
        _say(endpoint, "list")
    assert "skewless up" in refused.value.hint
    assert list(tmp_path.iterdir()) == []


def test_the_commands_load_no_training_or_serving_library() -> None:
    heavy = ["feast", "duckdb", "sklearn", "onnxruntime", "pandas", "pyarrow", "tritonclient", "redis", "fastapi"]
    code = f"import sys, skewless.cli.endpoint_commands; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
