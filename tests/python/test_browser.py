"""A browser's view: a page of another origin asks both APIs and sends a span; the pages of the Jaeger UI run.

What a page may read is decided by the browser, so only a browser can show it: Chromium without a window.
"""

import functools
import html
import http.server
import json
import os
import re
import shutil
import subprocess
import threading
import time

import pytest
import requests
from conftest import Spoor

PATIENCE_S = 60
TRACE_ID = "5b8efff798038103d269b633813fc60c"


def span(trace_id: str, service: str) -> dict:
    """An export as JSON."""
    now = time.time_ns()
    one = {"traceId": trace_id, "spanId": "eee19b7ec3c1b174", "name": "click", "kind": 2}
    times = {"startTimeUnixNano": str(now), "endTimeUnixNano": str(now + 5_000_000)}
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": service}}]}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": [one | times]}]}]}


# Sends every request, one after the other, and shows what became of each.
ASKING_PAGE = """<!doctype html>
<title>asking</title>
<pre id="out"></pre>
<script type="module">
const asked = %s;
const answers = {};
for (const [name, url, options, header] of asked) {
  try {
    const answer = await fetch(url, options);
    answers[name] = [answer.status, header ? answer.headers.get(header) : await answer.text()];
  } catch (error) {
    answers[name] = ["refused", error.name];
  }
}
document.getElementById("out").textContent = JSON.stringify(answers);
</script>
"""

# As a build of the Jaeger UI: what the server has to say is put in the place of the defaults.
UI_INDEX = """<!doctype html>
<html><head><meta charset="utf-8"><base href="/" data-inject-target="BASE_URL"><title>UI</title>
<script>
function getJaegerUiConfig() {
  const DEFAULT_CONFIG = null;
  const JAEGER_CONFIG = DEFAULT_CONFIG;
  return JAEGER_CONFIG;
}
function getJaegerStorageCapabilities() {
  const DEFAULT_STORAGE_CAPABILITIES = { archiveStorage: false };
  const JAEGER_STORAGE_CAPABILITIES = DEFAULT_STORAGE_CAPABILITIES;
  return JAEGER_STORAGE_CAPABILITIES;
}
function getJaegerVersion() {
  const DEFAULT_VERSION = { gitVersion: "none" };
  const JAEGER_VERSION = DEFAULT_VERSION;
  return JAEGER_VERSION;
}
</script>
<script type="module" src="./static/app.js"></script></head>
<body><pre id="out"></pre></body></html>
"""

UI_SCRIPT = """
const services = await (await fetch("./api/services")).json();
const trace = await (await fetch("./api/traces/%s")).json();
const summaries = await (await fetch("./api/v3/services")).json();
document.getElementById("out").textContent = JSON.stringify({
  path: location.pathname,
  config: getJaegerUiConfig(),
  capabilities: getJaegerStorageCapabilities(),
  version: getJaegerVersion().gitVersion,
  services: services.data,
  services_v3: summaries.services,
  spans: trace.data[0].spans.map((span) => span.operationName),
});
"""


