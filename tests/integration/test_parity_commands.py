"""`skewless parity check`, `report` and `explain` as a user runs them, over a log of one home."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from harness.feature_repository import FEAST_WARNS, LINES, MODEL, START_US, STATIONS, small_repository
from harness.servers import ValkeyServer
from skewless.adapters.log_reader import open_log
from skewless.adapters.onnx_runtime import OnnxModel
from skewless.adapters.prediction_log import FolderPredictionLog
from skewless.adapters.redis_blocking_store import BlockingRedisOnlineStore
from skewless.bundles.bundle import load_bundle
from skewless.canonical_json import Digest
from skewless.cli.main import main
from skewless.dtypes import Dtype, column_of
from skewless.features.plan import ReadPlan
from skewless.serving.records import AnsweredBatch
from skewless.settings import Home
from skewless.timestamps import DAY_US, HOUR_US, format_timestamp

pytestmark = FEAST_WARNS

ENDPOINT = "delay"
ASKED = START_US + 9 * DAY_US
"""When predictions are asked for: a day after the second materialization, which was of the ninth day."""
ENTITIES = [(station, line) for station in STATIONS for line in LINES]
PERIOD = ("--since", format_timestamp(ASKED - HOUR_US), "--until", format_timestamp(ASKED + HOUR_US))


@dataclass(frozen=True, slots=True)
class Office:
    """A home with a log."""

    home: Home
    bundle: str
    folder: Path


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory, valkey_server: ValkeyServer) -> Iterator[Office]:
    """Nine predictions by the reader that gateways use: honest, and their twins with an edited model input."""
    folder = tmp_path_factory.mktemp("office")
    with small_repository(folder, "parity_office", project="office") as small, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SKEWLESS_HOME", str(folder / "home"))
        patch.setenv("SKEWLESS_REPO", str(small.folder))
        patch.setenv("SKEWLESS_ONLINE_STORE", f"{valkey_server.host}:{valkey_server.port}")
        home = Home(folder / "home")
        _json("apply")
        digest = _json("train", MODEL)["bundle"]
        _json("materialize", "--as-of", format_timestamp(ASKED))
        honest = _answered(home, digest, valkey_server.url, ASKED, "honest")
        # The store is as it was an hour before; asked a moment later, some rows have not been written yet.
        later = _answered(home, digest, valkey_server.url, ASKED + 30 * 60_000_000, "later")
        tensor = later.tensor.copy()
        tensor[0, 0] += 1.0
        edited = replace(
            later, endpoint="edited", prediction_ids=[f"edited-{n}" for n in range(later.rows)], tensor=tensor
        )
        asyncio.run(_log(home, [honest, edited]))
        yield Office(home, digest, folder)


def _answered(home: Home, digest: str, url: str, as_of: int, name: str) -> AnsweredBatch:
    """What a gateway would have answered about every entity, read from the store and scored as it scores."""
    bundle = load_bundle(home.artifacts / digest, Digest(digest))
    stations, lines = zip(*ENTITIES, strict=True)
    given = {
        "station": column_of(Dtype.STRING, stations),
        "line": column_of(Dtype.INT64, lines),
        "cars": column_of(Dtype.INT32, [3] * len(ENTITIES)),
    }
    prepared = ReadPlan.compile(bundle.contract).prepare(given, len(ENTITIES))
    with closing(BlockingRedisOnlineStore(url)) as store:
        frame = prepared.decode(store.read(prepared.keys, prepared.commands, timeout_s=5), as_of).frame
    tensor = bundle.transform.prepare().apply({**given, **frame.columns}, len(ENTITIES))
    model = bundle.read_model()
    scored = OnnxModel(model.files[model.entry])
    outputs = scored.run(tensor)
    return AnsweredBatch(
        endpoint=ENDPOINT,
        bundle=bundle.digest,
        role="live",
        rung="normal",
        request_id="request",
        as_of=as_of,
        prediction_ids=[f"{name}-{number}" for number in range(len(ENTITIES))],
        key_names=("station", "line"),
        given=given,
        frame=frame,
        tensor=tensor,
        outputs={scored.output_name: outputs},
        labels=["late"] * len(ENTITIES),
        probabilities=np.ascontiguousarray(outputs[:, 1]),
        stage_ms={},
    )


async def _log(home: Home, batches: list[AnsweredBatch]) -> None:
    log = FolderPredictionLog(home.predictions, flush_ms=1)
    for batch in batches:
        log.append(batch)
    await log.commit()
    await log.close()


def _run(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def _json(*arguments: str, code: int = 0) -> Any:
    done = _run(*arguments, "--json")
    assert done.exit_code == code, (done.output, done.exception)
    return json.loads(done.stdout)


def test_honest_predictions_are_equal_at_all_four_levels(office: Office) -> None:
    found = _json("parity", "check", "--endpoint", ENDPOINT, *PERIOD, "--fail-on", "any")
    assert found["predictions"] == len(ENTITIES)
    assert found["causes"] == found["failed"] == []
    assert {each["equal"] / each["compared"] for each in found["levels"].values()} == {1.0}


def test_an_edited_model_input_is_named_and_fails_what_was_asked_to(office: Office) -> None:
    found = _json("parity", "check", "--endpoint", "edited", *PERIOD, "--fail-on", "transform", code=4)
    named = {each["cause"] for each in found["causes"]}
    assert "transform" in named
    assert named <= {"transform", "materialization_lag", "late_row"}, "the store was behind, and nothing else"
    assert found["failed"]
    assert _json("parity", "check", "--endpoint", "edited", *PERIOD, "--fail-on", "transform=0.5")["failed"] == []
    (told,) = (each for each in found["causes"] if each["cause"] == "transform")
    assert told["examples"][0]["prediction_id"] == "edited-0"


def test_the_report_of_the_newest_check_is_kept_and_written_as_a_page(office: Office) -> None:
    checked = _json("parity", "check", "--endpoint", "edited", *PERIOD)
    page = office.folder / "pages" / "report.html"
    done = _run("parity", "report", "edited", "--html", str(page))
    assert done.exit_code == 0, done.output
    assert "transform" in done.stdout
    assert _json("parity", "report", "edited") == checked
    text = page.read_text()
    assert "<h1>Parity of edited</h1>" in text
    assert "http" not in text, "the page loads nothing"


def test_an_explanation_shows_every_feature_of_one_prediction(office: Office) -> None:
    told = _json("parity", "explain", "edited-0")
    assert [each["column"] for each in told["features"]][:2] == ["weather__temp", "weather__wind"]
    assert told["model_input"] == {"equal": False, "cause": "transform"}
    text = _run("parity", "explain", "honest-3").stdout
    assert "weather__sky" in text
    assert "model input: equal" in text


def test_a_sample_holds_whole_entities(office: Office) -> None:
    half = _json("parity", "check", "--endpoint", ENDPOINT, *PERIOD, "--sample", "0.5")
    assert 0 < half["predictions"] < len(ENTITIES)
    assert half["sample"] == 0.5


def test_a_bundle_that_cannot_be_checked_is_told_and_stops_no_other(office: Office) -> None:
    with open_log(office.home.predictions) as log:
        table = log.predictions("edited", ASKED - HOUR_US, ASKED + HOUR_US)
    place = table.schema.get_field_index("bundle_digest")
    gone = pa.array([office.bundle] * 4 + ["0" * 64] * (table.num_rows - 4))
    path = office.folder / "two_bundles.parquet"
    pq.write_table(table.set_column(place, "bundle_digest", gone), path)
    found = _json("parity", "check", "--endpoint", "edited", *PERIOD, "--served", str(path))
    assert found["predictions"] == 4
    (told,) = found["unchecked"]
    assert (told["bundle"], told["predictions"]) == ("0" * 64, table.num_rows - 4)
    assert "does not exist" in told["reason"]
    pq.write_table(table.set_column(place, "bundle_digest", pa.array(["0" * 64] * table.num_rows)), path)
    assert _run("parity", "check", "--endpoint", "edited", *PERIOD, "--served", str(path)).exit_code == 2


def test_a_file_of_served_rows_is_checked_like_the_log(office: Office) -> None:
    with open_log(office.home.predictions) as log:
        table = log.predictions("edited", ASKED - HOUR_US, ASKED + HOUR_US)
    path = office.folder / "served.parquet"
    pq.write_table(table, path)
    arguments = ("parity", "check", "--endpoint", "edited", *PERIOD)
    by_file, by_log = (_json(*arguments, *more) for more in (("--served", str(path)), ()))
    assert by_file["causes"] == by_log["causes"] != []
    pq.write_table(table.drop_columns(["rung"]), path)
    refused = _run(*arguments, "--served", str(path))
    assert (refused.exit_code, "has no column `rung`" in refused.stderr) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("check", "--endpoint", "nobody"), "does not exist"),
        (("check", "--endpoint", ENDPOINT, "--fail-on", "weather"), "--fail-on: `weather` is no condition"),
        (("check", "--endpoint", ENDPOINT, "--fail-on", "ttl=2"), "`ttl=2` is no condition"),
        (("check", "--endpoint", ENDPOINT, "--since", "2024-01-02", "--until", "2024-01-01"), "the period is empty"),
        (("report", "nobody"), "run `skewless parity check --endpoint nobody`"),
        (("explain", "nobody"), "does not exist"),
    ],
)
def test_what_is_not_there_is_refused_in_words(office: Office, arguments: tuple[str, ...], told: str) -> None:
    done = _run("parity", *arguments)
    assert done.exit_code == 2, done.output
    assert told in done.stderr
