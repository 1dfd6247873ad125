//! A progress bar on a terminal, and nothing anywhere else.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar on stderr: of bytes out of `total`, or a counter when that is unknown.
pub(super) fn bytes(what: &str, total: Option<u64>) -> ProgressBar {
    let template = match total {
        Some(_) => "{prefix} [{bar:30}] {bytes} of {total_bytes}, {bytes_per_sec}, {msg}",
        None => "{prefix} {bytes}, {bytes_per_sec}, {msg}",
    };
    let bar = match std::io::stderr().is_terminal() {
        true => ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr()),
        false => ProgressBar::hidden(),
    };
    bar.set_style(ProgressStyle::with_template(template).expect("the template is well formed").progress_chars("=> "));
    bar.set_prefix(what.to_owned());
    bar
}
