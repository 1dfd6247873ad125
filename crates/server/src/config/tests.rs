use std::time::Duration;

use super::*;

fn from_yaml(text: &str) -> Result<Config, String> {
    let mut raw = RawConfig::default();
    raw.set_from_yaml("spoor.yaml", text).and_then(|()| Config::new(&raw)).map_err(|err| err.to_string())
}

#[test]
fn every_default_is_valid_and_stands_as_it_is_shown() {
    let config = from_yaml("").unwrap();
    for (setting, (key, shown)) in SETTINGS.iter().zip(config.entries()) {
        assert_eq!((setting.key, setting.default), (key, shown.as_str()));
    }
    assert_eq!(config.retention, Duration::from_secs(7 * 24 * 3600));
    let plan = config.memory().unwrap();
    assert_eq!((plan.head, plan.block_cache), (ByteSize(156 << 20), ByteSize(52 << 20)));
}

#[test]
fn a_flag_wins_over_a_variable_and_a_variable_over_the_file() {
    let mut raw = RawConfig::default();
    raw.set_from_yaml("spoor.yaml", "retention: 1h\ntempo_port: 1\nlog_level: debug\n").unwrap();
    let variables = [("SPOOR_RETENTION", "2h"), ("SPOOR_TEMPO_PORT", "2"), ("HOME", "x")];
    raw.set_from_variables(variables.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())));
    raw.set(Setting::find("retention").unwrap(), "3h".to_owned(), "--retention".to_owned());
    let config = Config::new(&raw).unwrap();
    assert_eq!(config.retention, Duration::from_secs(3 * 3600));
    assert_eq!((config.tempo_port, config.log_level), (2, LogLevel::Debug));
}

#[test]
fn yaml_scalars_and_lists_are_read_as_flags_would_be() {
    let config = from_yaml(
        "multitenancy: true\nmax_message_bytes: 1048576\ncors_allowed_origins: [https://a.example, 'https://b.example']\n",
    )
    .unwrap();
    assert!(config.multitenancy);
    let of_tenants = "retention_by_tenant: {b: 7d, a: 90m}\n";
    for text in [of_tenants, "retention_by_tenant: [b=7d, a=90m]\n", "retention_by_tenant: a=90m,b=168h\n"] {
        assert_eq!(from_yaml(text).unwrap(), from_yaml(of_tenants).unwrap(), "{text}");
    }
    assert_eq!(from_yaml(of_tenants).unwrap().retention_by_tenant.len(), 2);
    assert_eq!(config.max_message_bytes, ByteSize(1 << 20));
    assert_eq!(config.cors_allowed_origins, ["https://a.example", "https://b.example"]);
}

#[test]
fn errors_are_one_line_that_names_the_place() {
    for (yaml, expected) in [
        ("\nretenton: 1h\n", "spoor.yaml:2: unknown key `retenton`, did you mean `retention`?"),
        ("data-dir: x\n", "spoor.yaml:1: unknown key `data-dir`, did you mean `data_dir`?"),
        ("colour: blue\n", "spoor.yaml:1: unknown key `colour`, see `spoor --help`"),
        ("retention: soon\n", "spoor.yaml:1: retention: `soon` is not a duration, such as 168h, 7d, 1h30m or 500ms"),
        ("tempo_port: 70000", "spoor.yaml:1: tempo_port: `70000` is not a port (0 to 65535; 0 takes any free one)"),
        ("retention: {a: 1}", "spoor.yaml: not a valid configuration file: `retention` must be a duration"),
        ("- a", "spoor.yaml: not a valid configuration file: expected `key: value` lines"),
        ("tempo_port: 4317", "tempo_port and otlp_grpc_port are both 4317; each needs a port of its own"),
        ("memory_limit: 1MiB", "memory_limit is 1MiB, at least 192MiB are needed"),
        ("query_timeout: 0", "query_timeout must be more than 0"),
        ("compaction_cpu_share: 0", "compaction_cpu_share is 0, it must be 1 to 100 percent"),
        (
            "compaction_io_bytes_per_second: 1KiB",
            "compaction_io_bytes_per_second is 1KiB, it must be at least 1MiB, or 0 for no bound",
        ),
        ("compaction_window: 0", "compaction_window must be more than 0"),
    ] {
        assert_eq!(from_yaml(yaml).unwrap_err(), expected);
    }
}

