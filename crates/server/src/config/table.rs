//! The table of settings: one entry per key, with its type, its default and what it means.

use std::path::PathBuf;
use std::time::Duration;

use super::value::{ByTenant, Value};
use super::{
    BasePath, ByteSize, ConfigError, Given, LogFormat, LogLevel, OptionalPath, OptionalText, RawConfig, WalSync,
};

/// One key, as the command line, the reference and the YAML reader see it.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Heading under which the reference lists it.
    pub section: &'static str,
    /// The YAML key, in snake case.
    pub key: &'static str,
    /// What kind of value it takes.
    pub kind: &'static str,
    /// The value when nobody gives one.
    pub default: &'static str,
    /// What it means; one or more sentences.
    pub doc: &'static str,
}

impl Setting {
    /// The entry of a key.
    pub fn find(key: &str) -> Option<&'static Self> {
        SETTINGS.iter().find(|setting| setting.key == key)
    }

    /// The command line flag, without the two dashes.
    pub fn flag(&self) -> String {
        self.key.replace('_', "-")
    }

    /// The environment variable.
    pub fn variable(&self) -> String {
        format!("SPOOR_{}", self.key.to_uppercase())
    }
}

/// Makes the table, [`Config`] with a field per key, and how one is read from a [`RawConfig`].
macro_rules! settings {
    ($($section:literal { $($(#[doc = $doc:literal])+ $key:ident: $type:ty = $default:literal,)+ })+) => {
        /// Every setting, in the order of the reference.
        pub const SETTINGS: &[Setting] = &[$($(Setting {
            section: $section,
            key: stringify!($key),
            kind: <$type as Value>::KIND,
            default: $default,
            doc: concat!($($doc),+),
        },)+)+];

        /// A configuration that holds: every value is read, and none contradicts another.
        #[derive(Debug, Clone, PartialEq)]
        pub struct Config {
            $($($(#[doc = $doc])+ pub $key: $type,)+)+
        }

        impl Config {
            pub(super) fn read(raw: &RawConfig) -> Result<Self, ConfigError> {
                Ok(Self { $($($key: read_one(stringify!($key), $default, raw)?,)+)+ })
            }

            /// Each key with its value as text.
            pub fn entries(&self) -> Vec<(&'static str, String)> {
                vec![$($((stringify!($key), self.$key.show()),)+)+]
            }
        }
    };
}

fn read_one<T: Value>(key: &str, default: &str, raw: &RawConfig) -> Result<T, ConfigError> {
    let Some(Given { text, place }) = raw.get(key) else {
        return Ok(T::read(default).expect("a test reads every default"));
    };
    T::read(text).map_err(|reason| ConfigError::Value { place: place.clone(), text: text.clone(), reason })
}

settings! {
    "Storage" {
        /// Directory of everything that Spoor keeps. It is made when it is not there; one process
        /// at a time may use it.
        data_dir: PathBuf = "./spoor-data",
        /// Where blocks are kept: `s3://bucket/prefix`, `gs://bucket/prefix`, `azure://container/prefix` or
        /// `file:///directory`. Credentials come from the environment, as for each cloud's own tools. Empty: in
        /// `data_dir`, which keeps the log, the head and caches in any case.
        storage: OptionalText = "",
        /// Address of another server that speaks the protocol of `storage`, such as `http://minio:9000`. Empty: the
        /// cloud's own.
        storage_endpoint: OptionalText = "",
        /// Region of an `s3://` bucket. Empty: by the environment.
        storage_region: OptionalText = "",
        /// Whether `storage_endpoint` may be plain `http://`.
        storage_allow_http: bool = "false",
        /// The storage from which all blocks of `data_dir` were moved to `storage`, word for word as the start says that refuses. A data
        /// directory remembers where its blocks lie, and is used with no other place unless this says so.
        storage_moved_from: OptionalText = "",
        /// How long `storage` is waited for, repetitions included: per request, and per part of an upload.
        storage_timeout: Duration = "20s",
        /// How long a request to `storage` may take at a shutdown. The first that takes longer is the last: what is not in a block then stays in
        /// the log, and is in a block after the next start.
        storage_shutdown_timeout: Duration = "3s",
        /// Disk space in `data_dir` for what was read of blocks on `storage`. 0: nothing is kept.
        storage_cache_bytes: ByteSize = "1GiB",
        /// How much of `storage_cache_bytes` may be filled before a query asks: with what tells, of the newest blocks first, that
        /// a value is not in them (about 1 byte per span). 0: nothing is fetched unasked.
        storage_ahead_bytes: ByteSize = "256MiB",
        /// How often `storage` is looked at for blocks that other processes wrote, merged or removed.
        storage_poll_interval: Duration = "30s",
        /// How long the files of a block stay on `storage` when it is merged or removed, for other processes that
        /// are still reading it. Longer than `storage_poll_interval` and `query_timeout` together. 0: they go at once.
        storage_grace_period: Duration = "10m",
        /// How long spans are kept. Blocks whose newest span is older are removed whole. 0: for ever.
        retention: Duration = "168h",
        /// How long the spans of single tenants are kept, where that differs: `team-a=24h,team-b=720h`, or a map in YAML.
        retention_by_tenant: ByTenant = "",
        /// Size of all blocks of all tenants together above which those with the oldest spans are removed. 0: no
        /// bound. Leave room on the disk beside it for the log (`head_memory_limit`) and for a merge (`compaction_block_bytes`).
        retention_size: ByteSize = "0",
        /// How often blocks past their retention are looked for.
        retention_interval: Duration = "5m",
        /// When an export is forced to disk: `always` before it is acknowledged, `interval:1s` at
        /// most a second later (a crash of the machine may lose that second), `never` when the
        /// system pleases. A crash of the process alone loses nothing in any mode.
        wal_sync: WalSync = "always",
        /// Age at which the head is cut into a block even when it is small.
        head_max_age: Duration = "1h",
    }
    "Compaction" {
        /// Merge small blocks into large ones.
        compaction: bool = "true",
        /// Blocks whose last spans ended within the same stretch of this length are merged with each other. `auto`: 1/7
        /// of the shortest retention, at most a day.
        compaction_window: Option<Duration> = "auto",
        /// Size up to which blocks are merged. Blocks of half of it are left as they are.
        compaction_block_bytes: ByteSize = "256MiB",
        /// Spans up to which blocks are merged. Blocks of half of it are left as they are.
        compaction_block_spans: usize = "8000000",
        /// Time that merging may take of one core, in percent. It takes much less while ingest has to wait.
        compaction_cpu_share: usize = "50",
        /// Bytes per second that merging may read and write on disk, together. 0: no bound but `compaction_cpu_share`, which at its
        /// default came to 5 MB/s on a busy machine.
        compaction_io_bytes_per_second: ByteSize = "32MiB",
        /// How often is looked for something to merge when there was nothing.
        compaction_interval: Duration = "30s",
        /// Let `DELETE /api/v2/traces/<id>` delete traces, for whoever reaches `tempo_port`. They are hidden at once and
        /// gone from disk after the next merge.
        trace_deletion: bool = "false",
    }
    "Network" {
        /// Address or host name to listen on, for all ports. `0.0.0.0` opens them to the network.
        listen: String = "127.0.0.1",
        /// Port of Tempo's query API, `/ready`, `/metrics` and `/status`.
        tempo_port: u16 = "3200",
        /// Serve the Model Context Protocol at `/api/mcp` of `tempo_port`, so that assistants can ask: searches, metrics,
        /// traces, names and values. It reads only.
        mcp: bool = "false",
        /// Port on which OTLP is received over gRPC.
        otlp_grpc_port: u16 = "4317",
        /// Port on which OTLP is received over HTTP.
        otlp_http_port: u16 = "4318",
        /// Port of Jaeger's query API.
        jaeger_http_port: u16 = "16686",
        /// Port of Jaeger's query services over gRPC, and of Jaeger's remote storage.
        jaeger_grpc_port: u16 = "16685",
        /// What stands before every path of Jaeger's query API and UI, such as `/jaeger`, behind a proxy that
        /// leaves it there. It begins with a slash and does not end with one. Empty: nothing.
        jaeger_base_path: BasePath = "",
        /// Folder of a build of the Jaeger UI (`index.html` and `static/`), which is then served on
        /// `jaeger_http_port`. Empty: the UI is not served.
        jaeger_ui_dir: OptionalPath = "",
        /// File with the certificate that all ports show, and those between it and the root, in PEM. Ports then speak TLS
        /// and nothing else. Read anew within a minute when it changes. Empty: no TLS.
        tls_cert_file: OptionalPath = "",
        /// File with the private key of `tls_cert_file`, in PEM.
        tls_key_file: OptionalPath = "",
        /// File with root certificates, in PEM: only clients with a certificate of theirs are let in. Empty: all are.
        tls_client_ca_file: OptionalPath = "",
        /// Largest request body, as sent and after decompression.
        max_message_bytes: ByteSize = "16MiB",
        /// Connections that each port holds open at once; further ones wait.
        connections_max: usize = "1024",
        /// How long a client may take to send request headers, or be silent within a body.
        receive_timeout: Duration = "30s",
        /// Browser origins that may send spans and query, such as `https://shop.example`; `*` for
        /// all. Empty: none.
        cors_allowed_origins: Vec<String> = "",
        /// Take the tenant from the `X-Scope-OrgID` header and refuse requests without it. Off:
        /// everything belongs to one tenant and the header is ignored.
        multitenancy: bool = "false",
    }
    "Memory" {
        /// Memory for everything, at least 192 MiB. The process itself takes 96 MiB of it; the keys below divide the rest.
        memory_limit: ByteSize = "512MiB",
        /// Memory of spans that are not in a block yet. `auto`: 3/8 of the rest; where memory is little, half of the rest less 40 MiB,
        /// at least a quarter of it.
        head_memory_limit: Option<ByteSize> = "auto",
        /// Size at which the head is cut into a block. Larger means fewer blocks; encoding it takes about
        /// twice as much besides. `auto`: half of `head_memory_limit` less 16 MiB, at least a quarter of it.
        head_cut_bytes: Option<ByteSize> = "auto",
        /// Memory of exports that are being received, decompressed and logged; exports beyond it
        /// are refused with a hint when to retry. `auto`: 1/8 of the rest, at least `max_message_bytes`.
        ingest_inflight_bytes: Option<ByteSize> = "auto",
        /// Memory of all running queries. `auto`: 1/4 of the rest.
        query_memory_limit: Option<ByteSize> = "auto",
        /// Memory for indexes and dictionaries of blocks that were read before. `auto`: 1/8 of
        /// the rest, down to 1/16 where the other parts were given more.
        block_cache_bytes: Option<ByteSize> = "auto",
        /// Memory for merging blocks. It bounds the traces of a merged block, too: one per 200 bytes. `auto`: 1/8 of
        /// the rest.
        compaction_memory_limit: Option<ByteSize> = "auto",
    }
    "Limits" {
        /// How long an export may take from its last byte to its acknowledgement.
        ingest_timeout: Duration = "30s",
        /// Bytes per second that each tenant may send, counted after decompression. 0: no limit.
        ingest_rate_limit_bytes: ByteSize = "0",
        /// Bytes that a tenant may send at once above the rate. `auto`: one second of the rate, at
        /// least `max_message_bytes`.
        ingest_rate_burst_bytes: Option<ByteSize> = "auto",
        /// How long a query may run.
        query_timeout: Duration = "30s",
        /// How often a streamed answer says what has been found so far, or how far the query is.
        query_stream_interval: Duration = "500ms",
        /// Queries that run at the same time. `auto`: one per core.
        query_concurrency: Option<usize> = "auto",
        /// Queries that may wait for their turn; further ones are refused.
        query_queue: usize = "100",
        /// Traces that one search returns at most.
        query_max_results: usize = "262144",
        /// Traces that one search looks at, at most, to find them.
        query_max_examined_traces: usize = "1000000",
        /// No trace is taken to last longer than this: searches look as far outside their time range
        /// for the other spans of a trace.
        query_max_trace_duration: Duration = "1h",
        /// Tenants that one query may ask at once (`X-Scope-OrgID: a|b`). 1: each for itself.
        query_max_tenants: usize = "100",
        /// Longest query text, or structured filter of Jaeger's, in bytes; longer ones are refused unread.
        query_max_bytes: ByteSize = "128KiB",
        /// Largest body of a request that compares traces or speaks MCP.
        query_max_body_bytes: ByteSize = "2MiB",
        /// Spans that a search shows of each spanset, at most.
        query_max_spans_per_spanset: usize = "100",
        /// Longest time range of a search that names one. 0: no limit.
        query_search_max_range: Duration = "0",
        /// Longest time range of a metrics query. 0: no limit.
        query_metrics_max_range: Duration = "24h",
        /// Intervals that a metrics query may divide its range into.
        query_metrics_max_intervals: usize = "10000",
        /// Series that a metrics query returns at most; the answer says when there are more. 0: no limit.
        query_metrics_max_series: usize = "10000",
        /// By how much clocks of different hosts are taken to be off at most: in Jaeger's answers, spans that lie
        /// outside their parents are moved by that much. 0: they are not moved, and a warning says by how much
        /// they are off.
        jaeger_max_clock_skew_adjust: Duration = "0",
        /// Exemplars that a metrics query returns at most, and unless it asks for fewer.
        query_metrics_max_exemplars: usize = "100",
        /// Bytes of tag names or values that one request returns; the answer says when there are more.
        query_tags_max_bytes: ByteSize = "1000000",
    }
    "Process" {
        /// How log lines look.
        log_format: LogFormat = "text",
        /// How much is logged.
        log_level: LogLevel = "info",
        /// How long requests that are under way at a shutdown may take to finish. The head is
        /// written after that, however long it takes; to a `storage` as `storage_shutdown_timeout` has it.
        shutdown_timeout: Duration = "10s",
    }
}
