//! Bodies of queries: small, read as a whole, and bounded by a key of their own.

use axum::body::Body;
use bytes::Bytes;
use http_body_util::LengthLimitError;

use crate::error::{ApiError, Kind};
use crate::query_metrics::{QueryMetrics, Reason};

/// How large a body may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BodyBound {
    pub(crate) bytes_max: usize,
    /// What raises it.
    pub(crate) key: &'static str,
}

impl BodyBound {
    /// The whole body; holds no more than the bound. 413 beyond it, which is counted, 400 when the client breaks off.
    pub(crate) async fn read(self, body: Body, metrics: &QueryMetrics) -> Result<Bytes, ApiError> {
        let Self { bytes_max, key } = self;
        axum::body::to_bytes(body, bytes_max).await.map_err(|err| match err.into_inner() {
            reason if reason.is::<LengthLimitError>() => {
                metrics.refuse(Reason::body_bytes);
                let text = format!("request body is larger than {bytes_max} bytes; raise {key}");
                ApiError::new(Kind::TooLarge, text)
            }
            reason => ApiError::invalid(format!("request body could not be read: {reason}")),
        })
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::*;

    #[tokio::test]
    async fn a_body_over_the_bound_is_refused_and_counted() {
        let mut registry = Registry::default();
        let metrics = QueryMetrics::register(&mut registry);
        let bound = BodyBound { bytes_max: 4, key: "query_max_body_bytes" };
        assert_eq!(bound.read(Body::from("1234"), &metrics).await.unwrap(), "1234");
        let refused = bound.read(Body::from("12345"), &metrics).await.unwrap_err();
        let text = "request body is larger than 4 bytes; raise query_max_body_bytes";
        assert_eq!(refused, ApiError::new(Kind::TooLarge, text));
        let broken = futures_util::stream::iter([Err::<Bytes, _>(std::io::Error::other("gone"))]);
        assert_eq!(bound.read(Body::from_stream(broken), &metrics).await.unwrap_err().kind, Kind::Invalid);
        let mut counted = String::new();
        prometheus_client::encoding::text::encode(&mut counted, &registry).unwrap();
        assert!(counted.contains("spoor_api_queries_refused_total{reason=\"body_bytes\"} 1"), "{counted}");
    }
}
