//! The pages of the Jaeger UI: an unmodified build of it from a folder, with what the server has to say put into its
//! `index.html`.
//!
//! The bundle's pages are one page: every path that is no file of it answers `index.html`, and the browser does the rest.

use std::path::{Path, PathBuf};

use axum::body::Body;
use axum::response::{Html, IntoResponse, Response};
use http::{Request, StatusCode, header};
use tower::ServiceExt;
use tower_http::services::ServeDir;

/// A build of the UI, ready to be served.
#[derive(Debug, Clone)]
pub struct Ui {
    index: String,
    files: ServeDir,
}

/// The folder cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("jaeger_ui_dir: cannot read {}: {reason}; it must be a build of the Jaeger UI", path.display())]
pub struct UiError {
    path: PathBuf,
    reason: std::io::Error,
}

impl Ui {
    /// Reads the folder's `index.html` once. `base_path` is empty, or begins with a slash and does not end with one.
    pub fn open(folder: &Path, base_path: &str, version: &str) -> Result<Self, UiError> {
        let path = folder.join("index.html");
        let index = std::fs::read_to_string(&path).map_err(|reason| UiError { path, reason })?;
        let files = ServeDir::new(folder.join("static")).append_index_html_on_directories(false);
        Ok(Self { index: injected(&index, base_path, version), files })
    }
}

/// The page that answers a path. Blocks nobody: files are read by a thread of their own.
pub(super) async fn page(ui: Option<&Ui>, path: &str) -> Response {
    let Some(ui) = ui else { return landing(path) };
    let Some(file) = path.strip_prefix("/static/") else {
        let never = (header::CACHE_CONTROL, "no-cache, no-store, must-revalidate");
        return ([never], Html(ui.index.clone())).into_response();
    };
    let request = Request::get(format!("/{file}")).body(Body::empty());
    let Ok(request) = request else { return StatusCode::BAD_REQUEST.into_response() };
    match ui.files.clone().oneshot(request).await {
        Ok(response) => response.map(Body::new),
        Err(never) => match never {},
    }
}

fn landing(path: &str) -> Response {
    match path {
        "" | "/" => Html(LANDING_PAGE).into_response(),
        _ => (StatusCode::NOT_FOUND, Html(LANDING_PAGE)).into_response(),
    }
}

const LANDING_PAGE: &str = "<!doctype html>\n<meta charset=\"utf-8\">\n<title>Spoor</title>\n\
<h1>Spoor</h1>\n<p>This port speaks the query API of Jaeger, and has no pages: the Jaeger UI is not part of Spoor.</p>\n\
<p>To add it, take a build of the UI (in a release of Jaeger it is the folder with <code>index.html</code> and \
<code>static/</code>) and start Spoor with <code>--jaeger-ui-dir FOLDER</code>.</p>\n\
<p>In Grafana, add a data source of type Jaeger with this address, or, for TraceQL, one of type Tempo \
with port 3200.</p>\n<p>Send spans by OTLP to port 4317 (gRPC) or 4318 (HTTP).</p>\n";

/// What Spoor can do, under the names of both generations of the UI. What a bundle does not know is not in its page.
const CAPABILITIES: [(&str, &str, &str); 2] = [
    (
        "JAEGER_STORAGE_CAPABILITIES",
        "DEFAULT_STORAGE_CAPABILITIES",
        r#"{"archiveStorage":false,"metricsStorage":true}"#,
    ),
    (
        "JAEGER_BACKEND_CAPABILITIES",
        "DEFAULT_BACKEND_CAPABILITIES",
        r#"{"archiveStorage":false,"metricsStorage":true,"searchWithoutServiceName":true,"aiAssistant":false}"#,
    ),
];

fn injected(index: &str, base_path: &str, version: &str) -> String {
    let version = serde_json::json!({"gitCommit": "", "gitVersion": version, "buildDate": ""}).to_string();
    let mut page = assigned(index, "JAEGER_VERSION", "DEFAULT_VERSION", &version);
    for (name, default, value) in CAPABILITIES {
        page = assigned(&page, name, default, value);
    }
    // Monitor and the graph of services need nothing more than spans here, so they are always shown.
    let config = r#"{"dependencies":{"menuEnabled":true},"monitor":{"menuEnabled":true}}"#;
    page = assigned(&page, "JAEGER_CONFIG", "DEFAULT_CONFIG", config);
    match base_path {
        "" => page,
        prefix => page.replace("<base href=\"/\"", &format!("<base href=\"{prefix}/\"")),
    }
}

/// Replaces every `NAME = DEFAULT;`, whatever blanks are around the sign.
fn assigned(page: &str, name: &str, default: &str, value: &str) -> String {
    let mut out = String::with_capacity(page.len() + value.len());
    let mut rest = page;
    while let Some(at) = rest.find(name) {
        let (before, from_name) = rest.split_at(at);
        let after_name = &from_name[name.len()..];
        let tail = after_name.trim_start_matches(' ').strip_prefix('=').map(|tail| tail.trim_start_matches(' '));
        let tail = tail.and_then(|tail| tail.strip_prefix(default)?.strip_prefix(';'));
        out.push_str(before);
        match tail {
            Some(tail) => {
                out.push_str(&format!("{name} = {value};"));
                rest = tail;
            }
            None => {
                out.push_str(name);
                rest = after_name;
            }
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    const INDEX: &str = "<head><base href=\"/\" data-inject-target=\"BASE_URL\"/><script>\n\
        const JAEGER_CONFIG = DEFAULT_CONFIG;\nconst JAEGER_VERSION=DEFAULT_VERSION;\n\
        const JAEGER_STORAGE_CAPABILITIES = DEFAULT_STORAGE_CAPABILITIES;\n\
        const JAEGER_BACKEND_CAPABILITIES  =  DEFAULT_BACKEND_CAPABILITIES;\n\
        return JAEGER_VERSION;</script><div id=\"jaeger-ui-root\"></div>";

    #[test]
    fn both_generations_find_what_the_server_can_do() {
        let page = injected(INDEX, "", "1.2.3");
        for expected in [
            "JAEGER_STORAGE_CAPABILITIES = {\"archiveStorage\":false,\"metricsStorage\":true};",
            "JAEGER_BACKEND_CAPABILITIES = {\"archiveStorage\":false,\"metricsStorage\":true,\"searchWithoutServiceName\":true",
            "\"gitVersion\":\"1.2.3\"",
            "return JAEGER_VERSION;",
            "<base href=\"/\" ",
        ] {
            assert!(page.contains(expected), "{expected} in {page}");
        }
        assert!(!page.contains("DEFAULT_"), "{page}");
    }

    #[test]
    fn a_base_path_is_written_into_the_page_and_a_page_without_marks_stays() {
        assert!(injected(INDEX, "/jaeger", "1").contains("<base href=\"/jaeger/\" data-inject"));
        assert_eq!(injected("<p>JAEGER_CONFIG</p>", "/x", "1"), "<p>JAEGER_CONFIG</p>");
    }
}
