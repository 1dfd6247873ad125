//! Saying that an answer is partial, in every form that has no place of its own for it.
//!
//! Tempo's trace by id (v2) has a status and Jaeger has `errors`; for everything else there is the
//! header `X-Spoor-Partial`, since Grafana refuses answers with keys that it does not know.

use http::{HeaderMap, HeaderName, HeaderValue};
use spoor_model::scan::Skipped;
use spoor_model::seldom::Seldom;

/// The header of a partial answer; its value says what is missing.
pub const HEADER: HeaderName = HeaderName::from_static("x-spoor-partial");

/// How many objects a note names; the log has them all.
const NAMED_MAX: usize = 3;

/// What the log has been told.
static SAID: Seldom = Seldom::new();

/// What to tell the client when sources were skipped, and `None` when none were. Also writes the
/// log, since here it is known that the query goes on without them: once for each source, not for each query.
pub(crate) fn note(skipped: &[Skipped]) -> Option<String> {
    if skipped.is_empty() {
        return None;
    }
    for Skipped { object, reason } in skipped {
        if SAID.is_due((object, reason)) {
            tracing::warn!(object, reason, "answers are partial");
        }
    }
    let named: Vec<String> =
        skipped.iter().take(NAMED_MAX).map(|Skipped { object, reason }| format!("{object}: {reason}")).collect();
    let more = match skipped.len() - named.len() {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    let sources = match skipped.len() {
        1 => "1 source".to_owned(),
        count => format!("{count} sources"),
    };
    Some(format!("partial answer, {sources} could not be read: {}{more}", named.join("; ")))
}

/// Adds the header when there is something to say.
pub(crate) fn mark(headers: &mut HeaderMap, note: Option<&str>) {
    let Some(note) = note else { return };
    let printable: String = note.chars().map(|c| if (' '..='~').contains(&c) { c } else { '?' }).collect();
    headers.insert(HEADER, HeaderValue::from_str(&printable).expect("made printable"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_names_the_first_objects_and_counts_the_rest() {
        let skipped: Vec<Skipped> =
            (1..=4).map(|n| Skipped { object: format!("block {n}"), reason: "torn\n".into() }).collect();
        let text = note(&skipped).unwrap();
        assert!(text.starts_with("partial answer, 4 sources could not be read: block 1: torn"), "{text}");
        assert!(text.ends_with("; and 1 more"), "{text}");
        let mut headers = HeaderMap::new();
        mark(&mut headers, Some(&text));
        assert!(headers[HEADER].to_str().unwrap().contains("block 3: torn?"));
        assert_eq!(note(&[]), None);
    }
}
