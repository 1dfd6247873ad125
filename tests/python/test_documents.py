"""Commands that the pages tell people to type do what the pages say."""

import json
import re
import subprocess

import pytest
import requests
from conftest import ROOT

PAGES = ["README.md", "docs/grafana.md", "docs/jaeger.md"]
TRACE_ID = "5b8efff798038103d269b633813fc60c"


def run(spoor, command: str) -> str:
    """A command with the ports of this server."""
    otlp = spoor.ports["otlp-http"]
    for said, port in (("4318", otlp), ("3200", spoor.ports["tempo"]), ("16686", spoor.ports["jaeger-http"])):
        command = re.sub(rf"(127\.0\.0\.1|HOST):{said}\b", f"127.0.0.1:{port}", command)
    # A curl that gets an error from the server ends with 0 unless it is told otherwise.
    script = 'curl() { command curl --fail-with-body --silent --show-error "$@"; }\n' + command
    done = subprocess.run(["bash", "-euc", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("page", PAGES)
def test_the_first_span_of_a_page_is_found(spoor, page):
    blocks = re.findall(r"^( *)```sh\n(.*?)^ *```$", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE)
    (block,) = [block for _, block in blocks if "curl -X POST" in block]
    run(spoor, block)
    found = requests.get(spoor.tempo("/api/search"), params={"q": '{ resource.service.name = "hello" }'}, timeout=30).json()
    assert [(one["traceID"], one["rootTraceName"]) for one in found["traces"]] == [(TRACE_ID, "first span")]
    assert requests.get(spoor.jaeger("/api/services"), timeout=30).json()["data"] == ["hello"]


def test_what_to_check_when_nothing_shows_up_answers(spoor):
    text = "\n".join((ROOT / page).read_text() for page in PAGES)
    checks = [check.replace("\\|", "|") for check in re.findall(r"`(curl [^`]+)`", text) if "://" in check]
    assert len(checks) >= 5, checks
    (block,) = [block for block in re.findall(r"```sh\n(.*?)```", (ROOT / "docs/grafana.md").read_text(), re.DOTALL) if "curl" in block]
    run(spoor, block)
    for check in checks:
        assert run(spoor, check).strip(), f"{check}: says nothing"


def test_the_structured_filter_of_the_page_is_one(spoor):
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "docs/jaeger.md").read_text(), re.DOTALL)
    (block,) = [block for block in blocks if "query.filter" in block]
    assert json.loads(run(spoor, block)) == {"summaries": []}


def test_the_dependencies_of_the_tests_are_explained():
    listed = re.findall(r"^\| ([@\w][^ |]*) \|", (ROOT / "docs/dependencies.md").read_text(), re.MULTILINE)
    pinned = [line.split("==")[0] for line in (ROOT / "tests/python/requirements.txt").read_text().splitlines()]
    node = json.loads((ROOT / "tests/node/package.json").read_text())["dependencies"]
    assert sorted(set(listed) - {"crate", "package"}) == sorted([*pinned, *node])
