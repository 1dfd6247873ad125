"""A real Prometheus with the shipped files: scrapes the real binary, and evaluates every alert and every panel."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import time

import promql_parser
import pytest
import requests
from conftest import PATIENCE_S, ROOT, Spoor, start_server
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from test_deploy import DASHBOARDS, DEPLOY, alerts, expressions, parts, read_metrics
from test_sdk import exporters, record

UNPACKED = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "prometheus" / "usr" / "bin"
EXPORTS = 3


def tool(name: str) -> str:
    """The path of a program of Prometheus's."""
    found = shutil.which(name) or shutil.which(name, path=str(UNPACKED))
    if not found and not shutil.which("apt-get"):
        pytest.skip(f"there is no {name}, and no apt-get to get it with")
    assert found, f"there is no {name}: run `make setup-clients`"
    return found


def check(*arguments: str, said: str = "") -> None:
    done = subprocess.run([tool("promtool"), "check", *arguments], input=said, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


class Prometheus:
    def __init__(self, port: int):
        self.url = f"http://127.0.0.1:{port}"

    def get(self, path: str, **params):
        """What the API answers; fails on errors and on warnings."""
        answer = requests.get(f"{self.url}/api/v1/{path}", params=params, timeout=PATIENCE_S).json()
        assert answer["status"] == "success" and not answer.get("warnings"), f"{path} {params}: {answer}"
        return answer["data"]

    def value(self, expression: str) -> float | None:
        result = self.get("query", query=expression)["result"]
        return float(result[0]["value"][1]) if result else None

    def wait_for(self, expression: str, expected: float) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while (found := self.value(expression)) != expected:
            assert time.monotonic() < deadline, f"{expression} is {found}, not {expected}"
            time.sleep(0.1)


@pytest.fixture(scope="module")
def spoor(tmp_path_factory):
    server = Spoor(tmp_path_factory.mktemp("scraped") / "data", "--retention=876000h").start()
    for _ in range(EXPORTS):
        trace_id = record(exporters(server)["http"]())
    for path in ("/api/search?q=%7B%7D", f"/api/traces/{trace_id}", "/api/search?q=%7B"):
        requests.get(server.tempo(path), timeout=30)
    requests.get(server.jaeger("/api/services"), timeout=30)
    yield server
    server.stop()


@contextlib.contextmanager
def watching(spoor, folder):
    """A Prometheus with the shipped configuration, but that it looks every second, and at this Spoor."""
    shipped = (DEPLOY / "prometheus" / "prometheus.yaml").read_text()
    config = shipped.replace("spoor:3200", f"127.0.0.1:{spoor.ports['tempo']}").replace("_interval: 15s", "_interval: 1s")
    # There is no Collector: its place is Spoor's own port of OTLP, where nobody finds metrics.
    config = config.replace("collector:8889", f"127.0.0.1:{spoor.ports['otlp-http']}")
    (folder / "prometheus.yaml").write_text(config)
    shutil.copy(DEPLOY / "prometheus" / "alerts.yaml", folder)

    def command(port):
        flags = (f"--config.file={folder / 'prometheus.yaml'}", f"--storage.tsdb.path={folder / 'data'}")
        return [tool("prometheus"), *flags, f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"]

    process, port = start_server(command, lambda port: f"http://127.0.0.1:{port}/-/ready")
    running = Prometheus(port)
    running.wait_for('min_over_time(up{job="spoor"}[3s])', 1)
    yield running
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE_S) == 0


@pytest.fixture(scope="module")
def prometheus(spoor, tmp_path_factory):
    with watching(spoor, tmp_path_factory.mktemp("prometheus")) as running:
        yield running


def export(number: int) -> bytes:
    """A megabyte in one span."""
    request = ExportTraceServiceRequest()
    span = request.resource_spans.add().scope_spans.add().spans.add(trace_id=number.to_bytes(16, "big"), span_id=b"\x01" * 8)
    span.start_time_unix_nano = span.end_time_unix_nano = time.time_ns()
    span.attributes.add(key="text").value.string_value = os.urandom(1 << 19).hex()
    return request.SerializeToString()


def test_counters_whose_rise_is_an_alarm_are_there_before_the_first_event(tmp_path):
    server = Spoor(tmp_path / "data", f"--storage=file://{tmp_path / 'storage'}").start()
    found = read_metrics(server)
    server.stop()
    rises = set()
    for rule in alerts():
        for node in parts(promql_parser.parse(rule["expr"])):
            if isinstance(node, promql_parser.Call) and node.func.name == "increase":
                rises |= {child.name for child in parts(node) if isinstance(child, promql_parser.VectorSelector)}
    assert len(rises) > 5, "increases are not recognized"
    assert rises - found.keys() == set()


def test_the_alarm_for_refused_exports_is_on_as_long_as_exports_are_refused(tmp_path, monkeypatch):
    """Scenario: object storage is away, and the memory for heads is full. Guarantee: the alarm is raised, says why, and stays."""
    away = ("--storage=s3://away", "--storage-endpoint=http://127.0.0.1:9", "--storage-allow-http", "--storage-region=x")
    flags = ("--storage-timeout=1s", "--head-memory-limit=16MiB", "--head-cut-bytes=1MiB", "--head-max-age=100ms")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    server = Spoor(tmp_path / "data", *away, *flags).start()
    headers, deadline, number = {"Content-Type": "application/x-protobuf"}, time.monotonic() + PATIENCE_S, 0
    while requests.post(server.otlp_http(), data=export(number), headers=headers, timeout=30).status_code != 503:
        assert time.monotonic() < deadline, "exports are taken, however many"
        number += 1
    with watching(server, tmp_path) as prometheus:
        deadline = time.monotonic() + PATIENCE_S
        while not (firing := [one for one in prometheus.get("alerts")["alerts"] if one["labels"]["alertname"] == "SpoorRefusesExports"]):
            assert time.monotonic() < deadline, "no alarm"
            time.sleep(0.1)
        (alarm,) = firing
        assert (alarm["state"], alarm["labels"]["reason"], alarm["labels"]["severity"]) == ("firing", "heads", "critical")
        assert "heads" in alarm["annotations"]["summary"]
        # No event is needed for it to stay.
        (rule,) = [rule for rule in alerts() if rule["alert"] == "SpoorRefusesExports"]
        refusing = 'spoor_ingester_refusing{reason="heads"}[1m]'
        prometheus.wait_for(f"count_over_time({refusing}) >= bool 3", 1)
        assert (prometheus.value(f"min_over_time({refusing})"), prometheus.value(rule["expr"])) == (1, 1)
    server.stop(signal.SIGKILL)


def test_the_shipped_files_pass_prometheuss_own_check():
    check("config", str(DEPLOY / "prometheus" / "prometheus.yaml"))
    check("rules", str(DEPLOY / "prometheus" / "alerts.yaml"))


def test_the_exposition_passes_prometheuss_own_check(spoor):
    check("metrics", said=requests.get(spoor.tempo("/metrics"), timeout=30).text)


def test_scrapes_succeed_and_values_are_those_of_what_happened(prometheus):
    (target,) = [one for one in prometheus.get("targets")["activeTargets"] if one["labels"]["job"] == "spoor"]
    assert (target["health"], target["lastError"]) == ("up", "")
    prometheus.wait_for('up{job="spoor"}', 1)
    # Two spans in each export.
    prometheus.wait_for("sum(tempo_distributor_spans_received_total)", 2 * EXPORTS)
    searches = 'tempo_request_duration_seconds_count{route="api_search"}'
    prometheus.wait_for(f'sum({searches[:-1]}, status_code="200"}})', 1)
    prometheus.wait_for(f'sum({searches[:-1]}, status_code="400"}})', 1)
    prometheus.wait_for('sum(tempo_request_duration_seconds_bucket{route="api_search", le="+Inf"})', 2)


def test_every_alert_is_evaluated_and_none_fires(prometheus):
    deadline = time.monotonic() + PATIENCE_S
    while True:
        rules = [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]
        if all(rule["health"] != "unknown" for rule in rules):
            break
        assert time.monotonic() < deadline, "rules are not evaluated"
        time.sleep(0.1)
    assert rules and [(rule["name"], rule.get("lastError")) for rule in rules if rule["health"] != "ok"] == []
    assert [rule["name"] for rule in rules if rule["state"] != "inactive"] == []


def test_every_expression_is_evaluated_as_grafana_asks_for_it(prometheus):
    now = time.time()
    for where, text in expressions():
        expression = text.replace('"$instance"', '".+"')
        assert "$" not in expression.replace("$)", ""), where
        data = prometheus.get("query_range", query=expression, start=now - 60, end=now, step=15)
        assert data["resultType"] == "matrix", where
        prometheus.get("query", query=expression, time=now)


def test_variables_of_dashboards_have_values(prometheus):
    for path in DASHBOARDS:
        for variable in json.loads(path.read_text())["templating"]["list"]:
            if definition := variable.get("definition", ""):
                metric, label = definition.removeprefix("label_values(").removesuffix(")").rsplit(", ", 1)
                assert prometheus.get(f"label/{label}/values", **{"match[]": metric}), f"{path.name}: {definition}"
