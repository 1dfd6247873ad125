//! What is asked, and what it may read.

use std::collections::BTreeSet;

use spoor_model::{TenantId, TraceId};
use spoor_querier::{Filter, SearchRequest};
use spoor_traceql::{Window, parse, plan_metrics, plan_search};

use crate::storage::{Blocks, Process, Reads, context};

/// What a question may read at most.
#[derive(Debug, Clone, Copy)]
enum Bound {
    /// So many percent of the bytes of the hour's blocks.
    Percent(u64),
    /// So many requests per block that may hold it.
    RequestsPerBlock(u64),
}

/// Blocks around the hour that may be opened for nothing, as 32 bits of a trace's id are also those of another trace of
/// another block: with ten neighbours of twelve thousand traces, that is every third block.
const OPENED_FOR_NOTHING: usize = 8;

#[derive(Debug, Clone, Copy)]
enum Kind {
    /// The newest twenty; whether there are any.
    Search(&'static str, bool),
    /// A series per minute; whether there are any.
    Metrics(&'static str, bool),
    KnownTrace,
    UnknownTrace,
}

/// One question.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Question {
    kind: Kind,
    bound: Bound,
}

const fn search(text: &'static str, percent: u64) -> Question {
    Question { kind: Kind::Search(text, true), bound: Bound::Percent(percent) }
}

const fn nothing(text: &'static str, percent: u64) -> Question {
    Question { kind: Kind::Search(text, false), bound: Bound::Percent(percent) }
}

const fn metrics(text: &'static str, percent: u64) -> Question {
    Question { kind: Kind::Metrics(text, true), bound: Bound::Percent(percent) }
}

const fn no_metrics(text: &'static str, percent: u64) -> Question {
    Question { kind: Kind::Metrics(text, false), bound: Bound::Percent(percent) }
}

/// All of them. What a search reads before it has the newest twenty depends on which group is read first, and what it reads of
/// the traces that it shows is all of their columns.
pub(crate) const QUESTIONS: &[Question] = &[
    search("{ }", 95),
    search("{ resource.service.name = \"checkout\" && status = error }", 95),
    search("{ span.http.response.status_code = 503 }", 95),
    search("{ span.user.id = \"u-100170\" }", 95),
    search("{ resource.service.name = \"gateway\" } >> { status = error }", 95),
    nothing("{ span.user.id = \"nobody\" }", 30),
    nothing("{ resource.service.name = \"nobody\" }", 25),
    nothing("{ span.no.such.key = \"nobody\" }", 25),
    nothing("{ name = \"nobody\" }", 25),
    nothing("{ span.http.response.body.size = 1821 }", 25),
    nothing("{ duration > 1d }", 25),
    nothing("{ resource.service.name = \"gateway\" } >> { span.user.id = \"nobody\" }", 25),
    no_metrics("{ span.user.id = \"nobody\" } | rate() by(resource.service.name)", 25),
    // Of blocks as small as those of the test, filters of values are much, and lie between what is read.
    metrics("{ } | rate() by(resource.service.name)", 70),
    metrics("{ resource.service.name = \"checkout\" && status = error } | count_over_time()", 50),
    metrics("{ span.http.response.status_code = 503 } | count_over_time()", 50),
    metrics("{ } | quantile_over_time(duration, .9) by(span.http.route)", 85),
    Question { kind: Kind::KnownTrace, bound: Bound::RequestsPerBlock(4) },
    Question { kind: Kind::UnknownTrace, bound: Bound::RequestsPerBlock(0) },
];

impl Question {
    pub(crate) fn name(&self) -> String {
        match self.kind {
            Kind::Search(text, _) => format!("newest 20 of `{text}`"),
            Kind::Metrics(text, _) => format!("`{}`", text.replace('|', "\\|")),
            Kind::KnownTrace => "a trace by id".to_owned(),
            Kind::UnknownTrace => "an id of nobody".to_owned(),
        }
    }

