"""What Grafana's data sources ask for and what they stumble over, point by point.

Points are numbered as the list that they come from. Two are about gRPC on the port of the Tempo API and are not here:
1 (HTTP/1.1 and h2c on one port) and 8 (streaming); `test_tempo_grpc.py` has them.
"""

import base64
import json
import math
import re
import time

import pytest
import requests
from conftest import Spoor
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.message_factory import GetMessageClass
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1 import trace_pb2

NOW_S = int(time.time()) - 120
NOW = NOW_S * 10**9
# As long as ids of 64 bits are, and with a zero in front that people leave out.
SHORT_ID = "a1b2c3d4e5f6017"
SHOP_ID, OLD_ID = "5b8efff798038103d269b633813fc60c", "6c9f000798038103d269b633813fc60d"
MS = 10**6
PROTOBUF = {"Accept": "application/protobuf"}


def trace_by_id_response():
    """`tempopb.TraceByIDResponse`, as far as Grafana reads it."""
    file = descriptor_pb2.FileDescriptorProto(name="grafana_test.proto", package="grafana_test", syntax="proto3")
    file.dependency.append("opentelemetry/proto/trace/v1/trace.proto")
    message = file.message_type.add(name="TraceByIDResponse")
    field, optional = descriptor_pb2.FieldDescriptorProto, descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL
    trace = ".opentelemetry.proto.trace.v1.TracesData"
    message.field.add(name="trace", number=1, type=field.TYPE_MESSAGE, type_name=trace, label=optional)
    message.field.add(name="metrics", number=2, type=field.TYPE_BYTES, label=optional)
    message.field.add(name="status", number=3, type=field.TYPE_INT32, label=optional)
    message.field.add(name="message", number=4, type=field.TYPE_STRING, label=optional)
    pool = descriptor_pool.Default()
    pool.Add(file)
    return GetMessageClass(pool.FindMessageTypeByName("grafana_test.TraceByIDResponse"))


TraceByIdResponse = trace_by_id_response()


def set_attributes(attributes, **values):
    for key, value in values.items():
        field = {str: "string_value", bool: "bool_value", int: "int_value", float: "double_value"}[type(value)]
        setattr(attributes.add(key=key.replace("__", ".")).value, field, value)


def exports() -> ExportTraceServiceRequest:
    """A shop's trace, a trace from last month, and one that lacks whatever may be absent."""
    request = ExportTraceServiceRequest()
    for trace_id, start in ((SHOP_ID, NOW), (OLD_ID, NOW - 30 * 86_400 * 10**9)):
        parent = b""
        services = (("shop", "GET /cart", 2, 0), ("cart", "read", 2, 1), ("db", "SELECT", 3, 2))
        for number, (service, name, kind, depth) in enumerate(services, 1):
            group = request.resource_spans.add()
            set_attributes(group.resource.attributes, service__name=service)
            scope = group.scope_spans.add()
            scope.scope.name = "lib"
            span = scope.spans.add(trace_id=bytes.fromhex(trace_id), span_id=bytes([number] * 8), name=name, kind=kind)
            span.parent_span_id = parent
            span.start_time_unix_nano = start + depth * MS
            span.end_time_unix_nano = start + (100 - depth) * MS
            set_attributes(span.attributes, http__status_code=500 if service == "db" else 200, mixed=number * 1.5)
            if service == "db":
                span.status.code = trace_pb2.Status.STATUS_CODE_ERROR
            parent = span.span_id
    # No resource attributes, no scope, no status, no name; ends as it starts.
    spans = request.resource_spans.add().scope_spans.add().spans
    naked = spans.add(trace_id=bytes.fromhex(SHORT_ID.zfill(32)), span_id=b"\x09" * 8)
    naked.start_time_unix_nano = naked.end_time_unix_nano = NOW
    set_attributes(naked.attributes, mixed="text", **{"http/route": "/a/b"})
    naked.attributes.add(key="list").value.array_value.values.add().string_value = "one"
    naked.attributes[-1].value.array_value.values.add().int_value = 2
    naked.attributes.add(key="raw").value.bytes_value = b"\x00\xff"
    naked.attributes.add(key="map").value.kvlist_value.values.add(key="k").value.bool_value = True
    return request


