//! Which form a client of Tempo wants, and responses in that form.

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, header};

use crate::partial;

/// The forms that Tempo's read API has here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Protobuf's JSON as Go writes it; whatever the client accepts, unless it asks for the other.
    Json,
    /// Protobuf.
    Protobuf,
    /// JSON for language models: shorter, and only of two routes.
    Llm,
}

impl Form {
    /// What `Accept` asks for. Tempo looks for the media type anywhere in the header.
    pub(crate) fn wanted(headers: &HeaderMap) -> Self {
        let accepts = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
        match accepts {
            Some(text) if text.contains("application/protobuf") => Self::Protobuf,
            _ => Self::Json,
        }
    }

    /// As [`Self::wanted`], of a route that has the third form.
    pub(crate) fn wanted_of_three(headers: &HeaderMap) -> Self {
        let accepts = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        match Self::wanted(headers) {
            Self::Json if !accepts.contains("application/json") && accepts.contains("application/vnd.grafana.llm") => {
                Self::Llm
            }
            form => form,
        }
    }

    fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Protobuf => "application/protobuf",
            Self::Llm => "application/vnd.grafana.llm+json",
        }
    }
}

/// An answer whose bytes are written already.
#[derive(Debug)]
pub(crate) struct Encoded {
    /// In which form.
    pub(crate) form: Form,
    /// The body.
    pub(crate) bytes: Vec<u8>,
    /// For `X-Spoor-Partial`.
    pub(crate) partial: Option<String>,
}

impl IntoResponse for Encoded {
    fn into_response(self) -> Response {
        let mut response = ([(header::CONTENT_TYPE, self.form.content_type())], self.bytes).into_response();
        partial::mark(response.headers_mut(), self.partial.as_deref());
        response
    }
}
