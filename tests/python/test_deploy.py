"""What is shipped for Grafana and Prometheus asks for metrics and labels that the real binary has, and explains itself."""

import json
import re
import time

import promql_parser
import pytest
import requests
import yaml
from conftest import ROOT, Spoor
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

DEPLOY = ROOT / "deploy"
DASHBOARDS = sorted((DEPLOY / "grafana" / "dashboards").glob("*.json"))
# Prometheus makes these itself.
OF_PROMETHEUS = {"up": {"job", "instance"}}
LABELS_OF_SCRAPES = {"job", "instance"}
# Families whose series begin with the first trouble of a kind: their labels cannot be seen on a healthy server.
# That they are registered under these names is checked with the sources (tests/tidy).
ONLY_IN_TROUBLE = {
    "spoor_querier_limit_hits_total": {"key"},
    "spoor_api_answers_cut_total": {"limit"},
}


def alerts():
    groups = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def panels(dashboard):
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def expressions():
    """Every PromQL text, with where it stands."""
    for rule in alerts():
        yield rule["alert"], rule["expr"]
    for path in DASHBOARDS:
        dashboard = json.loads(path.read_text())
        for variable in dashboard["templating"]["list"]:
            if matched := re.fullmatch(r"label_values\((.+), (\w+)\)", variable.get("definition", "")):
                yield f"{path.name}, variable {variable['name']}", f"sum by ({matched[2]}) ({matched[1]})"
        for panel in panels(dashboard):
            for target in panel["targets"]:
                yield f"{path.name}, {panel['title']}", target["expr"].replace("$__rate_interval", "5m")


def parts(node):
    """An expression's nodes, itself first."""
    yield node
    for name in ("expr", "lhs", "rhs", "vector_selector"):
        if (child := getattr(node, name, None)) is not None:
            yield from parts(child)
    for child in getattr(node, "args", None) or []:
        yield from parts(child)


def asked(text):
    """Names of metrics, and of all labels that are matched or grouped by."""
    names, labels = set(), set()
    for node in parts(promql_parser.parse(text)):
        if isinstance(node, promql_parser.VectorSelector):
            names.add(node.name)
            labels.update(matcher.name for matcher in node.matchers.matchers)
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
            labels.update(node.modifier.labels)
    assert names, text
    return names, labels


@pytest.fixture(scope="module")
def exposed(tmp_path_factory):
    """Names of the metrics of a server that did all that it can do, each with its labels."""
    folder = tmp_path_factory.mktemp("deploy")
    flags = ("--retention=876000h", "--head-max-age=200ms", "--compaction-interval=100ms", "--compaction-window=1h")
    server = Spoor(folder / "data", *flags, f"--storage=file://{folder / 'storage'}").start()
    # One acknowledged, one refused, and a body that is none.
    start = time.time_ns() - 10 * 3600 * 10**9
    headers = {"Content-Type": "application/x-protobuf"}

    def send(number):
        request = ExportTraceServiceRequest()
        spans = request.resource_spans.add().scope_spans.add().spans
        for span_id in (b"\x01" * 8, b""):
            span = spans.add(trace_id=bytes([number] * 16), span_id=span_id, name="work")
            span.start_time_unix_nano, span.end_time_unix_nano = start, start + 1000
        requests.post(server.otlp_http(), data=request.SerializeToString(), headers=headers, timeout=30).raise_for_status()

    assert requests.post(server.otlp_http(), data=b"\xff\xff", headers=headers, timeout=30).status_code == 400
    for path in ("/api/search?q=%7B%7D", "/api/search?q=%7B", "/api/traces/01", "/api/search/tags"):
        requests.get(server.tempo(path), timeout=30)
    too_long = {"q": "{} | rate()", "start": 1, "end": 10**9}
    assert requests.get(server.tempo("/api/metrics/query_range"), params=too_long, timeout=30).status_code == 400
    deadline, number, found = time.monotonic() + 60, 0, {}
    while "spoor_compactor_spans_written_total" not in found:
        assert time.monotonic() < deadline, "nothing is merged"
        number += 1
        send(number % 255 + 1)
        found = read_metrics(server)
    server.stop()
    return found


def read_metrics(server):
    found = {}
    for line in requests.get(server.tempo("/metrics"), timeout=30).text.splitlines():
        if matched := re.match(r"([a-z_]+)(?:\{(.*)\})? ", line):
            labels = re.findall(r'(\w+)="', matched[2] or "")
            found.setdefault(matched[1], set()).update(labels)
    return found


def test_every_expression_asks_for_metrics_and_labels_that_exist(exposed):
    known = exposed | OF_PROMETHEUS | ONLY_IN_TROUBLE
    problems = []
    for where, text in expressions():
        names, labels = asked(text)
        problems += [f"{where}: no metric {name}" for name in sorted(names - set(known))]
        has = LABELS_OF_SCRAPES.union(*(known.get(name, set()) for name in names))
        problems += [f"{where}: no label {label} on {sorted(names)}" for label in sorted(labels - has)]
    assert not problems, "\n".join(problems)


