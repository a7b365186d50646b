"""Traced requests as OpenTelemetry spans, sent to a collector by OTLP over HTTP. The only importer of OpenTelemetry.

Spans are made here, when their request is over, out of the times that were noted: the SDK's own way, a span object
begun and ended around each step, would cost the request's path several times what it costs to note them (ADR 32).

    server span   the request, child of the caller's span
      stages      validate, admission, features, transform, model, log; linked with the calls of others they waited for
        calls     of servers; part of the trace of the first request that shares one, linked with the others
"""

from collections.abc import Iterator, Sequence

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, TraceFlags, TraceState
from opentelemetry.trace.status import Status, StatusCode

from skewless.limits import TRACE_TIMEOUT_S
from skewless.serving.request_trace import RequestTrace, Stage, TracedCall, new_id

_SCOPE = InstrumentationScope("skewless")
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_OK = Status(StatusCode.UNSET)


class OtlpExporter:
    """Sends to one collector. `send` blocks, so it belongs to a thread of its own."""

    def __init__(self, endpoint: str, *, service: str, instance: str, version: str) -> None:
        """`endpoint` is the full URL, such as http://collector:4318/v1/traces.

        Headers and certificates for it are taken from OpenTelemetry's own variables, OTEL_EXPORTER_OTLP_….
        """
        self._exporter = OTLPSpanExporter(endpoint, timeout=TRACE_TIMEOUT_S)
        self._resource = Resource.create(
            {"service.name": service, "service.version": version, "service.instance.id": instance}
        )

    def send(self, traces: Sequence[RequestTrace]) -> bool:
        """Whether the collector took all of them. Does not raise; takes TRACE_TIMEOUT_S at most."""
        spans = [span for trace in traces for span in self._spans(trace)]
        return self._exporter.export(spans) is SpanExportResult.SUCCESS

    def close(self) -> None:
        """End what is being sent, from any thread."""
        self._exporter.shutdown()  # type: ignore[no-untyped-call]  # the library has no types for it

    def _spans(self, trace: RequestTrace) -> Iterator[ReadableSpan]:
        server = _context(trace, trace.span_id)
        parent = _context(trace, trace.parent_id, is_remote=True) if trace.parent_id else None
        attributes = trace.attributes | ({"error.type": trace.error} if trace.error else {})
        offset = trace.offset_ns
        yield ReadableSpan(
            name=trace.name,
            context=server,
            parent=parent,
            resource=self._resource,
            attributes=attributes,
            kind=SpanKind.SERVER,
            status=Status(StatusCode.ERROR) if trace.is_fault else _OK,
            start_time=trace.started_ns + offset,
            end_time=trace.ended_ns + offset,
            instrumentation_scope=_SCOPE,
        )
        stages = [(stage, _context(trace, new_id(64))) for stage in trace.stages]
        for stage, context in stages:
            name, started_ns, ended_ns = stage
            yield ReadableSpan(
                name=name,
                context=context,
                parent=server,
                resource=self._resource,
                links=[Link(_context(call.askers[0], call.span_id)) for call in _calls_of_others(trace, stage)],
                start_time=started_ns + offset,
                end_time=ended_ns + offset,
                instrumentation_scope=_SCOPE,
            )
        for call in trace.calls:
            if call.askers[0] is trace:
                around = [context for stage, context in stages if _is_within(call, stage)]
                yield self._call(call, trace, around[0] if around else server)

    def _call(self, call: TracedCall, trace: RequestTrace, parent: SpanContext) -> ReadableSpan:
        # A call that outlives the request that began it is told as far as it is known.
        ended_ns = call.ended_ns or trace.ended_ns
        return ReadableSpan(
            name=call.name,
            context=_context(trace, call.span_id),
            parent=parent,
            resource=self._resource,
            attributes=call.attributes | ({"error.type": call.error} if call.error else {}),
            links=[Link(_context(other, other.span_id)) for other in call.askers[1:]],
            kind=SpanKind.CLIENT,
            status=Status(StatusCode.ERROR) if call.error else _OK,
            start_time=call.started_ns + trace.offset_ns,
            end_time=ended_ns + trace.offset_ns,
            instrumentation_scope=_SCOPE,
        )


def _is_within(call: TracedCall, stage: Stage) -> bool:
    """Whether the stage waited for the call: it ended in it."""
    return stage[1] <= call.ended_ns <= stage[2]


def _calls_of_others(trace: RequestTrace, stage: Stage) -> list[TracedCall]:
    """Shared calls that are told in another trace, and that a stage of this one waited for."""
    return [call for call in trace.calls if call.askers[0] is not trace and _is_within(call, stage)]


def _context(trace: RequestTrace, span_id: int, *, is_remote: bool = False) -> SpanContext:
    state = TraceState.from_header([trace.state.decode("ascii")]) if trace.state else TraceState()
    return SpanContext(trace.trace_id, span_id, is_remote, _SAMPLED, state)
