"""Traces for OpenTelemetry: a span a call, sent over OTLP/gRPC from a thread of its own."""

import threading
from collections.abc import Mapping
from importlib.metadata import version

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from .calls import CallRecord, Tracing

_EXPORT_SECONDS = 5
_SECONDS_TO_STOP = 0.5
# The codes for which OpenTelemetry blames the server.
_FAULTS = ("UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS")


class OtlpTracing(Tracing):
    """Spans in batches; a missing collector costs the spans, never a call.

    The SDK's own variables (OTEL_TRACES_SAMPLER, OTEL_RESOURCE_ATTRIBUTES, OTEL_BSP_...) apply and override.
    """

    def __init__(self, endpoint: str) -> None:
        own = Resource({"service.name": "bgan", "service.version": version("bgan")})
        resource = Resource.create().merge(own).merge(OTELResourceDetector().detect())
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        exporter = OTLPSpanExporter(endpoint=endpoint, timeout=_EXPORT_SECONDS)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("bgan", version("bgan"))
        self._propagator = TraceContextTextMapPropagator()

    def begin(self, method: str, metadata: Mapping[str, str | bytes]) -> Span:
        """A span, in the caller's trace if its metadata names one (W3C Trace Context)."""
        return self._tracer.start_span(method, self._propagator.extract(metadata), SpanKind.SERVER)

    def end(self, record: CallRecord) -> None:
        """End the span of a call."""
        span = record.span
        attributes = {
            **_protocol(record),
            "client.address": record.peer,
            "bgan.request_id": record.request_id,
            "bgan.model": record.model,
            "bgan.revision": record.revision,
            "bgan.images": record.image_count,
        }
        span.set_attributes({name: value for name, value in attributes.items() if value != ""})
        if record.code.name in _FAULTS:
            span.set_attribute("error.type", record.code.name)
            span.set_status(StatusCode.ERROR, record.text)
        span.end()

    def stop(self) -> None:
        """Send what is left, if the collector takes it at once."""
        stopping = threading.Thread(target=self._provider.shutdown, daemon=True)
        stopping.start()
        stopping.join(_SECONDS_TO_STOP)


def _protocol(record: CallRecord) -> dict[str, str]:
    """The attributes of a call of gRPC, or of a request of HTTP, whose method is a verb and a route."""
    verb, _, route = record.method.partition(" ")
    if route:
        return {"http.request.method": verb, "http.route": route, "bgan.code": record.code.name}
    return {
        "rpc.system.name": "grpc",
        "rpc.method": record.method,
        "rpc.response.status_code": record.code.name,
    }
