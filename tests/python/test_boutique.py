"""Real traces: each is whole, through both APIs, straight after the answer and after a restart."""

import signal

import boutique
import grpc
import pytest
import requests
from conftest import spans_of
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub


def send_over_grpc(spoor):
    channel = grpc.insecure_channel(spoor.otlp_grpc())
    stub = TraceServiceStub(channel)

    def send(request):
        assert not stub.Export(request).HasField("partial_success")

    return send


def send_over_http(spoor):
    def send(request):
        headers = {"Content-Type": "application/x-protobuf"}
        answer = spoor.session.post(spoor.otlp_http(), data=request.SerializeToString(), headers=headers)
        assert answer.status_code == 200, answer.text
        assert not ExportTraceServiceResponse.FromString(answer.content).HasField("partial_success")

    return send


def in_comparable_form(data):
    """Spans with their pod; the order of nothing matters."""
    out = []
    for resource_spans in data.resource_spans:
        resource = sorted((one.key, one.value.string_value) for one in resource_spans.resource.attributes)
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                out.append((resource, scope_spans.scope.name, span.SerializeToString(deterministic=True)))
    return sorted(out)


def check_tempo(spoor, trace_id, sent):
    assert in_comparable_form(spoor.tempo_trace(trace_id)) == in_comparable_form(sent)


def check_jaeger(spoor, trace_id, sent):
    trace = spoor.jaeger_trace(trace_id)
    service_of = {key: process["serviceName"] for key, process in trace["processes"].items()}
    got = sorted(
        (
            span["spanID"],
            service_of[span["processID"]],
            span["operationName"],
            span["startTime"],
            span["duration"],
            [reference["spanID"] for reference in span["references"]],
        )
        for span in trace["spans"]
    )
    expected = sorted(
        (
            span.span_id.hex(),
            service,
            span.name,
            span.start_time_unix_nano // 1000,
            (span.end_time_unix_nano - span.start_time_unix_nano) // 1000,
            [span.parent_span_id.hex()] if span.parent_span_id else [],
        )
        for service, span in spans_of(sent)
    )
    assert got == expected


@pytest.mark.parametrize("sender", [send_over_grpc, send_over_http])
def test_every_trace_is_whole_at_once_and_after_every_kind_of_restart(spoor, sender):
    traces = {trace_id: boutique.request(rows) for trace_id, rows in boutique.traces().items()}
    assert len(traces) == boutique.TRACE_COUNT
    assert sum(1 for sent in traces.values() for _ in spans_of(sent)) == boutique.SPAN_COUNT
    send = sender(spoor)
    for trace_id, sent in traces.items():
        send(sent)
        check_tempo(spoor, trace_id, sent)
        check_jaeger(spoor, trace_id, sent)
    for how in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
        spoor.restart(how)
        for trace_id, sent in traces.items():
            check_tempo(spoor, trace_id, sent)
            check_jaeger(spoor, trace_id, sent)


def test_services_and_operations_are_those_of_the_recording(spoor):
    send = send_over_grpc(spoor)
    operations = {}
    for rows in boutique.traces().values():
        send(boutique.request(rows))
        for row in rows:
            operations.setdefault(boutique.service_of(row["PodName"]), set()).add(row["OperationName"])
    for _ in ("head", "block"):
        assert requests.get(spoor.jaeger("/api/services")).json()["data"] == sorted(operations)
        for service, names in operations.items():
            answer = requests.get(spoor.jaeger(f"/api/services/{service}/operations")).json()
            assert sorted(answer["data"]) == sorted(names)
        spoor.restart()


def test_the_slowest_trace_is_found_by_its_duration(spoor):
    send = send_over_grpc(spoor)
    longest = {}
    for trace_id, rows in boutique.traces().items():
        send(boutique.request(rows))
        start = min(int(row["StartTimeUnixNano"]) for row in rows)
        longest[trace_id] = max(int(row["EndTimeUnixNano"]) for row in rows) - start
    limit_ms = sorted(longest.values())[-5] // 1_000_000
    expected = {trace_id for trace_id, duration in longest.items() if duration >= limit_ms * 1_000_000}
    for _ in ("head", "block"):
        parameters = {
            "tags": "service.name=frontend",
            "minDuration": f"{limit_ms}ms",
            "limit": 100,
            "start": 1_661_140_000,
            "end": 1_661_150_000,
        }
        answer = requests.get(spoor.tempo("/api/search"), params=parameters)
        assert answer.status_code == 200, answer.text
        assert {one["traceID"].zfill(32) for one in answer.json()["traces"]} == expected
        spoor.restart()
