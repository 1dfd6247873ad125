//! The real binary as a child process, on ports of its own and a directory of its own.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use spoor_model::TraceId;

use crate::client::http;
use crate::wait;

/// A start or stop that takes longer has failed. Generous: test machines are slow and shared.
const PATIENCE: Duration = Duration::from_secs(60);
/// `utime` and `stime` in `/proc/<pid>/stat` count in hundredths of a second on every Linux.
const TICK: Duration = Duration::from_millis(10);

/// The five ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// Tempo's HTTP API.
    pub tempo: u16,
    /// OTLP over gRPC.
    pub otlp_grpc: u16,
    /// OTLP over HTTP.
    pub otlp_http: u16,
    /// Jaeger's HTTP API.
    pub jaeger: u16,
    /// Jaeger's gRPC services.
    pub jaeger_grpc: u16,
}

impl Ports {
    /// Ports that are free now.
    pub fn free() -> Self {
        let listeners: Vec<_> =
            (0..5).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has ports")).collect();
        let port = |index: usize| listeners[index].local_addr().expect("a bound listener has an address").port();
        Self { tempo: port(0), otlp_grpc: port(1), otlp_http: port(2), jaeger: port(3), jaeger_grpc: port(4) }
    }
}

/// How to start the binary.
#[derive(Debug, Clone)]
pub struct Launch {
    binary: PathBuf,
    data_dir: PathBuf,
    ports: Ports,
    arguments: Vec<String>,
    environment: BTreeMap<String, String>,
}

impl Launch {
    /// Starts `binary` (`env!("CARGO_BIN_EXE_spoor")`) on `data_dir` and free ports.
    pub fn new(binary: impl Into<PathBuf>, data_dir: impl Into<PathBuf>) -> Self {
        Self {
            binary: binary.into(),
            data_dir: data_dir.into(),
            ports: Ports::free(),
            arguments: Vec::new(),
            environment: BTreeMap::new(),
        }
    }

    /// Adds command line arguments.
    pub fn arguments<'a>(mut self, arguments: impl IntoIterator<Item = &'a str>) -> Self {
        self.arguments.extend(arguments.into_iter().map(str::to_owned));
        self
    }

    /// Sets an environment variable.
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Listens on those ports.
    pub fn ports(mut self, ports: Ports) -> Self {
        self.ports = ports;
        self
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("serve").arg("--data-dir").arg(&self.data_dir);
        for (flag, port) in [
            ("--tempo-port", self.ports.tempo),
            ("--otlp-grpc-port", self.ports.otlp_grpc),
            ("--otlp-http-port", self.ports.otlp_http),
            ("--jaeger-http-port", self.ports.jaeger),
            ("--jaeger-grpc-port", self.ports.jaeger_grpc),
        ] {
            command.arg(flag).arg(port.to_string());
        }
        command.args(&self.arguments).envs(&self.environment).stdin(Stdio::null());
        command
    }

    /// Starts the process and waits until `/ready` says yes.
    ///
    /// # Panics
    /// When it does not within a minute, or ends before; the message holds what it printed.
    pub fn start(&self) -> Server {
        let mut server = self.spawn();
        server.wait_until_ready();
        server
    }

    /// Starts the process and does not wait.
    pub fn spawn(&self) -> Server {
        static LOG_NUMBER: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let number = LOG_NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let log_path = std::env::temp_dir().join(format!("spoor-test-{}-{number}.log", std::process::id()));
        let log = fs::File::create(&log_path).expect("the temporary directory is writable");
        let stderr = log.try_clone().expect("a file handle can be doubled");
        let mut command = self.command();
        let child = command.stdout(log).stderr(stderr).spawn().expect("the binary starts");
        Server { child, launch: self.clone(), log_path }
    }

    /// Runs the process to its end, for starts that must fail; returns its status and all it printed.
    ///
    /// # Panics
    /// When it is still running after a minute.
    pub fn run_to_end(&self) -> (ExitStatus, String) {
        let mut server = self.spawn();
        let status = server.wait_for_exit();
        (status, server.log())
    }
}

/// A running process. Killed when dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    launch: Launch,
    log_path: PathBuf,
}

/// What a process has used.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// User and system time together.
    pub cpu: Duration,
    /// Resident memory now, in bytes. 0 when the process is gone.
    pub resident_bytes: u64,
    /// The most it ever was.
    pub resident_bytes_max: u64,
}

impl Server {
    /// The directory that it stores in.
    pub fn data_dir(&self) -> &Path {
        &self.launch.data_dir
    }

    /// How it was started: to start it again.
    pub fn launch(&self) -> &Launch {
        &self.launch
    }

