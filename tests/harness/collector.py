"""A collector of traces: takes OTLP over HTTP, as the protocol's own messages say it, or in JSON as Triton does."""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

_IDENTIFIERS = {"traceId", "spanId", "parentSpanId"}


@dataclass
class Collector:
    """What has arrived; a test may have it refuse."""

    url: str = ""
    status: int = 200
    requests: list[ExportTraceServiceRequest] = field(default_factory=list)

    @property
    def spans(self) -> list[Span]:
        return [
            span
            for request in list(self.requests)
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]

    @property
    def services(self) -> set[str]:
        return {
            attribute.value.string_value
            for request in self.requests
            for resource in request.resource_spans
            for attribute in resource.resource.attributes
            if attribute.key == "service.name"
        }


def attributes(span: Span) -> dict[str, object]:
    """Attributes of a span as Python values; arrays as lists."""
    found: dict[str, object] = {}
    for each in span.attributes:
        kind = each.value.WhichOneof("value") or ""
        value = getattr(each.value, kind)
        found[each.key] = [item.string_value for item in value.values] if kind == "array_value" else value
    return found


def _read(body: bytes, content_type: str) -> ExportTraceServiceRequest:
    if content_type.startswith("application/json"):
        message = ExportTraceServiceRequest()
        json_format.ParseDict(_with_bytes(json.loads(body)), message, ignore_unknown_fields=True)
        return message
    binary: ExportTraceServiceRequest = ExportTraceServiceRequest.FromString(body)
    return binary


def _with_bytes(value: Any) -> Any:
    """OTLP writes identifiers in hexadecimal digits where JSON of other messages has Base64."""
    if isinstance(value, dict):
        return {
            name: base64.b64encode(bytes.fromhex(each)).decode() if name in _IDENTIFIERS else _with_bytes(each)
            for name, each in value.items()
        }
    return [_with_bytes(each) for each in value] if isinstance(value, list) else value


@contextmanager
def running_collector() -> Iterator[Collector]:
    """A collector in a thread on a free loopback port."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # named by the library
            body = self.rfile.read(int(self.headers["content-length"]))
            if collector.status == 200:
                collector.requests.append(_read(body, self.headers["content-type"]))
            self.send_response(collector.status)
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # named by the library
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    collector.url = f"http://127.0.0.1:{server.server_address[1]}/v1/traces"
    try:
        yield collector
    finally:
        server.shutdown()
        thread.join(20)
        server.server_close()
