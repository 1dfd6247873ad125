//! `spoor query`: asks a running Spoor, or a directory at rest, and shows the answer in a terminal.
//!
//! ```text
//!   text --which?--> trace id | search | metrics
//!                        |
//!     Transport: HTTP to a server, or the same routes in this process over a directory
//!                        |
//!     table | tree | the JSON as it came
//! ```
//!
//! Both ways go through Tempo's API, so what a terminal shows is what Grafana gets. The text is read here
//! first: a mistake is shown under its place, and nothing is sent.

use std::process::ExitCode;

use spoor_api::tempo::{self, Asked};
use spoor_model::TraceId;

mod arguments;
mod mistake;
mod table;
mod transport;
mod tree;

use arguments::{Output, Times};
pub(crate) use arguments::{QueryArguments, command, is_at_rest, read};
pub(crate) use table::Lines;
pub(crate) use transport::{Answer, Target, TraceAnswer, Transport, escape};

/// Traces that a search finds, unless told otherwise: as many as Tempo's API does.
const LIMIT: u32 = 20;

/// Most spans per spanset that the API returns: trees mark all that match.
const SPANS_MARKED_MAX: u32 = 100;

/// Runs the command to its end. The error is what to print on stderr, maybe over several lines.
pub(crate) fn run(arguments: &QueryArguments) -> Result<ExitCode, String> {
    let asked = tempo::asked(&arguments.text).map_err(|mistake| mistake::shown(&arguments.text, &mistake))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|err| format!("cannot start threads: {err}"))?;
    let text = runtime.block_on(answer(arguments, asked))?;
    crate::print(&text)
}

async fn answer(arguments: &QueryArguments, asked: Asked) -> Result<String, String> {
    let transport = Transport::open(&arguments.target)?;
    if arguments.explain {
        let path = format!("/spoor/explain?q={}{}", escape(&arguments.text), arguments.times.parameters(asked));
        return transport.get(&path).await?.text();
    }
    match asked {
        Asked::Trace(id) => trace(&transport, arguments, id).await,
        Asked::Search => search(&transport, arguments).await,
        Asked::Metrics => metrics(&transport, arguments).await,
    }
}

async fn trace(transport: &Transport, arguments: &QueryArguments, id: TraceId) -> Result<String, String> {
    match arguments.output.unwrap_or(Output::Tree) {
        Output::Json => transport.get(&format!("/api/v2/traces/{id}")).await?.json_line(),
        Output::Table | Output::Tree => {
            let TraceAnswer { trace, partial } = transport.trace(id).await?;
            match (trace, partial) {
                (Some(trace), None) => Ok(tree::shown(&trace, &[])),
                (Some(trace), Some(partial)) => Ok(format!("{}{partial}\n", tree::shown(&trace, &[]))),
                (None, None) => Err(format!("trace {id} not found")),
                (None, Some(partial)) => Err(format!("trace {id} not found; {partial}")),
            }
        }
    }
}

async fn search(transport: &Transport, arguments: &QueryArguments) -> Result<String, String> {
    let output = arguments.output.unwrap_or(Output::Table);
    let spans_max = arguments.spans_max.or((output == Output::Tree).then_some(SPANS_MARKED_MAX));
    let mut path = format!("/api/search?q={}&limit={}", escape(&arguments.text), arguments.limit.unwrap_or(LIMIT));
    if let Some(spans_max) = spans_max {
        path.push_str(&format!("&spss={spans_max}"));
    }
    path.push_str(&arguments.times.parameters(Asked::Search));
    let reply = transport.get(&path).await?;
    match output {
        Output::Json => reply.json_line(),
        Output::Table => Ok(table::of_traces(&reply.json()?, arguments.spans_max.is_some())? + &reply.note()),
        Output::Tree => {
            let answer = reply.json()?;
            let mut text = String::new();
            for found in table::found(&answer) {
                if let Some(trace) = transport.trace(found.trace_id).await?.trace {
                    text.push_str(&tree::shown(&trace, &found.span_ids));
                    text.push('\n');
                }
            }
            Ok(if text.is_empty() { "no traces\n".to_owned() } else { text } + &reply.note())
        }
    }
}

async fn metrics(transport: &Transport, arguments: &QueryArguments) -> Result<String, String> {
    let (q, times) = (escape(&arguments.text), arguments.times.parameters(Asked::Metrics));
    let path = match arguments.is_instant {
        true => format!("/api/metrics/query?q={q}{times}"),
        false => {
            let step = arguments.step.as_ref().map(|step| format!("&step={}", escape(step))).unwrap_or_default();
            format!("/api/metrics/query_range?q={q}{times}{step}")
        }
    };
    let reply = transport.get(&path).await?;
    match arguments.output.unwrap_or(Output::Table) {
        Output::Json => reply.json_line(),
        Output::Table => Ok(table::of_series(&reply.json()?)? + &reply.note()),
        Output::Tree => Err("series have no tree; use --output table or json".to_owned()),
    }
}

impl Times {
    /// As parameters of the API, each with its `&`. A search takes whole seconds only.
    fn parameters(&self, asked: Asked) -> String {
        let mut parameters = String::new();
        if let Some(since) = &self.since {
            parameters.push_str(&format!("&since={}", escape(since)));
        }
        let unit = if matches!(asked, Asked::Metrics) { 1 } else { 1_000_000_000 };
        for (name, time) in [("start", self.start), ("end", self.end)] {
            if let Some(time) = time {
                parameters.push_str(&format!("&{name}={}", time.0 / unit));
            }
        }
        parameters
    }
}
