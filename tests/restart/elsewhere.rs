//! Starts on a storage that is wrong: told at once, by the server and by the tools, in words that name what to change.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use spoor_testkit::ledger::Ledger;
use spoor_testkit::process::Launch;
use tempfile::TempDir;

use super::refused::check_refused;
use super::{check, ingest, launch};

/// Something that answers requests by their first line, whoever's protocol it is.
struct Stub(SocketAddr);

impl Stub {
    /// In the same way.
    fn answering(status: &'static str, body: &'static str) -> Self {
        Self::new(move |_| Some((status, body)))
    }

    /// `None`: not at all, and the connection stays open.
    fn new(answer: impl Fn(&str) -> Option<(&'static str, &'static str)> + Send + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let mut stalled = Vec::new();
            for mut stream in listener.incoming().flatten() {
                // A client that hangs up has what it wanted.
                let Ok(Some(request)) = read_request(&mut stream) else { continue };
                match answer(&request) {
                    Some((status, body)) => drop(write_answer(stream, status, body)),
                    None => stalled.push(stream),
                }
            }
        });
        Self(address)
    }

    fn flag(&self) -> String {
        format!("--storage-endpoint=http://{}", self.0)
    }
}

/// The first line of a request that was read to its end.
fn read_request(stream: &mut TcpStream) -> std::io::Result<Option<String>> {
    let (mut request, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        let text = String::from_utf8_lossy(&request).to_lowercase();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
            let length: usize = length.map_or(0, |length| length.trim().parse().unwrap());
            if body.len() >= length {
                return Ok(String::from_utf8_lossy(&request).lines().next().map(str::to_owned));
            }
        }
        match stream.read(&mut chunk)? {
            0 => return Ok(None),
            read => request.extend_from_slice(&chunk[..read]),
        }
    }
}

fn write_answer(mut stream: TcpStream, status: &str, body: &str) -> std::io::Result<()> {
    let length = body.len();
    write!(stream, "HTTP/1.1 {status}\r\netag: \"1\"\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")
}

/// The tools say the same as the server, and change as little.
fn check_tools_refuse(directory: &TempDir, flags: &[&str], environment: &[(&str, &str)], words: &[&str]) {
    let data_dir = directory.path().to_str().unwrap();
    for words_of in [["blocks", "ls"], ["blocks", "verify"]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_spoor"));
        let output = command
            .args(words_of)
            .args(["--data-dir", data_dir])
            .args(flags)
            .envs(environment.iter().copied())
            .output()
            .unwrap();
        let printed = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{command:?}: {printed}");
        assert!(words.iter().all(|word| printed.contains(word)), "{command:?}, {words:?}: {printed}");
    }
}

const S3: &[(&str, &str)] = &[("AWS_ACCESS_KEY_ID", "key"), ("AWS_SECRET_ACCESS_KEY", "secret")];
const GOOGLE: &[(&str, &str)] = &[(
    "GOOGLE_SERVICE_ACCOUNT_KEY",
    r#"{"private_key": "a", "private_key_id": "b", "client_email": "c", "disable_oauth": true}"#,
)];
const AZURE: &[(&str, &str)] = &[("AZURE_STORAGE_ACCOUNT_NAME", "shop"), ("AZURE_STORAGE_ACCOUNT_KEY", "c2VjcmV0")];

/// A start on that storage, and the tools, end at once with words that name what is wrong.
fn check_wrong(storage: &str, flags: &[&str], environment: &[(&str, &str)], words: &[&str]) {
    let directory = TempDir::new().unwrap();
    let storage = format!("--storage={storage}");
    let flags: Vec<&str> =
        [storage.as_str(), "--storage-region=us-east-1"].into_iter().chain(flags.iter().copied()).collect();
    let start = launch(&directory).arguments(flags.iter().copied());
    let start = environment.iter().fold(start, |start, (name, value)| start.environment(name, value));
    check_refused(&start, words);
    assert!(!directory.path().join("STORAGE").exists(), "a mistake is not remembered");
    check_tools_refuse(&directory, &flags, environment, words);
}

