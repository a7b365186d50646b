"""`skewless top`: traffic, latency, drift and parity of a running stack, live."""

import json
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict

import click
from rich.console import Console
from rich.live import Live

from skewless.adapters.metrics_pages import MetricsPage, read_page
from skewless.cli.top_frame import Frame, Look, frame_of
from skewless.cli.top_view import rendered
from skewless.cli.workspace import Workspace
from skewless.errors import Unavailable


@click.command()
@click.option(
    "--every", "every_s", type=click.FloatRange(0.2, 60.0), default=1.0, show_default=True, metavar="SECONDS",
    help="Between two looks; rates are of that time.",
)  # fmt: skip
@click.option("--once", is_flag=True, help="Show one frame and end.")
@click.option("--gateway", "gateway_url", metavar="URL", help="Admin listener of a gateway that runs elsewhere.")
@click.option("--monitor", "monitor_url", metavar="URL", help="Listener of a monitor that runs elsewhere.")
@click.option("--json", "as_json", is_flag=True, help="Print each frame as one line of JSON.")
def top(every_s: float, *, once: bool, gateway_url: str | None, monitor_url: str | None, as_json: bool) -> None:
    """Show traffic, latency, drift and parity of a running stack, until interrupted.

    Reads the metrics of the stack's own processes, or of those that are named. Where the output is no terminal, frames
    are printed one below the other.
    """
    home, urls = _addresses(gateway_url, monitor_url)
    console = Console()
    before = _look(urls)
    waiting = threading.Event()
    if as_json or once or not console.is_terminal:
        while True:
            waiting.wait(every_s)
            before, frame = _next(urls, before)
            _print(console, frame, home, as_json=as_json)
            if once:
                return
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            waiting.wait(every_s)
            before, frame = _next(urls, before)
            live.update(rendered(frame, home=home, width=console.width), refresh=True)


def _addresses(gateway_url: str | None, monitor_url: str | None) -> tuple[str, Mapping[str, str]]:
    """What is looked at, in words, and the URL of each process that tells metrics."""
    if gateway_url is not None:
        named = {"gateway": gateway_url, "monitor": monitor_url or ""}
        return gateway_url, {name: url for name, url in named.items() if url}
    workspace = Workspace()
    state = workspace.stack()
    told = {"gateway": state.gateway_admin_url, "shipper": state.shipper_url, "monitor": state.monitor_url}
    told |= {"monitor": monitor_url} if monitor_url else {}
    return str(workspace.home.root), {name: url for name, url in told.items() if url}


def _look(urls: Mapping[str, str]) -> Look:
    return Look(time.monotonic(), {name: _page(url) for name, url in urls.items()})


def _page(url: str) -> MetricsPage | None:
    try:
        return read_page(url)
    except Unavailable:
        return None  # shown as a process that does not answer


def _next(urls: Mapping[str, str], before: Look) -> tuple[Look, Frame]:
    now = _look(urls)
    return now, frame_of(before, now)


def _print(console: Console, frame: Frame, home: str, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(asdict(frame), ensure_ascii=False))
    else:
        console.print(rendered(frame, home=home, width=console.width))
