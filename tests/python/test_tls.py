"""All ports with a certificate: as SDKs, Grafana and commands come to them."""

import json
import os
import subprocess

import grpc
import pytest
import requests
import trustme
from conftest import PATIENCE_S, Spoor, binary
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from services import Services


class SecureSpoor(Spoor):
    """Asked by https, by the name in its certificate."""

    def __init__(self, directory, root, *flags):
        super().__init__(directory, *flags)
        self.root = root
        self.session.verify = str(root)
        # Or REQUESTS_CA_BUNDLE would win.
        self.session.trust_env = False

    def is_ready(self) -> bool:
        try:
            return self.session.get(self.tempo("/ready"), timeout=5).status_code == 200
        except requests.ConnectionError:
            return False

    def tempo(self, path: str) -> str:
        return f"https://localhost:{self.ports['tempo']}{path}"

    def jaeger(self, path: str) -> str:
        return f"https://localhost:{self.ports['jaeger-http']}{path}"

    def credentials(self) -> grpc.ChannelCredentials:
        return grpc.ssl_channel_credentials(self.root.read_bytes())


@pytest.fixture(scope="module")
def spoor(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    cert, key, root = (directory / name for name in ("cert.pem", "key.pem", "root.pem"))
    cert.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(str(key))
    authority.cert_pem.write_to_path(str(root))
    flags = ("--listen=localhost", f"--tls-cert-file={cert}", f"--tls-key-file={key}")
    server = SecureSpoor(directory / "data", root, *flags).start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def trace_id(spoor) -> str:
    """A span that an SDK sent."""
    exporter = OTLPSpanExporter(endpoint=f"https://localhost:{spoor.ports['otlp-grpc']}", credentials=spoor.credentials())
    provider = TracerProvider(resource=Resource.create({"service.name": "shop"}))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with provider.get_tracer("test").start_as_current_span("GET /cart") as span:
        sent = format(span.get_span_context().trace_id, "032x")
    provider.shutdown()
    return sent


def test_both_query_ports_answer_over_https(spoor, trace_id):
    assert [span.name for span in spans(spoor.tempo_trace(trace_id))] == ["GET /cart"]
    assert spoor.jaeger_trace(trace_id)["traceID"] == trace_id


def spans(trace):
    return [span for resource in trace.resource_spans for scope in resource.scope_spans for span in scope.spans]


def test_otlp_is_taken_over_https(spoor):
    url = f"https://localhost:{spoor.ports['otlp-http']}/v1/traces"
    answer = spoor.session.post(url, data=b"", headers={"Content-Type": "application/x-protobuf"}, timeout=30)
    assert (answer.status_code, answer.content) == (200, b"")


@pytest.mark.parametrize("port, service", [("tempo", "tempopb.StreamingQuerier"), ("jaeger-grpc", "jaeger.api_v2.QueryService")])
def test_grpc_is_chosen_by_alpn(spoor, port, service):
    services = Services(f"localhost:{spoor.ports[port]}", spoor.credentials())
    assert service in services.names()


def test_a_stream_comes_over_tls_on_the_port_of_https(spoor, trace_id):
    services = Services(f"localhost:{spoor.ports['tempo']}", spoor.credentials())
    answers = services.call("tempopb.StreamingQuerier", "Search", Query='{ name = "GET /cart" }', Limit=5)
    assert [trace.traceID for trace in answers[-1].traces] == [trace_id.lstrip("0")]


def test_who_does_not_trust_the_root_does_not_connect(spoor):
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(spoor.tempo("/ready"), timeout=30)
    with pytest.raises(requests.ConnectionError):
        requests.get(spoor.tempo("/ready").replace("https", "http"), timeout=30)


def test_a_command_asks_over_https(spoor, trace_id):
    command = [str(binary()), "query", "--url", spoor.tempo(""), "--output", "json", '{ name = "GET /cart" }']
    trusting = {**os.environ, "SSL_CERT_FILE": str(spoor.root)}
    done = subprocess.run(command, env=trusting, capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    assert [trace["traceID"] for trace in json.loads(done.stdout)["traces"]] == [trace_id.lstrip("0")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode != 0 and "SSL_CERT_FILE" in done.stderr
