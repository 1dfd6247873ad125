//! Rules that hold for every source file.

use crate::Findings;
use crate::tree::{File, Tree};

/// Above it a file is two files.
const LINES_MAX: usize = 1000;

/// Words that say nothing about what a file holds.
const EMPTY_NAMES: [&str; 6] = ["util", "utils", "common", "helpers", "misc", "types"];

/// No source that people write has more than a thousand lines.
pub fn sizes(tree: &Tree) -> Findings {
    let lines = |file: &File| file.text.lines().count();
    let too_long = tree.rust().filter(|file| lines(file) > LINES_MAX && !file.path.contains("/gen/"));
    too_long.map(|file| format!("{}: {} lines, at most {LINES_MAX}", file.path, lines(file))).collect()
}

/// No `mod.rs`, and no crate, folder or file whose name says nothing.
pub fn names(tree: &Tree) -> Findings {
    let mut findings = Findings::new();
    for file in tree.rust() {
        if file.path.ends_with("/mod.rs") {
            findings.push(format!("{}: a module `foo` lives in foo.rs", file.path));
        }
        let mut words = file.path.split('/').map(|part| part.trim_end_matches(".rs"));
        if let Some(word) = words.find(|word| EMPTY_NAMES.contains(word)) {
            findings.push(format!("{}: `{word}` says nothing; name what it holds", file.path));
        }
    }
    findings
}

/// Open ends carry the number of their issue.
pub fn todos(tree: &Tree) -> Findings {
    // Written in pieces, so that this file passes.
    let marks = [["TO", "DO"].concat(), ["FIX", "ME"].concat(), ["XX", "X"].concat()];
    per_line(tree.rust(), |line| {
        let mark =
            marks.iter().find(|mark| line.contains(&format!("// {mark}")) || line.contains(&format!("//{mark}")))?;
        let has_number = line
            .split_once(&format!("{}(#", marks[0]))
            .is_some_and(|(_, rest)| rest.starts_with(|c: char| c.is_ascii_digit()));
        (!has_number).then(|| format!("{mark} without an issue number, as in `{}(#12)`", marks[0]))
    })
}

/// Rust sources are ASCII: what looks alike is alike.
pub fn ascii(tree: &Tree) -> Findings {
    per_line(tree.rust(), |line| {
        let odd = line.chars().find(|c| !c.is_ascii())?;
        Some(format!("{odd:?} is not ASCII; write it as \\u{{{:x}}}", u32::from(odd)))
    })
}

/// Tests wait for conditions, and all of them run.
pub fn test_habits(tree: &Tree) -> Findings {
    let ignore = ["#[ign", "ore"].concat();
    let sleep = ["thread::sl", "eep("].concat();
    let is_test = |file: &&File| {
        file.path.ends_with("/tests.rs") || file.path.starts_with("tests/") || file.path.contains("/tests/")
    };
    let mut findings =
        per_line(tree.rust(), |line| line.contains(&ignore).then(|| "a test that does not run".to_owned()));
    findings.extend(per_line(tree.rust().filter(is_test), |line| {
        line.contains(&sleep).then(|| "a test that sleeps; wait for the condition with a deadline".to_owned())
    }));
    findings
}

/// Nothing names a place that exists on one machine only.
pub fn places(tree: &Tree) -> Findings {
    let places = [
        ["/wo", "rk/"],
        ["/ro", "ot/"],
        ["/tm", "p/"],
        ["index.cra", "tes.io"],
        ["static.cra", "tes.io"],
        ["py", "pi.org"],
    ];
    let places = places.map(|pieces| pieces.concat());
    per_line(tree.files().iter().filter(|file| file.path != "Cargo.lock"), |line| {
        let place = places.iter().find(|place| line.contains(place.as_str()))?;
        Some(format!("names `{place}`, which is not everywhere"))
    })
}

fn per_line<'a>(files: impl Iterator<Item = &'a File>, check: impl Fn(&str) -> Option<String>) -> Findings {
    let mut findings = Findings::new();
    for file in files {
        let found = file.text.lines().enumerate().filter_map(|(index, line)| Some((index + 1, check(line)?)));
        findings.extend(found.map(|(number, finding)| format!("{}:{number}: {finding}", file.path)));
    }
    findings
}
