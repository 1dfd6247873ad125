//! `cargo run -p spoor-xtask`: checks the repository and says what is wrong with it.

use std::process::ExitCode;

use spoor_xtask::metadata::Metadata;
use spoor_xtask::tree::Tree;
use spoor_xtask::{Findings, deploy, documents, layers, licences, sources};

fn main() -> anyhow::Result<ExitCode> {
    let tree = Tree::read()?;
    let metadata = Metadata::read(&tree)?;
    let findings: Findings = [
        layers::arrows(&metadata),
        layers::purity(&metadata),
        layers::needs(&tree, &metadata),
        sources::sizes(&tree),
        sources::names(&tree),
        sources::todos(&tree),
        sources::ascii(&tree),
        sources::test_habits(&tree),
        sources::places(&tree),
        documents::crates(&tree, &metadata),
        documents::dependencies(&tree, &metadata),
        documents::links(&tree),
        documents::decisions(&tree),
        deploy::syntax(&tree),
        deploy::metrics(&tree),
        licences::allowed(&metadata),
    ]
    .concat();
    findings.iter().for_each(|finding| eprintln!("{finding}"));
    eprintln!("tidy: {} files, {} findings", tree.files().len(), findings.len());
    Ok(if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
