//! What Cargo knows about the workspace.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::tree::Tree;

/// A package, ours or another's.
#[derive(Debug, Clone)]
pub struct Package {
    /// As in its manifest.
    pub name: String,
    /// For messages.
    pub version: String,
    /// SPDX expression; empty when it has none.
    pub license: String,
    /// Whether it is in this workspace.
    pub is_ours: bool,
    /// Ids of what it is built from, without what only its tests need.
    normal: BTreeSet<String>,
    /// Names that its manifest lists, with whether only tests need them.
    declared: BTreeSet<(String, bool)>,
}

/// The packages of a build on this machine's platform, by Cargo's id.
#[derive(Debug)]
pub struct Metadata {
    packages: BTreeMap<String, Package>,
}

impl Package {
    /// Names of everything that its manifest lists.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.declared.iter().map(|(name, _)| name.as_str())
    }
}

impl Metadata {
    /// Asks Cargo; the lock file stays as it is.
    pub fn read(tree: &Tree) -> anyhow::Result<Self> {
        let host = host_platform()?;
        let cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .args(["metadata", "--format-version", "1", "--filter-platform", &host])
            .current_dir(tree.root())
            .output()
            .context("cargo metadata")?;
        ensure!(cargo.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&cargo.stderr));
        Ok(Self::parse(&serde_json::from_slice(&cargo.stdout)?))
    }

    fn parse(json: &Value) -> Self {
        let members: BTreeSet<&str> = strings(&json["workspace_members"]).collect();
        let mut packages: BTreeMap<String, Package> = BTreeMap::new();
        for package in items(&json["packages"]) {
            let id = text(&package["id"]);
            let declared =
                items(&package["dependencies"]).map(|dep| (text(&dep["name"]).to_owned(), dep["kind"] == "dev"));
            let entry = Package {
                name: text(&package["name"]).to_owned(),
                version: text(&package["version"]).to_owned(),
                license: text(&package["license"]).to_owned(),
                is_ours: members.contains(id),
                normal: BTreeSet::new(),
                declared: declared.collect(),
            };
            packages.insert(id.to_owned(), entry);
        }
        for node in items(&json["resolve"]["nodes"]) {
            let Some(package) = packages.get_mut(text(&node["id"])) else { continue };
            let is_normal = |dep: &&Value| items(&dep["dep_kinds"]).any(|kind| kind["kind"] != "dev");
            package.normal = items(&node["deps"]).filter(is_normal).map(|dep| text(&dep["pkg"]).to_owned()).collect();
        }
        Self { packages }
    }

    /// The packages of this workspace.
    pub fn ours(&self) -> impl Iterator<Item = &Package> {
        self.packages.values().filter(|package| package.is_ours)
    }

    /// Everything that is compiled, tests included: a node of the graph that one of ours reaches.
    pub fn others(&self) -> impl Iterator<Item = &Package> {
        self.packages.values().filter(|package| !package.is_ours)
    }

    /// Names of what a package declares; without what only tests need.
    pub fn uses<'a>(&'a self, package: &'a Package) -> impl Iterator<Item = &'a str> {
        package.declared.iter().filter(|(_, is_dev)| !is_dev).map(|(name, _)| name.as_str())
    }

    /// Third-party crates that some manifest of ours lists.
    pub fn direct_dependencies(&self) -> BTreeSet<&str> {
        let ours: BTreeSet<&str> = self.ours().map(|package| package.name.as_str()).collect();
        self.ours()
            .flat_map(|package| &package.declared)
            .map(|(name, _)| name.as_str())
            .filter(|name| !ours.contains(name))
            .collect()
    }

    /// Names of everything that a package is built from.
    pub fn closure(&self, name: &str) -> BTreeSet<&str> {
        let start = self.packages.values().filter(|package| package.is_ours && package.name == name);
        let mut open: Vec<&str> = start.flat_map(|package| &package.normal).map(String::as_str).collect();
        let mut seen = BTreeSet::new();
        while let Some(id) = open.pop() {
            if let Some(package) = self.packages.get(id).filter(|_| seen.insert(id)) {
                open.extend(package.normal.iter().map(String::as_str));
            }
        }
        seen.into_iter().filter_map(|id| self.packages.get(id)).map(|package| package.name.as_str()).collect()
    }
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn strings(value: &Value) -> impl Iterator<Item = &str> {
    items(value).filter_map(Value::as_str)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn host_platform() -> anyhow::Result<String> {
    let rustc = Command::new("rustc").arg("-vV").output().context("rustc -vV")?;
    let text = String::from_utf8(rustc.stdout)?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc -vV names no host")
}