#[test]
fn a_bucket_that_is_missing_is_told_at_once() {
    let missing = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>NoSuchBucket</Code>\
                   <Message>The specified bucket does not exist</Message></Error>";
    let stub = Stub::answering("404 Not Found", missing);
    let flags = ["--storage-allow-http", &stub.flag()];
    for (storage, environment) in [("s3://nowhere/a", S3), ("gs://nowhere/a", GOOGLE), ("azure://nowhere/a", AZURE)] {
        check_wrong(storage, &flags, environment, &[storage, "there is no such bucket", "404 NoSuchBucket"]);
    }
}

#[test]
fn credentials_that_are_refused_are_told_at_once() {
    let denied = "<Error><Code>InvalidAccessKeyId</Code><Message>No such key.</Message></Error>";
    let stub = Stub::answering("403 Forbidden", denied);
    let flags = ["--storage-allow-http", &stub.flag()];
    for (storage, environment, variable) in [
        ("s3://traces", S3, "AWS_ACCESS_KEY_ID"),
        ("gs://traces", GOOGLE, "GOOGLE_SERVICE_ACCOUNT"),
        ("azure://traces", AZURE, "AZURE_STORAGE_ACCOUNT_KEY"),
    ] {
        let words = [storage, "access is denied", "403 InvalidAccessKeyId: No such key", variable];
        check_wrong(storage, &flags, environment, &words);
    }
}

#[test]
fn credentials_that_are_missing_are_told_at_once() {
    let stub = Stub::answering("404 Not Found", "");
    let (http, host) = (format!("http://{}", stub.0), stub.0.to_string());
    let flags = ["--storage-allow-http", &stub.flag()];
    // Nobody gave any, and the machine has no role.
    let of_machine = [("AWS_METADATA_ENDPOINT", http.as_str())];
    check_wrong("s3://traces", &flags, &of_machine, &["s3://traces", "no credentials", "AWS_ACCESS_KEY_ID"]);
    let of_machine = [("GCE_METADATA_HOST", host.as_str()), ("GCE_METADATA_IP", &host), ("HOME", "/nowhere")];
    check_wrong("gs://traces", &flags, &of_machine, &["gs://traces", "no credentials", "GOOGLE_SERVICE_ACCOUNT"]);
    let of_machine = [("IDENTITY_ENDPOINT", http.as_str()), ("AZURE_STORAGE_ACCOUNT_NAME", "shop")];
    check_wrong(
        "azure://traces",
        &flags,
        &of_machine,
        &["azure://traces", "no credentials", "AZURE_STORAGE_ACCOUNT_KEY"],
    );
    let half = [("AWS_ACCESS_KEY_ID", "key")];
    check_wrong("s3://traces", &flags, &half, &["s3://traces", "AWS_SECRET_ACCESS_KEY"]);
}

#[test]
fn a_location_that_makes_no_sense_is_told_before_anything_is_asked() {
    for (storage, flags, words) in [
        ("ftp://traces", &[][..], &["ftp://traces", "s3://bucket/prefix"][..]),
        ("s3:///a", &[], &["the bucket is missing"]),
        ("s3://traces", &["--storage-endpoint=http://minio:9000"], &["http://minio:9000", "--storage-allow-http"]),
    ] {
        check_wrong(storage, flags, S3, words);
        let storage = format!("--storage={storage}");
        let output =
            Command::new(env!("CARGO_BIN_EXE_spoor")).args(["config", "check", &storage]).args(flags).output().unwrap();
        let printed = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && words.iter().all(|word| printed.contains(word)), "{printed}");
    }
}

