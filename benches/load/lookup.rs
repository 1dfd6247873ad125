//! Traces found again: by id, over HTTP, one client, page cache warm.

use std::time::Duration;

use spoor_testkit::client::http::Connection;
use spoor_testkit::process::Server;
use spoor_testkit::rng::Rng;
use spoor_testkit::{corpus, digest, wait};

/// One kind of lookup.
#[derive(Debug, Clone)]
pub(crate) struct Lookup {
    pub(crate) name: &'static str,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
}

/// Asks for random traces of the corpus, all of which are in blocks, and for ids that nobody sent.
pub(crate) fn measure(server: &Server, seed: u64, trace_count: u64, count: usize) -> Vec<Lookup> {
    let mut rng = Rng::seeded(seed);
    let mut connection = Connection::new(server.tempo());
    let known: Vec<_> = (0..count).map(|_| corpus::trace_id(seed, rng.below(trace_count))).collect();
    let unknown: Vec<_> = (0..count).map(|_| spoor_model::TraceId(rng.id())).collect();
    // Every trace once before the clock runs.
    for id in &known {
        let answer =
            connection.send("GET", &format!("/api/traces/{id}"), &[("accept", "application/protobuf")], &[]).unwrap();
        assert_eq!(answer.status, 200, "trace {id}");
        assert!(digest::ids(&answer.body).iter().all(|(trace, _)| trace == id));
    }
    let mut time = |name: &'static str, accept: &str, ids: &[spoor_model::TraceId], status: u16| {
        let mut times: Vec<_> = ids
            .iter()
            .map(|id| {
                let path = format!("/api/traces/{id}");
                let clock = wait::stopwatch();
                let answer = connection.send("GET", &path, &[("accept", accept)], &[]).unwrap();
                let elapsed = clock.elapsed();
                assert_eq!(answer.status, status, "trace {id}");
                elapsed
            })
            .collect();
        times.sort_unstable();
        Lookup { name, p50: times[times.len() / 2], p99: times[times.len() * 99 / 100] }
    };
    vec![
        time("trace by id, protobuf", "application/protobuf", &known, 200),
        time("trace by id, JSON", "application/json", &known, 200),
        time("unknown id", "application/protobuf", &unknown, 404),
    ]
}
