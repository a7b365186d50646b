"""The online store in Redis or Valkey: one non-transactional pipeline of HMGETs per read."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, BusyLoadingError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from skewless.errors import DeadlineExceeded, InvalidSettings, Unavailable
from skewless.features.redis_layout import HashRead
from skewless.limits import (
    CONNECT_TIMEOUT_S,
    ONLINE_STORE_CONNECTIONS_MAX,
    ONLINE_STORE_TIMEOUT_S,
    RETRY_AFTER_S,
)

PART = "online store"
_RECONNECTS = 1
"""A pooled connection that the server closed meanwhile is found stale only when used; one fresh one is tried."""


class RedisOnlineStore:
    """Implements `OnlineStore`. Connects when first used; holds at most ONLINE_STORE_CONNECTIONS_MAX connections."""

    def __init__(self, url: str) -> None:
        try:
            pool: BlockingConnectionPool = BlockingConnectionPool.from_url(
                url,
                max_connections=ONLINE_STORE_CONNECTIONS_MAX,
                timeout=ONLINE_STORE_TIMEOUT_S,
                socket_timeout=ONLINE_STORE_TIMEOUT_S,
                socket_connect_timeout=CONNECT_TIMEOUT_S,
                # BusyLoadingError is a ConnectionError too, but a restarting server needs longer than one retry.
                retry=Retry(NoBackoff(), _RECONNECTS, supported_errors=(RedisConnectionError,)),
                decode_responses=False,
            )
        except ValueError as error:
            raise InvalidSettings(
                f"the online store's URL cannot be used: {error}", hint="allowed: redis://host:port, rediss://, unix://"
            ) from error
        self._client: Redis = Redis.from_pool(pool)

    async def read(self, reads: Sequence[HashRead], *, timeout_s: float) -> list[list[bytes | None]]:
        """See `OnlineStore.read`."""
        with _translated(timeout_s):
            async with asyncio.timeout(timeout_s), self._client.pipeline(transaction=False) as pipeline:
                for each in reads:
                    pipeline.execute_command("HMGET", each.key, *each.fields)
                answers: list[list[bytes | None]] = await pipeline.execute()
        return answers

    async def ping(self) -> None:
        """See `OnlineStore.ping`."""
        with _translated(CONNECT_TIMEOUT_S):
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await self._client.execute_command("PING")  # type: ignore[no-untyped-call]  # untyped in the client

    async def close(self) -> None:
        """Close every connection."""
        await self._client.aclose()


@contextmanager
def _translated(timeout_s: float) -> Iterator[None]:
    """Inside, what Redis and its client raise becomes Unavailable or DeadlineExceeded."""
    try:
        yield
    except (TimeoutError, RedisTimeoutError) as error:
        raise DeadlineExceeded(
            PART, f"no answer within {timeout_s * 1_000:.0f} ms", retry_after_s=RETRY_AFTER_S
        ) from error
    except BusyLoadingError as error:
        raise Unavailable(PART, "it is loading its data", retry_after_s=RETRY_AFTER_S) from error
    except AuthenticationError as error:
        raise Unavailable(PART, "it refused the password", hint="check the user and password in its URL") from error
    except (RedisError, OSError) as error:
        raise Unavailable(
            PART,
            str(error) or type(error).__name__,
            retry_after_s=RETRY_AFTER_S,
            hint="check that Redis or Valkey is up; the gateway reconnects by itself",
        ) from error
