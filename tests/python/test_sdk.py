"""The real OpenTelemetry SDK with its own exporters, as an application would use it."""

import pytest
import requests
from conftest import spans_of
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http import Compression as HttpCompression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, SpanKind, Status, StatusCode
from grpc import Compression as GrpcCompression


def exporters(spoor):
    return {
        "grpc": lambda: GrpcExporter(endpoint=spoor.otlp_grpc(), insecure=True),
        "grpc gzip": lambda: GrpcExporter(
            endpoint=spoor.otlp_grpc(), insecure=True, compression=GrpcCompression.Gzip
        ),
        "http": lambda: HttpExporter(endpoint=spoor.otlp_http()),
        "http gzip": lambda: HttpExporter(endpoint=spoor.otlp_http(), compression=HttpCompression.Gzip),
    }


def record(exporter):
    """A request with everything that the SDK can record; returns its trace id as hex."""
    resource = Resource.create({"service.name": "checkout", "service.version": "1.2.3", "replicas": 3})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    tracer = provider.get_tracer("shop", "0.1", schema_url="https://opentelemetry.io/schemas/1.37.0")
    with tracer.start_as_current_span("POST /checkout", kind=SpanKind.SERVER) as root:
        root.set_attribute("http.route", "/checkout")
        root.set_attribute("http.response.status_code", 500)
        root.set_attribute("items", ["book", "lamp"])
        root.set_attribute("weights", [0.5, 2.25])
        root.set_attribute("is.member", True)
        with tracer.start_as_current_span("charge", kind=SpanKind.CLIENT, links=[Link(root.get_span_context())]) as child:
            child.set_attribute("note", "snow \u2603 man")
            child.add_event("retry", {"attempt": 2})
            child.record_exception(ValueError("card declined"))
            child.set_status(Status(StatusCode.ERROR, "declined"))
        trace_id = trace.format_trace_id(root.get_span_context().trace_id)
    assert provider.force_flush()
    provider.shutdown()
    return trace_id


def check(spoor, trace_id):
    spans = {span.name: (service, span) for service, span in spans_of(spoor.tempo_trace(trace_id))}
    assert sorted(spans) == ["POST /checkout", "charge"]
    service, root = spans["POST /checkout"]
    _, child = spans["charge"]
    attributes = {one.key: one.value for one in root.attributes}
    assert service == "checkout"
    assert attributes["http.response.status_code"].int_value == 500
    assert [value.string_value for value in attributes["items"].array_value.values] == ["book", "lamp"]
    assert [value.double_value for value in attributes["weights"].array_value.values] == [0.5, 2.25]
    assert attributes["is.member"].bool_value is True
    assert child.parent_span_id == root.span_id
    assert child.status.message == "declined"
    assert [event.name for event in child.events] == ["retry", "exception"]
    assert child.links[0].span_id == root.span_id
    jaeger = spoor.jaeger_trace(trace_id)
    (process,) = jaeger["processes"].values()
    assert process["serviceName"] == "checkout"
    tags = {tag["key"]: tag["value"] for span in jaeger["spans"] for tag in span["tags"]}
    assert tags["note"] == "snow \u2603 man"
    assert tags["items"] == '["book","lamp"]'
    assert tags["error"] is True


@pytest.mark.parametrize("transport", ["grpc", "grpc gzip", "http", "http gzip"])
def test_what_the_sdk_records_is_found_at_once_and_after_a_restart(spoor, transport):
    trace_id = record(exporters(spoor)[transport]())
    check(spoor, trace_id)
    answer = requests.get(spoor.tempo("/api/search"), params={"q": '{ .http.route = "/checkout" && kind = server }'})
    assert [one["traceID"].zfill(32) for one in answer.json()["traces"]] == [trace_id]
    assert requests.get(spoor.jaeger("/api/services")).json()["data"] == ["checkout"]
    spoor.restart()
    check(spoor, trace_id)
