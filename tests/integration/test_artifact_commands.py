"""`skewless artifact …` as a user runs it, over a registry and a folder store; and over a bucket."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from harness.artifacts import write_artifact
from harness.bundles import build_bundle
from harness.logged_rows import a_batch, spool
from harness.s3 import running_s3, use_credentials
from harness.servers import TritonServer
from harness.shipped_logs import ship
from skewless.adapters.folder_artifact_store import FolderArtifactStore
from skewless.adapters.spool import SPOOL, SpoolFile
from skewless.adapters.triton_backend import TritonBackend
from skewless.bundles.model_repository import deploy, model_name
from skewless.canonical_json import Digest, digest
from skewless.cli.artifact_commands import unload_models
from skewless.cli.main import main
from skewless.cli.workspace import Workspace
from skewless.registry.database import engine, upgrade
from skewless.registry.records import BundleRecord
from skewless.registry.repository import Registry, system_clock
from skewless.serving.log_blocks import FORMAT
from skewless.timestamps import DAY_US, Micros

DAY_S = 86_400


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SKEWLESS_HOME", str(tmp_path / "home"))
    (tmp_path / "home" / "predictions").mkdir(parents=True)
    return tmp_path / "home"


def _run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["artifact", *arguments])


def _json(*arguments: str) -> Any:
    result = _run(*arguments, "--json")
    assert result.exit_code == 0, (result.output, result.exception)
    return json.loads(result.stdout)


def _put(folder: Path, name: str, *, registered: bool = True, days_ago: float = 0) -> Digest:
    """Keep a bundle as `skewless bundle register` does, without verifying its model."""
    workspace = Workspace()
    made = write_artifact(folder / name, name=name)
    workspace.artifacts.put(folder / name, made)
    if days_ago:
        moment = time.time() - days_ago * DAY_S
        os.utime(workspace.home.artifacts / made, (moment, moment))
    if registered:
        with _registry(days_ago) as registry:
            registry.register_bundle(
                BundleRecord(made, name, Micros(1), made, digest("contract"), digest("transform"), {})
            )
    return made


@contextmanager
def _registry(days_ago: float = 0) -> Iterator[Registry]:
    """The home's registry, as it was to be changed so many days ago."""
    url = Workspace().settings.registry_url
    upgrade(url)
    with closing(Registry(engine(url), clock=lambda: Micros(system_clock() - int(days_ago * DAY_US)))) as registry:
        yield registry


def test_kept_bundles_are_listed_with_their_names(home: Path, tmp_path: Path) -> None:
    known, unknown = _put(tmp_path, "known"), _put(tmp_path, "unknown", registered=False)
    listed = _json("list")
    assert {each["digest"]: each["name"] for each in listed["artifacts"]} == {known: "known", unknown: None}
    shown = _run("list").stdout
    assert known[:12] in shown
    assert "(not registered)" in shown


def test_verify_names_each_damaged_file_and_exits_with_4(home: Path, tmp_path: Path) -> None:
    good, bad = _put(tmp_path, "good"), _put(tmp_path, "bad")
    assert _run("verify").exit_code == 0
    (home / "artifacts" / bad / "model" / "model.onnx").write_bytes(b"tampered")
    refused = _run("verify")
    assert refused.exit_code == 4
    assert bad in refused.output
    assert "`model/model.onnx`" in refused.output
    assert good not in refused.output
    assert _run("verify", good[:8]).exit_code == 0
    assert _run("verify", bad).exit_code == 4
    assert _run("verify", "0" * 12).exit_code == 2
    assert _run("verify", good[:3]).exit_code == 2


def test_gc_lists_first_and_removes_only_when_told_to(home: Path, tmp_path: Path) -> None:
    live, unused = (_put(tmp_path, name, days_ago=40) for name in ("live", "unused"))
    foreign = _put(tmp_path, "foreign", registered=False, days_ago=40)
    young = _put(tmp_path, "young")
    with _registry(days_ago=40) as registry:
        registry.create_endpoint("flights", description="", bundle=live, actor="ann", reason="first")
    told = _json("gc")
    assert sorted(each["digest"] for each in told["garbage"]) == sorted((unused, foreign))
    assert (told["removed"], told["referenced"]) == ([], 2), "one is routed to, one was registered today"
    assert sorted(Workspace().artifacts.digests()) == sorted((live, unused, young, foreign))
    done = _json("gc", "--delete")
    assert sorted(done["removed"]) == sorted((unused, foreign))
    assert Workspace().artifacts.digests() == tuple(sorted((live, young)))
    with Workspace().registry() as registry:
        assert {each.digest for each in registry.bundles()} == {live, young}
        assert registry.bundle(unused).retired_time is not None
    assert _json("gc", "--delete")["removed"] == []


