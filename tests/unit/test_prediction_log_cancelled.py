"""A caller that hangs up while its record is flushed harms nobody else's."""

import asyncio
from contextlib import suppress
from pathlib import Path

from skewless.adapters.prediction_log import FolderPredictionLog


async def test_a_commit_that_was_given_up_leaves_the_log_writing(tmp_path: Path) -> None:
    log = FolderPredictionLog(tmp_path, flush_ms=0)
    for _ in range(50):
        given_up = [asyncio.ensure_future(log.commit()) for _ in range(4)]
        await asyncio.sleep(0)
        for task in given_up:
            task.cancel()
        for task in given_up:
            with suppress(asyncio.CancelledError):
                await task
        async with asyncio.timeout(30):
            await log.commit()
    await log.close()