def test_counters_are_asked_for_their_growth():
    problems = []
    for where, text in expressions():
        grown = {
            name
            for node in parts(promql_parser.parse(text))
            if isinstance(node, promql_parser.Call) and node.func.name in ("rate", "increase")
            for name in asked(str(node))[0]
        }
        counters = {name for name in asked(text)[0] if name.endswith(("_total", "_bucket"))}
        problems += [f"{where}: {name}" for name in counters - grown if name != "spoor_ingester_wal_records_set_aside_total"]
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.name)
def test_every_panel_has_a_title_a_unit_and_a_description(path):
    dashboard = json.loads(path.read_text())
    variables = {variable["name"] for variable in dashboard["templating"]["list"]}
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids)) and dashboard["uid"] and dashboard["title"]
    for panel in panels(dashboard):
        place = f"panel {panel['id']}"
        assert panel["title"] and panel["description"].endswith("."), place
        assert panel["fieldConfig"]["defaults"]["unit"], f"{place}, {panel['title']}: no unit"
        assert panel["targets"], f"{place}, {panel['title']}: asks nothing"
        for asker in (panel, *panel["targets"]):
            assert asker["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, place
        for target in panel["targets"]:
            used = set(re.findall(r"\$(\w+)", target["expr"])) - {"__rate_interval"}
            assert used <= variables, f"{place}: unknown variables {used - variables}"


def test_panels_do_not_overlap():
    for path in DASHBOARDS:
        taken = set()
        for panel in json.loads(path.read_text())["panels"]:
            at = panel["gridPos"]
            cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
            assert not cells & taken and at["x"] + at["w"] <= 24, f"{path.name}: {panel['title']}"
            taken |= cells


def test_every_alert_is_explained_and_every_explanation_has_its_alert():
    names = [rule["alert"] for rule in alerts()]
    explained = re.findall(r"^### (Spoor\w+)$", (ROOT / "docs" / "operations.md").read_text(), re.MULTILINE)
    assert sorted(names) == sorted(explained)
    for rule in alerts():
        assert rule["labels"]["severity"] in ("critical", "warning") and rule["annotations"]["summary"], rule


def test_data_sources_point_at_each_other_and_at_what_the_compose_file_starts():
    provisioned = DEPLOY / "grafana" / "provisioning"
    sources = {one["uid"]: one for one in yaml.safe_load((provisioned / "datasources" / "spoor.yaml").read_text())["datasources"]}
    assert {one["type"] for one in sources.values()} == {"tempo", "jaeger", "prometheus"}
    # `logs` is for whoever has logs; docs/grafana.md says so.
    linked = re.findall(r"'datasourceUid': '([\w-]+)'", str(list(sources.values())))
    assert set(linked) == {"prometheus", "spoor-tempo", "logs"} and "`logs`" in (ROOT / "docs" / "grafana.md").read_text()
    compose = yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text())["services"]
    for one in sources.values():
        host, port = re.fullmatch(r"http://(\w+):(\d+)", one["url"]).groups()
        assert host in compose and port in {"3200", "16686", "9090"}
    mounts = dict(mount.split(":")[:2] for mount in compose["grafana"]["volumes"])
    (provider,) = yaml.safe_load((provisioned / "dashboards" / "spoor.yaml").read_text())["providers"]
    assert mounts["../grafana/dashboards"] == provider["options"]["path"] and DASHBOARDS
    assert mounts["../grafana/provisioning"] == "/etc/grafana/provisioning"


def test_the_collector_counts_what_the_service_graph_asks_for():
    collector = yaml.safe_load((DEPLOY / "compose" / "collector.yaml").read_text())
    pipelines = collector["service"]["pipelines"]
    assert {"servicegraph", "spanmetrics"} <= set(pipelines["traces"]["exporters"])
    assert set(pipelines["metrics"]["receivers"]) == {"servicegraph", "spanmetrics"} <= set(collector["connectors"])
    for pipeline in pipelines.values():
        for kind, names in pipeline.items():
            known = set(collector.get(kind, {})) | set(collector["connectors"])
            assert set(names) <= known, f"{kind}: {names}"
    prometheus = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yaml").read_text())
    jobs = {job["job_name"]: job for job in prometheus["scrape_configs"]}
    port = collector["exporters"]["prometheus"]["endpoint"].rsplit(":", 1)[1]
    assert jobs["collector"]["static_configs"] == [{"targets": [f"collector:{port}"]}]
    # What the Collector calls it, as Prometheus sees it, becomes what Grafana asks for.
    assert collector["connectors"]["spanmetrics"]["namespace"] == "traces.spanmetrics"
    rename = jobs["collector"]["metric_relabel_configs"][0]
    for ending in ("bucket", "count", "sum"):
        matched = re.fullmatch(rename["regex"], f"traces_spanmetrics_duration_seconds_{ending}")
        assert rename["replacement"].replace("$1", matched[1]) == f"traces_spanmetrics_latency_{ending}"
