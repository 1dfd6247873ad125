//! Every example of `docs/traceql.md`, on the data that the page itself gives.

use std::fmt::Write;

use spoor_testkit::traceql_corpus;

use crate::http::{HttpEngine, Service};

/// A fenced block of the page.
struct Block<'a> {
    /// What stands behind the fence.
    kind: &'a str,
    lines: Vec<&'a str>,
}

fn blocks(page: &str) -> Vec<Block<'_>> {
    let mut blocks = Vec::new();
    let mut open: Option<Block<'_>> = None;
    for line in page.lines() {
        match (line.strip_prefix("```"), open.take()) {
            (Some(_), Some(block)) => blocks.push(block),
            (Some(kind), None) => open = Some(Block { kind, lines: Vec::new() }),
            (None, Some(mut block)) => {
                block.lines.push(line);
                open = Some(block);
            }
            (None, None) => {}
        }
    }
    blocks
}

/// The page as a file of the corpus: its data, then its examples, each with the answer that follows it.
fn corpus(page: &str) -> String {
    let mut text = String::new();
    let blocks = blocks(page);
    for (at, block) in blocks.iter().enumerate() {
        let (word, options) = block.kind.split_once(' ').unwrap_or((block.kind, ""));
        let head = match word {
            "data" => {
                text.push_str("load\n");
                block.lines.iter().for_each(|line| writeln!(text, "  {}", line.split('#').next().unwrap()).unwrap());
                continue;
            }
            "traceql" => "eval",
            "metrics" => "metrics",
            _ => continue,
        };
        writeln!(text, "{}", [head, &block.lines.join(" "), options].join(" ").trim_end()).unwrap();
        let answer = blocks.get(at + 1).filter(|answer| answer.kind.is_empty());
        let answer = answer.unwrap_or_else(|| panic!("an example without an answer: {:?}", block.lines));
        answer.lines.iter().for_each(|line| writeln!(text, "  {line}").unwrap());
    }
    text
}

#[test]
fn examples_of_the_page_are_answered_as_it_says() {
    let page = include_str!("../../docs/traceql.md");
    let text = corpus(page);
    let service = Service::start();
    let count = traceql_corpus::run("docs/traceql.md", &text, &mut HttpEngine::new(&service))
        .unwrap_or_else(|failures| panic!("{failures}\n\nas read from the page:\n{text}"));
    assert!(count >= 20, "{count}");
}
