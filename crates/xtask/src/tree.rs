//! The files of the repository.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

/// Every file that git tracks or would track, with its text.
#[derive(Debug)]
pub struct Tree {
    root: PathBuf,
    files: Vec<File>,
}

/// One file.
#[derive(Debug)]
pub struct File {
    /// From the root, with slashes.
    pub path: String,
    /// Empty when it is not UTF-8.
    pub text: String,
}

impl Tree {
    /// Reads the repository that this crate is part of.
    pub fn read() -> anyhow::Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
        let git = Command::new("git")
            .args(["ls-files", "--cached", "--others", "--exclude-standard"])
            .current_dir(&root)
            .output()
            .context("git ls-files")?;
        ensure!(git.status.success(), "git ls-files: {}", String::from_utf8_lossy(&git.stderr));
        let files = String::from_utf8(git.stdout)?
            .lines()
            .filter(|path| root.join(path).is_file())
            .map(|path| File { path: path.to_owned(), text: fs::read_to_string(root.join(path)).unwrap_or_default() })
            .collect();
        Ok(Self { root, files })
    }

    /// The repository's folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// All files.
    pub fn files(&self) -> &[File] {
        &self.files
    }

    /// The Rust sources.
    pub fn rust(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|file| file.path.ends_with(".rs"))
    }

    /// The text of one file; empty when it is not there.
    pub fn text(&self, path: &str) -> &str {
        self.files.iter().find(|file| file.path == path).map_or("", |file| &file.text)
    }
}
