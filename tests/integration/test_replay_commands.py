"""`skewless replay` as a user runs it: accounts, a check of the whole log, and back-tests, over a real log."""

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from harness.bundles import content, contract
from harness.replays import (
    ENDPOINT,
    NOW,
    RecordingHome,
    answered,
    flights,
    flipped,
    outcome,
    prediction_id,
    with_feature,
)
from skewless.bundles.bundle import Bundle
from skewless.cli.main import EXIT_MEANINGS, main
from skewless.cli.replay_command import EXIT_DIFFERENT, EXIT_NOT_DECIDED
from skewless.features.contract import FeatureContract, LogMark
from skewless.serving.records import AnsweredBatch
from skewless.timestamps import HOUR_US

ROWS = 60


@dataclass(frozen=True, slots=True)
class Shop:
    """A home whose log has two hours of traffic, of one bundle, and another bundle to compare with."""

    home: RecordingHome
    live: Bundle
    other: Bundle
    first: AnsweredBatch
    second: AnsweredBatch


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    home = RecordingHome.make(tmp_path_factory.mktemp("shop"))
    live, other = home.register(), home.register(content(scale=2.0**-11))
    first = answered(live, flights(ROWS), as_of=NOW)
    second = answered(live, flights(ROWS, seed=8), first=ROWS, as_of=NOW + HOUR_US)
    known = [outcome(first, row, "late" if row % 3 else "on_time") for row in range(ROWS)]
    home.log(first, second, outcomes=known)
    return Shop(home, live, other, first, second)


@pytest.fixture(autouse=True)
def _at_home(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    _use(monkeypatch, shop.home)


def _use(monkeypatch: pytest.MonkeyPatch, home: RecordingHome) -> None:
    monkeypatch.setenv("SKEWLESS_HOME", str(home.home.root))


def _run(*arguments: str) -> Result:
    done = CliRunner().invoke(main, ["replay", *arguments])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def _json(*arguments: str, code: int = 0) -> Any:
    done = _run(*arguments, "--json")
    assert done.exit_code == code, done.output
    return json.loads(done.stdout)


def _refused(*arguments: str, code: int = 2) -> str:
    done = _run(*arguments)
    assert (done.exit_code, done.stdout) == (code, ""), done.output
    return done.stderr


def test_an_account_tells_everything_that_the_record_and_the_bundle_say(shop: Shop) -> None:
    row = int(np.flatnonzero(~shop.first.frame.columns["weather__temp"].valid)[0])
    told = _json(shop.first.prediction_ids[row])
    assert (told["verdict"], told["equal"], told["difference"]) == ("exact", True, None)
    assert told["asked"]["as_of"] == "2013-05-01T12:30:00Z"
    assert (told["asked"]["caller"], told["asked"]["request_id"], told["asked"]["row"]) == (
        "key:shop",
        "request-0",
        row,
    )
    assert told["route"]["rung_meaning"] == "features as stored, the model on its servers"
    assert told["bundle"]["digest"] == shop.live.digest
    assert [each["name"] for each in told["values"]] == [name for name, _ in contract().columns]
    temp = next(each for each in told["values"] if each["name"] == "weather__temp")
    assert (temp["value"], temp["status"], temp["age_s"]) == (None, "null", 3_600.0)
    assert temp["feeds"] == ["temp", "temp_is_null"]
    assert told["tensor"]["served"] == told["tensor"]["recomputed"]
    (output,) = told["outputs"]
    assert output["served"] == output["recomputed"] == shop.first.outputs["probabilities"][row].tolist()
    assert told["answer"]["served"] == told["answer"]["recomputed"]
    assert told["outcome"]["label"] == ("late" if row % 3 else "on_time")
    assert told["bound"] == "bit for bit, as the bundle's serving profile pins it on embedded-cpu"


def test_an_account_for_a_person_fits_a_narrow_terminal(shop: Shop) -> None:
    narrow = {"COLUMNS": "60", "TTY_COMPATIBLE": "1"}
    done = CliRunner().invoke(main, ["replay", shop.second.prediction_ids[0]], env=narrow)
    assert done.exit_code == 0, done.output
    shown = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)
    assert shown != done.stdout, "a terminal gets colours"
    assert max(map(len, shown.splitlines())) <= 60
    words = " ".join(re.sub(r"[^\w:,.-]+", " ", shown).split())
    for told in ("outcome none has arrived", "key:shop, request request-60, row 0", "verdict: equal bit for bit"):
        assert told in words


def test_several_ids_are_accounted_for_in_their_order(shop: Shop) -> None:
    wanted = [shop.second.prediction_ids[4], shop.first.prediction_ids[2]]
    assert [each["prediction_id"] for each in _json(*wanted)] == wanted
    assert "does not exist" in _refused(prediction_id(10_000))


def test_every_prediction_of_the_log_is_recomputed(shop: Shop) -> None:
    found = _json("--all")
    assert (found["rows"], found["verdicts"]["exact"]) == (2 * ROWS, 2 * ROWS)
    assert found["bundles"] == {shop.live.digest: 2 * ROWS}
    assert "equal bit for bit" in _run("--all", "--endpoint", ENDPOINT).stdout


