"""`skewless predict` and `skewless replay`: one prediction, live and recomputed."""

import asyncio
import json
import sys
from typing import Any

import click

from skewless.cli.arguments import moment
from skewless.cli.output import print_json
from skewless.cli.workspace import Workspace
from skewless.errors import InvalidRequest


@click.command()
@click.argument("endpoint")
@click.argument("instance")
@click.option("--as-of", "as_of", metavar="TIME", help="Ask as of this moment; only where the gateway allows it.")
@click.option("--receipt", type=click.Choice(["summary", "full", "none"]), default="summary", show_default=True)
def predict(endpoint: str, instance: str, as_of: str | None, receipt: str) -> None:
    """Ask ENDPOINT of the running stack about INSTANCE, a JSON object (- reads it from standard input)."""
    from skewless.adapters.gateway_client import GatewayClient

    text = sys.stdin.read() if instance == "-" else instance
    try:
        parsed = json.loads(text)
    except ValueError as error:
        raise InvalidRequest(
            f"INSTANCE is not JSON: {error}", path="INSTANCE", allowed='an object such as {"origin": "EWR", …}'
        ) from error
    asked_at = None if as_of is None else moment(as_of, option="--as-of")
    url = Workspace().gateway_url

    async def ask() -> dict[str, Any]:
        async with GatewayClient(url, endpoint, timestamp_fields=frozenset(), label_names=("", "")) as client:
            return await client.ask([parsed], as_of=asked_at, receipt=receipt)

    print_json(asyncio.run(ask()))


@click.command()
@click.argument("prediction_id")
@click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")
def replay(prediction_id: str, as_json: bool) -> None:
    """Recompute the model input of PREDICTION_ID from its log record and compare it bit for bit.

    Uses the record alone: the request, the stored feature values and the bundle that answered. Exit code 4: the
    recomputed tensor or output differs from what was served.
    """
    from skewless.cli.replay_check import check

    found = check(Workspace(), prediction_id)
    if as_json:
        print_json(found.to_json())
    else:
        click.echo(found.sentence())
    if not found.equal:
        sys.exit(4)
