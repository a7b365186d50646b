"""Rows that come by a stream go the way of those that come by HTTP: judged, kept once, delivered to both stores."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis

from harness.ingest_services import VIEW, IngestHome, row, running_ingest
from harness.servers import ValkeyServer, running_valkey, wait_until
from skewless.adapters.offline_sources import arrow_dataset
from skewless.adapters.valkey_feature_stream import stream_key
from skewless.features.point_in_time import OfflineSource, SourceForm
from skewless.ingestion.batches import BatchKind
from skewless.registry import database
from skewless.registry.ingest_batches import IngestBatches

KEY = stream_key(BatchKind.ROWS, VIEW)


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    with running_valkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


def offline(home: IngestHome) -> list[dict[str, Any]]:
    source = OfflineSource(
        VIEW, str(home.folder / "offline" / VIEW), "event_time", "created_time", form=SourceForm.DELTA
    )
    rows: list[dict[str, Any]] = arrow_dataset(source).to_table().to_pylist()
    return sorted(rows, key=lambda each: (each["uid"], each["event_time"]))


def test_records_are_kept_once_through_a_restart_and_refused_ones_are_set_aside(
    tmp_path: Path, valkey: ValkeyServer
) -> None:
    home = IngestHome.made(tmp_path, valkey.url, suite=None)
    with redis.Redis(valkey.host, valkey.port) as client, closing(IngestBatches(database.engine(home.url))) as batches:

        def until_taken() -> None:
            wait_until(lambda: client.exists(KEY) and not client.xlen(KEY), "the stream was read")

        for number in range(3):
            client.xadd(KEY, {"data": json.dumps(row(number))})
        client.xadd(KEY, {"data": "\n".join(json.dumps(row(number)) for number in (10, 11)), "form": "ndjson"})
        client.xadd(KEY, {"data": json.dumps(row(4, clicks_1h="many"))})
        with running_ingest(home, stream=valkey.url) as running:
            until_taken()
            assert running.service.parts()["stream"] == {"ok": True, "detail": ""}
        ((_, refused),) = client.xrange(f"{KEY}:refused")
        assert b"clicks_1h" in refused[b"reason"]
        client.xadd(KEY, {"data": json.dumps({"rows": [row(0, tag="later")]}), "form": "json"})
        with running_ingest(home, stream=valkey.url):
            until_taken()
            wait_until(lambda: not batches.working(), "what was taken is in both stores")
        # Of the two rows about one entity and moment the later one holds.
        assert [(each["uid"], each["tag"]) for each in offline(home) if each["uid"] != 0] == [
            (1, "a"), (2, "a"), (10, "a"), (11, "a")
        ]  # fmt: skip
        ordered = sorted((each for each in offline(home) if each["uid"] == 0), key=lambda each: each["created_time"])
        assert [each["tag"] for each in ordered] == ["a", "later"]
        assert {each.state.value for each in batches.batches()} == {"done"}


def test_a_service_is_ready_and_tells_why_it_takes_nothing_of_a_stream(tmp_path: Path, valkey: ValkeyServer) -> None:
    home = IngestHome.made(tmp_path, valkey.url, suite=None)
    with running_ingest(home, stream="redis://127.0.0.1:1") as running:

        def told() -> bool:
            answer = running.client.get("/readyz")
            assert answer.status_code == 200, "rows are taken all the same"
            return "feature stream" in running.service.parts()["stream"]["detail"]

        wait_until(told, "what keeps the stream from being read is told")
