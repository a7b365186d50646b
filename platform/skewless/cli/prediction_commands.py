"""`skewless predict`: questions to a running gateway, one or a file of them."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import click

from skewless.cli.arguments import moment
from skewless.cli.output import print_json
from skewless.cli.workspace import Workspace
from skewless.errors import InvalidRequest
from skewless.timestamps import Micros


@click.command()
@click.argument("endpoint")
@click.argument("instance", required=False)
@click.option(
    "--file",
    "source",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Predict every row of this file: .ndjson, .csv, .parquet or .arrow.",
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the answers of --file here, in the form that the suffix names; NDJSON on standard output otherwise.",
)
@click.option(
    "--on-error",
    type=click.Choice(["fail", "record"]),
    default="fail",
    show_default=True,
    help="Whether a wrong row of --file ends the answer, or is answered by an error.",
)
@click.option("--as-of", "as_of", metavar="TIME", help="Ask as of this moment; only where the gateway allows it.")
@click.option("--receipt", type=click.Choice(["summary", "full", "none"]), default="summary", show_default=True)
def predict(
    endpoint: str,
    instance: str | None,
    source: Path | None,
    output: Path | None,
    on_error: str,
    as_of: str | None,
    receipt: str,
) -> None:
    """Ask ENDPOINT of the running stack about INSTANCE, a JSON object (- reads it from standard input), or about every
    row of a file.

    Of a table the columns are sent that the endpoint's instances have; a CSV file is read with their types, an empty
    cell as null. Answers name the row of the file, from 0.
    """
    if (instance is None) == (source is None):
        raise InvalidRequest("there is nothing to predict, or too much", path="INSTANCE", allowed="INSTANCE or --file")
    asked_at = None if as_of is None else moment(as_of, option="--as-of")
    if source is not None:
        from skewless.cli.file_prediction import predict_file

        predict_file(Workspace().gateway_url, endpoint, source, output, on_error=on_error, as_of=asked_at)
        return
    print_json(_ask(endpoint, instance or "", asked_at, receipt))


def _ask(endpoint: str, instance: str, as_of: Micros | None, receipt: str) -> dict[str, Any]:
    from skewless.adapters.gateway_client import GatewayClient

    text = sys.stdin.read() if instance == "-" else instance
    try:
        parsed = json.loads(text)
    except ValueError as error:
        raise InvalidRequest(
            f"INSTANCE is not JSON: {error}", path="INSTANCE", allowed='an object such as {"origin": "EWR", …}'
        ) from error
    url = Workspace().gateway_url

    async def ask() -> dict[str, Any]:
        async with GatewayClient(url, endpoint, timestamp_fields=frozenset(), label_names=("", "")) as client:
            return await client.ask([parsed], as_of=as_of, receipt=receipt)

    return asyncio.run(ask())