@pytest.fixture(scope="module", params=["head", "block"])
def spoor(request, tmp_path_factory):
    """The three traces, in memory or in a block."""
    flags = ("--retention=876000h", "--query-search-max-range=2000h", "--query-metrics-max-range=24h")
    server = Spoor(tmp_path_factory.mktemp("grafana") / "data", *flags).start()
    headers = {"Content-Type": "application/x-protobuf"}
    answer = requests.post(server.otlp_http(), data=exports().SerializeToString(), headers=headers, timeout=30)
    assert (answer.status_code, answer.content) == (200, b"")
    if request.param == "block":
        server.restart()
    yield server
    server.stop()


def get(spoor, path, status=200, headers=None, **params):
    answer = requests.get(spoor.tempo(path), params=params, headers=headers, timeout=30)
    assert answer.status_code == status, f"{answer.url}: {answer.status_code} {answer.text}"
    return answer


RANGE = {"start": NOW_S - 600, "end": NOW_S + 600}

# What the plugin's decoder knows of `SearchResponse` and `QueryInstantResponse`; another key anywhere fails the query.
# A key's value says of what kind the value is: a check, a schema, or a list of one of them.
U64 = re.compile(r"\d+").fullmatch


def is_text(value):
    return isinstance(value, str)


def is_u64(value):
    return U64(value) if isinstance(value, str) else False


def is_u32(value):
    return type(value) is int and 0 <= value < 2**32


def is_double(value):
    return type(value) in (int, float) or value in ("NaN", "Infinity", "-Infinity")


SCALAR = {"stringValue": is_text, "intValue": is_u64, "boolValue": lambda value: type(value) is bool, "doubleValue": is_double}
ATTRIBUTE = {"key": is_text, "value": SCALAR}
SPAN = {"spanID": is_text, "name": is_text, "startTimeUnixNano": is_u64, "durationNanos": is_u64, "attributes": [ATTRIBUTE]}
SPAN_SET = {"spans": [SPAN], "matched": is_u32, "attributes": [ATTRIBUTE]}
METRICS = {
    "inspectedTraces": is_u32,
    "inspectedBytes": is_u64,
    "totalBlocks": is_u32,
    "completedJobs": is_u32,
    "totalJobs": is_u32,
    "totalBlockBytes": is_u64,
    "inspectedSpans": is_u64,
}
TRACE = {
    "traceID": re.compile(r"[0-9a-f]{1,32}").fullmatch,
    "rootServiceName": is_text,
    "rootTraceName": is_text,
    "startTimeUnixNano": is_u64,
    "durationMs": is_u32,
    "spanSet": SPAN_SET,
    "spanSets": [SPAN_SET],
    # Any service's name.
    "serviceStats": {None: {"spanCount": is_u32, "errorCount": is_u32}},
}
SEARCH_RESPONSE = {"traces": [TRACE], "metrics": METRICS}
INSTANT_SERIES = {"labels": [ATTRIBUTE], "value": is_double, "promLabels": is_text}
INSTANT_RESPONSE = {"series": [INSTANT_SERIES], "metrics": METRICS, "status": is_text, "message": is_text}


def check_strictly(value, schema, place="answer"):
    if callable(schema):
        assert schema(value), f"{place}: {value!r}"
    elif isinstance(schema, list):
        assert isinstance(value, list), f"{place}: {value!r}"
        for index, one in enumerate(value):
            check_strictly(one, schema[0], f"{place}[{index}]")
    else:
        assert isinstance(value, dict), f"{place}: {value!r}"
        for key, one in value.items():
            known = schema.get(None, schema.get(key))
            assert known is not None, f"{place}: the plugin does not know {key!r}"
            check_strictly(one, known, f"{place}.{key}")


def search(spoor, query, **params):
    answer = get(spoor, "/api/search", q=query, headers={"Accept": "application/json"}, **(RANGE | params)).json()
    check_strictly(answer, SEARCH_RESPONSE)
    return answer["traces"]


