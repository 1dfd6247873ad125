//! Configuration, twice: [`RawConfig`] is what was asked for and where, [`Config`] is what holds.
//!
//! ```text
//!   flag > SPOOR_ variable > YAML file > default      (text, with its place)
//!                    |
//!                 RawConfig --read, check--> Config --derive--> MemoryPlan
//! ```
//!
//! The table of settings (`config/table.rs`) is the only list of keys: the YAML reader, the flags, the
//! variables, `spoor --help` and `docs/configuration.md` all follow from it.
//!
//! **Invariant:** only this crate reads configuration; every part gets its own piece by value.

use std::time::Duration;

mod memory;
mod raw;
mod reference;
mod table;
mod value;

pub use memory::MemoryPlan;
pub use raw::{Given, RawConfig};
pub use reference::reference;
pub use table::{Config, SETTINGS, Setting};
pub(crate) use value::Value;
pub use value::{BasePath, ByTenant, ByteSize, LogFormat, LogLevel, OptionalPath, OptionalText, WalSync};

/// A slower merge would hold its memory for hours.
const COMPACTION_IO_RATE_MIN: ByteSize = ByteSize(1 << 20);

/// Why a configuration does not hold. Written as one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file is not there, or not readable.
    #[error("{path}: {reason}")]
    File {
        /// As it was given.
        path: String,
        /// What the system said.
        reason: String,
    },
    /// The file is not YAML, or not a flat map.
    #[error("{path}: not a valid configuration file: {reason}")]
    Syntax {
        /// As it was given.
        path: String,
        /// What the reader said, with line and column.
        reason: String,
    },
    /// There is no such key.
    #[error("{place}: unknown key `{key}`{}", hint(.nearest))]
    UnknownKey {
        /// File and line.
        place: String,
        /// The offending key.
        key: String,
        /// A key that is spelled much the same.
        nearest: Option<&'static str>,
    },
    /// The value cannot be read.
    #[error("{place}: `{text}` {reason}")]
    Value {
        /// File, line and key; or flag; or variable.
        place: String,
        /// The offending text.
        text: String,
        /// Completes the sentence.
        reason: String,
    },
    /// Two settings contradict each other.
    #[error("{0}")]
    Contradiction(String),
}

fn hint(nearest: &Option<&'static str>) -> String {
    nearest.map_or_else(|| ", see `spoor --help`".to_owned(), |nearest| format!(", did you mean `{nearest}`?"))
}

impl Config {
    /// Checks what was asked for and fills in the rest.
    pub fn new(raw: &RawConfig) -> Result<Self, ConfigError> {
        let config = Self::read(raw)?;
        config.check_ports()?;
        config.check_tls()?;
        config.check_storage()?;
        config.memory()?;
        let too_short = [
            ("retention_interval", config.retention_interval),
            ("compaction_interval", config.compaction_interval),
            ("compaction_window", config.compaction_window.unwrap_or(Duration::MAX)),
            ("head_max_age", config.head_max_age),
            ("storage_poll_interval", config.storage_poll_interval),
            ("query_timeout", config.query_timeout),
            ("receive_timeout", config.receive_timeout),
            ("ingest_timeout", config.ingest_timeout),
        ];
        if let Some((key, _)) = too_short.iter().find(|(_, duration)| duration.is_zero()) {
            return Err(ConfigError::Contradiction(format!("{key} must be more than 0")));
        }
        if !(1..=100).contains(&config.compaction_cpu_share) {
            let reason =
                format!("compaction_cpu_share is {}, it must be 1 to 100 percent", config.compaction_cpu_share);
            return Err(ConfigError::Contradiction(reason));
        }
        let io_rate = config.compaction_io_bytes_per_second;
        if io_rate.0 != 0 && io_rate < COMPACTION_IO_RATE_MIN {
            let reason = format!(
                "compaction_io_bytes_per_second is {io_rate}, it must be at least {COMPACTION_IO_RATE_MIN}, or 0 for no bound"
            );
            return Err(ConfigError::Contradiction(reason));
        }
        if config.connections_max == 0 {
            return Err(ConfigError::Contradiction("connections_max must be at least 1".to_owned()));
        }
        Ok(config)
    }

    /// What holds, and is hardly meant: a line each.
    pub fn warnings(&self) -> Vec<String> {
        let (grace, poll) = (self.storage_grace_period, self.storage_poll_interval);
        let needed = poll.saturating_add(self.query_timeout);
        let is_short = !self.storage.0.is_empty() && !grace.is_zero() && grace <= needed;
        let warning = || {
            format!(
                "storage_grace_period is {}, not more than storage_poll_interval ({}) and query_timeout ({}) together: \
                 queries of other processes on {} may miss blocks that are merged or removed",
                grace.show(),
                poll.show(),
                self.query_timeout.show(),
                self.storage.0
            )
        };
        is_short.then(warning).into_iter().chain(self.window_warning()).collect()
    }

    /// Merged blocks go whole, and have the spans of a window.
    fn window_warning(&self) -> Option<String> {
        let window = self.compaction_window?;
        let retentions = self.retention_by_tenant.values().chain([&self.retention]);
        let shortest = retentions.filter(|retention| !retention.is_zero()).min()?;
        (window > *shortest).then(|| {
            format!(
                "compaction_window is {}, more than the shortest retention ({}): spans stay in merged blocks for as much longer",
                window.show(),
                shortest.show()
            )
        })
    }

    fn check_tls(&self) -> Result<(), ConfigError> {
        let (cert, key) = (&self.tls_cert_file.0, &self.tls_key_file.0);
        let reason = match (cert, key) {
            (Some(_), None) => "tls_cert_file needs tls_key_file, its private key",
            (None, Some(_)) => "tls_key_file needs tls_cert_file, its certificate",
            (None, None) if self.tls_client_ca_file.0.is_some() => "tls_client_ca_file needs tls_cert_file",
            _ => return Ok(()),
        };
        Err(ConfigError::Contradiction(reason.to_owned()))
    }

    /// The configuration in force, as YAML that the program reads back.
    pub fn to_yaml(&self) -> String {
        let quoted = |text: &str| serde_norway::to_string(text).expect("a text is YAML");
        self.entries().iter().map(|(key, text)| format!("{key}: {}", quoted(text))).collect()
    }

    fn check_storage(&self) -> Result<(), ConfigError> {
        match self.storage.0.is_empty() {
            true => Ok(()),
            false => crate::storage::location(self).check().map_err(ConfigError::Contradiction),
        }
    }

    fn check_ports(&self) -> Result<(), ConfigError> {
        let ports = [
            ("tempo_port", self.tempo_port),
            ("otlp_grpc_port", self.otlp_grpc_port),
            ("otlp_http_port", self.otlp_http_port),
            ("jaeger_http_port", self.jaeger_http_port),
            ("jaeger_grpc_port", self.jaeger_grpc_port),
        ];
        for (at, (key, port)) in ports.iter().enumerate() {
            let twin = ports[..at].iter().find(|(_, earlier)| *port != 0 && earlier == port);
            if let Some((earlier_key, _)) = twin {
                let reason = format!("{earlier_key} and {key} are both {port}; each needs a port of its own");
                return Err(ConfigError::Contradiction(reason));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
