//! The files of `deploy/`: there is no container engine where tests run, so they are read instead.

use std::collections::BTreeSet;

use serde_norway::Value;

use crate::Findings;
use crate::tree::{File, Tree};

fn deploy_files<'a>(tree: &'a Tree, endings: &'a [&str]) -> impl Iterator<Item = &'a File> {
    tree.files()
        .iter()
        .filter(|file| file.path.starts_with("deploy/") && endings.iter().any(|end| file.path.ends_with(end)))
}

/// YAML and JSON can be read, mounted files are there, images have versions.
pub fn syntax(tree: &Tree) -> Findings {
    let mut findings = Findings::new();
    for file in deploy_files(tree, &[".yaml", ".yml", ".json"]) {
        match serde_norway::from_str::<Value>(&file.text) {
            Ok(yaml) if file.path.ends_with("/compose.yaml") => findings.extend(compose(tree, file, &yaml)),
            Ok(_) => {}
            Err(err) => findings.push(format!("{}: {err}", file.path)),
        }
    }
    for file in deploy_files(tree, &["Dockerfile"]) {
        findings.extend(dockerfile(file));
    }
    findings
}

/// What can be known about a compose file without an engine.
fn compose(tree: &Tree, file: &File, yaml: &Value) -> Findings {
    let mut findings = Findings::new();
    let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let Some(services) = yaml["services"].as_mapping() else {
        return vec![format!("{}: has no services", file.path)];
    };
    for (name, service) in services {
        let name = name.as_str().unwrap_or_default();
        let image = service["image"].as_str();
        if service["build"].is_null() && !image.is_some_and(|image| image.contains(':') && !image.ends_with(":latest"))
        {
            findings.push(format!("{}: {name}: an image needs a version", file.path));
        }
        let mounts = service["volumes"].as_sequence().into_iter().flatten().filter_map(Value::as_str);
        let sources = mounts.filter_map(|mount| mount.split(':').next()).filter(|source| source.starts_with('.'));
        let missing = sources.filter(|source| !tree.root().join(folder).join(source).exists());
        findings.extend(missing.map(|source| format!("{}: {name}: mounts {source}, which is not there", file.path)));
        let needed = service["depends_on"].as_sequence().into_iter().flatten().filter_map(Value::as_str);
        let unknown = needed.filter(|needed| !services.contains_key(*needed));
        findings.extend(unknown.map(|needed| format!("{}: {name}: needs unknown service {needed}", file.path)));
    }
    findings
}

const INSTRUCTIONS: [&str; 14] = [
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "RUN",
    "SHELL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// Known instructions, more than one stage, and not run as the superuser.
fn dockerfile(file: &File) -> Findings {
    let text = file.text.replace("\\\n", " ");
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')).collect();
    let first_word = |line: &str| line.split_whitespace().next().unwrap_or_default().to_owned();
    let unknown = lines.iter().map(|line| first_word(line)).filter(|word| !INSTRUCTIONS.contains(&word.as_str()));
    let mut findings: Findings = unknown.map(|word| format!("{}: unknown instruction {word}", file.path)).collect();
    let last_user = lines.iter().rev().find_map(|line| line.strip_prefix("USER "));
    if last_user.is_none_or(|user| user.starts_with("root") || user.starts_with('0')) {
        findings.push(format!("{}: runs as root", file.path));
    }
    if lines.iter().filter(|line| line.starts_with("FROM ")).count() < 2 {
        findings.push(format!("{}: has one stage; what builds must not ship", file.path));
    }
    findings
}

/// Rules, alerts and dashboards use only metrics of ours that their crate registers.
pub fn metrics(tree: &Tree) -> Findings {
    let mut findings = Findings::new();
    for file in deploy_files(tree, &[".yaml", ".yml", ".json"]) {
        let words = file.text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let names: BTreeSet<&str> = words.filter(|word| word.starts_with("spoor_")).collect();
        let unknown = names.into_iter().filter(|name| !is_registered(tree, name));
        findings.extend(unknown.map(|name| format!("{}: no crate registers {name}", file.path)));
    }
    findings
}

/// Whether the crate that `spoor_<crate>_<rest>` names has the rest, or the whole, as a text.
fn is_registered(tree: &Tree, name: &str) -> bool {
    let Some((crate_name, rest)) = name.strip_prefix("spoor_").and_then(|name| name.split_once('_')) else {
        return false;
    };
    let folder = format!("crates/{crate_name}/src/");
    let names = stems(name).into_iter().chain(stems(rest));
    let texts: Vec<String> = names.map(|name| format!("\"{name}\"")).collect();
    tree.rust().any(|file| file.path.starts_with(&folder) && texts.iter().any(|text| file.text.contains(text)))
}

/// A metric's name, and what is left when the endings that the registry adds are taken off.
fn stems(name: &str) -> Vec<&str> {
    let mut stems = vec![name];
    for ending in ["_bucket", "_sum", "_count", "_total", "_seconds", "_bytes", "_info"] {
        let shorter: Vec<&str> = stems.iter().filter_map(|stem| stem.strip_suffix(ending)).collect();
        stems.extend(shorter);
    }
    stems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_that_the_registry_adds_are_taken_off() {
        assert!(stems("spoor_server_request_duration_seconds_bucket").contains(&"spoor_server_request_duration"));
        assert!(stems("spoor_ingester_wal_bytes_total").contains(&"spoor_ingester_wal"));
    }

    #[test]
    fn a_dockerfile_that_runs_as_root_is_found() {
        let file = |text: &str| File { path: "Dockerfile".to_owned(), text: text.to_owned() };
        assert_eq!(dockerfile(&file("FROM a AS b\nFROM c\nUSER 65532\n")), Findings::new());
        assert_eq!(dockerfile(&file("FROM a\nRUM x\n")).len(), 3);
    }
}
