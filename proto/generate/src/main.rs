//! Rust from the `.proto` files beside it: the messages and services of the query surfaces, and their descriptors for gRPC
//! reflection.
//!
//! `make proto` writes `crates/api/src/gen`; with `--check` nothing is written, and what is stale is named. No `protoc` is
//! needed. This is a workspace of its own, so that nobody builds a compiler of protobuf who does not change one. OTLP's
//! own files come with the crate `opentelemetry-proto`, and none of their messages is generated: traces are
//! written by `spoor-otlp` and travel as bytes. So do the answers of Tempo's service.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, ensure};
use protox::prost::Message;
use tonic_prost_build::Config;

/// Messages of which no Rust is made.
const WRITTEN_BY_HAND: &str = "tempo/answers.proto";

fn main() -> anyhow::Result<ExitCode> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
    let folder = root.join("crates/api/src/gen");
    let generated = generate(&root)?;
    if std::env::args().nth(1).as_deref() != Some("--check") {
        fs::create_dir_all(&folder)?;
        generated.iter().try_for_each(|(name, bytes)| fs::write(folder.join(name), bytes))?;
        return Ok(ExitCode::SUCCESS);
    }
    let is_stale = |name: &String, bytes: &Vec<u8>| fs::read(folder.join(name)).ok().as_ref() != Some(bytes);
    let stale: Vec<&String> =
        generated.iter().filter(|(name, bytes)| is_stale(name, bytes)).map(|(name, _)| name).collect();
    stale.iter().for_each(|name| eprintln!("crates/api/src/gen/{name} is stale: run `make proto`"));
    Ok(if stale.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// File names and what stands in them.
fn generate(root: &Path) -> anyhow::Result<BTreeMap<String, Vec<u8>>> {
    let ours = root.join("proto");
    let otlp = folder_of(root, "opentelemetry-proto")?.join("src/proto/opentelemetry-proto");
    let mut files = Vec::new();
    find_protos(&ours, &mut files)?;
    files.sort();
    let descriptors = protox::Compiler::new([&ours, &otlp])?
        .include_imports(true)
        .include_source_info(false)
        .open_files(files)?
        .file_descriptor_set();
    let folder = tempfile::tempdir()?;
    let mut config = Config::new();
    // Maps in an order of their own, so that the same request is the same query.
    config.btree_map(["."]);
    let builder = tonic_prost_build::configure()
        .build_client(false)
        .build_transport(false)
        .emit_rerun_if_changed(false)
        .extern_path(".opentelemetry.proto.trace.v1", "crate::proto::otlp")
        .extern_path(".opentelemetry", "crate::proto::otlp")
        .out_dir(&folder);
    let sent = descriptors.file.iter().filter(|file| file.name() == WRITTEN_BY_HAND);
    let sent = sent.flat_map(|file| {
        let (messages, enums) = (file.message_type.iter(), file.enum_type.iter());
        let names = messages.map(|message| message.name()).chain(enums.map(|one| one.name()));
        names.map(|name| format!(".{}.{name}", file.package()))
    });
    let builder = sent.fold(builder, |builder, name| builder.extern_path(name, "crate::proto::EncodedMessage"));
    builder.compile_fds_with_config(descriptors.clone(), config)?;
    let mut generated = BTreeMap::from([("descriptors.bin".to_owned(), descriptors.encode_to_vec())]);
    for entry in fs::read_dir(&folder)? {
        let entry = entry?;
        let name = entry.file_name().into_string().ok().context("packages have ASCII names")?;
        generated.insert(name, fs::read(entry.path())?);
    }
    Ok(generated)
}

fn find_protos(folder: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            find_protos(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            files.push(path);
        }
    }
    Ok(())
}

/// Where the sources of a dependency of the product's workspace lie.
fn folder_of(root: &Path, package: &str) -> anyhow::Result<PathBuf> {
    let cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["metadata", "--format-version", "1"])
        .current_dir(root)
        .output()
        .context("cargo metadata")?;
    ensure!(cargo.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&cargo.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&cargo.stdout)?;
    let packages = metadata["packages"].as_array().context("cargo metadata has packages")?;
    let found = packages.iter().find(|known| known["name"] == package).context("it is no dependency")?;
    let manifest = found["manifest_path"].as_str().context("a package has a manifest")?;
    Ok(Path::new(manifest).parent().context("a manifest lies in a folder")?.to_owned())
}