    /// Asks for the first time.
    pub(crate) fn ask(&self, process: &Process, blocks: &Blocks) {
        self.ask_number(0, process, blocks);
    }

    /// Asks for another trace, for another value of nobody, or for the same once more.
    pub(crate) fn ask_again(&self, process: &Process, blocks: &Blocks) {
        self.ask_number(1, process, blocks);
    }

    fn ask_number(&self, number: u64, process: &Process, blocks: &Blocks) {
        let (tenant, ctx, querier) = (TenantId::single(), context(), &process.querier);
        let is_there = match self.kind {
            Kind::Search(text, _) => {
                let text = text.replace("nobody", if number == 0 { "nobody" } else { "nobody else" });
                let plan = plan_search(&parse(&text).unwrap()).unwrap();
                let request = SearchRequest {
                    filter: Filter::Query(plan),
                    min_duration_nano: None,
                    max_duration_nano: None,
                    range: blocks.hour(),
                    limit: 20,
                };
                let answer = querier.search(&[tenant], &request, &ctx).unwrap();
                assert!(answer.skipped.is_empty(), "{answer:?}");
                !answer.value.is_empty()
            }
            Kind::Metrics(text, _) => {
                let text = text.replace("nobody", if number == 0 { "nobody" } else { "nobody else" });
                let plan = plan_metrics(&parse(&text).unwrap()).unwrap();
                let window = Window::exact(blocks.hour().start.0, blocks.hour().end.0, 60_000_000_000);
                !querier.metrics(&[tenant], &plan, &window, 0, &ctx).unwrap().value.is_empty()
            }
            Kind::KnownTrace => querier.find_trace(&tenant, blocks.known_trace(number), &ctx).unwrap().value.is_some(),
            Kind::UnknownTrace => {
                let nobody = TraceId((u128::from(number) + 0x00c0_ffee).to_be_bytes());
                querier.find_trace(&tenant, nobody, &ctx).unwrap().value.is_some()
            }
        };
        assert_eq!(is_there, !self.is_of_nobody(), "{}", self.name());
    }

    /// Whether nothing is found.
    fn is_of_nobody(&self) -> bool {
        matches!(self.kind, Kind::UnknownTrace | Kind::Search(_, false) | Kind::Metrics(_, false))
    }

    /// Panics when more was read than may be: when blocks were just opened, when asked again, and after what is fetched
    /// unasked was there.
    pub(crate) fn check(&self, blocks: &Blocks, cold: &Reads, again: &Reads, fetched: &Reads) {
        let name = self.name();
        let requests = |reads: &Reads| reads.values().map(|read| read.requests).sum::<u64>();
        if self.is_of_nobody() {
            assert_eq!(requests(fetched), 0, "{name}: nobody has it, and that is known: {fetched:?}");
            let is_of_spans = |object: &&String| object.ends_with("/spans.parquet");
            assert_eq!(cold.keys().find(is_of_spans), None, "{name}: nobody has it, and the index says so");
        }
        match self.bound {
            Bound::Percent(percent) => {
                let bytes: u64 = cold.values().map(|read| read.bytes).sum();
                let max = blocks.bytes_in_hour() * percent / 100;
                assert!(bytes <= max, "{name}: {bytes} bytes, at most {max}");
                assert_eq!(requests(again), 0, "{name}: everything is known the second time");
            }
            Bound::RequestsPerBlock(max) => {
                let most = requests(cold).max(requests(again));
                assert!(most <= max, "{name}: {most} requests, at most {max}");
            }
        }
        let mut opened = BTreeSet::new();
        for object in cold.keys() {
            let (_, object) = object.split_once('/').unwrap();
            let (block, file) = object.split_once('/').unwrap();
            if blocks.in_hour().any(|meta| meta.id.to_string() == block) {
                continue;
            }
            // The index says whether a block has traces of another one, and that the filter in memory was wrong.
            if file != "index.bin" {
                opened.insert(block);
            }
        }
        assert!(opened.len() <= OPENED_FOR_NOTHING, "{name}: {opened:?} have nothing of the hour");
    }
}
