//! What ran a bench, so that its numbers can be compared with others.

use std::process::Command;

/// Cores, processor, kernel, build and load now, in half a sentence without a full stop.
pub fn description() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown");
    let model = model.trim_start_matches([' ', '\t', ':']);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{cores} cores of {model}, {}; release build; load average {}", output("uname", &["-sr"]), load_average())
}

/// Of the last minute.
pub fn load_average() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').next().unwrap_or_default().to_owned()
}

/// Today in UTC, as `2026-01-31`.
pub fn date() -> String {
    output("date", &["-u", "+%Y-%m-%d"])
}

/// The commit that is checked out, in twelve digits.
pub fn revision() -> String {
    output("git", &["-C", env!("CARGO_MANIFEST_DIR"), "rev-parse", "--short=12", "HEAD"])
}

/// What a program prints, or `unknown`.
fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map_or_else(|_| "unknown".to_owned(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
