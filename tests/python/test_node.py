"""The real OpenTelemetry SDK of Node with its own exporters (tests/node), as an application would use it."""

import os
import pathlib
import shutil
import subprocess

import pytest
from conftest import ROOT, spans_of
from test_sdk import check

MODULES = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "node" / "node_modules"


def record(form: str, compression: str, address: str) -> str:
    """The id of the trace that was recorded and sent."""
    node = shutil.which("node")
    assert node and MODULES.is_dir(), f"{MODULES} or node is missing: run `make test`, or `make setup-clients` before"
    command = [node, str(ROOT / "tests" / "node" / "record.js"), form, compression, address]
    done = subprocess.run(command, env={**os.environ, "NODE_PATH": str(MODULES)}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize("form", ["grpc", "json", "protobuf"])
def test_what_node_records_is_found_at_once_and_after_a_restart(spoor, form, compression):
    address = f"http://{spoor.otlp_grpc()}" if form == "grpc" else spoor.otlp_http()
    trace_id = record(form, compression, address)
    check(spoor, trace_id)
    spoor.restart()
    check(spoor, trace_id)
    names = {span.name: span for _, span in spans_of(spoor.tempo_trace(trace_id))}
    start, end = (names["charge"].start_time_unix_nano, names["charge"].end_time_unix_nano)
    assert names["POST /checkout"].start_time_unix_nano <= start <= end
