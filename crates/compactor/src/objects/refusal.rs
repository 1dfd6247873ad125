//! Answers by which a store says that it will not, in an operator's words.
//!
//! The library tells a status apart where an object is concerned; of a listing it has the text only. So the text is read:
//! `... status code: 403 Forbidden: <Error><Code>AccessDenied</Code><Message>...`.

use object_store::Error;

/// The longest message of a store that is passed on.
const MESSAGE_CHARS_MAX: usize = 200;

/// Why the store will refuse again, whatever is tried; `None` when it may not, or when it is about one object.
pub(crate) fn refusal(err: &Error) -> Option<String> {
    let text = err.to_string();
    if let Error::PermissionDenied { .. } | Error::Unauthenticated { .. } = err {
        return Some(format!("access is denied ({})", said(&text).unwrap_or_else(|| first_line(&text))));
    }
    let Error::Generic { .. } = err else { return None };
    if text.contains("redirect without LOCATION") {
        return Some("the bucket is in another region (storage_region)".to_owned());
    }
    let said = said(&text)?;
    match said.get(..3)? {
        "401" | "403" => Some(format!("access is denied ({said})")),
        "404" => Some(format!("there is no such bucket ({said})")),
        "301" | "307" => Some(format!("the bucket is in another region (storage_region; {said})")),
        // A connection that was too slow is told of in the same way.
        "400" if !said.contains("RequestTimeout") => Some(format!("the request is refused ({said})")),
        _ => None,
    }
}

/// Whether what was asked for lies beyond the end of the object: it was cut short after it was put.
pub(crate) fn is_cut_short(err: &Error) -> bool {
    // By its size on disk, by the store, and by the library when the answer is another range.
    let said = ["Out of range of file", "Requested range was invalid", "but object was only", "status code: 416"];
    let text = err.to_string();
    said.iter().any(|said| text.contains(said)) || (text.contains("Requested ") && text.contains(", got "))
}

/// Status, code and message, as far as there are any: `403 AccessDenied: You may not`.
fn said(text: &str) -> Option<String> {
    let (_, answer) = text.split_once("status code: ")?;
    let status = answer.get(..3).filter(|status| status.bytes().all(|byte| byte.is_ascii_digit()))?;
    let within = |name: &str| {
        let (_, rest) = answer.split_once(&format!("<{name}>"))?;
        rest.split_once(&format!("</{name}>")).map(|(inside, _)| first_line(inside))
    };
    Some(match (within("Code"), within("Message")) {
        (Some(code), Some(message)) => format!("{status} {code}: {message}"),
        (Some(code), None) => format!("{status} {code}"),
        _ => first_line(answer),
    })
}

fn first_line(text: &str) -> String {
    let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    line.trim().trim_end_matches([':', '.']).chars().take(MESSAGE_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(text: &str) -> Option<String> {
        refusal(&Error::Generic { store: "S3", source: text.into() })
    }

    #[test]
    fn what_will_not_change_is_told_apart_from_what_may() {
        let xml =
            "<?xml version=\"1.0\"?>\n<Error><Code>NoSuchBucket</Code><Message>It does not exist.</Message></Error>";
        let missing =
            format!("Error performing GET http://x - Server returned non-2xx status code: 404 Not Found: {xml}");
        assert_eq!(generic(&missing).unwrap(), "there is no such bucket (404 NoSuchBucket: It does not exist)");
        assert_eq!(generic("status code: 403 Forbidden: ").unwrap(), "access is denied (403 Forbidden)");
        assert_eq!(
            generic("status code: 401 Unauthorized: no\nmore").unwrap(),
            "access is denied (401 Unauthorized: no)"
        );
        assert!(generic("Received redirect without LOCATION, this").unwrap().contains("storage_region"));
        assert!(generic("status code: 400 Bad Request: <Code>InvalidToken</Code>").is_some());
        for passing in [
            "status code: 400 Bad Request: <Code>RequestTimeout</Code>",
            "status code: 503 Slow Down: ",
            "status code: 500 Internal: ",
            "HTTP error: error sending request",
            "status code: ",
        ] {
            assert_eq!(generic(passing), None, "{passing}");
        }
        let generic = |text: &str| Error::Generic { store: "S3", source: text.into() };
        assert!(is_cut_short(&generic("non-2xx status code: 416 Range Not Satisfiable: <Error>")));
        assert!(is_cut_short(&generic("Requested 2..6, got 2..4")));
        assert!(!is_cut_short(&generic("status code: 503 Slow Down: ")));
        let of_object = Error::NotFound { path: "a".to_owned(), source: missing.into() };
        assert_eq!(refusal(&of_object), None);
        let denied =
            Error::PermissionDenied { path: "a".to_owned(), source: "status code: 403 F: <Code>X</Code>".into() };
        assert_eq!(refusal(&denied).unwrap(), "access is denied (403 X)");
    }
}
