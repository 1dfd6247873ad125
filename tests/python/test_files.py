"""Block files are plain Parquet: other people's readers open them and count the same spans."""

import collections

import boutique
import duckdb
import pyarrow.parquet
import pytest
import requests
from conftest import spans_of
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

ROUTES = ("/", "/cart", "/product/{id}")


def send(spoor, request):
    headers = {"Content-Type": "application/x-protobuf"}
    answer = requests.post(spoor.otlp_http(), data=request.SerializeToString(), headers=headers)
    assert answer.status_code == 200, answer.text


@pytest.fixture
def counted(spoor):
    """Blocks of real traces, their server spans given routes; and the counts that must come out."""
    services, routes = collections.Counter(), collections.Counter()
    trace_count = 0
    for trace_count, rows in enumerate(boutique.traces().values(), 1):
        request = ExportTraceServiceRequest()
        request.CopyFrom(boutique.request(rows))
        for index, (service, span) in enumerate(spans_of(request)):
            services[service] += 1
            if index % 3 == 0:
                route = ROUTES[(trace_count + index) % len(ROUTES)]
                span.attributes.add(key="http.route").value.string_value = route
                routes[route] += 1
            # Near-unique values cannot fold into shapes: they get a column of their own.
            span.attributes.add(key="session").value.string_value = f"session-{span.span_id.hex()}"
        send(spoor, request)
        if trace_count == boutique.TRACE_COUNT // 2:
            spoor.restart()
    spoor.stop()
    assert len(spoor.blocks()) == 2
    return spoor.blocks(), services, routes


def test_duckdb_counts_spans_per_service_and_per_route(counted):
    blocks, services, routes = counted
    got_services, got_routes = collections.Counter(), collections.Counter()
    for block in blocks:
        database = duckdb.connect()
        for table in ("spans", "shapes", "origins"):
            database.execute(f"CREATE VIEW {table} AS FROM '{block}/{table}.parquet'")
        joined = "spans JOIN shapes USING (shape_id) JOIN origins USING (origin_id)"
        got_services.update(dict(database.sql(f"SELECT service_name, count(*) FROM {joined} GROUP BY ALL").fetchall()))
        columns = {name for (name, *_) in database.sql("DESCRIBE spans").fetchall()}
        route = "shapes.attributes['http.route']"
        if "span.http.route" in columns:
            route = f'coalesce(spans."span.http.route", {route})'
        query = f"SELECT {route} AS route, count(*) FROM {joined} WHERE route IS NOT NULL GROUP BY ALL"
        got_routes.update(dict(database.sql(query).fetchall()))
        ((distinct, all_spans),) = database.sql('SELECT count(DISTINCT "span.session"), count(*) FROM spans').fetchall()
        assert distinct == all_spans
    assert got_services == services
    assert got_routes == routes


def test_pyarrow_counts_spans_per_service_and_per_route(counted):
    blocks, services, routes = counted
    got_services, got_routes = collections.Counter(), collections.Counter()
    for block in blocks:
        read = pyarrow.parquet.read_table
        shapes = {row["shape_id"]: dict(row["attributes"]) for row in read(block / "shapes.parquet").to_pylist()}
        origins = {row["origin_id"]: row["service_name"] for row in read(block / "origins.parquet").to_pylist()}
        spans = read(block / "spans.parquet")
        wanted = {"shape_id", "origin_id", "span.http.route"} & set(spans.column_names)
        for span in spans.select(sorted(wanted)).to_pylist():
            got_services[origins[span["origin_id"]]] += 1
            route = span.get("span.http.route") or shapes[span["shape_id"]].get("http.route")
            if route is not None:
                got_routes[route] += 1
    assert got_services == services
    assert got_routes == routes
