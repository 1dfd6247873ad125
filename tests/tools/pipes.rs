//! Whoever reads what is printed may stop reading.

use super::*;

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

use spoor_testkit::process::Ports;

// Scenario: `spoor 2>&1 | head -1`, then spans, then a stop. Guarantee: the server serves, and stops as always.
#[test]
fn a_log_that_nobody_reads_stops_no_server() {
    let directory = TempDir::new().unwrap();
    let ports = Ports::free();
    let mut command = Command::new(env!("CARGO_BIN_EXE_spoor"));
    for (flag, port) in [
        ("--tempo-port", ports.tempo),
        ("--otlp-grpc-port", ports.otlp_grpc),
        ("--otlp-http-port", ports.otlp_http),
        ("--jaeger-http-port", ports.jaeger),
        ("--jaeger-grpc-port", ports.jaeger_grpc),
    ] {
        command.arg(flag).arg(port.to_string());
    }
    let mut child = command.arg("--data-dir").arg(directory.path()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    // The welcome comes when all is ready.
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("is ready"), "{line}");
    let tempo = ([127, 0, 0, 1], ports.tempo).into();
    assert_eq!(http::Connection::new(tempo).get("/ready").unwrap().status, 200);
    // It logs that it stops.
    let kill = format!("kill -TERM {}", child.id());
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    let status = wait::until("the end of the process", Duration::from_secs(60), || child.try_wait().unwrap());
    assert_eq!(status.code(), Some(0), "{status}");
}

// Scenario: the tools' output is closed before they print. Guarantee: they end quietly.
#[test]
fn tools_that_nobody_listens_to_end_quietly() {
    let directory = TempDir::new().unwrap();
    with_blocks(directory.path(), 1);
    let data_dir = directory.path().display().to_string();
    for words in [
        &["blocks", "ls"][..],
        &["blocks", "verify"],
        &["query", "{ }"],
        &["export"],
        &["export", "--format", "otlp-proto"],
    ] {
        for is_stderr_closed in [false, true] {
            let (reader, closed) = std::io::pipe().unwrap();
            drop(reader);
            let mut command = Command::new(env!("CARGO_BIN_EXE_spoor"));
            command.args(words).args(["--data-dir", &data_dir]).stdout(closed.try_clone().unwrap());
            command.stderr(if is_stderr_closed { Stdio::from(closed) } else { Stdio::piped() });
            let output = command.spawn().unwrap().wait_with_output().unwrap();
            assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()), "{words:?}");
        }
    }
}
