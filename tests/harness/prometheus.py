"""A real Prometheus and a real Alertmanager over the project's own configuration, in a hurry, and whom they tell."""

import json
import re
import threading
import urllib.parse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import yaml

from harness.http_calls import get
from harness.rules import ALERTMANAGER, FOLDER, rule_files, tool
from harness.servers import running
from skewless.stack.ports import LOOPBACK, free_ports
from skewless.stack.probes import http_probe
from skewless.stack.process import ProcessSpec

HURRY = 300
"""Times as fast as in production: what takes ten minutes there takes two seconds."""
RANGE_MS_MIN = 4_000
"""A rate needs several scrapes in its range, also on a machine that is busy."""
_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION = re.compile(r"(\d+)(ms|s|m|h|d)")


def hurried(duration: str, *, at_least_ms: int = 0) -> str:
    """A duration of the configuration as it is here.

    >>> hurried("10m"), hurried("15m", at_least_ms=4_000)
    ('2000ms', '4000ms')
    """
    whole_ms = sum(int(number) * _MS[unit] for number, unit in _DURATION.findall(duration))
    return f"{max(whole_ms // HURRY, at_least_ms)}ms"


def hurried_rules(text: str) -> str:
    """A file of rules whose waits and ranges are short; what they compare with is as it was."""
    content = yaml.safe_load(text)
    for group in content["groups"]:
        for rule in group["rules"]:
            if "for" in rule:
                rule["for"] = hurried(rule["for"])
            rule["expr"] = re.sub(
                r"\[([0-9smhd]+)\]", lambda found: f"[{hurried(found[1], at_least_ms=RANGE_MS_MIN)}]", rule["expr"]
            )
    return yaml.safe_dump(content)


@contextmanager
def running_prometheus(folder: Path, *, targets: Mapping[str, int], alertmanager: int) -> Iterator[str]:
    """The URL of a Prometheus with every rule, which scrapes `targets` (ports by job) and tells an Alertmanager."""
    folder.mkdir(parents=True)
    for path in rule_files():
        (folder / path.name).write_text(hurried_rules(path.read_text()))
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "250ms", "scrape_timeout": "250ms", "evaluation_interval": "250ms"}
    config["rule_files"] = [str(folder / name) for name in config["rule_files"] if (folder / name).exists()]
    config["alerting"]["alertmanagers"][0]["static_configs"] = [{"targets": [f"{LOOPBACK}:{alertmanager}"]}]
    config["scrape_configs"] = [
        {"job_name": job["job_name"], "static_configs": [{"targets": [f"{LOOPBACK}:{targets[job['job_name']]}"]}]}
        for job in config["scrape_configs"]
        if job["job_name"] in targets
    ]
    file = folder / "prometheus.yml"
    file.write_text(yaml.safe_dump(config))
    arguments = (f"--config.file={file}", f"--storage.tsdb.path={folder / 'data'}")
    with _server("prometheus", tool("prometheus", "prometheus"), arguments, folder) as port:
        yield f"http://{LOOPBACK}:{port}"


@contextmanager
def running_alertmanager(folder: Path, webhook: str) -> Iterator[int]:
    """The port of an Alertmanager with the project's routes and inhibitions, whose receivers post to a webhook."""
    folder.mkdir(parents=True)
    config = yaml.safe_load(ALERTMANAGER.read_text())
    for receiver in config["receivers"]:
        receiver["webhook_configs"] = [{"url": f"{webhook}/{receiver['name']}"}]
    for route in (config["route"], *config["route"]["routes"]):
        for wait in ("group_wait", "group_interval"):
            if wait in route:
                route[wait] = hurried(route[wait], at_least_ms=100)
    file = folder / "alertmanager.yml"
    file.write_text(yaml.safe_dump(config))
    arguments = (f"--config.file={file}", f"--storage.path={folder / 'data'}", "--cluster.listen-address=")
    program = tool("prometheus-alertmanager", "prometheus-alertmanager")
    with _server("alertmanager", program, arguments, folder) as port:
        yield port


@contextmanager
def _server(name: str, program: str, arguments: tuple[str, ...], folder: Path) -> Iterator[int]:
    (port,) = free_ports(1)
    spec = ProcessSpec(
        name=name,
        command=(program, *arguments, f"--web.listen-address={LOOPBACK}:{port}"),
        log_file=folder / f"{name}.log",
        probe=http_probe(name, port, "/-/ready"),
    )
    with running(spec):
        yield port


class Webhook:
    """What an Alertmanager told, in order of arrival. `url` has a path for each receiver."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.messages: list[tuple[str, dict[str, Any]]] = []
        """Receiver and message."""

    def alerts(self, name: str) -> list[dict[str, Any]]:
        """What was told of an alert: `receiver`, `status`, `labels` and `annotations` each."""
        return [
            {"receiver": receiver, **alert}
            for receiver, message in list(self.messages)
            for alert in message["alerts"]
            if alert["labels"]["alertname"] == name
        ]


@contextmanager
def running_webhook() -> Iterator[Webhook]:
    """A server on loopback that takes whatever is posted to it."""

    class Handler(BaseHTTPRequestHandler):
        timeout = 30

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            told.messages.append((self.path.removeprefix("/"), json.loads(body)))
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_arguments: object) -> None:
            """Nothing."""

    server = HTTPServer((LOOPBACK, 0), Handler)
    told = Webhook(f"http://{LOOPBACK}:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield told
    finally:
        server.shutdown()
        server.server_close()
        thread.join(30)


def asked(url: str, query: str) -> dict[str, float]:
    """The answer of a Prometheus to a query: values by their labels but for `instance` and `job`, as text."""
    answer = get(f"{url}/api/v1/query?query={urllib.parse.quote(query)}", timeout=30).json()
    assert answer["status"] == "success", answer
    left_out = {"__name__", "instance", "job"}
    return {
        ",".join(f"{name}={value}" for name, value in sorted(each["metric"].items()) if name not in left_out): float(
            each["value"][1]
        )
        for each in answer["data"]["result"]
    }


def unhealthy_rules(url: str) -> list[str]:
    """What a Prometheus says about rules that it cannot compute."""
    answer = get(f"{url}/api/v1/rules", timeout=30).json()
    found = [rule for group in answer["data"]["groups"] for rule in group["rules"]]
    assert found
    return [f"{rule['name']}: {rule.get('lastError')}" for rule in found if rule["health"] == "err"]