def scalar(value):
    ((kind, content),) = value.items()
    return kind, content


def test_point_2_save_and_test_and_the_version(spoor):
    assert get(spoor, "/api/echo").text.strip() == "echo"
    version = get(spoor, "/api/status/buildinfo").json()["version"]
    matched = re.fullmatch(r"(\d+)\.(\d+)\.(\d+)(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?", version)
    assert matched, f"{version} is not a semantic version"
    # Grafana 10 and 11 switch streaming of metrics on from 2.7.0; a pre-release would count as earlier.
    assert tuple(map(int, matched.group(1, 2, 3))) >= (2, 7, 0) and matched[4] is None


def test_point_3_traces_by_id_as_protobuf_in_both_versions(spoor):
    v1 = trace_pb2.TracesData.FromString(get(spoor, f"/api/traces/{SHOP_ID}", headers=PROTOBUF).content)
    v2 = TraceByIdResponse.FromString(get(spoor, f"/api/v2/traces/{SHOP_ID}", headers=PROTOBUF).content)
    assert v2.HasField("trace") and v2.status == 0
    for trace in (v1, v2.trace):
        names = [span.name for group in trace.resource_spans for scope in group.scope_spans for span in scope.spans]
        assert sorted(names) == ["GET /cart", "SELECT", "read"]


def test_point_3_traces_by_id_as_json_with_base64_ids_and_names_of_enums(spoor):
    v1 = get(spoor, f"/api/traces/{SHOP_ID}").json()["batches"]
    v2 = get(spoor, f"/api/v2/traces/{SHOP_ID}", headers={"Accept": "application/json"}).json()["trace"]["resourceSpans"]
    assert v1 == v2
    spans = {span["name"]: span for group in v1 for scope in group["scopeSpans"] for span in scope["spans"]}
    assert base64.b64decode(spans["read"]["traceId"]).hex() == SHOP_ID
    assert base64.b64decode(spans["read"]["spanId"]) == b"\x02" * 8
    assert base64.b64decode(spans["read"]["parentSpanId"]) == b"\x01" * 8
    assert (spans["GET /cart"]["kind"], spans["SELECT"]["kind"]) == ("SPAN_KIND_SERVER", "SPAN_KIND_CLIENT")
    assert spans["SELECT"]["status"]["code"] == "STATUS_CODE_ERROR"
    assert spans["read"]["startTimeUnixNano"] == str(NOW + MS)


@pytest.mark.parametrize("path", ["/api/traces/", "/api/v2/traces/"])
def test_point_3_ids_of_any_length_and_no_time_range(spoor, path):
    for asked in (SHORT_ID, SHORT_ID.zfill(16), SHORT_ID.zfill(32), SHORT_ID.upper()):
        assert get(spoor, path + asked, headers=PROTOBUF).content == get(spoor, path + SHORT_ID, headers=PROTOBUF).content
    # Without a range, all time; with the range that the data source may be set to send, that.
    assert bytes.fromhex(OLD_ID) in get(spoor, path + OLD_ID, headers=PROTOBUF).content
    assert bytes.fromhex(SHOP_ID) in get(spoor, path + SHOP_ID, headers=PROTOBUF, **RANGE).content


def test_point_3_a_trace_that_is_not_there(spoor):
    # The first makes Grafana ask the second; what is empty there must not be absent: it would crash the plugin.
    missing = get(spoor, "/api/v2/traces/1234", headers=PROTOBUF)
    found = TraceByIdResponse.FromString(missing.content)
    assert found.HasField("trace") and not found.trace.resource_spans
    get(spoor, "/api/traces/1234", status=404, headers=PROTOBUF)
    get(spoor, "/api/traces/xyz", status=400)