def dump(url: str, profile) -> dict:
    """What stands in `#out` of a page when its scripts have come to rest."""
    browser = os.environ.get("CHROMIUM", "chromium")
    assert shutil.which(browser), "there is no chromium: run `make setup-browser`"
    command = [browser, "--headless", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", f"--user-data-dir={profile}"]
    if os.geteuid() == 0:
        command.append("--no-sandbox")
    # Time in the page stands still while a request is under way, and runs at once when none is.
    command += ["--virtual-time-budget=60000", "--dump-dom", url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    found = re.search(r'<pre id="out">(.+?)</pre>', done.stdout, re.DOTALL)
    assert found, f"{url} shows nothing ({done.returncode}):\n{done.stdout}\n{done.stderr[-3000:]}"
    return json.loads(html.unescape(found[1]))


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def pages(tmp_path):
    """A folder, and the port that serves it."""
    folder = tmp_path / "pages"
    folder.mkdir()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield folder, server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def start(tmp_path):
    started = []

    def start(*flags: str) -> Spoor:
        server = Spoor(tmp_path / "data", *flags).start()
        started.append(server)
        requests.post(server.otlp_http(), json=span(TRACE_ID, "shop"), timeout=30).raise_for_status()
        return server

    yield start
    for server in started:
        server.stop()


def test_a_page_of_another_origin_reads_what_it_may(start, pages, tmp_path):
    folder, port = pages
    # The same page has two origins: by number, which may ask, and by name, which may not.
    allowed, other = f"http://127.0.0.1:{port}", f"http://localhost:{port}"
    spoor = start(f"--cors-allowed-origins={allowed}")
    sent = "6c9f000798038103d269b633813fc60d"
    as_json = {"Content-Type": "application/json"}
    # Headers that are not on every browser's list make it ask first, with OPTIONS.
    custom = {"headers": {"X-Scope-OrgID": "team-a", "Accept": "application/json", "X-Grafana-User": "me"}}
    query = "q=%7B%20name%20%3D%20%22click%22%20%7D"
    asked = [
        ("send", spoor.otlp_http(), {"method": "POST", "headers": as_json, "body": json.dumps(span(sent, "page"))}, None),
        ("tempo", spoor.tempo(f"/api/search?{query}"), {}, None),
        ("tempo, headers", spoor.tempo(f"/api/traces/{sent}"), custom, None),
        ("tempo, missing", spoor.tempo("/api/traces/1234"), custom, None),
        ("tempo, invalid", spoor.tempo("/api/search?q=%7B"), {}, None),
        ("jaeger", spoor.jaeger("/api/services"), {}, None),
        ("jaeger, headers", spoor.jaeger(f"/api/traces/{sent}"), custom, None),
        ("jaeger, missing", spoor.jaeger("/api/traces/1234"), {}, None),
        ("jaeger, v3", spoor.jaeger("/api/v3/services"), custom, None),
    ]
    (folder / "ask.html").write_text(ASKING_PAGE % json.dumps(asked))

    answers = dump(f"{allowed}/ask.html", tmp_path / "profile")
    assert answers["send"][0] == 200
    traces = json.loads(answers["tempo"][1])["traces"]
    assert {trace["traceID"] for trace in traces} == {TRACE_ID, sent}
    assert answers["tempo, headers"][0] == 200 and '"batches"' in answers["tempo, headers"][1]
    assert answers["tempo, missing"][0] == 404
    assert answers["tempo, invalid"][0] == 400 and "line 1" in answers["tempo, invalid"][1]
    assert json.loads(answers["jaeger"][1])["data"] == ["page", "shop"]
    assert json.loads(answers["jaeger, headers"][1])["data"][0]["traceID"] == sent
    assert answers["jaeger, missing"][0] == 404 and "trace not found" in answers["jaeger, missing"][1]
    assert json.loads(answers["jaeger, v3"][1])["services"] == ["page", "shop"]

    refused = dump(f"{other}/ask.html", tmp_path / "profile")
    assert refused == {name: ["refused", "TypeError"] for name, *_ in asked}


def test_without_a_setting_no_other_origin_may_ask(start, pages, tmp_path):
    folder, port = pages
    spoor = start()
    asked = [("tempo", spoor.tempo("/api/search"), {}, None), ("jaeger", spoor.jaeger("/api/services"), {}, None)]
    (folder / "ask.html").write_text(ASKING_PAGE % json.dumps(asked))
    answers = dump(f"http://127.0.0.1:{port}/ask.html", tmp_path / "profile")
    assert answers == {"tempo": ["refused", "TypeError"], "jaeger": ["refused", "TypeError"]}


@pytest.mark.parametrize("base_path", ["", "/jaeger"])
def test_a_build_of_the_jaeger_ui_runs_below_its_base_path(start, tmp_path, base_path):
    folder = tmp_path / "ui"
    (folder / "static").mkdir(parents=True)
    (folder / "index.html").write_text(UI_INDEX)
    (folder / "static" / "app.js").write_text(UI_SCRIPT % TRACE_ID)
    spoor = start(f"--jaeger-ui-dir={folder}", f"--jaeger-base-path={base_path}")
    # Two pages of the UI, neither of them a file: the first page, and one that somebody has kept a link to.
    for path in (f"{base_path}/", f"{base_path}/trace/{TRACE_ID}"):
        shown = dump(spoor.jaeger(path), tmp_path / "profile")
        assert shown["path"] == path
        assert shown["services"] == shown["services_v3"] == ["shop"] and shown["spans"] == ["click"]
        assert shown["config"]["monitor"]["menuEnabled"] is True
        assert shown["capabilities"] == {"archiveStorage": False, "metricsStorage": True}
        assert shown["version"] not in ("", "none")
