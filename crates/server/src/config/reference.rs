//! The reference of all settings, written from the table.

use std::fmt::Write;

use super::SETTINGS;

const HEAD: &str = "\
# Configuration

Spoor needs none. What it has is listed here; `spoor config reference` prints this page.

Every key can be given as a flag (`--retention 72h`), as an environment variable
(`SPOOR_RETENTION=72h`) or in a YAML file (`retention: 72h`, read with `--config FILE` or
`SPOOR_CONFIG=FILE`). A flag wins over a variable, a variable over the file, the file over the
default. The file is a flat map; an unknown key is an error that names the nearest known one.
`spoor config check` reads everything, says what is wrong and starts nothing.

Sizes are a number of bytes or have a unit: `KiB`, `MiB`, `GiB` (powers of 1024), `KB`, `MB`, `GB`
(powers of 1000). Durations are written as in Go or Prometheus: `500ms`, `30s`, `1h30m`, `168h`, `7d`.
";

/// `docs/configuration.md`. A test compares.
pub fn reference() -> String {
    let mut page = HEAD.to_owned();
    let mut section = "";
    for setting in SETTINGS {
        if setting.section != section {
            section = setting.section;
            write!(page, "\n## {section}\n").expect("a String takes all");
        }
        let default = if setting.default.is_empty() { "empty" } else { setting.default };
        write!(
            page,
            "\n### `{}`\n\n{}\n\n{}; default `{default}`; flag `--{}`; variable `{}`.\n",
            setting.key,
            setting.doc.trim(),
            capitalised(setting.kind),
            setting.flag(),
            setting.variable(),
        )
        .expect("a String takes all");
    }
    page
}

fn capitalised(text: &str) -> String {
    let (first, rest) = text.split_at(1);
    first.to_uppercase() + rest
}