@pytest.mark.parametrize("trace_id", [SHOP_ID, SHORT_ID])
def test_point_4_nothing_that_the_plugin_reads_is_absent(spoor, trace_id):
    v2 = TraceByIdResponse.FromString(get(spoor, f"/api/v2/traces/{trace_id}", headers=PROTOBUF).content)
    v1 = trace_pb2.TracesData.FromString(get(spoor, f"/api/traces/{trace_id}", headers=PROTOBUF).content)
    # Grafana drops what has no resource attributes. v1 has what was sent, for those who compare.
    assert all(group.resource.attributes for group in v2.trace.resource_spans)
    for trace in (v1, v2.trace):
        assert trace.resource_spans
        for group in trace.resource_spans:
            assert group.HasField("resource")
            for scope in group.scope_spans:
                assert scope.HasField("scope")
                for span in scope.spans:
                    assert span.HasField("status") and span.end_time_unix_nano >= span.start_time_unix_nano


def test_point_5_search_answers_only_what_the_plugin_knows(spoor):
    everything = "{ } | select(.mixed, .list, .raw, .map, span:kind, nestedSetLeft, status, resource.service.name)"
    for query in (everything, "{ } | by(resource.service.name) | count() > 0", "{ } >> { }", "{ status = error }"):
        for trace in search(spoor, query):
            # Kiali needs the one, the plugin's flat table the other.
            assert trace["spanSet"] == trace["spanSets"][0] and trace["spanSet"]["spans"]
            assert trace["spanSet"]["matched"] >= len(trace["spanSet"]["spans"])
    (shop,) = search(spoor, '{ trace:rootService = "shop" }')
    assert (shop["rootServiceName"], shop["rootTraceName"], shop["durationMs"]) == ("shop", "GET /cart", 100)
    assert shop["serviceStats"]["db"] == {"spanCount": 1, "errorCount": 1}
    assert search(spoor, "{ span.nothing = 1 }") == []


def test_point_5_a_key_has_one_type_in_an_answer(spoor):
    types = {}
    for trace in search(spoor, "{ } | select(.mixed, .list, .raw, .map, .http.status_code)"):
        for span in trace["spanSet"]["spans"]:
            for attribute in span.get("attributes", []):
                kind, _ = scalar(attribute["value"])
                types.setdefault(attribute["key"], set()).add(kind)
    # A number in one span and a text in another: text for both.
    assert types["mixed"] == {"stringValue"} and types["http.status_code"] == {"intValue"}
    assert all(len(kinds) == 1 for kinds in types.values()), types


def test_point_5_defaults_are_20_traces_and_3_spans(tmp_path):
    server = Spoor(tmp_path / "data").start()
    request = ExportTraceServiceRequest()
    spans = request.resource_spans.add().scope_spans.add().spans
    for trace in range(1, 31):
        for number in range(1, 7):
            span = spans.add(trace_id=bytes([trace] * 16), span_id=bytes([number] * 8), name="work")
            span.start_time_unix_nano, span.end_time_unix_nano = NOW + trace * MS, NOW + trace * MS + 1
    headers = {"Content-Type": "application/x-protobuf"}
    requests.post(server.otlp_http(), data=request.SerializeToString(), headers=headers, timeout=30).raise_for_status()
    traces = search(server, "{ }")
    assert [len(trace["spanSet"]["spans"]) for trace in traces] == [3] * 20
    assert {trace["spanSet"]["matched"] for trace in traces} == {6}
    newest = [int(trace["startTimeUnixNano"]) for trace in traces]
    assert newest == [NOW + trace * MS for trace in range(30, 10, -1)]
    assert len(search(server, "{ }", limit=25, spss=5)) == 25
    server.stop()


def test_point_6_names_of_attributes_by_scope(spoor):
    # The leftover parameters of old forms are sent, too, and mean nothing.
    scopes = get(spoor, "/api/v2/search/tags", limit=5000, tag="x", whatever="1").json()["scopes"]
    assert all(isinstance(scope["tags"], list) and scope["tags"] for scope in scopes)
    by_name = {scope["name"]: scope["tags"] for scope in scopes}
    assert set(by_name) <= {"resource", "span", "event", "link", "instrumentation", "intrinsic"}
    assert by_name["resource"] == ["service.name"]
    assert {"http.status_code", "http/route", "mixed"} <= set(by_name["span"])
    assert {"duration", "kind", "name", "status", "rootServiceName"} <= set(by_name["intrinsic"])
    assert "service.name" in get(spoor, "/api/search/tags").json()["tagNames"]


