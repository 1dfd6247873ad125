//! What a receiver answers: the export response, and `google.rpc.Status` when it refuses.
//!
//! Both exist in protobuf and in JSON, because OTLP/HTTP answers in the form of the question.

use std::time::Duration;

use serde_json::{Map, Value, json};
use spoor_model::nested::put_message;
use spoor_model::wire::{put_bytes, put_text, put_uint};

/// `ExportTraceServiceResponse`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExportResponse {
    /// How many spans were refused.
    pub rejected_count: u64,
    /// Why, for a person; may be set with nothing refused, as a warning.
    pub message: String,
}

impl ExportResponse {
    fn is_full_success(&self) -> bool {
        self.rejected_count == 0 && self.message.is_empty()
    }

    /// The message in protobuf; empty bytes on full success.
    pub fn to_protobuf(&self) -> Vec<u8> {
        let mut out = Vec::new();
        if !self.is_full_success() {
            put_message(&mut out, 1, |out| {
                put_uint(out, 1, self.rejected_count);
                put_text(out, 2, self.message.as_bytes());
            });
        }
        out
    }

    /// The message in JSON; `{}` on full success.
    pub fn to_json(&self) -> Vec<u8> {
        let mut response = Map::new();
        if !self.is_full_success() {
            let mut partial_success = Map::new();
            if self.rejected_count > 0 {
                partial_success.insert("rejectedSpans".into(), self.rejected_count.to_string().into());
            }
            if !self.message.is_empty() {
                partial_success.insert("errorMessage".into(), self.message.as_str().into());
            }
            response.insert("partialSuccess".into(), partial_success.into());
        }
        Value::from(response).to_string().into_bytes()
    }
}

/// `google.rpc.Status`, with a `google.rpc.RetryInfo` when the sender should try again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// `google.rpc.Code`.
    pub code: i32,
    /// For a person.
    pub message: String,
    /// When to try again. Without it, a sender drops the spans of a `ResourceExhausted`.
    pub retry_after: Option<Duration>,
}

const RETRY_INFO_URL: &str = "type.googleapis.com/google.rpc.RetryInfo";

impl Status {
    /// A status that says nothing about retries.
    pub fn new(code: i32, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after: None }
    }

    /// The message in protobuf.
    pub fn to_protobuf(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_uint(&mut out, 1, i64::from(self.code) as u64);
        put_text(&mut out, 2, self.message.as_bytes());
        if let Some(delay) = self.retry_after {
            let mut retry_info = Vec::new();
            put_message(&mut retry_info, 1, |out| {
                put_uint(out, 1, delay.as_secs());
                put_uint(out, 2, u64::from(delay.subsec_nanos()));
            });
            put_message(&mut out, 3, |out| {
                put_text(out, 1, RETRY_INFO_URL.as_bytes());
                put_bytes(out, 2, &retry_info);
            });
        }
        out
    }

    /// The message in JSON.
    pub fn to_json(&self) -> Vec<u8> {
        let mut status = json!({"code": self.code, "message": self.message});
        if let Some(delay) = self.retry_after {
            let seconds = match delay.subsec_nanos() {
                0 => format!("{}s", delay.as_secs()),
                nanos => format!("{}.{nanos:09}s", delay.as_secs()),
            };
            status["details"] = json!([{"@type": RETRY_INFO_URL, "retryDelay": seconds}]);
        }
        status.to_string().into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
    use prost::Message;

    use super::*;

    #[test]
    fn full_success_is_empty_and_partial_success_says_how_many_and_why() {
        assert_eq!(ExportResponse::default().to_protobuf(), b"");
        assert_eq!(ExportResponse::default().to_json(), b"{}");
        let partial = ExportResponse { rejected_count: 3, message: "why".into() };
        let decoded = ExportTraceServiceResponse::decode(&partial.to_protobuf()[..]).expect("is protobuf");
        let decoded = decoded.partial_success.expect("is set");
        assert_eq!((decoded.rejected_spans, decoded.error_message.as_str()), (3, "why"));
        let json = String::from_utf8(partial.to_json()).expect("is text");
        assert_eq!(json, r#"{"partialSuccess":{"errorMessage":"why","rejectedSpans":"3"}}"#);
    }

    #[test]
    fn a_status_carries_its_retry_delay() {
        let status = Status { retry_after: Some(Duration::from_secs(5)), ..Status::new(8, "full") };
        let mut expected = b"\x08\x08\x12\x04full\x1a\x30\x0a\x28".to_vec();
        expected.extend_from_slice(RETRY_INFO_URL.as_bytes());
        expected.extend_from_slice(b"\x12\x04\x0a\x02\x08\x05");
        assert_eq!(status.to_protobuf(), expected);
        let json: Value = serde_json::from_slice(&status.to_json()).expect("is JSON");
        let details = json!([{"@type": RETRY_INFO_URL, "retryDelay": "5s"}]);
        assert_eq!(json, json!({"code": 8, "message": "full", "details": details}));
    }
}
