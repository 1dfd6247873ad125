//! What is too much is refused, with the limit's name and a hint when to come back.

use spoor_testkit::build::{self, span, span_id, trace};
use spoor_testkit::client::{Compression, grpc};
use spoor_testkit::nasty::Nasty;

use super::{a_minute_ago, start};

const PROTOBUF: (&str, &str) = ("content-type", "application/x-protobuf");

#[test]
fn a_message_above_the_limit_is_refused_before_and_after_decompression() {
    let spoor = start(&["--max-message-bytes", "64KiB"]);
    let text = "x".repeat(100_000);
    let body = build::body([span("shop", "n", trace(1), span_id(1), a_minute_ago()).text("long", &text)]);
    let client = grpc::Client::connect(spoor.server.otlp_grpc()).unwrap();
    for compression in Compression::ALL {
        let answer = client.export(&body, compression).unwrap();
        assert_eq!(answer.status, 8, "{compression:?}: {answer:?}");
        let encoding = match compression {
            Compression::Identity => vec![PROTOBUF],
            other => vec![PROTOBUF, ("content-encoding", other.name())],
        };
        let answer = spoor.post(&encoding, &compression.compress(&body));
        assert_eq!(answer.status, 413, "{compression:?}: {}", answer.text());
    }
    assert_eq!(spoor.server.trace(trace(1)).unwrap(), None);
    // The connection is still good.
    assert_eq!(client.export(&Nasty::new(1, a_minute_ago()).request(3), Compression::Gzip).unwrap().status, 0);
}

#[test]
fn a_small_body_that_unpacks_to_a_giant_does_not_cost_the_memory() {
    let spoor = start(&[]);
    let zeros = vec![0; 300 << 20];
    let before = spoor.server.usage().resident_bytes_max;
    for compression in [Compression::Gzip, Compression::Zstd] {
        let bomb = compression.compress(&zeros);
        assert!(bomb.len() < 1 << 20);
        let answer = spoor.post(&[PROTOBUF, ("content-encoding", compression.name())], &bomb);
        assert_eq!(answer.status, 413, "{compression:?}: {}", answer.text());
    }
    let grown = spoor.server.usage().resident_bytes_max - before;
    assert!(grown < 100 << 20, "grew by {} MiB", grown >> 20);
}

#[test]
fn a_tenant_above_its_rate_is_told_when_to_come_back() {
    let spoor = start(&["--ingest-rate-limit-bytes", "1KiB", "--ingest-rate-burst-bytes", "32KiB"]);
    let mut nasty = Nasty::new(2, a_minute_ago());
    let client = grpc::Client::connect(spoor.server.otlp_grpc()).unwrap();
    let refused = (0..40)
        .map(|_| client.export(&nasty.request(20), Compression::Identity).unwrap())
        .find(|answer| answer.status != 0)
        .expect("40 requests of several KiB are more than 32 KiB");
    assert_eq!(refused.status, 8, "{refused:?}");
    let details = String::from_utf8_lossy(&refused.details).into_owned();
    assert!(details.contains("google.rpc.RetryInfo"), "no retry hint: {refused:?}");
    let answer = spoor.post(&[PROTOBUF], &nasty.request(40));
    assert_eq!(answer.status, 429, "{}", answer.text());
    assert!(answer.headers["retry-after"].parse::<u64>().unwrap() >= 1, "{answer:?}");
}