def test_a_part_of_the_log_is_chosen_by_time_and_count(shop: Shop) -> None:
    assert _json("--all", "--since", "2013-05-01T13:00:00Z")["rows"] == ROWS
    assert _json("--all", "--until", "2013-05-01T13:30:00Z")["rows"] == ROWS
    assert _json("--all", "--since", "2013-05-01T13:00:00Z", "--limit", "7")["rows"] == 7
    assert "of nobody in that period" in _refused("--all", "--endpoint", "nobody")
    assert "is no time" in _refused("--all", "--since", "yesterday")


def test_processes_and_chunks_change_nothing(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skewless.adapters.recorded_traffic.REPLAY_CHUNK_ROWS", 25)
    assert _json("--all", "--processes", "2") == _json("--all", "--processes", "1")
    asked = ("--bundle", shop.other.digest, "--slice", "origin")
    assert _json(*asked, "--processes", "2") == _json(*asked, "--processes", "1")


@pytest.fixture
def tampered(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[RecordingHome, AnsweredBatch]:
    """A home of its own, in whose log one bit of one feature of one prediction was changed."""
    home = RecordingHome.make(tmp_path)
    batch = answered(home.register(), flights(ROWS))
    changed = flipped(batch.frame.columns["noise__level"], 17)
    home.log(with_feature(batch, "noise__level", changed))
    _use(monkeypatch, home)
    return home, batch


def test_one_changed_bit_is_found_and_named_and_has_an_exit_code(tampered: tuple[RecordingHome, AnsweredBatch]) -> None:
    _, batch = tampered
    assert batch.frame.columns["noise__level"].valid[17]
    found = _json("--all", code=4)
    assert found["verdicts"] == {"exact": ROWS - 1, "within_bound": 0, "different": 1, "not_decided": 0}
    (difference,) = found["differences"]
    assert (difference["prediction_id"], difference["inputs"]) == (batch.prediction_ids[17], ["noise__level"])
    done = _run(batch.prediction_ids[17])
    assert done.exit_code == 4
    assert "verdict: DIFFERENT" in done.stdout
    assert "in the record look at `noise__level`" in done.stdout
    assert _run("--all", "--show", "0").stdout.endswith("and 1 more that differ\n")


def test_a_bundle_that_is_gone_is_said_to_be_gone_and_the_record_is_told_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = RecordingHome.make(tmp_path)
    _use(monkeypatch, home)
    gone, kept = home.register(), home.register(content(scale=2.0**-11))
    first, second = answered(gone, flights(5)), answered(kept, flights(3), first=5)
    home.log(first, second)
    home.forget(gone.digest)
    told = _json(first.prediction_ids[0], code=6)
    assert told["verdict"] == "not_decided"
    assert told["not_decided"] == f"the files of bundle {gone.digest[:12]} are not in the artifact store any more"
    assert {each["name"] for each in told["values"]} == {name for name, _ in contract().columns}
    assert told["outputs"][0]["served"] == first.outputs["probabilities"][0].tolist()
    assert "cannot be rebuilt" in _run(first.prediction_ids[0]).stdout
    found = _json("--all", code=6)
    assert found["verdicts"] == {"exact": 3, "within_bound": 0, "different": 0, "not_decided": 5}
    compared = _json("--bundle", kept.digest)
    assert list(compared["left_out"].values()) == [5]
    assert compared["scores"]["equal_bit_for_bit"] == compared["scores"]["rows"] == 3


def _marked(mark: LogMark, field: str) -> FeatureContract:
    fields = (replace(each, log=mark) if each.name == field else each for each in contract().request_fields)
    return replace(contract(), request_fields=tuple(fields))


def test_what_must_not_be_kept_is_said_and_has_an_exit_code_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = RecordingHome.make(tmp_path)
    _use(monkeypatch, home)
    secret, unread = (
        home.register(content(given=_marked(LogMark.HASH, name))) for name in ("party", "scheduled_departure")
    )
    first, second = answered(secret, flights(4)), answered(unread, flights(4), first=4, as_of=NOW + HOUR_US)
    home.log(first, second, key=b"k" * 32)
    told = _json(first.prediction_ids[1], code=6)
    assert "`party`: it is hashed in the log" in told["not_decided"]
    assert (told["tensor"]["kept"], told["tensor"]["recomputed"]) == (False, None)
    party = next(each for each in told["values"] if each["name"] == "party")
    assert party["note"] == "it is hashed in the log"
    assert len(party["value"]) == 64
    shown = _run(first.prediction_ids[1]).stdout
    assert "(it is hashed in the log)" in shown
    assert party["value"] not in shown
    # A marked field that the transform does not read costs a replay nothing.
    assert _json(second.prediction_ids[0])["verdict"] == "exact"
    found = _json("--all", code=6)
    assert found["verdicts"] == {"exact": 4, "within_bound": 0, "different": 0, "not_decided": 4}
    assert "`party`: it is hashed in the log" in next(iter(found["not_decided"]))
    told = _refused("--bundle", unread.digest, "--until", "2013-05-01T13:00:00Z")
    assert "`party` (it is hashed in the log)" in told


def test_without_an_endpoint_all_are_recomputed_and_a_back_test_needs_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = RecordingHome.make(tmp_path)
    _use(monkeypatch, home)
    bundle = home.register()
    home.log(answered(bundle, flights(3)), replace(answered(bundle, flights(4), first=3), endpoint="flight-cause"))
    assert _json("--all")["rows"] == 7
    assert _json("--all", "--limit", "5")["rows"] == 5
    assert _json("--bundle", bundle.digest, "--endpoint", ENDPOINT)["rows"] == 3
    assert "the log has 2 of them" in _refused("--bundle", bundle.digest)


def test_a_back_test_counts_what_would_change_and_judges_by_outcomes(shop: Shop, tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    found = _json("--bundle", shop.other.digest[:12], "--slice", "origin", "--output", str(path))
    served = np.concatenate([shop.first.probabilities, shop.second.probabilities])
    batches = (answered(shop.other, flights(ROWS)), answered(shop.other, flights(ROWS, seed=8)))
    other = np.concatenate([each.probabilities for each in batches])
    assert (found["bundle"], found["rows"], found["left_out"]) == (shop.other.digest, 2 * ROWS, {})
    assert found["scores"]["label_changes"]["to_positive"] == int(((served < 0.5) & (other >= 0.5)).sum()) > 0
    assert found["outcomes"] == {"rows": ROWS, "positives": sum(row % 3 > 0 for row in range(ROWS)), "other_labels": 0}
    assert [each["name"] for each in found["metrics"]] == ["auroc", "log_loss", "brier", "accuracy"]
    assert {each["part"] for each in found["slices"]} == {"JFK", "LGA", "EWR"}
    rows = pq.read_table(path)
    assert rows.column("other_probability").to_numpy().tobytes() == other.tobytes()
    assert rows.column("prediction_id").to_pylist() == [*shop.first.prediction_ids, *shop.second.prediction_ids]
    assert rows.column("outcome").to_pylist()[:3] == ["on_time", "late", "late"]
    assert rows.column("outcome").null_count == ROWS
    shown = _run("--bundle", shop.other.digest, "--since", "2013-05-01T13:00:00Z").stdout
    assert "no outcome has arrived for them" in shown


def test_a_back_test_with_the_bundle_that_answered_differs_in_nothing(shop: Shop) -> None:
    found = _json("--bundle", shop.live.digest, "--endpoint", ENDPOINT)
    assert found["scores"]["equal_bit_for_bit"] == found["scores"]["rows"] == 2 * ROWS
    assert found["scores"]["label_changes"] == {"to_positive": 0, "to_negative": 0}
    assert [each["better"] for each in found["metrics"]] == [None] * 4


def test_shadows_are_recomputed_and_compared_with_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = RecordingHome.make(tmp_path)
    _use(monkeypatch, home)
    live, tried = home.register(), home.register(content(scale=2.0**-11))
    answer = answered(live, flights(3))
    shadow = replace(answered(tried, flights(3), first=3, role="shadow"), twins=answer.prediction_ids)
    home.log(answer, shadow, outcomes=[outcome(answer, 1, "late")])
    assert _json("--all")["rows"] == 6
    assert _json("--bundle", tried.digest)["rows"] == 3
    told = _json(shadow.prediction_ids[1])
    assert (told["route"]["role"], told["route"]["live_prediction_id"]) == ("shadow", answer.prediction_ids[1])
    assert told["outcome"]["label"] == "late"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "give one of"),
        (("--all", "some-id"), "give one of"),
        (("--all", "--bundle", "0" * 12), "give one of"),
        (("some-id", "--since", "2013-05-01"), "a part of the log is chosen with"),
        (("--all", "--output", "x.parquet"), "--slice and --output are for"),
        (("--all", "--fill", "offline"), "--fill is for --bundle"),
        (("--bundle", "0" * 12, "--model", "delay"), "--model for --fill"),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(arguments: tuple[str, ...], told: str) -> None:
    assert told in _refused(*arguments)


def test_what_cannot_be_compared_is_refused_before_anything_is_scored(shop: Shop, tmp_path: Path) -> None:
    other = ("--bundle", shop.other.digest)
    assert "have no column `carrier`" in _refused(*other, "--slice", "carrier", code=2).replace("done", "")
    assert "cannot be written" in _refused(*other, "--output", str(tmp_path / "nowhere" / "x.parquet"))
    assert "up to 8" in _refused(*other, *(["--slice", "origin"] * 9))
    assert "does not exist" in _refused("--bundle", "0" * 12)
    assert not list(tmp_path.iterdir())


def test_exit_codes_are_those_that_the_command_line_documents() -> None:
    assert {EXIT_DIFFERENT, EXIT_NOT_DECIDED} <= EXIT_MEANINGS.keys()
