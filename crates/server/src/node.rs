//! The life of the process.
//!
//! ```text
//!   ports bound -> served by `Late` ("come back") -> data directory opened, recovered -> served by the parts
//!   SIGTERM, SIGINT: no new connections -> open requests finish -> head written -> exit 0
//!   a second signal: exit at once; the log holds what the head held
//! ```

use std::process::ExitCode;
use std::sync::Arc;

use spoor_model::Clock;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::clock::SystemClock;
use crate::config::Config;
use crate::late::Late;
use crate::listener::{BindError, ConnectionLimits, Port};
use crate::parts::{Parts, Routers};
use crate::storage;
use crate::tls::Tls;
use crate::welcome::{self, Addresses};

/// What a shell expects of a program that failed while it ran.
const EXIT_FAILURE: u8 = 1;

/// Runs until told to stop. The error is one line that says why the process cannot start.
pub(crate) fn run(config: &Config) -> Result<ExitCode, String> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("spoor-async")
        .build()
        .map_err(|err| format!("cannot start threads: {err}"))?;
    runtime.block_on(live(config))
}

async fn live(config: &Config) -> Result<ExitCode, String> {
    let mut signals = Signals::new().map_err(|err| format!("cannot wait for signals: {err}"))?;
    let (stop, stopped) = watch::channel(false);
    let tls = Tls::open(config)?;
    let bound = Bound::bind(config).await.map_err(|err| err.to_string())?;
    let addresses = bound.addresses();
    let limits = ConnectionLimits {
        connections_max: config.connections_max,
        receive_timeout: config.receive_timeout,
        shutdown_timeout: config.shutdown_timeout,
        window_bytes: config.connection_window(&config.memory().map_err(|err| err.to_string())?),
    };
    let mut serving = JoinSet::new();
    let late = bound.serve(&mut serving, tls.as_ref(), limits, &stopped);
    if let Some(tls) = tls {
        serving.spawn(tls.follow(stopped.clone()));
    }

    let parts = tokio::select! {
        parts = open_parts(config.clone()) => parts?,
        () = signals.wait() => {
            tracing::info!("stopped while starting; the next start recovers the same log");
            std::process::exit(0)
        }
    };
    late.set(&parts.routers);
    if let Some(shared) = &parts.shared {
        let (shared, ingester) = (Arc::clone(shared), Arc::clone(&parts.ingester));
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        serving.spawn(storage::run(shared, ingester, clock, config.storage_poll_interval, stopped));
    }
    welcome::print(config, &addresses);

    signals.wait().await;
    tracing::info!("stopping: open requests finish, then the head is written; a second signal ends at once");
    parts.serving.send_replace(false);
    parts.life.pull_brake();
    if let Some(shared) = &parts.shared {
        shared.hasten(config.storage_shutdown_timeout);
    }
    stop.send_replace(true);
    let finish = async {
        while serving.join_next().await.is_some() {}
        close_parts(parts).await
    };
    tokio::select! {
        code = finish => Ok(code),
        () = signals.wait() => {
            tracing::warn!("stopped by a second signal; the next start recovers the head from the log");
            std::process::exit(i32::from(EXIT_FAILURE))
        }
    }
}

/// Opens everything on a thread that may block: recovery reads the whole log.
async fn open_parts(config: Config) -> Result<Parts, String> {
    let opened = tokio::task::spawn_blocking(move || Parts::open(&config)).await;
    opened
        .unwrap_or_else(|_| Err("a defect while opening the data directory; the lines above have the place".to_owned()))
}

async fn close_parts(parts: Parts) -> ExitCode {
    match tokio::task::spawn_blocking(move || parts.close()).await {
        Ok(Ok(())) => {
            tracing::info!("stopped: everything acknowledged is in blocks");
            ExitCode::SUCCESS
        }
        Ok(Err(reason)) => {
            tracing::error!(error = %reason, "stopped; the next start recovers the head from the log");
            ExitCode::from(EXIT_FAILURE)
        }
        Err(_) => ExitCode::from(EXIT_FAILURE),
    }
}

/// Both signals that ask a process to end.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// All ports, taken and not served yet.
struct Bound {
    tempo: Port,
    otlp_grpc: Port,
    otlp_http: Port,
    jaeger: Port,
    jaeger_grpc: Port,
}

/// What the ports serve, once it is there.
struct LateRouters {
    tempo: Late,
    otlp_grpc: Late,
    otlp_http: Late,
    jaeger: Late,
    jaeger_grpc: Late,
}

impl LateRouters {
    fn set(&self, routers: &Routers) {
        self.tempo.set(routers.tempo.clone());
        self.otlp_grpc.set(routers.otlp_grpc.clone());
        self.otlp_http.set(routers.otlp_http.clone());
        self.jaeger.set(routers.jaeger.clone());
        self.jaeger_grpc.set(routers.jaeger_grpc.clone());
    }
}

impl Bound {
    async fn bind(config: &Config) -> Result<Self, BindError> {
        Ok(Self {
            tempo: Port::bind("tempo_port", &config.listen, config.tempo_port).await?,
            otlp_grpc: Port::bind("otlp_grpc_port", &config.listen, config.otlp_grpc_port).await?,
            otlp_http: Port::bind("otlp_http_port", &config.listen, config.otlp_http_port).await?,
            jaeger: Port::bind("jaeger_http_port", &config.listen, config.jaeger_http_port).await?,
            jaeger_grpc: Port::bind("jaeger_grpc_port", &config.listen, config.jaeger_grpc_port).await?,
        })
    }

    fn addresses(&self) -> Addresses {
        Addresses {
            tempo: self.tempo.address(),
            otlp_grpc: self.otlp_grpc.address(),
            otlp_http: self.otlp_http.address(),
            jaeger: self.jaeger.address(),
            jaeger_grpc: self.jaeger_grpc.address(),
        }
    }

    fn serve(
        self,
        tasks: &mut JoinSet<()>,
        tls: Option<&Arc<Tls>>,
        limits: ConnectionLimits,
        stopped: &watch::Receiver<bool>,
    ) -> LateRouters {
        let mut serve = |port: Port| {
            let late = Late::default();
            tasks.spawn(port.serve(late.router(), tls.cloned(), limits, stopped.clone()));
            late
        };
        LateRouters {
            tempo: serve(self.tempo),
            otlp_grpc: serve(self.otlp_grpc),
            otlp_http: serve(self.otlp_http),
            jaeger: serve(self.jaeger),
            jaeger_grpc: serve(self.jaeger_grpc),
        }
    }
}
