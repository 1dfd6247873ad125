//! What is asked.

use serde_json::Value;

/// What must hold.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Floor {
    /// Millions of spans per second of CPU, at least.
    SpansPerSecond(f64),
    /// Time until the answer, at most.
    Millis(f64),
    /// The same, for each million of spans.
    MillisPerMillion(f64),
}

/// Where a query goes, and what its answer must be like.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// The newest twenty traces; how many must be found at least.
    Search(usize),
    /// One number over the whole range: at least one and at most as many as there are spans.
    Count,
    /// As `Count`, and exactly as many as there are spans.
    CountOfAll,
    /// Series by time; how many there must be at least.
    Range(usize),
    /// Names or values; how many there must be at least.
    Tags(&'static str, usize),
}

/// One query.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Query {
    pub(crate) name: &'static str,
    text: &'static str,
    kind: Kind,
    pub(crate) floor: Floor,
}

const fn count(name: &'static str, text: &'static str) -> Query {
    Query { name, text, kind: Kind::Count, floor: Floor::SpansPerSecond(30.0) }
}

const fn newest(name: &'static str, text: &'static str) -> Query {
    Query { name, text, kind: Kind::Search(20), floor: Floor::Millis(15.0) }
}

const fn nothing(name: &'static str, text: &'static str) -> Query {
    Query { name, text, kind: Kind::Search(0), floor: Floor::MillisPerMillion(5.0) }
}

const fn series(name: &'static str, text: &'static str, at_least: usize, rate: f64) -> Query {
    Query { name, text, kind: Kind::Range(at_least), floor: Floor::SpansPerSecond(rate) }
}

const fn tags(name: &'static str, path: &'static str, text: &'static str, floor: Floor) -> Query {
    Query { name, text, kind: Kind::Tags(path, 1), floor }
}

/// All of them.
pub(crate) const QUERIES: &[Query] = &[
    Query {
        name: "count of all spans",
        text: "{ } | count_over_time()",
        kind: Kind::CountOfAll,
        floor: Floor::SpansPerSecond(30.0),
    },
    count("service and error", "{ resource.service.name = \"checkout\" && status = error } | count_over_time()"),
    count("duration over 50 ms", "{ duration > 50ms && kind = server } | count_over_time()"),
    count("attribute of many values", "{ span.user.id =~ \"u.*7\" || span.user.id != nil } | count_over_time()"),
    count("descendants", "{ resource.service.name = \"gateway\" } >> { kind = client } | count_over_time()"),
    count("children", "{ kind = server } > { kind = client } | count_over_time()"),
    count("siblings", "{ kind = client } ~ { status = error } | count_over_time()"),
    count("traces of more than 20 spans", "{ } | count() > 20 | count_over_time()"),
    count("traces with a slow average", "{ kind = client } | avg(duration) > 2ms | count_over_time()"),
    count("root service", "{ trace:rootService = \"gateway\" && status = error } | count_over_time()"),
    newest("newest 20, service", "{ resource.service.name = \"frontend\" }"),
    newest("newest 20, everything", "{ }"),
    newest("newest 20, error", "{ status = error }"),
    newest("newest 20, descendants", "{ resource.service.name = \"gateway\" } >> { kind = client }"),
    newest(
        "newest 20, structure tab",
        "({nestedSetParent<0 && true } &>> { kind = server }) || ({nestedSetParent<0 && true }) | select(status, resource.service.name, name, nestedSetParent, nestedSetLeft, nestedSetRight)",
    ),
    newest("newest 20, more than 10 spans", "{ } | count() > 10"),
    nothing("no match, folded attribute", "{ resource.service.name = \"nobody\" }"),
    nothing("no match, user id", "{ span.user.id = \"nobody\" }"),
    nothing("no match, statement text", "{ span.db.statement = \"SELECT nothing\" }"),
    nothing("no match, unscoped", "{ .session.id = \"nobody\" }"),
    nothing("no match, name of a key", "{ span.no.such.key = 1 }"),
    nothing("no match, number", "{ span.network.peer.port = 70000 }"),
    series("rate by service", "{ } | rate() by(resource.service.name)", 5, 30.0),
    series("rate by name, errors", "{ status = error } | rate() by(name)", 1, 30.0),
    series(
        "quantiles of duration",
        "{ } | quantile_over_time(duration, .5, .9, .99) by(resource.service.name)",
        5,
        30.0,
    ),
    series("histogram of duration", "{ kind = server } | histogram_over_time(duration)", 3, 30.0),
    series("rate of roots", "{nestedSetParent<0 && true} | rate()  with(sample=true)", 1, 30.0),
    series("compare errors", "{ kind = server } | compare({status = error}, 10)", 5, 5.0),
    tags("tag names", "/api/v2/search/tags", "", Floor::Millis(5.0)),
    tags("tag values", "/api/v2/search/tag/resource.service.name/values", "", Floor::Millis(5.0)),
    tags("tag values, span name", "/api/v2/search/tag/name/values", "", Floor::Millis(5.0)),
    tags(
        "filtered tag values",
        "/api/v2/search/tag/span.http.route/values",
        "{ resource.service.name = \"frontend\" }",
        Floor::MillisPerMillion(30.0),
    ),
];

impl Query {
    /// The request, over a range in seconds.
    pub(crate) fn path(&self, start: u64, end: u64) -> String {
        let q = escape(self.text);
        match self.kind {
            Kind::Search(_) => format!("/api/search?q={q}&start={start}&end={end}&limit=20"),
            Kind::Count | Kind::CountOfAll => format!("/api/metrics/query?q={q}&start={start}&end={end}"),
            Kind::Range(_) => {
                let step = ((end - start) / 60).max(1);
                format!("/api/metrics/query_range?q={q}&start={start}&end={end}&step={step}s")
            }
            Kind::Tags(path, _) => format!("{path}?q={q}&start={start}&end={end}"),
        }
    }

    /// Panics when the answer cannot be right.
    pub(crate) fn check(&self, answer: &Value, span_count: u64) {
        let len = |key: &str| answer[key].as_array().map_or(0, Vec::len);
        match self.kind {
            Kind::Search(0) => assert_eq!(len("traces"), 0, "{}", self.name),
            Kind::Search(wanted) => assert!(len("traces") == wanted, "{}: {} traces", self.name, len("traces")),
            Kind::Count | Kind::CountOfAll => {
                let counted = answer["series"][0]["value"].as_f64().unwrap_or(0.0);
                let is_right = match self.kind {
                    Kind::CountOfAll => counted == span_count as f64,
                    _ => counted >= 1.0 && counted <= span_count as f64,
                };
                assert!(is_right, "{}: counted {counted} of {span_count}", self.name);
            }
            Kind::Range(wanted) => assert!(len("series") >= wanted, "{}: {} series", self.name, len("series")),
            Kind::Tags(_, wanted) => {
                let found = len("scopes").max(len("tagValues"));
                assert!(found >= wanted, "{}: {found} found", self.name);
            }
        }
    }
}

/// For a URL's query: what is not plainly a letter, digit or mark becomes bytes in hex.
fn escape(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    let escaped =
        text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") });
    escaped.collect()
}
