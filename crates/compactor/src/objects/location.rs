//! `s3://bucket/prefix` and its like, as a store.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ClientOptions, ObjectStore, RetryConfig};
use url::Url;

/// Where blocks lie and how to get there. Credentials come from where each cloud's own tools look: environment
/// variables (`AWS_ACCESS_KEY_ID`, `GOOGLE_SERVICE_ACCOUNT`, `AZURE_STORAGE_ACCOUNT_NAME`, ...), the
/// machine's role.
#[derive(Debug, Clone)]
pub struct Location {
    /// `s3://bucket/prefix`, `gs://bucket/prefix`, `azure://container/prefix` or `file:///directory`.
    pub url: String,
    /// Another server that speaks the same protocol; empty: the cloud's own.
    pub endpoint: String,
    /// Region of an S3 bucket; empty: by the environment.
    pub region: String,
    /// Whether plain `http://` will do.
    pub allow_http: bool,
    /// How long a request may take, with its repetitions.
    pub timeout: Duration,
}

impl Location {
    /// The store, and the directory that it is when it is one. Nothing is asked of it yet.
    ///
    /// # Errors
    /// One line that names what is wrong with the location.
    pub fn store(&self) -> Result<(Arc<dyn ObjectStore>, Option<PathBuf>), String> {
        let wrong = |reason: &dyn std::fmt::Display| format!("storage {:?}: {reason}", self.url);
        let url = Url::parse(&self.url).map_err(|err| wrong(&err))?;
        if url.scheme() == "file" {
            let dir = url.to_file_path().map_err(|()| wrong(&"expected file:///directory"))?;
            std::fs::create_dir_all(&dir).map_err(|err| wrong(&err))?;
            let store = LocalFileSystem::new_with_prefix(&dir).map_err(|err| wrong(&err))?;
            return Ok((Arc::new(store), Some(dir)));
        }
        let store = self.remote(&url).map_err(|err| match err {
            Some(err) => wrong(&err),
            None => wrong(&"expected s3://, gs://, azure:// or file://"),
        })?;
        let prefix = Path::parse(url.path()).map_err(|err| wrong(&err))?;
        let store = match prefix.as_ref().is_empty() {
            true => store,
            false => Arc::new(PrefixStore::new(store, prefix)),
        };
        Ok((store, None))
    }

    /// The error is `None` for a scheme that nobody knows.
    fn remote(&self, url: &Url) -> Result<Arc<dyn ObjectStore>, Option<object_store::Error>> {
        // What reqwest, through which object_store speaks, encrypts with. Fails when it is chosen already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let endpoint = Some(&self.endpoint).filter(|endpoint| !endpoint.is_empty());
        let client = ClientOptions::new().with_timeout(self.timeout).with_allow_http(self.allow_http);
        let retry = RetryConfig { max_retries: 3, retry_timeout: self.timeout, ..RetryConfig::default() };
        let bucket_url = &url[..url::Position::BeforePath];
        let store: Result<Arc<dyn ObjectStore>, object_store::Error> = match url.scheme() {
            "s3" | "s3a" => {
                let mut builder = AmazonS3Builder::from_env().with_url(bucket_url);
                builder = builder.with_client_options(client).with_retry(retry);
                if let Some(endpoint) = endpoint {
                    builder = builder.with_endpoint(endpoint);
                }
                if !self.region.is_empty() {
                    builder = builder.with_region(&self.region);
                }
                builder.build().map(|store| Arc::new(store) as _)
            }
            "gs" => {
                let builder = GoogleCloudStorageBuilder::from_env().with_url(bucket_url);
                let builder = match endpoint {
                    Some(endpoint) => builder.with_base_url(endpoint),
                    None => builder,
                };
                builder.with_client_options(client).with_retry(retry).build().map(|store| Arc::new(store) as _)
            }
            "azure" | "az" | "abfs" | "abfss" => {
                let mut builder = MicrosoftAzureBuilder::from_env().with_url(bucket_url);
                if let Some(endpoint) = endpoint {
                    builder = builder.with_endpoint(endpoint.clone());
                }
                builder.with_client_options(client).with_retry(retry).build().map(|store| Arc::new(store) as _)
            }
            _ => return Err(None),
        };
        store.map_err(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location(url: &str) -> Location {
        Location {
            url: url.to_owned(),
            endpoint: "http://127.0.0.1:1".to_owned(),
            region: "eu-central-1".to_owned(),
            allow_http: true,
            timeout: Duration::from_secs(1),
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = |url: &str| location(url).store().unwrap_err();
        assert!(error("ftp://host/x").contains("expected s3://"), "{}", error("ftp://host/x"));
        assert!(error("bucket").starts_with("storage \"bucket\": "), "{}", error("bucket"));
        assert!(error("s3://").starts_with("storage \"s3://\": "), "{}", error("s3://"));
    }

    #[test]
    fn each_known_scheme_is_a_store() {
        let dir = tempfile::tempdir().unwrap();
        let file = format!("file://{}/blocks", dir.path().display());
        let text = |url: &str| location(url).store().unwrap().0.to_string();
        assert!(text(&file).contains("LocalFileSystem"), "{}", text(&file));
        assert!(text("s3://bucket/a/b").contains("a/b"), "{}", text("s3://bucket/a/b"));
        assert!(text("s3://bucket").contains("bucket"), "{}", text("s3://bucket"));
        assert!(text("gs://bucket").contains("GoogleCloudStorage"), "{}", text("gs://bucket"));
    }
}
