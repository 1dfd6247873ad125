//! Where the blocks of a data directory lie, written down in it: so that a mistyped bucket or prefix does not look like a
//! storage from which all blocks were removed.
//!
//! ```text
//!   STORAGE   s3://bucket/prefix at http://minio:9000      one line; absent while blocks lie in the directory itself
//! ```
//!
//! A file and no key of the catalog, so that tools beside a running server, and people, can read it.
//!
//! **Invariant:** it is durable before the first block is made there.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::Path;

use crate::config::Config;
use crate::error::Error;

const FILE: &str = "STORAGE";

/// Whether the configured storage is the one that the data directory was used with. Changes nothing and needs no lock.
///
/// A directory that says nothing is right with any: its blocks lie in it, and are moved, or it is of a Spoor that wrote nothing down.
///
/// # Errors
/// [`Error::OtherStorage`] when it was another one, [`Error::Io`] when what is written down cannot be read.
pub fn check_storage(config: &Config) -> Result<(), Error> {
    match read(&config.data_dir)? {
        Some(recorded) if recorded != config.storage && recorded != config.storage_moved_from => {
            let or_itself = |storage: &str| match storage {
                "" => "the data directory itself".to_owned(),
                storage => storage.to_owned(),
            };
            Err(Error::OtherStorage {
                path: config.data_dir.display().to_string(),
                current: or_itself(&config.storage),
                recorded,
            })
        }
        _ => Ok(()),
    }
}

/// [`check_storage`], and writes the configured storage down. For whoever holds the directory's lock.
pub(crate) fn claim_storage(config: &Config) -> Result<(), Error> {
    check_storage(config)?;
    let (dir, path) = (&config.data_dir, config.data_dir.join(FILE));
    let recorded = read(dir)?;
    if recorded.as_deref().unwrap_or_default() == config.storage {
        return Ok(());
    }
    if let Some(recorded) = &recorded {
        tracing::info!(
            from = recorded,
            to = config.storage,
            "the blocks of this data directory were moved, as was said"
        );
    }
    let failed = |err: std::io::Error| Error::io("write", &path, &err);
    if config.storage.is_empty() {
        fs::remove_file(&path).map_err(failed)?;
    } else {
        let new = dir.join(format!("{FILE}.tmp"));
        let mut file = File::create(&new).map_err(failed)?;
        file.write_all(format!("{}\n", config.storage).as_bytes()).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        fs::rename(&new, &path).map_err(failed)?;
    }
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed)
}

/// The place that a data directory was used with, if it is written down.
///
/// # Errors
/// [`Error::Io`] when what is written down cannot be read.
pub fn used_storage(data_dir: &Path) -> Result<Option<String>, Error> {
    read(data_dir)
}

fn read(dir: &Path) -> Result<Option<String>, Error> {
    let path = dir.join(FILE);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text.trim().to_owned()).filter(|recorded| !recorded.is_empty())),
        Err(err) if err.kind() == ErrorKind::NotFound => Ok(None),
        // A data directory that is a file is somebody else's to complain of.
        Err(err) if err.kind() == ErrorKind::NotADirectory => Ok(None),
        Err(err) => Err(Error::io("read", &path, &err)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_storage_is_refused_until_somebody_says_that_blocks_were_moved() {
        let dir = tempfile::tempdir().unwrap();
        let config = |storage: &str, moved_from: &str| Config {
            storage: storage.to_owned(),
            storage_moved_from: moved_from.to_owned(),
            ..Config::new(dir.path())
        };
        let refused = |storage: &str, moved_from: &str| {
            let config = config(storage, moved_from);
            let checked = check_storage(&config).unwrap_err().to_string();
            assert_eq!(claim_storage(&config).unwrap_err().to_string(), checked);
            checked
        };
        // Blocks in the directory are moved by themselves, and may not have been said to lie anywhere.
        claim_storage(&config("", "")).unwrap();
        claim_storage(&config("s3://a/b at http://one", "")).unwrap();
        claim_storage(&config("s3://a/b at http://one", "")).unwrap();
        let told = refused("s3://a/typo at http://one", "");
        assert!(told.contains("s3://a/b at http://one") && told.contains("s3://a/typo at http://one"), "{told}");
        assert!(told.contains("--storage-moved-from 's3://a/b at http://one'"), "{told}");
        assert!(refused("", "").contains("the data directory itself"));
        assert!(refused("s3://c", "s3://a/b").contains("s3://a/b at http://one"), "not quite what was said");
        claim_storage(&config("s3://c", "s3://a/b at http://one")).unwrap();
        // That somebody said so once allows nothing else.
        claim_storage(&config("s3://c", "s3://a/b at http://one")).unwrap();
        refused("s3://d", "s3://a/b at http://one");
        refused("s3://a/b at http://one", "s3://a/b at http://one");
        claim_storage(&config("", "s3://c")).unwrap();
        assert!(!dir.path().join(FILE).exists());
        claim_storage(&config("s3://e", "")).unwrap();
    }
}
