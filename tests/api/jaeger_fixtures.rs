//! The fixtures of Jaeger's surface: `api/fixtures/jaeger/shop/*.http`.

use super::fixtures::{Surface, check};
use super::{Spoor, start};

const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/api/fixtures/jaeger/shop");

/// Success is labelled as JSON, failure as text even when it is JSON.
const JAEGER: Surface = Surface {
    directory: DIRECTORY,
    address: |spoor| spoor.server.jaeger(),
    usual_type: |answer| Some(if answer.status == 200 { "application/json" } else { "text/plain; charset=utf-8" }),
    settle: |_, _, json| json,
};

#[test]
fn every_fixture_is_answered_as_it_stands_before_and_after_a_block_is_cut() {
    let mut spoor = start(&["--retention", "0"]);
    let request = std::fs::read(format!("{DIRECTORY}/request.json")).unwrap();
    let sent = spoor.post(&[("content-type", "application/json")], &request);
    assert_eq!((sent.status, sent.text().as_str()), (200, "{}"));
    let files =
        ["lists.http", "search.http", "traces.http", "dependencies.http", "v3.http", "filter.http", "other.http"];
    let check_all = |spoor: &Spoor| files.iter().map(|file| check(&JAEGER, spoor, file)).sum::<usize>();
    assert!(check_all(&spoor) >= 100);
    spoor.server.stop();
    spoor.server = spoor.server.launch().start();
    check_all(&spoor);
}
