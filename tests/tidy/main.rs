//! The repository keeps its own rules: layers, names, sizes, documents, licences, deployment files.

use spoor_xtask::metadata::Metadata;
use spoor_xtask::tree::Tree;
use spoor_xtask::{Findings, deploy, documents, layers, licences, sources};

fn tree() -> Tree {
    Tree::read().expect("git lists the files")
}

fn metadata() -> Metadata {
    Metadata::read(&tree()).expect("cargo knows the workspace")
}

fn assert_none(findings: Findings) {
    assert!(findings.is_empty(), "\n{}", findings.join("\n"));
}

#[test]
fn crates_use_only_what_the_list_of_arrows_allows() {
    assert_none(layers::arrows(&metadata()));
}

#[test]
fn the_language_and_the_model_know_no_storage_and_no_network() {
    assert_none(layers::purity(&metadata()));
}

#[test]
fn manifests_name_only_what_is_used() {
    assert_none(layers::needs(&tree(), &metadata()));
}

#[test]
fn files_are_short_and_named_for_what_they_hold() {
    let tree = tree();
    assert_none([sources::sizes(&tree), sources::names(&tree)].concat());
}

#[test]
fn sources_are_ascii_and_open_ends_have_numbers() {
    let tree = tree();
    assert_none([sources::ascii(&tree), sources::todos(&tree)].concat());
}

#[test]
fn tests_neither_sleep_nor_stand_aside() {
    assert_none(sources::test_habits(&tree()));
}

#[test]
fn nothing_names_a_place_on_one_machine() {
    assert_none(sources::places(&tree()));
}

#[test]
fn architecture_lists_the_crates_that_there_are() {
    assert_none(documents::crates(&tree(), &metadata()));
}

#[test]
fn every_dependency_is_accounted_for() {
    assert_none(documents::dependencies(&tree(), &metadata()));
}

#[test]
fn links_in_documents_lead_somewhere() {
    assert_none(documents::links(&tree()));
}

#[test]
fn decisions_are_numbered_and_complete() {
    assert_none(documents::decisions(&tree()));
}

#[test]
fn deployment_files_can_be_read_and_use_metrics_that_exist() {
    let tree = tree();
    assert_none([deploy::syntax(&tree), deploy::metrics(&tree)].concat());
}

#[test]
fn licences_are_on_the_list() {
    assert_none(licences::allowed(&metadata()));
}

#[test]
fn the_configuration_page_is_what_the_program_prints() {
    let printed = spoor_server::config::reference();
    assert_eq!(tree().text("docs/configuration.md"), printed, "run: make docs");
}

#[test]
fn errors_name_keys_that_there_are() {
    let is_product = |path: &str| path.starts_with("crates/") && !path.contains("tests") && !path.contains("fixtures");
    for file in tree().rust().filter(|file| is_product(&file.path)) {
        for key in file.text.split("key: \"").skip(1).filter_map(|rest| rest.split('"').next()) {
            // Keys of settings have several words; attributes and labels of tests have one.
            let is_known = spoor_server::config::Setting::find(key).is_some();
            assert!(is_known || !key.contains('_'), "{}: there is no setting `{key}`", file.path);
        }
    }
}
