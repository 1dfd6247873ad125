//! Starts that must fail: one clear line and exit code 2.

use std::net::{Ipv4Addr, TcpListener};
use std::process::Command;

use spoor_testkit::process::{Launch, Ports};
use tempfile::TempDir;

use super::launch;

/// The start fails with code 2 and one line (beside log lines) that holds all of `words`.
pub(crate) fn check_refused(launch: &Launch, words: &[&str]) {
    let (status, printed) = launch.run_to_end();
    assert_eq!(status.code(), Some(2), "{printed}");
    let reason = printed.lines().find(|line| words.iter().all(|word| line.contains(word)));
    assert!(reason.is_some(), "no line has all of {words:?}:\n{printed}");
    assert!(!printed.contains("panicked"), "{printed}");
}

fn command(arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_spoor")).args(arguments).output().unwrap();
    let printed = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&printed).into_owned())
}

#[test]
fn a_second_process_on_the_same_directory_is_refused_and_the_first_lives_on() {
    let directory = TempDir::new().unwrap();
    let mut first = launch(&directory).start();
    let name = directory.path().file_name().unwrap().to_str().unwrap();
    check_refused(&launch(&directory), &[name]);
    assert!(first.is_running());
    first.wait_until_ready();
    first.stop();
    launch(&directory).start();
}

#[test]
fn a_taken_port_is_named() {
    let directory = TempDir::new().unwrap();
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    for place in 0..4 {
        let mut ports = Ports::free();
        *[&mut ports.tempo, &mut ports.otlp_grpc, &mut ports.otlp_http, &mut ports.jaeger][place] = port;
        check_refused(&launch(&directory).ports(ports), &[&port.to_string()]);
    }
    launch(&directory).start();
}

#[test]
fn a_directory_that_cannot_be_used_is_named() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("a-file");
    std::fs::write(&file, "x").unwrap();
    check_refused(&Launch::new(env!("CARGO_BIN_EXE_spoor"), &file), &["a-file"]);
    check_refused(&Launch::new(env!("CARGO_BIN_EXE_spoor"), file.join("below")), &["a-file"]);
}

#[test]
fn bad_settings_are_named_with_their_place_and_the_nearest_known_one() {
    let directory = TempDir::new().unwrap();
    check_refused(&launch(&directory).arguments(["--retenton", "1h"]), &["--retenton", "--retention"]);
    check_refused(&launch(&directory).arguments(["--retention", "soon"]), &["--retention", "soon"]);
    check_refused(&launch(&directory).environment("SPOOR_WAL_SYNC", "sometimes"), &["SPOOR_WAL_SYNC", "sometimes"]);
    let file = directory.path().join("spoor.yaml");
    std::fs::write(&file, "retention: 24h\nmemory_limt: 1GiB\n").unwrap();
    let path = file.to_str().unwrap();
    check_refused(&launch(&directory).arguments(["--config", path]), &["memory_limt", "memory_limit", "spoor.yaml"]);
}

#[test]
fn the_configuration_can_be_checked_without_a_start() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("spoor.yaml");
    std::fs::write(&file, "retention: 24h\nwal_sync: interval:1s\n").unwrap();
    let path = file.to_str().unwrap();
    let (code, printed) = command(&["config", "check", "--config", path]);
    assert_eq!(code, Some(0), "{printed}");
    std::fs::write(&file, "retention: [1]\n").unwrap();
    let (code, printed) = command(&["config", "check", "--config", path]);
    assert_eq!(code, Some(2), "{printed}");
    assert!(printed.contains("retention"), "{printed}");
}

#[test]
fn the_version_and_the_help_are_printed() {
    let (code, printed) = command(&["--version"]);
    assert_eq!(code, Some(0));
    assert!(printed.contains(env!("CARGO_PKG_VERSION")), "{printed}");
    let (code, printed) = command(&["--help"]);
    assert_eq!(code, Some(0));
    for flag in ["--data-dir", "--listen", "--tempo-port", "--otlp-grpc-port", "--otlp-http-port", "--jaeger-http-port"]
    {
        assert!(printed.contains(flag), "{flag} is not in\n{printed}");
    }
    for flag in ["--retention", "--wal-sync", "--memory-limit", "--log-format", "--config"] {
        assert!(printed.contains(flag), "{flag} is not in\n{printed}");
    }
}
