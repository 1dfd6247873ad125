//! Scenario: the disk of the data directory is full, from one request to the next, while clients send; then somebody makes
//! room; then the process is killed on a disk that is full again.
//! Guarantee: what cannot be kept is refused with a reason that names the disk; queries go on; the same process takes
//! spans again once there is room; a start without room says so and changes nothing; every span that was acknowledged is
//! there, before and after the kill.
//!
//! The disk is a memory file system of its own, mounted in a namespace that ordinary users may make on most systems.
//! Where they may not, the test says so and ends.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use spoor_model::UnixNano;
use spoor_testkit::client::{Compression, grpc, http};
use spoor_testkit::corpus::{Corpus, Settings};
use spoor_testkit::ledger::Ledger;
use spoor_testkit::process::{Launch, Reader, Server};
use spoor_testkit::wait;
use tempfile::TempDir;

/// The log asks for 64 MiB of room before it goes on after it found none.
const DISK_MIB: u64 = 128;
/// Requests that are sent before the disk is filled: some blocks, some of it in the log only.
const REQUESTS_BEFORE: usize = 60;
/// Requests in vain after which something else must be wrong.
const REQUESTS_MAX: usize = 4000;
const PATIENCE: Duration = Duration::from_secs(60);

/// A small disk, mounted where only processes in its namespace see it. Gone when dropped.
struct Disk {
    /// Lives in the namespace until its standard input ends.
    holder: Child,
    mounted_at: PathBuf,
    script: PathBuf,
}

impl Disk {
    /// `None` where this user may not mount anything.
    fn mount(directory: &TempDir) -> Option<Self> {
        let mounted_at = directory.path().join("disk");
        fs::create_dir(&mounted_at).unwrap();
        let mount = format!("mount -t tmpfs -o size={DISK_MIB}m tmpfs \"$0\" && echo mounted && read end");
        let mut holder = Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount", "sh", "-c", &mount])
            .arg(&mounted_at)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .ok()?;
        let mut line = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
        if line.trim() != "mounted" {
            holder.wait().unwrap();
            return None;
        }
        let script = directory.path().join("spoor-on-the-disk");
        let enter = format!(
            "#!/bin/sh\nexec nsenter --target {} --user --mount --preserve-credentials '{}' \"$@\"\n",
            holder.id(),
            env!("CARGO_BIN_EXE_spoor"),
        );
        fs::write(&script, enter).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        Some(Self { holder, mounted_at, script })
    }

    fn launch(&self) -> Launch {
        Launch::new(&self.script, self.mounted_at.join("data")).arguments([
            "--memory-limit",
            "256MiB",
            "--head-cut-bytes",
            "1MiB",
            "--compaction-interval",
            "100ms",
        ])
    }

    /// The disk as this process sees it.
    fn path(&self) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
        root.join(self.mounted_at.strip_prefix("/").unwrap())
    }

    /// Leaves no room at all.
    fn fill(&self) {
        let mut filler = File::options().create(true).append(true).open(self.filler()).unwrap();
        for chunk in [&[1u8; 1 << 16][..], &[1u8; 1 << 9]] {
            while let Ok(()) = filler.write_all(chunk) {}
        }
    }

    fn make_room(&self) {
        fs::remove_file(self.filler()).unwrap();
    }

    fn filler(&self) -> PathBuf {
        self.path().join("filler")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}

struct Clients {
    requests: Box<dyn Iterator<Item = Vec<u8>>>,
    acknowledged: Ledger,
    refused: Ledger,
}

impl Clients {
    fn new() -> Self {
        let start = UnixNano(wait::now().0 - 600_000_000_000);
        let settings = Settings { seed: 9, trace_count: u64::MAX, request_spans: 200, start };
        let requests = Box::new(Corpus::new(settings).map(|request| request.body));
        Self { requests, acknowledged: Ledger::default(), refused: Ledger::default() }
    }

