"""`skewless api-key …`: who may ask for predictions and bring rows of features, and how often."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from skewless.cli import rollout_options as options
from skewless.cli.arguments import moment
from skewless.cli.output import print_json, say
from skewless.cli.rollout_views import show_history
from skewless.cli.workspace import Workspace
from skewless.errors import InvalidDefinition, InvalidRequest, NotFound
from skewless.registry.api_keys import ApiKeyRecord
from skewless.registry.api_scopes import ApiRate, ApiScope
from skewless.registry.transactions import system_clock
from skewless.timestamps import SECOND_US, Micros, format_timestamp

_WIDTH = 240
"""Off a terminal lines are not folded at 80 columns: what folds is what other programs search for."""


@click.group("api-key")
def api_key() -> None:
    """Who may ask for predictions and bring rows of features, and how often."""


@api_key.command("create")
@click.argument("name")
@click.option(
    "--endpoint", "endpoints", multiple=True, help="Endpoint that the key may ask; `*` for all. May be repeated."
)
@click.option(
    "--features", "views", multiple=True, metavar="VIEW",
    help="Feature view that the key may bring rows for; `*` for all. May be repeated.",
)  # fmt: skip
@click.option(
    "--events", "streams", multiple=True, metavar="STREAM",
    help="Stream that the key may bring events for; `*` for all. May be repeated.",
)  # fmt: skip
@click.option(
    "--may-give-created-time", "created_time", is_flag=True,
    help="Rows may say themselves when they became known; else it is when they were accepted.",
)  # fmt: skip
@click.option(
    "--entity", "entities", multiple=True, metavar="KEY=PREFIX,…",
    help="Only entities whose join key begins so, such as `tailnum=N1,N2`. May be repeated.",
)  # fmt: skip
@click.option(
    "--scopes", "file", type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help='JSON file with several scopes instead: [{"endpoints": […], "features": […], "entities": {…}}].',
)  # fmt: skip
@click.option(
    "--expires", metavar="WHEN", help="When it ends: a duration such as `90d`, or a time. Never if not given."
)
@click.option("--rate", "per_s", type=float, help="Requests per second. The gateway's default if not given.")
@click.option("--burst", type=int, help="Requests at once. Those of one second if not given.")
@options.reason
@options.as_json
def create_api_key(
    name: str,
    endpoints: tuple[str, ...],
    views: tuple[str, ...],
    streams: tuple[str, ...],
    created_time: bool,
    entities: tuple[str, ...],
    file: Path | None,
    expires: str | None,
    per_s: float | None,
    burst: int | None,
    reason: str,
    as_json: bool,
) -> None:
    """Create API key NAME, and write its secret to standard output: it is told this once.

    \b
    skewless api-key create booking-service --endpoint flight-delay --rate 200 --reason "launch"
    """
    scopes = _scopes(file, entities, endpoints=endpoints, features=views, events=streams, created_time=created_time)
    rate, expires_time = _rate(per_s, burst), _expiry(expires)
    by = options.change(reason)
    with Workspace().registry(create=True) as registry:
        secret = registry.add_api_key(
            name, scopes, expires_time=expires_time, rate=rate, actor=by.actor, reason=by.reason
        )
        made = next(key for key in registry.api_keys() if key.name == name)
    if as_json:
        print_json({"secret": secret, **made.to_json()})
        return
    click.echo(secret)
    say(f"API key `{name}` ({made.hash[:12]}) is in force; its secret is kept nowhere, so keep it now")


@api_key.command("list")
@click.option("--revoked", is_flag=True, help="Revoked keys too.")
@options.as_json
def list_api_keys(revoked: bool, as_json: bool) -> None:
    """List the keys, without their secrets."""
    with Workspace().registry() as registry:
        keys = registry.api_keys(include_revoked=revoked)
    if as_json:
        print_json([key.to_json() for key in keys])
    elif keys:
        _print_table(keys)
    else:
        say("no API keys yet: `skewless api-key create NAME --endpoint ENDPOINT --reason WHY` makes one")


@api_key.command("show")
@click.argument("name")
@options.as_json
def show_api_key(name: str, as_json: bool) -> None:
    """Show API key NAME, also a revoked one, and what was done with keys of that name."""
    with Workspace().registry() as registry:
        keys = registry.api_keys(include_revoked=True)
        events = registry.audit(subject=f"api-key/{name}")
    named = [key for key in keys if key.name == name]
    if not named:
        raise NotFound("API key", name, known=tuple(sorted({key.name for key in keys})))
    if as_json:
        print_json({**named[-1].to_json(), "history": [event.to_json() for event in events]})
        return
    _print_table(named)
    show_history(events)


@api_key.command("revoke")
@click.argument("name")
@options.reason
def revoke_api_key(name: str, reason: str) -> None:
    """End API key NAME for good; every gateway refuses it within two seconds."""
    by = options.change(reason)
    with Workspace().registry() as registry:
        registry.revoke_api_key(name, actor=by.actor, reason=by.reason)
    say(f"API key `{name}` is revoked")


def _scopes(
    file: Path | None,
    entities: Sequence[str],
    *,
    endpoints: tuple[str, ...],
    features: tuple[str, ...],
    events: tuple[str, ...],
    created_time: bool,
) -> list[ApiScope]:
    if file is not None:
        if endpoints or features or events or entities or created_time:
            raise InvalidRequest(
                "scopes are given twice", path="--scopes", allowed="a file, or options such as --endpoint and --entity"
            )
        return _scopes_in(file)
    if not (endpoints or features or events):
        raise InvalidRequest(
            "the key could ask and bring nothing",
            path="--endpoint",
            allowed="names of endpoints, or --features or --events, or `*` for all of them",
        )
    return [ApiScope(endpoints, dict(_entity(each) for each in entities), features, events, created_time)]


def _scopes_in(file: Path) -> list[ApiScope]:
    try:
        listed: Any = json.loads(file.read_text())
        return [ApiScope.from_json({"endpoints": (), "entities": {}, **each}) for each in listed]
    except (OSError, TypeError, ValueError) as error:
        raise InvalidDefinition(
            f"`{file}` holds no scopes: {error}", hint='write [{"endpoints": ["flight-delay"]}]'
        ) from error


def _entity(text: str) -> tuple[str, tuple[str, ...]]:
    key, _, prefixes = text.partition("=")
    if not key or not prefixes:
        raise InvalidRequest(f"`{text}` limits nothing", path="--entity", allowed="KEY=PREFIX or KEY=PREFIX,PREFIX")
    return key, tuple(prefixes.split(","))


def _rate(per_s: float | None, burst: int | None) -> ApiRate | None:
    if per_s is None:
        if burst is not None:
            raise InvalidRequest("a burst is given without a rate", path="--burst", allowed="together with --rate")
        return None
    return ApiRate(per_s, max(1, round(per_s)) if burst is None else burst)


def _expiry(text: str | None) -> Micros | None:
    if text is None:
        return None
    if text[-1:] in "smhd" and text[:1].isdigit():
        return Micros(system_clock() + int(options.duration_s(text, option="--expires") * SECOND_US))
    return moment(text, option="--expires")


def _print_table(keys: Sequence[ApiKeyRecord]) -> None:
    table = Table("name", "id", "may ask", "rate", "created", "ends")
    for key in keys:
        allowed = "; ".join(_scope(scope) for scope in key.scopes)
        rate = "-" if key.rate is None else f"{key.rate.per_s:g}/s, {key.rate.burst} at once"
        table.add_row(key.name, key.hash[:12], allowed, rate, format_timestamp(key.created_time), _end(key))
    console = Console(markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        console.width = _WIDTH
    console.print(table)


def _scope(scope: ApiScope) -> str:
    limits = [f"{key} {' or '.join(f'{each}…' for each in prefixes)}" for key, prefixes in scope.entities.items()]
    named = [*scope.endpoints, *(f"features:{each}" for each in scope.features)]
    named += [f"events:{each}" for each in scope.events]
    if scope.created_time:
        named.append("created times")
    return ", ".join(named) + (f" where {' and '.join(limits)}" if limits else "")


def _end(key: ApiKeyRecord) -> str:
    if key.revoked_time is not None:
        return f"revoked {format_timestamp(key.revoked_time)}"
    return "never" if key.expires_time is None else format_timestamp(key.expires_time)
