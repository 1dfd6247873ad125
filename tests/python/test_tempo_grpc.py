"""Tempo's streaming service as another language's client sees it, beside the same questions over HTTP."""

import json
import re
import time
from urllib.parse import unquote

import grpc
import pytest
import requests
from google.protobuf import json_format

from conftest import PATIENCE_S, ROOT, Spoor
from services import Services

TEMPO = "tempopb.StreamingQuerier"
SHOP = ROOT / "api" / "fixtures" / "tempo" / "shop"
NANOS = {"s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}


def services(spoor: Spoor) -> Services:
    return Services(f"127.0.0.1:{spoor.ports['tempo']}")


def send(spoor: Spoor, otlp: bytes | str, **headers) -> None:
    headers["Content-Type"] = "application/json"
    answer = requests.post(spoor.otlp_http(), data=otlp, headers=headers, timeout=60)
    assert answer.status_code == 200, answer.text


@pytest.fixture
def shop(spoor) -> Spoor:
    send(spoor, (SHOP / "request.json").read_bytes())
    return spoor


class Case:
    """A request of a fixture: where it goes and what it asks."""

    def __init__(self, block: str):
        (self.path,) = re.findall(r"^GET (\S+)$", block, re.MULTILINE)
        self.asks = {name: value for name, value in re.findall(r"^  (\w+) = ?(.*)$", block, re.MULTILINE)}

    def number(self, name: str) -> int:
        return int(self.asks.get(name, 0))

    def step(self) -> int:
        text = self.asks.get("step", "0s")
        return int(text[:-1]) * NANOS[text[-1]]

    def message(self) -> tuple[str, dict]:
        """The method that asks the same, and its fields."""
        seconds = {"start": self.number("start"), "end": self.number("end")}
        nanos = {name: time * 10**9 for name, time in seconds.items()}
        query = self.asks.get("q", "")
        values = re.fullmatch(r"/api/(v2/)?search/tag/(.+)/values", self.path)
        if values:
            fields = {"tagName": unquote(values[2]), "query": query, "maxTagValues": self.number("limit"), **seconds}
            return ("SearchTagValuesV2" if values[1] else "SearchTagValues"), fields
        match self.path:
            case "/api/search":
                fields = {"Query": query, "Limit": self.number("limit"), "SpansPerSpanSet": self.number("spss")}
                return "Search", {**fields, **seconds}
            case "/api/metrics/query_range":
                return "MetricsQueryRange", {"query": query, "step": self.step(), **nanos}
            case "/api/metrics/query":
                return "MetricsQueryInstant", {"query": query, **nanos}
            case "/api/v2/search/tags":
                return "SearchTagsV2", {"query": query, "maxTagsPerScope": self.number("limit"), **seconds}
            case "/api/search/tags":
                return "SearchTags", {"query": query, "maxTagsPerScope": self.number("limit"), **seconds}
        raise AssertionError(self.path)


def cases(file: str) -> list[Case]:
    blocks = (SHOP / file).read_text().split("\n\n")
    return [Case(block) for block in blocks if re.search("^GET ", block, re.MULTILINE)]


def whole(messages: list, kind: type):
    """One answer, of its pieces and of what came before it."""
    lists = [field.name for field in kind.DESCRIPTOR.fields if field.number == 1]
    keyed, answer = {}, kind()
    for message in messages:
        assert message.HasField("metrics"), "each says what it took"
        for element in getattr(message, lists[0]):
            key = getattr(element, "traceID", None) or str(getattr(element, "labels", element))
            keyed[key] = element
        answer.metrics.CopyFrom(message.metrics)
        for name in ("status", "message"):
            if hasattr(message, name):
                setattr(answer, name, getattr(message, name))
    getattr(answer, lists[0]).extend(keyed.values())
    return answer


def shown(answer) -> dict:
    """As JSON, without what reading cost."""
    for field in ("inspectedBytes", "inspectedSpans", "inspectedTraces"):
        if field in answer.metrics.DESCRIPTOR.fields_by_name:
            answer.metrics.ClearField(field)
    return json.loads(json_format.MessageToJson(answer))


@pytest.mark.parametrize("file", ["drilldown.http", "search.http", "metrics.http", "tags.http"])
def test_every_question_has_the_same_answer_over_http_and_grpc(shop, file):
    tempo, compared = services(shop), 0
    for case in cases(file):
        # Some parameters have no field in the messages.
        if set(case.asks) - {"q", "start", "end", "step", "limit", "spss", "tag"}:
            continue
        http = requests.get(shop.tempo(case.path), params=case.asks, timeout=60)
        try:
            method, fields = case.message()
        except (ValueError, KeyError, AssertionError):
            assert file != "drilldown.http", case.asks
            continue
        compared += 1
        if http.status_code == 400:
            if fields.get("step", 1) == 0 and "step" in http.text or fields.get("Limit", 1) == 0 and "limit" in http.text:
                continue  # A zero is an absent number in messages.
            with pytest.raises(grpc.RpcError) as refused:
                list(tempo.start(TEMPO, method, fields))
            assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT, case.asks
            assert refused.value.details() == http.text
            continue
        assert http.status_code == 200, (case.asks, http.text)
        described = tempo.pool.FindServiceByName(TEMPO).methods_by_name[method]
        kind = tempo.message(described.output_type.full_name)
        streamed = whole(list(tempo.start(TEMPO, method, fields)), kind)
        assert shown(streamed) == shown(json_format.ParseDict(http.json(), kind())), case.asks
    assert compared >= 10, compared


def test_reflection_and_health_know_the_service(shop):
    tempo = services(shop)
    assert tempo.names() == {
        TEMPO,
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    }
    assert tempo.start("grpc.health.v1.Health", "Check", {"service": TEMPO}).status == 1


def test_grafana_checks_its_connection_with_a_search_and_a_time_of_the_year_1(shop):
    tempo = services(shop)
    request = tempo.message("tempopb.SearchRequest")(Query="{}", Limit=1, start=1699999000, end=1700000999)
    odd = bytes.fromhex("520b088092b8c398feffffff01")
    first = next(iter(tempo.start(TEMPO, "Search", request.SerializeToString() + odd)))
    assert first.HasField("metrics") and len(first.traces) == 1


def test_grafana_sees_whole_traces_in_their_first_copy_and_progress_before_the_end(tmp_path):
    spoor = Spoor(tmp_path / "data", "--retention", "876000h", "--query-stream-interval", "1ms").start()
    try:
        send(spoor, many_traces(3_000, "x" * 400))
        tempo = services(spoor)
        accumulated, progress = {}, []
        for message in tempo.start(TEMPO, "Search", {"Query": '{ span.text != "" }', "Limit": 3_000}):
            assert message.ByteSize() < 4 << 20
            progress.append(message.metrics)
            for trace in message.traces:
                first = accumulated.setdefault(trace.traceID, trace)
                assert first == trace, "a later copy says nothing else"
        assert len(accumulated) == 3_000
        assert all(one.completedJobs <= one.totalJobs for one in progress)
        assert progress[-1].completedJobs == progress[-1].totalJobs
    finally:
        spoor.process.kill()
        spoor.process.wait()


def many_traces(count: int, text: str) -> str:
    def span(number: int) -> dict:
        start = 1_700_000_000_000_000_000 + number * 1_000_000
        attributes = [{"key": "text", "value": {"stringValue": f"{number} {text}"}}]
        ids = {"traceId": f"{number + 1:032x}", "spanId": f"{number + 1:016x}"}
        return {**ids, "name": "GET", "startTimeUnixNano": str(start), "endTimeUnixNano": str(start + 1), "attributes": attributes}

    return json.dumps({"resourceSpans": [{"resource": {}, "scopeSpans": [{"spans": [span(number) for number in range(count)]}]}]})


def test_large_answers_are_cut_and_nothing_is_left_of_a_client_that_goes_away(spoor):
    send(spoor, many_traces(8_000, "x" * 300))
    tempo = services(spoor)
    asked = {"Query": '{ span.text != "" }', "Limit": 8_000}
    messages = list(tempo.start(TEMPO, "Search", asked))
    assert len(messages) > 4 and all(message.ByteSize() <= 1 << 20 and message.HasField("metrics") for message in messages)
    assert len({trace.traceID for message in messages for trace in message.traces}) == 8_000
    values = list(tempo.start(TEMPO, "SearchTagValuesV2", {"tagName": "span.text"}))
    http = requests.get(spoor.tempo("/api/v2/search/tag/span.text/values"), timeout=60)
    assert "X-Spoor-Partial" in http.headers, "the bound on bytes bites"
    assert [value.value for message in values for value in message.tagValues] == [one["value"] for one in http.json()["tagValues"]]

    answering = tempo.start(TEMPO, "Search", asked)
    next(iter(answering))
    answering.cancel()
    # All of it may have been on its way already.
    ends = re.compile(r'tempo_request_duration_seconds_count\{method="gRPC",route="/tempopb.StreamingQuerier/Search",status_code="(success|cancel)",ws="false"\} (\d)')
    deadline = time.monotonic() + PATIENCE_S
    metrics = ""
    while sum(int(count) for _, count in ends.findall(metrics)) < 2:
        assert time.monotonic() < deadline, metrics
        metrics = requests.get(spoor.tempo("/metrics"), timeout=60).text
    assert "spoor_api_queries_running 0" in metrics
    assert len(list(tempo.start(TEMPO, "Search", {"Query": "{}"}))) == 1


def test_what_an_answer_ends_at_is_said_behind_it(spoor):
    send(spoor, many_traces(5_000, "x" * 300))
    answering = services(spoor).start(TEMPO, "SearchTagValuesV2", {"tagName": "span.text"})
    list(answering)
    assert "query_tags_max_bytes" in dict(answering.trailing_metadata())["x-spoor-partial"]
    assert answering.code() == grpc.StatusCode.OK


def test_tenants_are_named_in_metadata(tmp_path):
    spoor = Spoor(tmp_path / "data", "--retention", "876000h", "--multitenancy").start()
    try:
        send(spoor, many_traces(2, ""), **{"X-Scope-OrgID": "a"})
        send(spoor, many_traces(3, ""), **{"X-Scope-OrgID": "b"})
        tempo = services(spoor)

        def count(*metadata) -> int:
            messages = list(tempo.start(TEMPO, "Search", {"Query": "{}"}, metadata=metadata))
            return len({trace.traceID for message in messages for trace in message.traces})

        assert [count(("x-scope-orgid", name)) for name in ("a", "b", "a|b", "c")] == [2, 3, 3, 0]
        for metadata, code in [((), "UNAUTHENTICATED"), ((("x-scope-orgid", "a||b"),), "INVALID_ARGUMENT")]:
            with pytest.raises(grpc.RpcError) as refused:
                count(*metadata)
            assert (refused.value.code().name, refused.value.details()) == (code, "no org id")
    finally:
        spoor.process.kill()
        spoor.process.wait()


def test_calls_of_jaegers_port_are_counted_too(spoor):
    jaeger = Services(f"127.0.0.1:{spoor.ports['jaeger-grpc']}")
    jaeger.call("jaeger.api_v2.QueryService", "GetServices")
    metrics = requests.get(spoor.tempo("/metrics"), timeout=60).text
    labels = 'method="gRPC",route="/jaeger.api_v2.QueryService/GetServices",status_code="success",ws="false"'
    assert f"tempo_request_duration_seconds_count{{{labels}}} 1" in metrics
