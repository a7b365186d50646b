"""Opening the segment stream that a setting names. Kafka's client is loaded only for a topic."""

from pathlib import Path

from skewless.adapters.redis_url import parse_store_url
from skewless.adapters.segment_stream import SegmentStream, WhenFull
from skewless.adapters.valkey_segment_stream import ValkeySegmentStream
from skewless.errors import InvalidSettings

STREAM_NAME = "skewless.log"
"""The key of a stream in Valkey where no other is named."""
_VALKEY = "valkey"


def open_segment_stream(
    url: str,
    *,
    name: str = STREAM_NAME,
    bytes_max: int,
    when_full: WhenFull = WhenFull.WAIT,
    options: Path | None = None,
) -> SegmentStream:
    """The stream at `kafka://host:port,…/topic`, or in the Valkey or Redis that any other URL of a store names.

    `name`, `bytes_max` and `when_full` are for Valkey, `options` (a file of librdkafka's properties) for Kafka. Nothing
    is connected yet. Raises InvalidSettings.
    """
    if url.startswith("kafka://"):
        try:
            from skewless.adapters.kafka_segment_stream import KafkaSegmentStream
        except ImportError as error:
            raise InvalidSettings(
                "the segment stream is a Kafka topic, and the client for it is not installed",
                hint="install skewless with its extra `kafka`",
            ) from error
        return KafkaSegmentStream.at(url, options=options)
    if options is not None:
        raise InvalidSettings(
            f"{options} has options of a Kafka client, and the segment stream is none of Kafka's",
            hint="unset the options, or give the stream a URL that begins with kafka://",
        )
    # Valkey's own scheme means what Redis's does.
    scheme, separator, rest = url.partition("://")
    if scheme.startswith(_VALKEY):
        scheme = {"valkey": "redis", "valkeys": "rediss"}.get(scheme, scheme)
    try:
        address = parse_store_url(f"{scheme}{separator}{rest}")
    except InvalidSettings as error:
        raise InvalidSettings(
            error.message.replace("the online store's URL", "the segment stream's URL"),
            hint=f"{error.hint}; or kafka://host:port,host:port/topic",
        ) from error
    return ValkeySegmentStream(address, key=name, bytes_max=bytes_max, when_full=when_full)
