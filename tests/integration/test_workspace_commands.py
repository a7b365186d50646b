"""`apply`, `materialize`, `train`, `dataset`, `bundle`, `predict` and `replay` as a user runs them, in one home."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from harness.feature_repository import FEAST_WARNS, MODEL, small_repository
from harness.servers import ValkeyServer
from skewless.cli.main import main
from skewless.settings import Home

pytestmark = FEAST_WARNS


@dataclass(frozen=True, slots=True)
class Shop:
    """A home, and the repository it serves."""

    home: Home
    folder: Path


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, valkey_server: ValkeyServer) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("shop")
    with small_repository(folder, "small_shop", project="shop") as small, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SKEWLESS_HOME", str(folder / "home"))
        patch.setenv("SKEWLESS_REPO", str(small.folder))
        patch.setenv("SKEWLESS_ONLINE_STORE", f"{valkey_server.host}:{valkey_server.port}")
        _json("apply")
        yield Shop(Home(folder / "home"), folder)


@pytest.fixture(scope="module")
def trained(shop: Shop) -> dict[str, Any]:
    """What `train` printed."""
    made: dict[str, Any] = _json("train", MODEL)
    return made


def _run(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def _json(*arguments: str) -> Any:
    done = _run(*arguments, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def _refused(code: int, *arguments: str) -> str:
    done = _run(*arguments)
    assert done.exit_code == code, (done.output, done.exception)
    assert done.stdout == ""
    return done.stderr


def test_apply_says_what_it_registered_and_may_be_repeated(shop: Shop) -> None:
    assert _json("apply") == {
        "entities": ["line", "station"],
        "feature_views": ["leg", "network", "weather"],
        "feature_services": ["delays", "everything"],
    }


def test_materialize_counts_entities_and_reset_empties_first(shop: Shop) -> None:
    first = _json("materialize", "--as-of", "2024-01-05", "--reset")
    assert first["as_of"] == "2024-01-05T00:00:00Z"
    assert first["views"] == ["leg", "network", "weather"]
    assert first["entities"] > 0
    again = _json("materialize", "--as-of", "2024-01-04T12:00:00+00:00", "--reset")
    assert again["entities_removed"] == first["entities"]
    assert _json("materialize", "--as-of", "1999-01-01", "--reset")["entities"] == 0


@pytest.mark.parametrize("time", ["yesterday", "2024-01-05T00:00:00", "2024-13-01"])
def test_a_bad_time_is_refused_before_anything_is_touched(shop: Shop, time: str) -> None:
    told = _refused(2, "materialize", "--as-of", time)
    assert f"--as-of: `{time}` is no time" in told
    assert "allowed: an RFC 3339 time with its zone" in told


def test_materialize_without_a_stack_says_how_to_start_it(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SKEWLESS_ONLINE_STORE")
    assert "hint: start it with `skewless up`" in _refused(3, "materialize", "--as-of", "2024-01-05")


def test_a_folder_that_is_no_repository_is_named(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKEWLESS_REPO", str(tmp_path))
    assert "is no feature repository" in _refused(2, "train", MODEL)


def test_the_training_set_has_a_row_per_question_with_every_feature(shop: Shop, tmp_path: Path) -> None:
    out = tmp_path / "sets" / "delay.parquet"
    said = _json("dataset", "build", MODEL, "--out", str(out))
    table = pq.read_table(out)
    assert said["rows"] == table.num_rows == 8 * 24 * 3
    assert table.column_names == [
        "station",
        "line",
        "cars",
        "weather__temp",
        "weather__wind",
        "weather__sky",
        "weather__rain",
        "leg__late",
        "leg__stops",
        "as_of",
        "label",
    ]
    assert 0 < table.column("label").null_count < table.num_rows
    assert 0 < table.column("weather__temp").null_count < table.num_rows


def test_an_unknown_model_is_refused_with_the_known_ones(shop: Shop, tmp_path: Path) -> None:
    for arguments in (["train", "nope"], ["dataset", "build", "nope", "--out", str(tmp_path / "x")]):
        assert f"model `nope` does not exist. Known: `{MODEL}`" in _refused(2, *arguments)


def test_training_registers_a_bundle_with_its_metrics(shop: Shop, trained: dict[str, Any]) -> None:
    assert trained["rows"] > 300
    assert trained["holdout"]["rows"] > 50
    (listed,) = _json("bundle", "list")
    assert (listed["digest"], listed["name"]) == (trained["bundle"], MODEL)
    assert _json("bundle", "list", "--name", "other") == []
    assert trained["bundle"][:12] in _run("bundle", "list").stdout


def test_training_again_gives_the_same_bundle(shop: Shop, trained: dict[str, Any]) -> None:
    assert _json("train", MODEL)["bundle"] == trained["bundle"]
    assert len(_json("bundle", "list")) == 1


def test_a_bundle_is_shown_by_the_beginning_of_its_digest(shop: Shop, trained: dict[str, Any]) -> None:
    shown = _json("bundle", "show", trained["bundle"][:10])
    assert shown["digest"] == trained["bundle"]
    assert [view["view"] for view in shown["contract"]["views"]] == ["weather", "leg"]
    text = _run("bundle", "show", trained["bundle"]).stdout
    assert "asks for  station, line, cars" in text
    assert "does not exist" in _refused(2, "bundle", "show", "0" * 12)


def test_a_bundle_verifies_until_a_byte_of_it_changes(shop: Shop, trained: dict[str, Any]) -> None:
    folder = shop.home.artifacts / trained["bundle"]
    assert _run("bundle", "verify", trained["bundle"]).exit_code == 0
    assert _run("bundle", "verify", str(folder)).exit_code == 0
    path = folder / "model" / "model.onnx"
    whole, mode, folder_mode = path.read_bytes(), path.stat().st_mode, path.parent.stat().st_mode
    path.parent.chmod(0o755)
    path.chmod(0o644)
    try:
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        for target in (trained["bundle"], str(folder)):
            verified = _run("bundle", "verify", target)  # it prints its checks all the same
            assert (verified.exit_code, "`model/model.onnx`" in verified.stderr) == (4, True)
        assert "`model/model.onnx`" in _refused(4, "bundle", "register", str(folder))
    finally:
        path.write_bytes(whole)
        path.chmod(mode)
        path.parent.chmod(folder_mode)
    assert _run("bundle", "register", str(folder)).exit_code == 0


def test_predict_without_a_stack_says_how_to_start_it(shop: Shop) -> None:
    assert "hint: start it with `skewless up`" in _refused(3, "predict", "delay", "{}")


def test_predict_refuses_what_is_not_json(shop: Shop) -> None:
    assert "INSTANCE is not JSON" in _refused(2, "predict", "delay", "{origin: EWR}")


def test_replay_of_an_unknown_prediction_is_refused(shop: Shop) -> None:
    assert "does not exist" in _refused(2, "replay", "01900000-0000-7000-8000-000000000000")
