"""One minute of real traces of OnlineBoutique (tests/data/boutique/NOTICE.txt), as OTLP.

The recording has ids, names, pods and times. What OTLP wants beyond that is derived: the service is
the pod's deployment; a span is a server span when its parent ran in another pod, else internal.
"""

import csv
import io
import lzma
import pathlib

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

PATH = pathlib.Path(__file__).resolve().parents[1] / "data" / "boutique" / "boutique-sample.csv.xz"
SPAN_COUNT = 6712
TRACE_COUNT = 147


def rows() -> list[dict]:
    with lzma.open(PATH) as file:
        return list(csv.DictReader(io.TextIOWrapper(file, "utf-8")))


def service_of(pod: str) -> str:
    deployment, _, _ = pod.rsplit("-", 2)
    return deployment


def traces() -> dict[str, list[dict]]:
    """Rows by trace id."""
    by_trace: dict[str, list[dict]] = {}
    for row in rows():
        by_trace.setdefault(row["TraceID"], []).append(row)
    return by_trace


def request(rows_of_trace: list[dict]) -> ExportTraceServiceRequest:
    """The rows as one export, a resource per pod."""
    pod_of_span = {row["SpanID"]: row["PodName"] for row in rows_of_trace}
    out = ExportTraceServiceRequest()
    of_pod = {}
    for row in rows_of_trace:
        pod = row["PodName"]
        if pod not in of_pod:
            resource_spans = out.resource_spans.add()
            for key, value in (("service.name", service_of(pod)), ("k8s.pod.name", pod)):
                resource_spans.resource.attributes.add(key=key).value.string_value = value
            of_pod[pod] = resource_spans.scope_spans.add()
            of_pod[pod].scope.name = "boutique"
        parent = "" if row["ParentID"] == "root" else row["ParentID"]
        is_server = pod_of_span.get(parent) != pod
        span = of_pod[pod].spans.add(
            trace_id=bytes.fromhex(row["TraceID"]),
            span_id=bytes.fromhex(row["SpanID"]),
            parent_span_id=bytes.fromhex(parent),
            name=row["OperationName"],
            kind=Span.SPAN_KIND_SERVER if is_server else Span.SPAN_KIND_INTERNAL,
            start_time_unix_nano=int(row["StartTimeUnixNano"]),
            end_time_unix_nano=int(row["EndTimeUnixNano"]),
            status=Status(),
        )
        span.attributes.add(key="duration.recorded_us").value.int_value = int(row["Duration"])
    return out
