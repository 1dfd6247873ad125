//! `spoor blocks`: what is damaged or missing is named, and nothing else.

use super::*;

// Scenario: an operator lists blocks beside a running server, then one rots. Guarantee: it is named, and only it.
#[test]
fn blocks_are_listed_described_and_a_rotten_one_is_named() {
    let directory = TempDir::new().unwrap();
    let (mut server, mut ledger) = (start(directory.path()), Ledger::default());
    for seed in 0..2 {
        ingest(&server, 10 + seed, 3, &mut ledger);
        server.stop();
        server = server.launch().clone().start();
    }
    let data_dir = directory.path().display().to_string();
    let blocks = |words: &[&str]| spoor(&[&["blocks"], words, &["--data-dir", &data_dir]].concat());
    let text = |output: &Output| text(&output.stdout);
    let listed = text(&blocks(&["ls", "--json"]));
    let ids: Vec<String> = listed
        .lines()
        .map(|line| serde_json::from_str::<Json>(line).unwrap()["id"].as_str().unwrap().to_owned())
        .collect();
    assert!(ids.len() >= 2, "{listed}");
    assert!(text(&blocks(&["ls"])).contains(&format!("{} blocks, ", ids.len())));
    let shown = text(&blocks(&["show", &ids[0]]));
    for part in ["spans.parquet", "trace_id", "row groups", " per span"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let gc = blocks(&["gc", "--dry-run"]);
    assert!(!gc.status.success() && String::from_utf8_lossy(&gc.stderr).contains("in use"), "{gc:?}");
    assert!(blocks(&["verify"]).status.success());

    server.stop();
    let victim = directory.path().join("blocks/single-tenant").join(&ids[1]).join("spans.parquet");
    let mut bytes = fs::read(&victim).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&victim, bytes).unwrap();
    let verified = blocks(&["verify", "--json"]);
    assert_eq!(verified.status.code(), Some(1));
    let bad: Vec<String> = text(&verified)
        .lines()
        .map(|line| serde_json::from_str::<Json>(line).unwrap())
        .filter(|line| line["ok"] == false)
        .map(|line| line["id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(bad, [ids[1].clone()]);
    assert!(text(&blocks(&["verify", &ids[0]])).contains("1 blocks verified, 0 bad"));
    let partial = spoor(&["export", "--data-dir", &data_dir]);
    let said = String::from_utf8_lossy(&partial.stderr).into_owned();
    assert_eq!(partial.status.code(), Some(1), "{said}");
    assert!(said.contains(&ids[1]) && said.contains("the export is not complete"), "{said}");
    for (query, output) in [("{ }", "table"), ("{ } | count_over_time()", "table"), ("{ }", "json")] {
        let partial = spoor(&["query", "--data-dir", &data_dir, query, "--output", output]);
        let (shown, said) = (text(&partial), String::from_utf8_lossy(&partial.stderr).into_owned());
        let (with_note, without) = if output == "json" { (said, shown) } else { (shown, said) };
        assert!(with_note.contains("1 source could not be read") && with_note.contains(&ids[1]), "{with_note}");
        assert!(!without.contains("could not be read"), "{without}");
    }
    fs::create_dir(directory.path().join("blocks/single-tenant/00000000000000000000000007.tmp")).unwrap();
    assert!(text(&blocks(&["gc", "--dry-run"])).contains("never finished: would go"));
    assert!(text(&blocks(&["gc"])).contains("1 removed"));
    assert!(text(&blocks(&["gc"])).contains("0 removed"));
    assert_eq!(text(&blocks(&["gc", "--json"])), "{\"keptCount\":0,\"removedCount\":0}\n");
}

fn block_dirs(directory: &Path) -> Vec<std::path::PathBuf> {
    let tenant = directory.join("blocks/single-tenant");
    names(&tenant).iter().map(|name| tenant.join(name)).collect()
}

// Scenario: one block loses its meta.json, one its directory, one a file. Guarantee: each is named, by list and verification as far
// as these can know, and fails the latter; a block that is alone in being good is so.
#[test]
fn blocks_that_lack_something_are_named() {
    let directory = TempDir::new().unwrap();
    with_blocks(directory.path(), 4);
    let data_dir = directory.path().display().to_string();
    let blocks = block_dirs(directory.path());
    fs::remove_file(blocks[0].join("meta.json")).unwrap();
    fs::rename(&blocks[1], directory.path().join("elsewhere")).unwrap();
    fs::remove_file(blocks[2].join("spans.parquet")).unwrap();
    let verified = spoor(&["blocks", "verify", "--data-dir", &data_dir]);
    let shown = text(&verified.stdout);
    assert_eq!(verified.status.code(), Some(1), "{shown}");
    let line = |id: &Path| {
        let id = id.file_name().unwrap().to_str().unwrap();
        shown.lines().find(|line| line.contains(id)).unwrap_or_else(|| panic!("{id}: {shown}"))
    };
    assert!(line(&blocks[0]).contains("BAD: meta.json is missing"), "{shown}");
    assert!(line(&blocks[1]).contains("BAD: the catalog has it, but its directory is missing"), "{shown}");
    assert!(line(&blocks[2]).contains("spans.parquet is missing"), "{shown}");
    assert!(line(&blocks[3]).ends_with("ok"), "{shown}");
    assert!(shown.ends_with("4 blocks verified, 3 bad\n"), "{shown}");
    let list = |words: &[&str]| {
        let output = spoor(&[&["blocks", "ls", "--data-dir", &data_dir], words].concat());
        assert_eq!(output.status.code(), Some(1), "something is bad: {output:?}");
        text(&output.stdout)
    };
    let listed = list(&[]);
    assert_eq!(listed.matches("BAD: ").count(), 2, "{listed}");
    let listed = list(&["--json"]);
    let listed: Vec<Json> = listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told: Vec<_> = listed.iter().map(|block| (&block["level"], block["error"].is_null())).collect();
    assert_eq!(told, [(&Json::Null, false), (&Json::from(0), false), (&Json::from(0), true)]);
}

// Scenario: a block's directory was put below another tenant. Guarantee: list and verification say so, as `adopt` does.
#[test]
fn a_block_of_another_tenant_is_bad() {
    let directory = TempDir::new().unwrap();
    with_blocks(directory.path(), 1);
    let data_dir = directory.path().display().to_string();
    let blocks = directory.path().join("blocks");
    fs::rename(blocks.join("single-tenant"), blocks.join("other")).unwrap();
    for words in [&["ls"][..], &["verify"], &["adopt", "--all", "--dry-run"]] {
        let output = spoor(&[&["blocks"], words, &["--data-dir", &data_dir]].concat());
        let said = text(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{words:?}: {said}");
        let line = said.lines().find(|line| line.starts_with("other ")).unwrap_or_else(|| panic!("{words:?}: {said}"));
        assert!(line.contains("BAD") && line.contains("of tenant single-tenant"), "{words:?}: {said}");
    }
}

// Scenario: the directory is mistyped. Guarantee: that is said, and nothing is made there.
#[test]
fn a_directory_that_is_none_is_a_mistake() {
    let directory = TempDir::new().unwrap();
    let mistyped = directory.path().join("spor-data");
    for command in ["ls", "verify", "gc"] {
        let output = spoor(&["blocks", command, "--data-dir", &mistyped.display().to_string()]);
        assert_eq!(output.status.code(), Some(2), "{command}");
        assert!(text(&output.stderr).contains("is no data directory"), "{output:?}");
    }
    assert!(!mistyped.exists());
}