    /// Sends the next request over both protocols in turn; what the refusal says, when it is one.
    fn send(&mut self, server: &Server) -> Result<(), (u16, String)> {
        let body = self.requests.next().unwrap();
        let over_http = || -> io::Result<Result<(), (u16, String)>> {
            let headers = [("content-type", "application/x-protobuf")];
            let answer = http::Connection::new(server.otlp_http()).send_once("POST", "/v1/traces", &headers, &body)?;
            Ok(if answer.status == 200 { Ok(()) } else { Err((answer.status, answer.text())) })
        };
        let over_grpc = || -> io::Result<Result<(), (u16, String)>> {
            let answer = grpc::Client::connect(server.otlp_grpc())?.export(&body, Compression::Zstd)?;
            Ok(if answer.status == 0 { Ok(()) } else { Err((answer.status as u16, answer.message)) })
        };
        let outcome = if body.len().is_multiple_of(2) { over_http() } else { over_grpc() }.unwrap();
        match outcome {
            Ok(()) => self.acknowledged.promise(&body),
            Err(_) => self.refused.promise(&body),
        }
        outcome
    }

    fn check(&self, server: &Server) {
        let mut reader = Reader::new(server);
        for id in self.acknowledged.traces() {
            let answer = reader.trace(id).unwrap();
            let compared = self.acknowledged.compare(id, answer.as_deref(), &self.refused);
            assert_eq!(compared, Ok(()), "trace {id}");
        }
    }
}

/// Sends until both protocols have refused; each with a status that says "later" and a message that names the disk.
fn send_until_refused(clients: &mut Clients, server: &Server) {
    let mut seen: Vec<u16> = Vec::new();
    for _ in 0..REQUESTS_MAX {
        let Err((status, message)) = clients.send(server) else { continue };
        assert!([503, 14].contains(&status), "status {status}: {message}");
        assert!(message.contains("disk") && message.contains("full"), "status {status}: {message}");
        if !seen.contains(&status) {
            seen.push(status);
        }
        if seen.len() == 2 {
            return;
        }
    }
    panic!("a full disk took {REQUESTS_MAX} requests; refusals: {seen:?}");
}

#[test]
fn a_full_disk_refuses_and_loses_nothing_and_goes_on_when_there_is_room() {
    let directory = TempDir::new().unwrap();
    let Some(disk) = Disk::mount(&directory) else {
        eprintln!("skipped: this user may not mount a file system in a namespace of its own");
        return;
    };
    let mut clients = Clients::new();
    let mut server = disk.launch().start();
    for _ in 0..REQUESTS_BEFORE {
        assert_eq!(clients.send(&server), Ok(()));
    }
    disk.fill();
    send_until_refused(&mut clients, &server);
    clients.check(&server);
    let ready = |path| http::Connection::new(server.tempo()).get(path).unwrap();
    let (asked, asked_for_ingest) = (ready("/ready"), ready("/ready?ingest=true"));
    assert_eq!((asked.status, asked_for_ingest.status), (200, 503), "queries are answered, spans are not taken");
    for answer in [asked, asked_for_ingest, ready("/status/health")] {
        assert!(answer.text().contains("spans are refused: the disk of data_dir is full"), "{}", answer.text());
    }
    disk.make_room();
    wait::until("ingest to go on", PATIENCE, || clients.send(&server).ok());
    for _ in 0..REQUESTS_BEFORE {
        wait::until("an export to be taken", PATIENCE, || clients.send(&server).ok());
    }
    clients.check(&server);

    disk.fill();
    send_until_refused(&mut clients, &server);
    assert!(server.log().contains("the disk of data_dir is full"), "operators are told, too: {}", server.log());
    server.kill();
    let (status, said) = disk.launch().run_to_end();
    assert!(!status.success() && said.contains("the disk of data_dir is full"), "{status}: {said}");
    disk.make_room();
    let mut server = disk.launch().start();
    clients.check(&server);
    assert_eq!(clients.send(&server), Ok(()));
    server.stop();
    clients.check(&disk.launch().start());
}
