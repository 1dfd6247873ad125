//! `spoor export`: a file is whole, or it is not there.

use super::*;

use std::net::TcpListener;
use std::time::Duration;

use spoor_testkit::process::Ports;

// Scenario: nobody answers; a trace is not there. Guarantee: nothing is left that would be in the way of the next attempt.
#[test]
fn a_failed_export_leaves_nothing() {
    let (directory, out) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    with_blocks(directory.path(), 1);
    let data_dir = directory.path().display().to_string();
    let nowhere = format!("http://127.0.0.1:{}", Ports::free().tempo);
    for (format, name) in [("otlp-json", "a.jsonl"), ("otlp-proto", "a.pb"), ("parquet", "a")] {
        let path = out.path().join(name).display().to_string();
        let to_path = ["--format", format, "--output", &path];
        for (from, code) in [(&["--url", &nowhere][..], 2), (&["--data-dir", &data_dir, "--trace", "ffff"], 1)] {
            let failed = spoor(&[&["export"], &to_path[..], from].concat());
            assert_eq!(failed.status.code(), Some(code), "{failed:?}");
            assert_eq!(names(out.path()), Vec::<String>::new());
        }
        let from = ["--data-dir", &data_dir, "--json"];
        let told: Json = serde_json::from_str(&good(&[&["export"], &to_path[..], &from].concat())).unwrap();
        assert_eq!((&told["complete"], &told["output"]), (&Json::from(true), &Json::from(path.as_str())));
        assert!(told["traceCount"].as_u64().unwrap() > 0 && told["spanCount"].as_u64() >= told["traceCount"].as_u64());
        assert_eq!(names(out.path()), [name]);
        if format == "parquet" {
            fs::remove_dir_all(&path).unwrap();
        } else {
            fs::remove_file(&path).unwrap();
        }
    }
    // Where traces go to stdout, the JSON of the summary does not stand among them.
    let output = spoor(&["export", "--data-dir", &data_dir, "--json"]);
    let told: Json = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(told["traceCount"].as_u64(), Some(text(&output.stdout).lines().count() as u64));
}

// Scenario: an export goes to a device. Guarantee: it is written as it is, and there afterwards.
#[test]
fn a_device_is_written_as_it_is() {
    let directory = TempDir::new().unwrap();
    with_blocks(directory.path(), 1);
    let data_dir = directory.path().display().to_string();
    let told = good(&["export", "--data-dir", &data_dir, "--output", "/dev/null", "--json"]);
    let told: Json = serde_json::from_str(&told).unwrap();
    assert!(told["traceCount"].as_u64().unwrap() > 0 && told["complete"] == true, "{told}");
    assert!(!fs::metadata("/dev/null").unwrap().is_file());
}

// Scenario: one tenant's traces are asked for where there are no tenants. Guarantee: it is refused, rather than all be given.
#[test]
fn a_tenant_is_refused_where_there_are_none() {
    let directory = TempDir::new().unwrap();
    let export = |server: &Server| spoor(&["export", "--url", &format!("http://{}", server.tempo()), "--tenant", "x"]);
    let mut server = start(directory.path());
    ingest(&server, 3, 1, &mut Ledger::default());
    let refused = export(&server);
    assert_eq!((refused.status.code(), text(&refused.stdout)), (Some(2), String::new()));
    assert!(text(&refused.stderr).contains("has no tenants"), "{refused:?}");
    server.stop();
    let server = Launch::new(env!("CARGO_BIN_EXE_spoor"), directory.path()).arguments(["--multitenancy"]).start();
    assert_eq!(export(&server).status.code(), Some(0));
}

// Scenario: Ctrl-C, or the end of the terminal, while an export waits for an answer. Guarantee: it ends, and nothing is left.
#[test]
fn an_interrupted_export_leaves_nothing() {
    ["INT", "HUP"].into_iter().for_each(interrupt);
}

fn interrupt(signal: &str) {
    let out = TempDir::new().unwrap();
    // Takes connections and says nothing.
    let silent = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let path = out.path().join("all.jsonl").display().to_string();
    let mut export = Command::new(env!("CARGO_BIN_EXE_spoor"));
    let mut export = export.args(["export", "--url", &url, "--output", &path]).spawn().unwrap();
    let patience = Duration::from_secs(60);
    wait::until("the file in the making", patience, || (names(out.path()).len() == 1).then_some(()));
    assert!(Command::new("sh").args(["-c", &format!("kill -{signal} {}", export.id())]).status().unwrap().success());
    let status = wait::until("the end of the export", patience, || export.try_wait().unwrap());
    assert_eq!(status.code(), Some(130), "{status}");
    assert_eq!(names(out.path()), Vec::<String>::new());
}
