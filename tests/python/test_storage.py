"""Blocks on object storage: the real binary and the block suite against a server that speaks S3."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import uuid

import boto3
import pytest
import requests
from conftest import ROOT, Spoor, spans_of, start_server
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
PATIENCE_S = 60


class Bucket:
    """A bucket on a server of its own."""

    def __init__(self, endpoint: str):
        self.endpoint = endpoint
        self.client = boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        )
        self.client.create_bucket(Bucket="traces")

    def keys(self) -> list[str]:
        listed = self.client.list_objects_v2(Bucket="traces")
        return [entry["Key"] for entry in listed.get("Contents", [])]

    def flags(self) -> list[str]:
        return [
            "--storage=s3://traces/spoor",
            f"--storage-endpoint={self.endpoint}",
            "--storage-region=us-east-1",
            "--storage-allow-http=true",
            "--storage-poll-interval=100ms",
            "--storage-timeout=5s",
            "--retention=876000h",
        ]


@pytest.fixture
def bucket(monkeypatch):
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    moto = str(pathlib.Path(sys.executable).with_name("moto_server"))
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    # The bare endpoint lists buckets.
    server, port = start_server(lambda port: [moto, "-p", str(port)], lambda port: f"http://127.0.0.1:{port}", **quiet)
    yield Bucket(f"http://127.0.0.1:{port}")
    server.kill()
    server.wait()


@pytest.fixture
def start(bucket):
    """Starts processes that are ended with the test."""
    started = []

    def start(directory: pathlib.Path, *flags: str) -> Spoor:
        server = Spoor(directory, *bucket.flags(), *flags)
        started.append(server)
        return server.start()

    yield start
    for server in started:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait()


def send(server: Spoor, number: int, span_count: int = 20) -> str:
    """One trace; returns its id."""
    trace_id = uuid.uuid4().bytes
    now = time.time_ns()
    request = ExportTraceServiceRequest()
    spans = request.resource_spans.add().scope_spans.add().spans
    for index in range(span_count):
        span = spans.add(trace_id=trace_id, span_id=(index + 1).to_bytes(8), name=f"work {number}")
        span.start_time_unix_nano, span.end_time_unix_nano = now + index, now + index + 1000
    headers = {"Content-Type": "application/x-protobuf"}
    answer = requests.post(server.otlp_http(), data=request.SerializeToString(), headers=headers, timeout=30)
    assert answer.status_code == 200, answer.text
    return trace_id.hex()


def check(server: Spoor, ids: list[str], span_count: int = 20) -> None:
    for trace_id in ids:
        found = [span.span_id for _, span in spans_of(server.tempo_trace(trace_id))]
        assert sorted(found) == [(index + 1).to_bytes(8) for index in range(span_count)]


def eventually(what: str, ask) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not ask():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.02)


def has(server: Spoor, trace_id: str) -> bool:
    return requests.get(server.tempo(f"/api/traces/{trace_id}"), timeout=30).status_code == 200


def test_the_block_suite_passes_on_s3(bucket):
    environment = os.environ | {
        "SPOOR_TEST_STORAGE": "s3://traces/suite",
        "SPOOR_TEST_STORAGE_ENDPOINT": bucket.endpoint,
    }
    command = ["cargo", "test", "--release", "--package", "spoor-compactor", "--test", "objects", "environment"]
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    # What says that a block was removed stays for the sweeper.
    assert [key for key in bucket.keys() if not key.endswith(("@lease.json", "/removed"))] == []


def test_blocks_live_in_the_bucket_and_outlive_process_and_disk(bucket, start, tmp_path):
    server = start(tmp_path / "data")
    ids = [send(server, number) for number in range(5)]
    check(server, ids)
    server.stop()
    names = {key.rsplit("/", 1)[1] for key in bucket.keys()}
    assert {"meta.json", "index.bin", "spans.parquet", "shapes.parquet", "origins.parquet"} <= names
    assert all(key.startswith("spoor/") for key in bucket.keys())

    server.start()
    check(server, ids)
    ids.append(send(server, 6))
    server.restart(signal.SIGKILL)
    check(server, ids)
    server.stop()

    # The disk is lost; the bucket is not.
    shutil.rmtree(tmp_path / "data")
    server.start()
    check(server, ids)


def test_two_processes_see_each_others_blocks(bucket, start, tmp_path):
    one, two = start(tmp_path / "one"), start(tmp_path / "two")
    first = send(one, 1)
    one.restart()
    eventually("the other process sees the block", lambda: has(two, first))
    second = send(two, 2)
    two.restart()
    eventually("and the other way round", lambda: has(one, second))
    check(one, [first, second])
    check(two, [first, second])
    lease = json.loads(bucket.client.get_object(Bucket="traces", Key="spoor/@lease.json")["Body"].read())
    assert lease["owner"] and int(lease["expires_unix_nano"]) > 0


def test_ingest_goes_on_while_the_bucket_is_away_and_nothing_is_lost(bucket, start, tmp_path):
    server = start(tmp_path / "data", "--head-max-age=100ms")
    send(server, 1)
    eventually("a block in the bucket", lambda: any(key.endswith("meta.json") for key in bucket.keys()))
    requests.post(f"{bucket.endpoint}/moto-api/reset", timeout=30)
    # No bucket: uploads fail, spans stay in the head and in the log.
    late = [send(server, number) for number in range(2, 5)]
    check(server, late)
    bucket.client.create_bucket(Bucket="traces")
    eventually("the head is written", lambda: any(key.endswith("meta.json") for key in bucket.keys()))
    check(server, late)


def test_a_trace_deleted_anywhere_is_gone_everywhere(bucket, start, tmp_path):
    # The first has the lease; the second, which has not, is asked to delete.
    flags = ["--trace-deletion=true", "--compaction-interval=100ms"]
    one, two = start(tmp_path / "one", *flags), start(tmp_path / "two", *flags)
    kept, deleted = send(one, 1), send(one, 2)
    one.restart()
    eventually("the other process sees the block", lambda: has(two, deleted))
    answer = requests.delete(two.tempo(f"/api/v2/traces/{deleted}"), timeout=30)
    assert answer.status_code == 200, answer.text
    assert not has(two, deleted)
    eventually("the deletion reaches the other process", lambda: not has(one, deleted))

    def deleted_in(server):
        rows = requests.get(server.tempo("/status/blocks"), headers={"Accept": "application/json"}, timeout=30).json()
        return [row["deletedTraces"] for row in rows["blocks"]]

    eventually("who has the lease rewrites the block", lambda: deleted_in(one) == [0] or deleted_in(two) == [0])
    for server in (one, two):
        check(server, [kept])
        assert not has(server, deleted)


def test_blocks_of_the_data_directory_move_to_the_bucket(bucket, start, tmp_path):
    local = Spoor(tmp_path / "data", "--retention=876000h").start()
    ids = [send(local, 1)]
    local.restart()
    ids.append(send(local, 2))
    local.stop()
    assert len(local.blocks()) == 2
    server = start(tmp_path / "data")
    check(server, ids)
    eventually("the blocks are in the bucket", lambda: sum(key.endswith("meta.json") for key in bucket.keys()) == 2)
    eventually("and in the directory no more", lambda: local.blocks() == [])
    check(server, ids)
    check(start(tmp_path / "other"), ids)
    server.restart()
    check(server, ids)