    /// What it printed so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log_path).unwrap_or_default()
    }

    /// Address of Tempo's HTTP API.
    pub fn tempo(&self) -> SocketAddr {
        local(self.launch.ports.tempo)
    }

    /// Address of OTLP over gRPC.
    pub fn otlp_grpc(&self) -> SocketAddr {
        local(self.launch.ports.otlp_grpc)
    }

    /// Address of OTLP over HTTP.
    pub fn otlp_http(&self) -> SocketAddr {
        local(self.launch.ports.otlp_http)
    }

    /// Address of Jaeger's HTTP API.
    pub fn jaeger(&self) -> SocketAddr {
        local(self.launch.ports.jaeger)
    }

    /// Address of Jaeger's gRPC services.
    pub fn jaeger_grpc(&self) -> SocketAddr {
        local(self.launch.ports.jaeger_grpc)
    }

    /// Waits until `/ready` answers 200.
    ///
    /// # Panics
    /// When the process ends before, or a minute passes.
    pub fn wait_until_ready(&mut self) {
        let mut connection = http::Connection::new(self.tempo());
        let deadline = wait::Deadline::within(PATIENCE);
        loop {
            if connection.get("/ready").is_ok_and(|answer| answer.status == 200) {
                return;
            }
            let ended = self.child.try_wait().expect("our own child can be asked");
            assert!(ended.is_none(), "the process ended with {ended:?} before it was ready:\n{}", self.log());
            assert!(!deadline.is_over(), "not ready within {PATIENCE:?}:\n{}", self.log());
            wait::pause(Duration::from_millis(2));
        }
    }

    /// `kill -9`, and waits until the process is gone.
    pub fn kill(&mut self) {
        self.child.kill().expect("our own child can be killed");
        self.child.wait().expect("our own child can be waited for");
    }

    /// Asks the process to stop and waits until it has; returns what it used in its whole life.
    ///
    /// # Panics
    /// When it does not stop within a minute, or not with status 0.
    pub fn stop(&mut self) -> Usage {
        self.terminate();
        let deadline = wait::Deadline::within(PATIENCE);
        let mut last = self.usage();
        // A process that has ended keeps its times until it is waited for.
        while !is_zombie(self.child.id()) {
            assert!(!deadline.is_over(), "did not stop within {PATIENCE:?}:\n{}", self.log());
            let now = self.usage();
            last.resident_bytes_max = last.resident_bytes_max.max(now.resident_bytes_max);
            wait::pause(Duration::from_millis(1));
        }
        last.cpu = self.usage().cpu;
        let status = self.child.wait().expect("our own child can be waited for");
        assert!(status.success(), "stopped with {status}:\n{}", self.log());
        last
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        let kill = format!("kill -TERM {}", self.child.id());
        let status = Command::new("sh").args(["-c", &kill]).status().expect("there is a shell");
        assert!(status.success(), "{kill}: {status}");
    }

    /// Waits for the end of the process.
    ///
    /// # Panics
    /// When it is still running after a minute.
    pub fn wait_for_exit(&mut self) -> ExitStatus {
        let deadline = wait::Deadline::within(PATIENCE);
        loop {
            if let Some(status) = self.child.try_wait().expect("our own child can be asked") {
                return status;
            }
            assert!(!deadline.is_over(), "still running after {PATIENCE:?}:\n{}", self.log());
            wait::pause(Duration::from_millis(2));
        }
    }

    /// Whether the process is still there.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("our own child can be asked").is_none()
    }

    /// What the process has used so far.
    pub fn usage(&self) -> Usage {
        let proc = PathBuf::from(format!("/proc/{}", self.child.id()));
        let stat = fs::read_to_string(proc.join("stat")).unwrap_or_default();
        // The command, field 2, is in parentheses and may hold anything; utime and stime are 14 and 15.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
        let ticks = |index: usize| fields.get(index).and_then(|text| text.parse::<u32>().ok()).unwrap_or(0);
        let status = fs::read_to_string(proc.join("status")).unwrap_or_default();
        let kibibytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.split_whitespace().next()).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0)
        };
        Usage {
            cpu: TICK * (ticks(11) + ticks(12)),
            resident_bytes: kibibytes("VmRSS:") * 1024,
            resident_bytes_max: kibibytes("VmHWM:") * 1024,
        }
    }

    /// The whole trace by Tempo's API as `TracesData`, or `None` when there is none.
    pub fn trace(&self, id: TraceId) -> io::Result<Option<Vec<u8>>> {
        Reader::new(self).trace(id)
    }

    /// Bytes of all files of the data directory.
    pub fn disk_bytes(&self) -> u64 {
        disk_bytes(self.data_dir())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.is_running() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<_> = log.lines().rev().take(40).collect();
            let tail: Vec<_> = tail.into_iter().rev().collect();
            #[allow(clippy::print_stderr, reason = "a failed test shows what the process said")]
            {
                eprintln!("--- the process printed last:\n{}\n---", tail.join("\n"));
            }
        }
        let _ = fs::remove_file(&self.log_path);
    }
}

/// Reads traces over one kept connection.
#[derive(Debug)]
pub struct Reader(http::Connection);

impl Reader {
    /// Reads from that server.
    pub fn new(server: &Server) -> Self {
        Self(http::Connection::new(server.tempo()))
    }

    /// The whole trace as `TracesData`, or `None` when there is none.
    pub fn trace(&mut self, id: TraceId) -> io::Result<Option<Vec<u8>>> {
        let answer = self.0.send("GET", &format!("/api/traces/{id}"), &[("accept", "application/protobuf")], &[])?;
        match answer.status {
            200 => Ok(Some(answer.body)),
            404 => Ok(None),
            status => Err(io::Error::other(format!("status {status}: {}", answer.text()))),
        }
    }
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

fn is_zombie(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_none_or(|rest| rest.trim_start().starts_with('Z') || rest.is_empty())
}

/// Bytes of all files below a directory.
pub fn disk_bytes(directory: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(directory) else { return 0 };
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => disk_bytes(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}
