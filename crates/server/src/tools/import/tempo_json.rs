//! What Tempo's API and Grafana's trace download write, as OTLP/JSON.
//!
//! They wrap OTLP in other names (`batches`, `trace`), and Go's protobuf JSON has ids in base64. The number of
//! characters says which it is: a trace id is 24 characters of base64 or 32 of hex, a span id 12 or 16.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value as Json;

/// What a JSON document is.
pub(super) enum Kind {
    /// OTLP/JSON as it should be.
    Otlp,
    /// Tempo's, rewritten as OTLP/JSON.
    Tempo(String),
    /// Something else; Jaeger's, perhaps.
    Other,
}

/// Looks at the keys of a document.
pub(super) fn kind(document: &str) -> Kind {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Keys<'a> {
        #[serde(borrow)]
        resource_spans: Option<&'a serde_json::value::RawValue>,
        #[serde(borrow)]
        batches: Option<&'a serde_json::value::RawValue>,
        #[serde(borrow)]
        trace: Option<&'a serde_json::value::RawValue>,
    }
    let Ok(keys) = serde_json::from_str::<Keys<'_>>(document) else { return Kind::Other };
    let is_otlp = keys.resource_spans.is_some();
    let wrapped = match keys {
        Keys { resource_spans: Some(_), .. } if !document.contains('=') => return Kind::Otlp,
        Keys { resource_spans: Some(list), .. } | Keys { batches: Some(list), .. } => {
            serde_json::from_str(list.get()).map(|list: Json| serde_json::json!({ "resourceSpans": list }))
        }
        Keys { trace: Some(trace), .. } => serde_json::from_str(trace.get()),
        _ => return Kind::Other,
    };
    match wrapped {
        Ok(mut otlp) => {
            with_hex_ids(&mut otlp);
            Kind::Tempo(otlp.to_string())
        }
        // OTLP's own reader takes more than a JSON tree does, such as half a pair of surrogates.
        Err(_) if is_otlp => Kind::Otlp,
        Err(_) => Kind::Other,
    }
}

fn with_hex_ids(json: &mut Json) {
    match json {
        Json::Array(items) => items.iter_mut().for_each(with_hex_ids),
        Json::Object(fields) => {
            for (name, value) in fields {
                let length = match name.as_str() {
                    "traceId" => 24,
                    "spanId" | "parentSpanId" => 12,
                    _ => 0,
                };
                match value {
                    Json::String(text) if text.len() == length => {
                        if let Ok(bytes) = STANDARD.decode(&*text) {
                            *text = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                        }
                    }
                    other => with_hex_ids(other),
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(document: &str) -> String {
        match kind(document) {
            Kind::Otlp => "otlp".to_owned(),
            Kind::Tempo(otlp) => otlp,
            Kind::Other => "other".to_owned(),
        }
    }

    #[test]
    fn wrappers_go_and_base64_ids_become_hex() {
        let ids = r#"{"traceId":"AAAAAAAAAAAAAAAAAACgsQ==","spanId":"AAAAAAAAAMI=","name":"AAAAAAAAAMI="}"#;
        let hex =
            format!(r#"{{"name":"AAAAAAAAAMI=","spanId":"00000000000000c2","traceId":"{}a0b1"}}"#, "0".repeat(28));
        let spans = |span: &str| format!(r#"[{{"scopeSpans":[{{"spans":[{span}]}}]}}]"#);
        let otlp = format!(r#"{{"resourceSpans":{}}}"#, spans(&hex));
        assert_eq!(rewritten(&format!(r#"{{"batches":{}}}"#, spans(ids))), otlp);
        assert_eq!(rewritten(&format!(r#"{{"trace":{{"resourceSpans":{}}}}}"#, spans(ids))), otlp);
        assert_eq!(rewritten(&format!(r#"{{"resourceSpans":{}}}"#, spans(ids))), otlp);
        let plain = format!(r#"{{"resourceSpans":{}}}"#, spans(&hex.replace('=', "")));
        assert_eq!(rewritten(&plain), "otlp");
        assert_eq!(rewritten(r#"{"data":[]}"#), "other");
        assert_eq!(rewritten("[]"), "other");
        assert_eq!(rewritten(r#"{"resourceSpans":[{"schemaUrl":"a=\ud83d"}]}"#), "otlp");
    }
}
