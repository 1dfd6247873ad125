//! Which crate may use which: the list of arrows in `ARCHITECTURE.md`.

use crate::Findings;
use crate::metadata::Metadata;
use crate::tree::Tree;

/// What each crate may use of ours besides `model`. A new arrow needs a record in `docs/adr/`.
const ARROWS: &[(&str, &[&str])] = &[
    ("otlp", &[]),
    ("traceql", &[]),
    ("block", &[]),
    ("distributor", &["otlp"]),
    ("ingester", &["block"]),
    ("compactor", &["block"]),
    ("querier", &["traceql", "block"]),
    ("api", &["distributor", "querier", "traceql", "otlp"]),
    ("server", &["otlp", "block", "distributor", "ingester", "compactor", "querier", "api"]),
    ("testkit", &["traceql"]),
    ("xtask", &[]),
];

/// Crates that stay free of what only their neighbours may know.
const PURE: &[(&str, &[&str])] = &[
    ("spoor-model", &["tokio", "parquet", "rocksdb", "axum", "hyper"]),
    ("spoor-traceql", &["tokio", "parquet", "rocksdb", "axum", "hyper"]),
    ("spoor-otlp", &["tokio", "parquet", "rocksdb", "axum", "hyper"]),
    ("spoor-block", &["tokio", "rocksdb", "axum", "hyper", "spoor-traceql"]),
    ("spoor-querier", &["tokio", "rocksdb", "axum", "hyper", "spoor-ingester"]),
    ("spoor-ingester", &["axum", "hyper", "spoor-traceql"]),
];

/// Every dependency between crates of ours is in the list. Tests may use more.
pub fn arrows(metadata: &Metadata) -> Findings {
    let mut findings = Findings::new();
    for package in metadata.ours() {
        let ours = |name: &str| name.strip_prefix("spoor-").map(str::to_owned);
        let used: Vec<String> = metadata.uses(package).filter_map(ours).collect();
        let allowed: &[&str] = match ours(&package.name).as_deref() {
            None => &["server"],
            Some("model") => &[],
            Some(name) => match ARROWS.iter().find(|(listed, _)| *listed == name) {
                Some((_, allowed)) => allowed,
                None => {
                    findings.push(format!("{}: not in the list of crates (crates/xtask/src/layers.rs)", package.name));
                    continue;
                }
            },
        };
        let is_bad =
            |name: &&String| !allowed.contains(&name.as_str()) && (*name != "model" || package.name == "spoor");
        findings.extend(used.iter().filter(is_bad).map(|name| format!("{} may not use spoor-{name}", package.name)));
    }
    findings
}

/// What a crate must not know does not come in by a third crate either.
pub fn purity(metadata: &Metadata) -> Findings {
    let mut findings = Findings::new();
    for (package, forbidden) in PURE {
        let closure = metadata.closure(package);
        let found = forbidden.iter().filter(|name| closure.contains(*name));
        findings.extend(found.map(|name| format!("{package} is built from {name}")));
    }
    findings
}

/// Every crate that a manifest in `crates/` names occurs in that crate's sources.
pub fn needs(tree: &Tree, metadata: &Metadata) -> Findings {
    let mut findings = Findings::new();
    for package in metadata.ours() {
        let Some(name) = package.name.strip_prefix("spoor-") else { continue };
        let folder = format!("crates/{name}/");
        let sources: Vec<&str> =
            tree.rust().filter(|file| file.path.starts_with(&folder)).map(|file| file.text.as_str()).collect();
        let is_needless = |named: &&str| {
            let word = named.replace('-', "_");
            !sources.iter().any(|text| text.contains(&word))
        };
        let needless = package.names().filter(is_needless);
        findings.extend(needless.map(|named| format!("{folder}Cargo.toml: {named} is not used")));
    }
    findings
}