def values(spoor, tag, **params):
    answer = get(spoor, f"/api/v2/search/tag/{tag}/values", tag=tag, **({"limit": 5000} | params)).json()
    return [(one["type"], one["value"]) for one in answer["tagValues"]]


def test_point_6_values_have_types_that_the_builder_quotes_by(spoor):
    assert values(spoor, "resource.service.name") == [("string", "cart"), ("string", "db"), ("string", "shop")]
    assert values(spoor, "span.http.status_code") == [("int", "200"), ("int", "500")]
    assert {kind for kind, _ in values(spoor, "status")} == {"keyword"}
    assert {kind for kind, _ in values(spoor, "span:kind")} == {"keyword"}
    assert ("string", "read") in values(spoor, "name")
    assert get(spoor, "/api/search/tag/service.name/values").json()["tagValues"] == ["cart", "db", "shop"]


def test_point_6_names_may_have_slashes_and_be_escaped(spoor):
    assert values(spoor, "span.http/route") == [("string", "/a/b")]
    assert values(spoor, "span.http%2Froute") == [("string", "/a/b")]
    assert values(spoor, ".http/route") == [("string", "/a/b")]
    assert values(spoor, "span.undefined") == []


@pytest.mark.parametrize("unfinished", ["{}", "{", "{ span.foo = ", "{ resource.service.name=", "nonsense )(", '{ name="read" && }'])
def test_point_6_an_unfinished_filter_is_no_error(spoor, unfinished):
    found = {value for _, value in values(spoor, "resource.service.name", q=unfinished)}
    assert found and found <= {"shop", "cart", "db"}


def test_point_6_a_finished_filter_narrows(spoor):
    assert values(spoor, "resource.service.name", q='{ name = "read" }') == [("string", "cart")]


def query_range(spoor, query, **params):
    return get(spoor, "/api/metrics/query_range", q=query, **(RANGE | params)).json()["series"]


def labels(series):
    return {label["key"]: scalar(label["value"])[1] for label in series["labels"]}


def test_point_7_series_over_time_with_and_without_a_step(spoor):
    (chosen,) = query_range(spoor, "{} | count_over_time()")
    assert len(chosen["samples"]) > 1
    (asked,) = query_range(spoor, "{} | count_over_time()", step="60s")
    times = [int(sample["timestampMs"]) for sample in asked["samples"]]
    assert {later - earlier for earlier, later in zip(times, times[1:])} == {60_000}
    for series in (chosen, asked):
        assert sum(sample.get("value", 0) for sample in series["samples"]) == 4


def test_point_7_labels_are_named_as_in_by(spoor):
    by_service = query_range(spoor, "{ resource.service.name != nil } | rate() by(resource.service.name)", step="60s")
    assert sorted(labels(series)["resource.service.name"] for series in by_service) == ["cart", "db", "shop"]
    quantiles = query_range(spoor, '{ name = "read" } | quantile_over_time(duration, 0.5,0.9)', step="60s")
    assert sorted(labels(series)["p"] for series in quantiles) == [0.5, 0.9]
    read_s = 0.098
    for series in quantiles:
        largest = max(sample.get("value", 0) for sample in series["samples"])
        assert read_s / 2 <= largest <= read_s * 2
    buckets = query_range(spoor, "{ } | histogram_over_time(duration)", step="60s")
    # The name of a series is its only label; it must be a number, in seconds.
    for series in buckets:
        ((key, value),) = labels(series).items()
        assert key == "__bucket" and math.log2(round(value * 1e9)).is_integer()


def test_point_7_exemplars_without_asking(spoor):
    exemplars = [one for series in query_range(spoor, "{ status = error } | rate()") for one in series.get("exemplars", [])]
    assert exemplars
    for exemplar in exemplars:
        assert labels(exemplar)["trace:id"].zfill(32) == SHOP_ID
        assert int(exemplar["timestampMs"]) > 0 and exemplar["value"] > 0