@pytest.mark.parametrize("where", ["a segment that is being written", "a sealed segment", "the store"])
def test_what_the_prediction_log_refers_to_stays(home: Path, tmp_path: Path, where: str) -> None:
    logged = _put(tmp_path, "logged", days_ago=40)
    spool(home / "predictions", replace(a_batch(), bundle=logged), seal=where != "a segment that is being written")
    if where == "the store":
        assert ship(home / "predictions") == 1
    told = _json("gc", "--delete")
    assert (told["removed"], told["referenced"]) == ([], 1)
    elsewhere = _json("gc", "--delete", "--no-log")
    assert elsewhere["removed"] == [logged]


def test_what_the_configured_log_store_refers_to_stays_whichever_folders_are_named(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what a folder was shipped to before a store was configured."""
    shared, others = tmp_path / "shared", tmp_path / "others"
    stored, earlier = (_put(tmp_path, name, days_ago=40) for name in ("stored", "earlier"))
    for bundle, store in ((earlier, None), (stored, str(shared))):
        spool(others, replace(a_batch(), bundle=bundle), seal=True)
        assert ship(others, store) == 1
    monkeypatch.setenv("SKEWLESS_LOG_STORE", str(shared))
    assert _json("gc", "--log", str(others))["garbage"] == []
    assert [each["digest"] for each in _json("gc")["garbage"]] == [earlier], "of the home's folder"


def test_gc_removes_nothing_while_the_log_holds_what_a_later_version_wrote(home: Path, tmp_path: Path) -> None:
    _put(tmp_path, "logged", days_ago=40)
    segments = home / "predictions" / SPOOL
    segments.mkdir()
    segment = SpoolFile.create(segments)
    segment.append(msgspec.msgpack.encode({"format": FORMAT + 1, "block": "in another shape"}))
    segment.seal()
    refused = _run("gc", "--delete")
    assert refused.exit_code != 0
    assert "later version" in refused.output
    assert len(Workspace().artifacts.digests()) == 1


def test_gc_refuses_to_guess_where_the_prediction_log_is(home: Path, tmp_path: Path) -> None:
    _put(tmp_path, "one")
    (home / "predictions").rmdir()
    refused = _run("gc", "--delete")
    assert refused.exit_code == 2
    assert "--no-log" in refused.output
    assert _run("gc", "--no-log", "--log", "x").exit_code == 2


def test_gc_refuses_a_registry_that_knows_nothing_of_the_store(home: Path, tmp_path: Path) -> None:
    _put(tmp_path, "foreign", registered=False)
    with Workspace().registry(create=True):
        pass
    refused = _run("gc", "--delete")
    assert refused.exit_code == 2
    assert "SKEWLESS_ARTIFACTS" in refused.output


def test_gc_removes_old_models_and_copies_of_this_machine(home: Path, tmp_path: Path) -> None:
    kept = _put(tmp_path, "kept")
    stray = write_artifact(tmp_path / "stray", name="stray")
    copies = FolderArtifactStore(home / "artifact_cache")
    for name, made in (("kept", kept), ("stray", stray)):
        copies.put(tmp_path / name, made)
        os.utime(home / "artifact_cache" / made, (0, 0))
    models = home / "triton" / "models"
    for name in (model_name(kept), model_name(stray), "of_somebody_else"):
        (models / name).mkdir(parents=True)
        os.utime(models / name, (0, 0))
    assert _run("gc", "--delete").exit_code == 0
    assert copies.digests() == (kept,)
    assert {each.name for each in models.iterdir() if each.is_dir()} == {model_name(kept), "of_somebody_else"}


async def test_a_model_that_was_taken_away_is_unloaded(triton_server: TritonServer, tmp_path: Path) -> None:
    bundle = build_bundle(tmp_path)
    name = deploy(bundle.folder, bundle.digest, triton_server.model_repository)
    backend = TritonBackend(triton_server.grpc_address)
    try:
        await backend.load(name)
        assert await backend.is_ready(name)
        await unload_models(triton_server.grpc_address, [name, "bundle_0123456789abcdef"])
        assert not await backend.is_ready(name)
    finally:
        await backend.close()


def test_a_bucket_is_listed_verified_and_collected_as_a_folder_is(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_credentials(monkeypatch)
    with running_s3(tmp_path / "s3") as server:
        monkeypatch.setenv("SKEWLESS_ARTIFACTS", server.url("prod"))
        made = _put(tmp_path, "one")
        assert [each["digest"] for each in _json("list")["artifacts"]] == [made]
        assert _run("verify").exit_code == 0
        assert _json("gc", "--delete")["removed"] == []
        assert Workspace().artifacts.digests() == (made,)
    away = _run("list")
    assert away.exit_code == 3
    assert "cannot be reached" in away.output