// Scenario: a prefix is mistyped at a restart. Guarantee: the start says so and changes nothing; the right one has all spans.
#[test]
fn a_data_directory_is_used_with_its_own_storage_only() {
    let (directory, bucket) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let at = |name: &str| format!("file://{}", bucket.path().join(name).display());
    let on = |flags: &[String]| -> Launch { launch(&directory).arguments(flags.iter().map(String::as_str)) };
    let storage = |name: &str| format!("--storage={}", at(name));
    let mut ledger = Ledger::default();
    let mut server = on(&[storage("right")]).start();
    ingest(&server, 50, 2, &mut ledger);
    server.stop();
    let (right, typo) = (at("right"), at("typo"));
    let said = format!("--storage-moved-from '{right}'");
    check_refused(&on(&[storage("typo")]), &[&right, &typo, &said]);
    check_refused(&on(&[]), &[&right, "the data directory itself"]);
    check_tools_refuse(&directory, &[&storage("typo")], &[], &[&right, &typo]);
    check_tools_refuse(&directory, &[], &[], &[&right, "the data directory itself"]);
    let mut server = on(&[storage("right")]).start();
    check(&server, &ledger);
    server.stop();
    // Somebody moves all of it, and says so; to say it again does no harm.
    std::fs::rename(bucket.path().join("right"), bucket.path().join("new")).unwrap();
    let moved = [storage("new"), format!("--storage-moved-from={right}")];
    for _ in 0..2 {
        let mut server = on(&moved).start();
        check(&server, &ledger);
        ingest(&server, 51, 1, &mut ledger);
        server.stop();
    }
    check_refused(&on(&[storage("right"), moved[1].clone()]), &[&at("new")]);
}

// Scenario: blocks lie in the data directory, and a storage is given. Guarantee: they are moved there, and it is remembered.
#[test]
fn blocks_of_the_directory_move_to_a_storage_which_is_remembered() {
    let (directory, bucket) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let mut ledger = Ledger::default();
    let mut server = launch(&directory).start();
    ingest(&server, 60, 2, &mut ledger);
    server.stop();
    let storage = format!("--storage=file://{}", bucket.path().display());
    let mut server = launch(&directory).arguments([storage.as_str()]).start();
    check(&server, &ledger);
    let limit = std::time::Duration::from_secs(30);
    spoor_testkit::wait::until("the blocks to move", limit, || super::blocks(&directory).is_empty().then_some(()));
    server.stop();
    check_refused(&launch(&directory), &[&bucket.path().display().to_string()]);
    check(&launch(&directory).arguments([storage.as_str()]).start(), &ledger);
}

// Scenario: the storage stalls, and the process is to stop. Guarantee: it does not wait for the storage as long as it would while it
// runs, and loses nothing: the log has what is in no block.
#[test]
fn a_stop_does_not_wait_for_a_storage_that_stalls() {
    let directory = TempDir::new().unwrap();
    let stalls = Arc::new(AtomicBool::new(false));
    let is_stalled = Arc::clone(&stalls);
    let stub = Stub::new(move |request| match request.split(' ').next() {
        _ if is_stalled.load(Ordering::Relaxed) => None,
        Some("GET") if request.contains("list-type=2") => {
            Some(("200 OK", "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"))
        }
        Some("GET") => Some(("404 Not Found", "")),
        _ => Some(("200 OK", "")),
    });
    let flags = [
        "--storage=s3://traces",
        "--storage-region=us-east-1",
        "--storage-allow-http",
        "--storage-timeout=1h",
        "--storage-shutdown-timeout=100ms",
        &stub.flag(),
    ];
    let start =
        S3.iter().fold(launch(&directory).arguments(flags), |start, (name, value)| start.environment(name, value));
    let mut ledger = Ledger::default();
    let mut server = start.start();
    ingest(&server, 70, 2, &mut ledger);
    stalls.store(true, Ordering::Relaxed);
    server.terminate();
    assert_eq!(server.wait_for_exit().code(), Some(1), "{}", server.log());
    assert!(server.log().contains("storage_shutdown_timeout"), "{}", server.log());
    stalls.store(false, Ordering::Relaxed);
    check(&start.start(), &ledger);
}