def test_point_7_one_value_is_decoded_strictly(spoor):
    answer = get(spoor, "/api/metrics/query", q="{} | count_over_time() by (resource.service.name)", **RANGE).json()
    check_strictly(answer, INSTANT_RESPONSE)
    assert {labels(series).get("resource.service.name", "nil"): series["value"] for series in answer["series"]} == {
        "shop": 1,
        "cart": 1,
        "db": 1,
        "nil": 1,
    }


def test_point_7_nothing_found_is_no_series(spoor):
    assert query_range(spoor, "{ name = `nobody` } | rate() by (name)") == []


@pytest.mark.parametrize(
    "path, query",
    [
        ("/api/search", "{ duration > }"),
        ("/api/metrics/query_range", "{nestedSetParent<0 && true && duration > } | rate()"),
        ("/api/metrics/query", "{} | rate("),
        ("/api/search", '{ duration > "x" }'),
    ],
)
def test_point_9_errors_are_plain_text(spoor, path, query):
    answer = get(spoor, path, status=400, q=query, **RANGE)
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert answer.text and "<" not in answer.text and not answer.text.startswith("{\"")


def test_point_9_ranges_that_are_too_long_are_said_in_words_that_grafana_knows(spoor):
    far = {"start": NOW_S - 3000 * 3600, "end": NOW_S}
    assert re.search(r"range specified by start and end.*exceeds", get(spoor, "/api/search", status=400, q="{}", **far).text)
    too_long = get(spoor, "/api/metrics/query_range", status=400, q="{} | rate()", **far).text
    assert "metrics query time range exceeds the maximum allowed duration of" in too_long


def test_point_10_no_half_of_a_service_graph_is_offered(spoor):
    # Grafana's Service Graph tab asks Prometheus, whose names of metrics are fixed. They are the Collector's to make;
    # a part of them from here would be worse than none.
    assert "traces_service_graph_" not in get(spoor, "/metrics").text
    assert "traces_spanmetrics_" not in get(spoor, "/metrics").text


def test_the_jaeger_data_source_finds_what_it_sends_for(spoor):
    def ask(path, **params):
        answer = requests.get(spoor.jaeger(path), params=params, timeout=30)
        assert answer.status_code == 200, answer.text
        body = answer.json()
        assert all(type(body[key]) is int for key in ("total", "limit", "offset") if key in body)
        return body["data"]

    assert {"cart", "db", "shop"} <= set(ask("/api/services"))
    assert ask("/api/services/cart/operations") == ["read"]
    micros = {"start": RANGE["start"] * 10**6, "end": RANGE["end"] * 10**6}
    tags = json.dumps({"http.status_code": "500"})
    found = ask("/api/traces", service="db", operation="SELECT", tags=tags, minDuration="1.2ms", limit=20, **micros)
    assert [trace["traceID"] for trace in found] == [SHOP_ID]
    # More than one, sorted by the plugin, which reads the first span of each.
    assert all(trace["spans"] for trace in ask("/api/traces", service="shop", limit=20, start=0, end=micros["end"]))
    (trace,) = ask(f"/api/traces/{SHOP_ID}")
    for span in trace["spans"]:
        assert type(span["startTime"]) is int and type(span["duration"]) is int
        assert span["processID"] in trace["processes"]
    edges = ask("/api/dependencies", endTs=RANGE["end"] * 1000, lookback=1_200_000)
    assert {(edge["parent"], edge["child"], edge["callCount"]) for edge in edges} == {("shop", "cart", 1), ("cart", "db", 1)}


def test_kiali_asks_with_a_second_empty_filter_and_absent_attributes(spoor):
    query = '{ .service.name = "db"  && .http.status_code = 500  } && {  }| select(status, .node_id, .http.method, resource.hostname, name)'
    (trace,) = search(spoor, query, spss=10, limit=10, minDuration="1ms")
    shown = {}
    for span in trace["spanSet"]["spans"]:
        attributes = {one["key"]: scalar(one["value"])[1] for one in span["attributes"]}
        shown[attributes["service.name"]] = attributes["status"]
    assert shown == {"shop": "unset", "cart": "unset", "db": "error"}
    assert get(spoor, "/status/services").json() == ["cart", "db", "shop"]
