//! What readers ask, and what they know of the answers.

use std::collections::BTreeMap;

use serde_json::Value;
use spoor_model::TraceId;
use spoor_testkit::client::http::Answer;
use spoor_testkit::corpus::{Corpus, Settings};
use spoor_testkit::rng::Rng;
use spoor_testkit::{corpus, digest};

use super::writer::Frames;

/// Services of the corpus.
const SERVICE_COUNT: usize = 12;
/// Traces whose spans are counted beforehand.
const TRACES_KNOWN: usize = 2000;
const LIMIT: usize = 20;

/// The corpus that lies in blocks before anybody asks.
pub(crate) struct Known {
    pub(crate) frames: Frames,
    /// Some of its traces, with the number of their spans.
    traces: Vec<(TraceId, usize)>,
    /// In seconds: everything of it, and nothing else, starts in between.
    range: (u64, u64),
}

impl Known {
    pub(crate) fn new(settings: Settings) -> Self {
        let wanted = TRACES_KNOWN.min(settings.trace_count as usize) as u64;
        let ids = (0..wanted).map(|index| corpus::trace_id(settings.seed, index * settings.trace_count / wanted));
        let mut counts: BTreeMap<TraceId, usize> = ids.map(|id| (id, 0)).collect();
        for request in Corpus::new(settings) {
            for (trace, _) in digest::ids(&request.body) {
                counts.entry(trace).and_modify(|count| *count += 1);
            }
        }
        let start = settings.start.0 / 1_000_000_000;
        // 120 traces a second on average; the corpus that is sent meanwhile starts two hours later.
        let range = (start - 60, start + settings.trace_count / 100 + 600);
        Self { frames: Frames::new(settings), traces: counts.into_iter().collect(), range }
    }

    fn any_trace(&self, rng: &mut Rng) -> (TraceId, usize) {
        *rng.pick(&self.traces)
    }
}

/// Whose API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Surface {
    Tempo,
    Jaeger,
}

/// A kind of request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Question {
    pub(crate) name: &'static str,
    pub(crate) surface: Surface,
    what: What,
}

#[derive(Debug, Clone, Copy)]
enum What {
    /// A random trace, every span of it.
    Trace,
    /// The newest twenty traces that match TraceQL.
    Search(&'static str),
    /// Series by time; how many.
    Series(&'static str, usize),
    /// The number of all spans in blocks.
    CountOfAll,
    /// All names of services.
    Services(&'static str),
    /// The newest twenty traces of a service.
    TracesOf(&'static str),
    Dependencies,
    Calls(&'static str),
}

const fn question(surface: Surface, name: &'static str, what: What) -> Question {
    Question { name, surface, what }
}

/// One round of a reader. A third is traces by id, which is what people open.
pub(crate) const ROUND: [Question; 15] = {
    use Surface::{Jaeger, Tempo};
    let by_id = question(Tempo, "Tempo: trace by id", What::Trace);
    let by_id_jaeger = question(Jaeger, "Jaeger: trace by id", What::Trace);
    let structure = "{ resource.service.name = \"gateway\" } >> { kind = client }";
    let errors = "{ resource.service.name = \"checkout\" && status = error }";
    [
        by_id,
        question(Tempo, "Tempo: search, errors of a service", What::Search(errors)),
        by_id_jaeger,
        question(Tempo, "Tempo: search, descendants", What::Search(structure)),
        by_id,
        question(
            Tempo,
            "Tempo: series, rate by service",
            What::Series("{ } | rate() by (resource.service.name)", SERVICE_COUNT),
        ),
        question(Jaeger, "Jaeger: search, a service", What::TracesOf("checkout")),
        by_id,
        question(Tempo, "Tempo: number of all spans", What::CountOfAll),
        question(Jaeger, "Jaeger: services", What::Services("/api/services")),
        by_id_jaeger,
        question(
            Tempo,
            "Tempo: values of an attribute",
            What::Services("/api/v2/search/tag/resource.service.name/values"),
        ),
        question(Jaeger, "Jaeger: dependencies", What::Dependencies),
        by_id,
        question(Jaeger, "Jaeger: calls of a service", What::Calls("checkout")),
    ]
};

/// What the answer to one request must be.
pub(crate) struct Expected(TraceId, usize);

impl Question {
    /// The request's path, and what is to be compared with the answer.
    pub(crate) fn ask(&self, known: &Known, rng: &mut Rng) -> (String, Expected) {
        let (id, span_count) = known.any_trace(rng);
        let (start, end) = known.range;
        let within = format!("start={start}&end={end}");
        let lookback = format!("endTs={}&lookback={}", end * 1000, (end - start) * 1000);
        let path = match self.what {
            What::Trace => format!("/api/traces/{id}"),
            What::Search(query) => format!("/api/search?q={}&{within}&limit={LIMIT}", escape(query)),
            What::Series(query, _) => {
                format!("/api/metrics/query_range?q={}&{within}&step={}s", escape(query), (end - start) / 60)
            }
            What::CountOfAll => format!("/api/metrics/query?q={}&{within}", escape("{ } | count_over_time()")),
            What::Services(path) => path.to_owned(),
            What::TracesOf(service) => {
                format!("/api/traces?service={service}&limit={LIMIT}&start={start}000000&end={end}000000")
            }
            What::Dependencies => format!("/api/dependencies?{lookback}"),
            What::Calls(service) => {
                format!("/api/metrics/calls?service={service}&{lookback}&step=60000&ratePer=600000")
            }
        };
        (path, Expected(id, span_count))
    }

    /// Panics when the answer is not right, as far as that is known.
    pub(crate) fn check(&self, known: &Known, expected: &Expected, answer: &Answer) {
        assert_eq!(answer.status, 200, "{}: {}", self.name, answer.text());
        let Expected(id, span_count) = expected;
        let len = |value: &Value| value.as_array().map_or(0, Vec::len);
        let count = match (self.what, self.surface) {
            (What::Trace, Surface::Tempo) => {
                let ids = digest::ids(&answer.body);
                assert!(ids.iter().all(|(trace, _)| trace == id), "{}: another trace than {id}", self.name);
                return assert_eq!(ids.len(), *span_count, "{}: spans of {id}", self.name);
            }
            (What::Trace, Surface::Jaeger) => {
                return assert_eq!(len(&answer.json()["data"][0]["spans"]), *span_count, "spans of {id}");
            }
            (What::CountOfAll, _) => {
                let counted = answer.json()["series"][0]["value"].as_f64();
                return assert_eq!(counted, Some(known.frames.span_count as f64), "{}", answer.text());
            }
            (What::Series(_, wanted), _) => {
                return assert_eq!(len(&answer.json()["series"]), wanted, "{}", self.name);
            }
            (What::Services(_), Surface::Tempo) => len(&answer.json()["tagValues"]),
            (What::Search(_), _) => len(&answer.json()["traces"]),
            (What::Calls(_), _) => len(&answer.json()["metrics"][0]["metricPoints"]),
            (What::Services(_) | What::TracesOf(_) | What::Dependencies, _) => len(&answer.json()["data"]),
        };
        let is_right = match self.what {
            What::Services(_) => count == SERVICE_COUNT,
            What::Search(_) | What::TracesOf(_) => (1..=LIMIT).contains(&count),
            _ => count > 0,
        };
        assert!(is_right, "{}: {count} in {}", self.name, answer.text());
    }
}

/// For a URL's query: what is not plainly a letter, digit or mark becomes bytes in hex.
fn escape(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    let escaped =
        text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") });
    escaped.collect()
}
