//! The first lines: what listens where, and what to do next.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::build_info;
use crate::config::{Config, LogFormat};

/// Where the ports really are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Addresses {
    pub(crate) tempo: SocketAddr,
    pub(crate) otlp_grpc: SocketAddr,
    pub(crate) otlp_http: SocketAddr,
    pub(crate) jaeger: SocketAddr,
    pub(crate) jaeger_grpc: SocketAddr,
}

/// Says that everything is up, in the form that the log has.
pub(crate) fn print(config: &Config, addresses: &Addresses) {
    match config.log_format {
        LogFormat::Text => {
            // Nobody is left to welcome when stderr is closed.
            let _ = std::io::stderr().write_all(text(config, addresses).as_bytes());
        }
        LogFormat::Json => tracing::info!(
            version = build_info::VERSION,
            data_dir = %config.data_dir.display(),
            storage = %config.storage.0,
            tempo = %addresses.tempo,
            otlp_grpc = %addresses.otlp_grpc,
            otlp_http = %addresses.otlp_http,
            jaeger = %addresses.jaeger,
            jaeger_grpc = %addresses.jaeger_grpc,
            "ready"
        ),
    }
}

fn text(config: &Config, addresses: &Addresses) -> String {
    let Addresses { tempo, otlp_grpc, otlp_http, jaeger, jaeger_grpc } = *addresses;
    let (from_here_tempo, from_here_http) = (reachable(tempo), reachable(otlp_http));
    let http = if config.tls_cert_file.0.is_some() { "https" } else { "http" };
    let retention = config.entries().into_iter().find(|(key, _)| *key == "retention").map(|(_, text)| text);
    let traces = r#"{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"hello"}}]},"scopeSpans":[{"spans":[{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174","name":"first span","kind":2,"startTimeUnixNano":"'$(date +%s)'000000000","endTimeUnixNano":"'$(date +%s)'250000000"}]}]}]}"#;
    format!(
        "\
Spoor {version} is ready. Spans are kept {place} for {retention}.

  send spans    OTLP gRPC   {otlp_grpc}
                OTLP HTTP   {http}://{otlp_http}/v1/traces
  find traces   Tempo API   {http}://{tempo}     (Grafana: data source Tempo)
                Jaeger API  {http}://{jaeger}    (Grafana: data source Jaeger)
                Jaeger gRPC {jaeger_grpc}
  watch Spoor   metrics     {http}://{tempo}/metrics

Send a first span and find it again:

  curl -X POST {http}://{from_here_http}/v1/traces -H 'Content-Type: application/json' -d '{traces}'
  curl {http}://{from_here_tempo}/api/traces/5b8efff798038103d269b633813fc60c

",
        version = build_info::VERSION,
        place = place(config),
        retention = retention.unwrap_or_default(),
    )
}

/// Where spans are: on object storage only as blocks.
fn place(config: &Config) -> String {
    let data_dir = config.data_dir.display();
    match config.storage.0.as_str() {
        "" => format!("in {data_dir}"),
        storage => format!("in {storage} (the newest, and a cache, in {data_dir})"),
    }
}

/// The address as a client on this machine writes it.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RawConfig;

    #[test]
    fn both_places_are_named_when_blocks_lie_elsewhere() {
        let mut raw = RawConfig::default();
        let storage = crate::config::Setting::find("storage").unwrap();
        raw.set(storage, "s3://traces/a".to_owned(), "--storage".to_owned());
        let told = place(&Config::new(&raw).unwrap());
        assert_eq!(told, "in s3://traces/a (the newest, and a cache, in ./spoor-data)");
    }

    #[test]
    fn a_newcomer_is_shown_every_port_and_a_command_to_paste() {
        let config = Config::new(&RawConfig::default()).unwrap();
        let at = |port| SocketAddr::from(([0, 0, 0, 0], port));
        let addresses =
            Addresses { tempo: at(1), otlp_grpc: at(2), otlp_http: at(3), jaeger: at(4), jaeger_grpc: at(5) };
        let text = text(&config, &addresses);
        for expected in [
            "kept in ./spoor-data for 168h",
            "0.0.0.0:2",
            "0.0.0.0:4",
            "0.0.0.0:5",
            "http://127.0.0.1:3/v1/traces -H",
            "http://127.0.0.1:1/api/traces/5b",
        ] {
            assert!(text.contains(expected), "{expected} in\n{text}");
        }
    }
}
