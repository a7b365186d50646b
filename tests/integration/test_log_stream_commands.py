"""`skewless log consumers` and `forget-group` over a real Valkey."""

import json
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from harness.segment_streams import MockedKafka, a_segment, publish
from harness.servers import ValkeyServer
from skewless.adapters.segment_consumer import SegmentConsumer
from skewless.adapters.segment_stream import SegmentStream
from skewless.adapters.stream_opening import open_segment_stream
from skewless.cli.log_stream_commands import consumers, forget_group
from skewless.errors import InvalidRequest, NotFound
from skewless.limits import STREAM_BYTES_MIN
from skewless.registry import database
from skewless.registry.consumed_segments import ConsumedSegments
from skewless.settings import Settings, load_settings

KEY = "test-log-stream-commands"


@pytest.fixture
def stream(valkey_server: ValkeyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SegmentStream]:
    """A stream that a group has read but for its last segment, having missed two before that."""
    monkeypatch.setenv("SKEWLESS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SKEWLESS_SHIPPER_STREAM", valkey_server.url)
    monkeypatch.setenv("SKEWLESS_SHIPPER_STREAM_NAME", KEY)
    url = load_settings(Settings).registry_url
    database.upgrade(url)
    with (
        closing(open_segment_stream(valkey_server.url, name=KEY, bytes_max=STREAM_BYTES_MIN)) as opened,
        closing(ConsumedSegments(database.engine(url))) as ledger,
    ):
        publish(opened, a_segment(1, 10), a_segment(4, 10))
        taken = threading.Event()
        consumer = SegmentConsumer(opened, ledger, group="drift", name="one")
        consumer.run(lambda _rows, _transaction: None, stop=taken, idle_s=0.5)
        publish(opened, a_segment(5, 10))
        yield opened
        opened.forget_group("drift")


def _say(*arguments: str) -> str:
    command = {"consumers": consumers, "forget-group": forget_group}[arguments[0]]
    done = CliRunner().invoke(command, list(arguments[1:]), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_groups_are_told_with_what_they_have_to_read_and_what_they_missed(stream: SegmentStream) -> None:
    told = json.loads(_say("consumers", "--json"))
    assert told["groups"] == [
        {"group": "drift", "members": 1, "unread_parts": 1, "unacknowledged_parts": 0, "missed_segments": 2}
    ]
    assert told["parts"] == stream.state().entries
    assert "drift" in _say("consumers")


def test_a_group_is_forgotten_once_and_an_unknown_one_is_not_found(stream: SegmentStream) -> None:
    with pytest.raises(NotFound, match=r"`other` does not exist\. Known: `drift`"):
        _say("forget-group", "other", "--yes")
    _say("forget-group", "drift", "--yes")
    assert json.loads(_say("consumers", "--json"))["groups"] == []


def test_a_kafka_topic_sends_to_kafkas_own_tools(stream: SegmentStream) -> None:
    url = MockedKafka().topic("topic")
    with pytest.raises(InvalidRequest, match="Kafka"):
        _say("consumers", "--stream", url)
    with pytest.raises(InvalidRequest, match="Kafka"):
        _say("forget-group", "drift", "--yes", "--stream", url)
