//! Which build this is.

/// The release, as Cargo has it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit, when the build was told (`SPOOR_BUILD_REVISION`), else `unknown`.
///
/// No build script asks git: it would run again, and link again, after every commit.
pub const REVISION: &str = match option_env!("SPOOR_BUILD_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};

/// For `spoor --version`.
pub(crate) fn long() -> String {
    format!("{VERSION} (revision {REVISION})")
}
