//! Documents that must agree with the code.

use std::collections::BTreeSet;

use crate::Findings;
use crate::metadata::Metadata;
use crate::tree::Tree;

/// `ARCHITECTURE.md` lists the crates that there are.
pub fn crates(tree: &Tree, metadata: &Metadata) -> Findings {
    let listed = first_cells(tree.text("ARCHITECTURE.md"));
    let there = metadata.ours().filter_map(|package| package.name.strip_prefix("spoor-")).collect();
    difference("ARCHITECTURE.md", "crate", &listed, &there)
}

/// `docs/dependencies.md` has a line for each third-party crate that we name.
pub fn dependencies(tree: &Tree, metadata: &Metadata) -> Findings {
    let listed = first_cells(tree.text("docs/dependencies.md"));
    difference("docs/dependencies.md", "dependency", &listed, &metadata.direct_dependencies())
}

fn difference(document: &str, noun: &str, listed: &BTreeSet<&str>, there: &BTreeSet<&str>) -> Findings {
    let missing = there.difference(listed).map(|name| format!("{document}: {noun} `{name}` is missing"));
    let gone = listed.difference(there).map(|name| format!("{document}: {noun} `{name}` is listed and not there"));
    missing.chain(gone).collect()
}

/// Names in backquotes that open a table row.
fn first_cells(text: &str) -> BTreeSet<&str> {
    text.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`')).map(|(name, _)| name).collect()
}

/// Relative links in documents lead somewhere.
pub fn links(tree: &Tree) -> Findings {
    let mut findings = Findings::new();
    for file in tree.files().iter().filter(|file| file.path.ends_with(".md")) {
        let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        for target in file.text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = target.split(['#', ' ']).next().unwrap_or_default();
            let is_elsewhere = target.is_empty() || target.contains("://") || target.starts_with("mailto:");
            if !is_elsewhere && !tree.root().join(folder).join(target).exists() {
                findings.push(format!("{}: the link to {target} leads nowhere", file.path));
            }
        }
    }
    findings
}

/// Records of decisions are numbered without gaps, and have the four parts.
pub fn decisions(tree: &Tree) -> Findings {
    let mut findings = Findings::new();
    let records = tree.files().iter().filter(|file| file.path.starts_with("docs/adr/") && file.path.ends_with(".md"));
    for (index, file) in records.enumerate() {
        if !file.path.starts_with(&format!("docs/adr/{:04}-", index + 1)) {
            findings.push(format!("{}: expected number {:04}", file.path, index + 1));
        }
        for part in ["## Context", "## Decision", "## Alternatives", "## Consequences"] {
            if !file.text.contains(part) {
                findings.push(format!("{}: has no `{part}`", file.path));
            }
        }
    }
    findings
}
