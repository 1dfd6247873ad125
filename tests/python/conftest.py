"""The real binary as a child process, and readers of its two query APIs."""

import os
import pathlib
import signal
import socket
import subprocess
import time

import pytest
import requests
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

ROOT = pathlib.Path(__file__).resolve().parents[2]
PORTS = ("tempo", "otlp-grpc", "otlp-http", "jaeger-http", "jaeger-grpc")
PATIENCE_S = 60


def binary() -> pathlib.Path:
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    path = pathlib.Path(os.environ.get("SPOOR_BINARY", target / "release" / "spoor"))
    assert path.exists(), f"{path} is not built: run `cargo build --release` or `make test`"
    return path


def free_ports(count: int) -> list[int]:
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports


class Spoor:
    """One data directory and the process that serves it."""

    def __init__(self, directory: pathlib.Path, *flags: str):
        self.directory = directory
        self.flags = flags
        self.ports = dict(zip(PORTS, free_ports(len(PORTS))))
        self.process = None
        self.session = requests.Session()

    def start(self) -> "Spoor":
        command = [str(binary()), "serve", "--data-dir", str(self.directory), *self.flags]
        for name, port in self.ports.items():
            command += [f"--{name}-port", str(port)]
        self.process = subprocess.Popen(command)
        deadline = time.monotonic() + PATIENCE_S
        while not self.is_ready():
            assert self.process.poll() is None, f"the process ended with {self.process.returncode}"
            assert time.monotonic() < deadline, "not ready in time"
            time.sleep(0.01)
        return self

    def is_ready(self) -> bool:
        try:
            return requests.get(self.tempo("/ready"), timeout=5).status_code == 200
        except requests.ConnectionError:
            return False

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(how)
        code = self.process.wait(PATIENCE_S)
        if how == signal.SIGTERM:
            assert code == 0, f"stopped with {code}"

    def restart(self, how: signal.Signals = signal.SIGTERM) -> None:
        self.stop(how)
        self.start()

    def tempo(self, path: str) -> str:
        return f"http://127.0.0.1:{self.ports['tempo']}{path}"

    def jaeger(self, path: str) -> str:
        return f"http://127.0.0.1:{self.ports['jaeger-http']}{path}"

    def otlp_grpc(self) -> str:
        return f"127.0.0.1:{self.ports['otlp-grpc']}"

    def otlp_http(self) -> str:
        return f"http://127.0.0.1:{self.ports['otlp-http']}/v1/traces"

    def tempo_trace(self, trace_id: str) -> TracesData:
        """The whole trace by Tempo's API; fails when there is none."""
        answer = self.session.get(self.tempo(f"/api/traces/{trace_id}"), headers={"Accept": "application/protobuf"})
        assert answer.status_code == 200, f"trace {trace_id}: {answer.status_code} {answer.text}"
        return TracesData.FromString(answer.content)

    def jaeger_trace(self, trace_id: str) -> dict:
        """The whole trace by Jaeger's API, unadjusted; fails when there is none."""
        answer = self.session.get(self.jaeger(f"/api/traces/{trace_id}?raw=true"))
        assert answer.status_code == 200, f"trace {trace_id}: {answer.status_code} {answer.text}"
        (trace,) = answer.json()["data"]
        return trace

    def blocks(self) -> list[pathlib.Path]:
        return sorted((self.directory / "blocks" / "single-tenant").iterdir())


@pytest.fixture
def spoor(tmp_path):
    """A running process on an empty directory. Spans of any age are kept."""
    server = Spoor(tmp_path / "data", "--retention", "876000h").start()
    yield server
    if server.process.poll() is None:
        server.process.kill()
        server.process.wait()


def spans_of(data):
    """Every span with its service name: (service, span) pairs."""
    for resource_spans in data.resource_spans:
        attributes = {one.key: one.value.string_value for one in resource_spans.resource.attributes}
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                yield attributes.get("service.name", ""), span
