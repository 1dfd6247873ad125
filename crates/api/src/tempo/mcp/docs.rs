//! What assistants may read of the documentation: parts of `docs/traceql.md` and `docs/configuration.md`.

use serde_json::{Value as Json, json};

const TRACEQL: &str = include_str!("../../../../../docs/traceql.md");
const CONFIGURATION: &str = include_str!("../../../../../docs/configuration.md");

const OVERVIEW: &str = "# Configuration of Spoor\n\nEvery setting may be given as a flag (`--retention 24h`), as a variable \
    (`SPOOR_RETENTION=24h`) or in a YAML file (`retention: 24h`). `GET /status/config` has the values in force, \
    `GET /status/overrides` the limits of tenants, and `config-reference` every setting with its default.\n";

/// The headings under which `docs/traceql.md` has a topic.
fn headings(topic: &str) -> Option<&'static [&'static str]> {
    match topic {
        "basic" => Some(&["Filters"]),
        "structural" => Some(&["Traces from several conditions"]),
        "aggregates" => Some(&["Pipelines"]),
        "metrics" => Some(&["Time series", "Hints"]),
        _ => None,
    }
}

/// Topics of TraceQL.
pub(super) const TRACEQL_TOPICS: [&str; 4] = ["basic", "aggregates", "structural", "metrics"];

/// Topics of the configuration.
pub(super) const CONFIG_TOPICS: [&str; 2] = ["config-overview", "config-reference"];

/// A topic of TraceQL as Markdown.
pub(super) fn traceql(topic: &str) -> Option<String> {
    Some(headings(topic)?.iter().map(|heading| section(heading)).collect())
}

/// A topic of the configuration as Markdown.
pub(super) fn config(topic: &str) -> Option<String> {
    match topic {
        "config-overview" => Some(OVERVIEW.to_owned()),
        "config-reference" => Some(CONFIGURATION.to_owned()),
        _ => None,
    }
}

/// From a heading of the second level to the next.
fn section(heading: &str) -> String {
    let is_heading = |line: &&str| line.starts_with("## ");
    let lines = TRACEQL.lines().skip_while(|line| line.strip_prefix("## ") != Some(heading));
    let (first, rest) = (lines.clone().next().unwrap_or_default(), lines.skip(1));
    let rest = rest.take_while(|line| !is_heading(line));
    std::iter::once(first).chain(rest).flat_map(|line| [line, "\n"]).collect()
}

/// URI, and what is there.
const RESOURCES: [(&str, &str); 7] = [
    ("docs://traceql/query", "TraceQL, whole"),
    ("docs://traceql/metrics", "TraceQL: time series"),
    ("docs://traceql/basic", "TraceQL: filters"),
    ("docs://traceql/aggregates", "TraceQL: pipelines"),
    ("docs://traceql/structural", "TraceQL: parents, children and several conditions"),
    ("docs://config/overview", "How Spoor is configured"),
    ("docs://config/reference", "Every setting"),
];

/// For `resources/list`.
pub(super) fn resources() -> Vec<Json> {
    let resource = |(uri, name)| json!({"uri": uri, "name": name, "mimeType": "text/markdown"});
    RESOURCES.into_iter().map(resource).collect()
}

/// For `resources/read`.
pub(super) fn resource(uri: &str) -> Option<String> {
    match uri.strip_prefix("docs://")?.split_once('/')? {
        ("traceql", "query") => Some(TRACEQL.to_owned()),
        ("traceql", topic) => traceql(topic),
        ("config", topic) => config(&format!("config-{topic}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_resource_and_topic_has_text() {
        for (uri, _) in RESOURCES {
            assert!(resource(uri).is_some_and(|text| text.len() > 200), "{uri}");
        }
        for topic in TRACEQL_TOPICS {
            let text = traceql(topic).unwrap();
            let headings = text.lines().filter(|line| line.starts_with("## ")).count();
            assert_eq!(headings, super::headings(topic).unwrap().len(), "{topic}");
        }
        assert_eq!(resource("docs://traceql/other"), None);
        assert_eq!(resource("file:///etc/passwd"), None);
    }
}