#[test]
fn the_parts_of_memory_must_fit_into_the_whole() {
    let err = from_yaml("head_memory_limit: 512MiB").unwrap_err();
    assert!(
        err.starts_with("head_memory_limit (512MiB), ") && err.contains("exceed memory_limit (512MiB) less 96MiB"),
        "{err}"
    );
    let err = from_yaml("head_cut_bytes: 97MiB").unwrap_err();
    assert!(err.contains("at most half of head_memory_limit (156MiB)"), "{err}");
    let err = from_yaml("max_message_bytes: 57MiB\ningest_inflight_bytes: 56MiB").unwrap_err();
    assert!(err.contains("at most ingest_inflight_bytes (56MiB)"), "{err}");
    let smallest = from_yaml("memory_limit: 192MiB").unwrap().memory().unwrap();
    assert_eq!((smallest.head, smallest.ingest_inflight), (ByteSize(24 << 20), ByteSize(16 << 20)));
    assert_eq!(smallest.block_cache, ByteSize(12 << 20));
    let plan = from_yaml("memory_limit: 1GiB\nhead_cut_bytes: 100MiB").unwrap().memory().unwrap();
    assert_eq!((plan.head, plan.head_cut), (ByteSize(348 << 20), ByteSize(100 << 20)));
}

#[test]
fn variables_that_others_set_are_no_settings() {
    let variables =
        [("SPOOR_TEMPO_PORT", "tcp://10.0.0.1:3200"), ("SPOOR_SERVICE_HOST", "10.0.0.1"), ("SPOOR_RETENTON", "1h")];
    let mut raw = RawConfig::default();
    let warnings = raw.set_from_variables(variables.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())));
    assert_eq!(raw, RawConfig::default());
    assert_eq!(warnings, ["SPOOR_RETENTON is no setting; did you mean SPOOR_RETENTION?"]);
}

#[test]
fn the_configuration_in_force_is_read_back_as_it_was() {
    let config = from_yaml("retention: 3d\ncors_allowed_origins: ['*']\nmultitenancy: true\n").unwrap();
    assert_eq!(from_yaml(&config.to_yaml()), Ok(config));
}

#[test]
fn a_window_longer_than_a_retention_is_warned_of() {
    let warned = |text: &str| from_yaml(text).unwrap().warnings().join("\n");
    assert!(
        warned("compaction_window: 30d").contains("compaction_window is 720h, more than the shortest retention (168h)")
    );
    assert!(warned("compaction_window: 2h\nretention_by_tenant: a=1h").contains("retention (1h)"));
    for fine in ["compaction_window: 7d", "compaction_window: 30d\nretention: 0", "retention: 1h"] {
        assert_eq!(warned(fine), "", "{fine}");
    }
}

#[test]
fn what_is_no_storage_and_what_would_never_or_always_be_polled_is_refused() {
    for (text, named) in [
        ("storage: s3://", "storage"),
        ("storage: s3:///prefix", "storage"),
        ("storage: file://rel", "storage"),
        ("storage_poll_interval: 0s", "storage_poll_interval"),
        ("retention_by_tenant: a=1h,a=1000h", "names a tenant twice"),
        ("retention_by_tenant: [a=1h, b=2h, a=1000h]", "names a tenant twice"),
    ] {
        let err = from_yaml(text).err().unwrap_or_else(|| panic!("{text} passes")).to_string();
        assert!(err.contains(named), "{text}: {err}");
    }
}

#[test]
fn a_grace_period_that_ends_before_queries_do_is_warned_of() {
    let warned = |text: &str| from_yaml(text).unwrap().warnings().join("\n");
    let of = "storage: s3://a\nstorage_poll_interval: 30s\nquery_timeout: 30s\nstorage_grace_period: ";
    for (grace, is_warned) in [("59s", true), ("1m", true), ("61s", false), ("0", false)] {
        assert_eq!(!warned(&format!("{of}{grace}")).is_empty(), is_warned, "{grace}");
    }
    let text = warned(&format!("{of}10s"));
    for key in ["storage_grace_period is 10s", "storage_poll_interval (30s)", "query_timeout (30s)"] {
        assert!(text.contains(key), "{text}");
    }
    assert_eq!(warned("storage_grace_period: 1s"), "", "nobody else reads the data directory");
}
