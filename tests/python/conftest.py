"""The real binary as a child process, and readers of its two query APIs."""

import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
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


def start_server(command_on, url_on, **how) -> tuple[subprocess.Popen, int]:
    """Starts a server that cannot choose a port itself, and waits until `url_on(port)` answers 200.

    Between looking for a free port and taking it another process may take it; then the server ends, and
    another port is tried.
    """
    deadline = time.monotonic() + PATIENCE_S
    while True:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        process = subprocess.Popen(command_on(port), **how)
        while process.poll() is None:
            assert time.monotonic() < deadline, f"{process.args[0]} is not up in time"
            try:
                if requests.get(url_on(port), timeout=PATIENCE_S).ok and process.poll() is None:
                    return process, port
            except requests.ConnectionError:
                pass
            time.sleep(0.01)
        assert time.monotonic() < deadline, f"{process.args[0]} ended with {process.returncode}"


class Spoor:
    """One data directory and the process that serves it: on ports that are free at the first start, then on the same."""

    def __init__(self, directory: pathlib.Path, *flags: str):
        self.directory = directory
        self.flags = flags
        self.ports = dict.fromkeys(PORTS, 0)
        self.process = None
        self.log = None
        self.session = requests.Session()

    def start(self) -> "Spoor":
        deadline = time.monotonic() + PATIENCE_S
        self.launch()
        while not self.is_serving():
            if self.process.poll() is not None:
                # Another process may hold a port for a moment that was ours before a restart.
                assert "cannot listen" in self.said(), f"the process ended with {self.process.returncode}:\n{self.said()}"
                self.launch()
            assert time.monotonic() < deadline, f"not ready in time:\n{self.said()}"
            time.sleep(0.01)
        return self

    def launch(self) -> None:
        command = [str(binary()), "serve", "--data-dir", str(self.directory), *self.flags]
        for name, port in self.ports.items():
            command += [f"--{name}-port", str(port)]
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(command, stderr=self.log)

    def is_serving(self) -> bool:
        """Whether it is ready; learns from its first words where."""
        said = dict(re.findall(r"(OTLP gRPC|OTLP HTTP|Tempo API|Jaeger API|Jaeger gRPC) +\S+:(\d+)(?:/\S*)?\s", self.said()))
        if len(said) < len(PORTS):
            return False
        names = ("Tempo API", "OTLP gRPC", "OTLP HTTP", "Jaeger API", "Jaeger gRPC")
        self.ports = {port: int(said[name]) for port, name in zip(PORTS, names)}
        return self.is_ready()

    def said(self) -> str:
        """The log of the last start."""
        # By another descriptor: the process writes at the position of this one.
        return pathlib.Path(f"/proc/self/fd/{self.log.fileno()}").read_text(errors="replace")

    def is_ready(self) -> bool:
        try:
            return requests.get(self.tempo("/ready"), timeout=5).status_code == 200
        except requests.ConnectionError:
            return False

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(how)
        code = self.process.wait(PATIENCE_S)
        # Shown with a test that fails.
        print(self.said(), file=sys.stderr)
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
        server.stop(signal.SIGKILL)


def spans_of(data):
    """Every span with its service name: (service, span) pairs."""
    for resource_spans in data.resource_spans:
        attributes = {one.key: one.value.string_value for one in resource_spans.resource.attributes}
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                yield attributes.get("service.name", ""), span
