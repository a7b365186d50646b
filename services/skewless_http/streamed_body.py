"""A body that is too large to be held: its pieces, as long as they keep coming and are not too many."""

import asyncio
from collections.abc import AsyncIterator

from skewless.errors import InvalidRequest, LimitExceeded
from skewless.limits import BATCH_BODY_BYTES_MAX, BATCH_STALL_S
from skewless_http.http_message import BODY_TOO_SLOW


async def bounded(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The body's pieces. Raises InvalidRequest where none comes for long, LimitExceeded where they never end."""
    size = 0
    while True:
        try:
            async with asyncio.timeout(BATCH_STALL_S):
                piece = await anext(pieces)
        except StopAsyncIteration:
            return
        except TimeoutError as error:
            raise InvalidRequest(
                f"nothing of the body arrived for {BATCH_STALL_S:g} s",
                path="$",
                allowed="",
                hint="send without waiting for answers",
                code=BODY_TOO_SLOW,
            ) from error
        size += len(piece)
        if size > BATCH_BODY_BYTES_MAX:
            raise LimitExceeded(
                f"the body has more than {BATCH_BODY_BYTES_MAX} bytes",
                path="$",
                allowed=f"at most {BATCH_BODY_BYTES_MAX} bytes",
                hint="send the rest as another batch",
            )
        yield piece
