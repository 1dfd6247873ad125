"""Jaeger's gRPC services as another language's client sees them."""

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

import boutique
from services import Services

V2, V3, STORAGE = "jaeger.api_v2.QueryService", "jaeger.api_v3.QueryService", "jaeger.storage.v2.TraceReader"


@pytest.fixture(scope="module")
def traces() -> dict[str, list[dict]]:
    return boutique.traces()


@pytest.fixture
def jaeger(spoor, traces) -> Services:
    """The boutique's traces, written as a Jaeger writes to its storage: to the port that it reads from."""
    address = f"127.0.0.1:{spoor.ports['jaeger-grpc']}"
    services = Services(address)
    writer = TraceServiceStub(services.channel)
    for rows in traces.values():
        writer.Export(boutique.request(rows), timeout=60)
    return services


EARLY, LATE = {"seconds": 1}, {"seconds": 4_000_000_000}


def test_reflection_names_every_service(jaeger):
    expected = {V2, V3, STORAGE, "jaeger.storage.v2.DependencyReader", "jaeger.storage.v2.Capabilities"}
    assert expected | {"grpc.health.v1.Health"} <= jaeger.names()


def test_every_span_of_every_trace_comes_back_in_all_three_forms(jaeger, traces):
    for trace_id, rows in traces.items():
        expected = {row["SpanID"] for row in rows}
        chunks = jaeger.call(V2, "GetTrace", trace_id=bytes.fromhex(trace_id))
        assert all(0 < len(chunk.spans) <= 10 for chunk in chunks)
        assert {span.span_id.hex() for chunk in chunks for span in chunk.spans} == expected
        for service, fields in ((V3, {"trace_id": trace_id}), (STORAGE, {"query": [{"trace_id": bytes.fromhex(trace_id)}]})):
            method = "GetTrace" if service == V3 else "GetTraces"
            found = [TracesData.FromString(message.SerializeToString()) for message in jaeger.call(service, method, **fields)]
            spans = [span for one in found for group in one.resource_spans for scope in group.scope_spans for span in scope.spans]
            assert sorted(span.span_id.hex() for span in spans) == sorted(expected)


def test_searches_agree(jaeger, traces):
    services = jaeger.call(V2, "GetServices")[0].services
    assert list(jaeger.call(V3, "GetServices")[0].services) == list(services)
    for service in services:
        expected = {trace_id for trace_id, rows in traces.items() if any(boutique.service_of(row["PodName"]) == service for row in rows)}
        first = jaeger.call(V2, "FindTraces", query={"service_name": service, "search_depth": 1000})
        assert {span.trace_id.hex() for chunk in first for span in chunk.spans} == expected
        query = {"service_name": service, "search_depth": 1000, "start_time_min": EARLY, "start_time_max": LATE}
        summaries = jaeger.call(V3, "FindTraceSummaries", query=query)
        assert {one.trace_id for message in summaries for one in message.summaries} == expected
        found = jaeger.call(STORAGE, "FindTraceIDs", query=query)[0].trace_ids
        assert {one.trace_id.hex() for one in found} == expected


def test_a_structured_filter_finds_the_same_in_both_generations(jaeger, traces):
    said = jaeger.call("jaeger.storage.v2.Capabilities", "GetCapabilities")[0].search.filter
    assert set(said.levels) == {"span", "resource", "scope", "event", "link"} and {"not", "some", "regex"} <= set(said.operators)
    names = jaeger.call(V2, "GetServices")[0].services
    service = {"field": {"name": "service", "level": "resource"}}
    one_of = {"op": "in", "args": [service, {"list": {"values": names[:2]}}]}
    longer = {"op": "gt", "args": [{"field": {"name": "duration", "level": "span"}}, {"scalar": {"value": "1ms"}}]}
    for wanted in (one_of, {"op": "and", "args": [{"call": one_of}, {"call": {"op": "not", "args": [{"call": longer}]}}]}):
        query = {"filter": wanted, "search_depth": 1000, "start_time_min": EARLY, "start_time_max": LATE}
        summaries = jaeger.call(V3, "FindTraceSummaries", query=query)
        found = {one.trace_id for message in summaries for one in message.summaries}
        assert found == {one.trace_id.hex() for one in jaeger.call(STORAGE, "FindTraceIDs", query=query)[0].trace_ids}
        is_short = lambda row: wanted is one_of or int(row["EndTimeUnixNano"]) - int(row["StartTimeUnixNano"]) <= 1_000_000
        is_wanted = lambda row: boutique.service_of(row["PodName"]) in names[:2] and is_short(row)
        assert found == {trace_id for trace_id, rows in traces.items() if any(map(is_wanted, rows))} != set()


def test_dependencies_are_the_edges_between_parents_and_children(jaeger, traces):
    expected: dict[tuple[str, str], int] = {}
    for rows in traces.values():
        service_of_span = {row["SpanID"]: boutique.service_of(row["PodName"]) for row in rows}
        for row in rows:
            if parent := service_of_span.get(row["ParentID"]):
                edge = (parent, service_of_span[row["SpanID"]])
                expected[edge] = expected.get(edge, 0) + 1
    for service in (V2, V3, "jaeger.storage.v2.DependencyReader"):
        found = jaeger.call(service, "GetDependencies", start_time=EARLY, end_time=LATE)[0].dependencies
        assert {(one.parent, one.child): one.call_count for one in found} == expected


def test_what_is_not_there_is_said_as_each_service_says_it(jaeger):
    for service, fields in ((V2, {"trace_id": bytes([9] * 16)}), (V3, {"trace_id": "09" * 16})):
        with pytest.raises(grpc.RpcError) as failure:
            jaeger.call(service, "GetTrace", **fields)
        assert (failure.value.code(), failure.value.details()) == (grpc.StatusCode.NOT_FOUND, "trace not found")
    assert jaeger.call(STORAGE, "GetTraces", query=[{"trace_id": bytes([9] * 16)}]) == []
