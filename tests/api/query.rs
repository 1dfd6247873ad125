//! `spoor query` in a terminal.

use std::process::{Command, Output};

use spoor_testkit::build::{self, CLIENT, SERVER, SpanSpec, span, span_id, trace};

use super::{Spoor, a_minute_ago, start};

/// One trace: a request that fails, with a call below it.
fn shop() -> Vec<SpanSpec> {
    let at = a_minute_ago();
    vec![
        span("web", "POST /pay", trace(0xa1), span_id(1), at).kind(SERVER).lasting_ms(900).status(2, "declined"),
        span("db", "SELECT", trace(0xa1), span_id(2), at).parent(span_id(1)).kind(CLIENT).lasting_ms(40).int("rows", 3),
    ]
}

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_spoor")).arg("query").args(arguments).output().unwrap()
}

/// What it prints; it must succeed.
fn printed(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What it says on stderr when it fails.
fn refused(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(2), &b""[..]), "{arguments:?}");
    String::from_utf8(output.stderr).unwrap()
}

fn url(spoor: &Spoor) -> String {
    format!("http://{}", spoor.server.tempo())
}

fn check_answers(source: &[&str]) {
    let ask = |arguments: &[&str]| printed(&[source, arguments].concat());
    let id = trace(0xa1).to_string();
    let table = ask(&["{ status = error }"]);
    assert!(table.contains(&id) && table.contains("900ms") && table.contains("POST /pay"), "{table}");
    let with_spans = ask(&["{ span.rows > 2 }", "--spss", "5", "--since", "1h", "--limit", "1"]);
    assert!(with_spans.contains("0202020202020202  +0s  40ms    rows=3"), "{with_spans}");
    assert_eq!(ask(&["{ name = \"none\" }"]), "no traces\n");
    let tree = ask(&["{ kind = client }", "--output", "tree"]);
    assert!(tree.contains("    web: POST /pay  900ms  server  ERROR declined\n"), "{tree}");
    assert!(tree.contains("  * `- db: SELECT  40ms  client\n"), "{tree}");
    assert!(ask(&[&id]).contains("1 failed"), "a bare id prints the trace");
    let json: serde_json::Value = serde_json::from_str(&ask(&["{ }", "--output", "json"])).unwrap();
    assert_eq!(json["traces"][0]["traceID"], id);
    let series = ask(&["{ } | count_over_time() by (resource.service.name)", "--since", "10m", "--step", "5m"]);
    assert!(series.contains("{resource.service.name=\"db\"}") && series.contains("OVER TIME"), "{series}");
    let value = ask(&["{ } | count_over_time()", "--since", "10m", "--instant"]);
    assert!(value.contains("{__name__=\"count_over_time\"}  2"), "{value}");
    let plan = ask(&["{ span.rows > 2 }", "--explain"]);
    assert!(plan.contains("spans") && plan.contains("bytes"), "{plan}");
}

#[test]
fn a_terminal_asks_a_server_and_a_directory_at_rest() {
    let mut spoor = start(&[]);
    spoor.ingest(&build::body(shop()));
    check_answers(&["--url", &url(&spoor)]);
    let directory = spoor.directory().to_owned();
    let busy = refused(&["--data-dir", &directory, "{ }"]);
    assert!(busy.contains(&directory), "{busy}");
    spoor.server.stop();
    check_answers(&["--data-dir", &directory]);
}

#[test]
fn a_terminal_names_its_tenant() {
    let spoor = start(&["--multitenancy"]);
    assert_eq!(refused(&["--url", &url(&spoor), "{ }"]), "spoor: no org id\n");
    assert_eq!(printed(&["--url", &url(&spoor), "--tenant", "red", "{ }"]), "no traces\n");
}

#[test]
fn mistakes_stand_under_their_place_and_nothing_is_sent() {
    let shown = refused(&["--url", "http://127.0.0.1:1", "{ span.a = }"]);
    assert!(shown.starts_with("spoor: invalid TraceQL query: parse error at line 1, col 12: "), "{shown}");
    assert!(shown.ends_with("\n  { span.a = }\n             ^\n"), "{shown}");
    let shown = refused(&["--url", "http://127.0.0.1:1", "{ duration = \"x\" }"]);
    assert!(shown.contains("\n  { duration = \"x\" }\n"), "{shown}");
}

#[test]
fn what_cannot_be_reached_is_named() {
    let shown = refused(&["--url", "http://127.0.0.1:1", "{ }"]);
    assert!(shown.starts_with("spoor: 127.0.0.1:1: ") && shown.contains("is Spoor running there?"), "{shown}");
    assert!(refused(&["--url", "https://127.0.0.1:1", "{ }"]).contains("127.0.0.1:1"));
    assert!(refused(&["--url", "ftp://127.0.0.1", "{ }"]).contains("expected http://host:port or https://host:port"));
    assert!(refused(&["--start", "yesterday", "{ }"]).contains("--start: `yesterday` is no time"));
    assert!(refused(&["--data-dir", "/no/such/place", "{ }"]).contains("/no/such/place"));
    assert!(refused(&["abc", "--url", "http://127.0.0.1:1"]).contains("127.0.0.1:1"));
}
