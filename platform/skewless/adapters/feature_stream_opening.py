"""Opening the stream of feature rows and events that a setting names. Kafka's client is loaded only for Kafka."""

from collections.abc import Callable, Sequence
from pathlib import Path

from skewless.adapters.feature_stream import FeatureStream
from skewless.adapters.redis_url import parse_store_url
from skewless.adapters.valkey_feature_stream import ValkeyFeatureStream
from skewless.errors import InvalidSettings
from skewless.ingestion.batches import BatchKind

GROUP = "skewless-ingest"
"""The group of consumers that all ingestion services are members of."""
_KAFKA = "kafka://"
_SCHEMES = {"valkey": "redis", "valkeys": "rediss"}


def open_feature_stream(
    url: str,
    names: Callable[[], Sequence[tuple[BatchKind, str]]],
    *,
    consumer: str,
    group: str = GROUP,
    options: Path | None = None,
) -> FeatureStream:
    """The stream at `kafka://host:port,…`, or in the Valkey or Redis that any other URL of a store names.

    `names` tells the views and streams of events to read for; `consumer` is this process's name among those of the
    group; `options` is a file of librdkafka's properties. Nothing is connected yet. Raises InvalidSettings.
    """
    if url.startswith(_KAFKA):
        try:
            from skewless.adapters.kafka_feature_stream import KafkaFeatureStream
        except ImportError as error:
            raise InvalidSettings(
                "the feature stream is Kafka's, and the client for it is not installed",
                hint="install skewless with its extra `kafka`",
            ) from error
        return KafkaFeatureStream(url.removeprefix(_KAFKA), names, group=group, options=options)
    if options is not None:
        raise InvalidSettings(
            f"{options} has options of a Kafka client, and the feature stream is none of Kafka's",
            hint="unset the options, or give the stream a URL that begins with kafka://",
        )
    scheme, separator, rest = url.partition("://")
    try:
        address = parse_store_url(f"{_SCHEMES.get(scheme, scheme)}{separator}{rest}")
    except InvalidSettings as error:
        raise InvalidSettings(
            error.message.replace("the online store's URL", "the feature stream's URL"),
            hint=f"{error.hint}; or kafka://host:port,host:port",
        ) from error
    return ValkeyFeatureStream(address, names, group=group, consumer=consumer)
