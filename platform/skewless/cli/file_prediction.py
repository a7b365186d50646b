"""Predictions for every row of a file, through the gateway's batch route."""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from skewless.adapters.batch_client import NDJSON, BatchClient
from skewless.adapters.batch_files import AnswerFile, NdjsonAnswers, TableAnswers, body_pieces, media_type_of
from skewless.adapters.gateway_client import GatewayClient
from skewless.cli.output import step
from skewless.errors import InvalidRequest, SkewlessError, Unavailable
from skewless.timestamps import Micros, format_timestamp


def predict_file(
    url: str, endpoint: str, source: Path, output: Path | None, *, on_error: str, as_of: Micros | None
) -> None:
    """Write an answer per row. Raises InvalidRequest or Unavailable where not every row has one; what was answered
    until then is written."""
    options = {"on_error": on_error} | ({} if as_of is None else {"as_of": format_timestamp(as_of)})
    answers = _opened(output)  # before anything is asked, so that a wrong name costs no predictions
    with step(f"predict {source.name}") as current, answers:
        asyncio.run(_predict(url, endpoint, source, answers, options))
        summary = answers.summary or {}
        failed = summary.get("failed", 0)
        current.note(f"{summary.get('answered', 0):,} rows answered" + (f", {failed:,} failed" if failed else ""))
        _require_complete(answers)


def _opened(output: Path | None) -> AnswerFile:
    if output is None:
        return NdjsonAnswers(sys.stdout.buffer, closes=False)
    if media_type_of(output) == NDJSON:
        return NdjsonAnswers(output.open("wb"), closes=True)
    return TableAnswers(output)


async def _predict(url: str, endpoint: str, source: Path, answers: AnswerFile, options: dict[str, str]) -> None:
    media_type = media_type_of(source)
    schema = (await _described(url, endpoint))["instance_schema"]
    pieces = _read_apart(body_pieces(source, schema))
    client = BatchClient(url)
    async for piece in client.predict(endpoint, pieces, media_type=media_type, accept=answers.accept, options=options):
        answers.take(piece)
    answers.finish()


async def _described(url: str, endpoint: str) -> dict[str, Any]:
    async with GatewayClient(url, endpoint, timestamp_fields=frozenset(), label_names=("", "")) as client:
        return await client.describe()


async def _read_apart(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    """The pieces, each read on another thread, so that answers are taken meanwhile."""
    while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
        yield piece


def _require_complete(answers: AnswerFile) -> None:
    summary = answers.summary
    if summary is None:
        raise Unavailable(
            "gateway", "the answer ended without its summary", hint="ask again for the rows that lack one"
        )
    if not summary["complete"]:
        raise _refusal(summary)


def _refusal(summary: Any) -> SkewlessError:
    error = summary["error"]
    detail = f"after {summary['rows']} rows: {error['detail']}"
    if error["status"] >= 500 or error["status"] == 429:
        return Unavailable("gateway", detail, hint=error.get("hint", ""))
    return InvalidRequest(
        detail, path=error.get("path", "$"), allowed=error.get("allowed", ""), hint=error.get("hint", "")
    )
