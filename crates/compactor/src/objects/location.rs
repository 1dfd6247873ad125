//! `s3://bucket/prefix` and its like, as a store.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ClientOptions, ObjectStore, RetryConfig};
use url::Url;

use super::credentials::{Cloud, Credentials};

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

/// A location, opened. Nothing was asked of it yet.
#[derive(Debug)]
pub struct Opened {
    /// What is below the prefix.
    pub store: Arc<dyn ObjectStore>,
    /// The directory that the store is, when it is one.
    pub local_dir: Option<PathBuf>,
    /// By what a data directory remembers the place: `s3://bucket/prefix`, and ` at <endpoint>` or ` of account <name>` where the
    /// URL does not say it. Never a password or key.
    pub identity: String,
    /// What opens it; a directory needs nothing.
    pub credentials: Option<Credentials>,
}

/// What a location is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose<'a> {
    /// To keep blocks in it.
    Keep {
        /// Where the data directory kept them before, if it did.
        used: Option<&'a str>,
    },
    /// To look at what is there.
    Look,
}

/// A store of some cloud, before its prefix.
struct Remote {
    store: Arc<dyn ObjectStore>,
    /// What tells it apart from others with the same URL.
    suffix: String,
    credentials: Credentials,
}

impl Location {
    /// Looks at what is written only: reads no environment and asks nobody.
    ///
    /// # Errors
    /// One line that names what is wrong with it.
    pub fn check(&self) -> Result<(), String> {
        let url = self.parse()?;
        match url.scheme() {
            "file" => self.directory(&url).map(drop),
            _ => check_endpoint(&self.endpoint, self.allow_http),
        }
    }

    fn wrong(&self, reason: &dyn std::fmt::Display) -> String {
        format!("storage {:?}: {reason}", self.url)
    }

    fn parse(&self) -> Result<Url, String> {
        let expected = "expected s3://bucket/prefix, gs://bucket/prefix, azure://container/prefix or file:///directory";
        let url = Url::parse(&self.url).map_err(|err| self.wrong(&format_args!("{err}; {expected}")))?;
        let is_known = url.scheme() == "file" || Cloud::of(url.scheme()).is_some();
        if !is_known {
            return Err(self.wrong(&format_args!("`{}` is no known scheme; {expected}", url.scheme())));
        }
        if url.scheme() != "file" && url.host_str().is_none_or(str::is_empty) {
            return Err(self.wrong(&format_args!("the bucket is missing; {expected}")));
        }
        Ok(url)
    }

    fn directory(&self, url: &Url) -> Result<PathBuf, String> {
        url.to_file_path().map_err(|()| self.wrong(&"expected file:///directory"))
    }

    /// The store. A directory is made when blocks are to be kept there for the first time.
    ///
    /// # Errors
    /// One line that names what is wrong with the location, or with its credentials as far as that shows here; a directory
    /// that is not there, or has nothing in it although it was used, as when its volume is not mounted.
    pub fn open(&self, purpose: Purpose<'_>) -> Result<Opened, String> {
        let url = self.parse()?;
        if url.scheme() == "file" {
            let dir = self.directory(&url)?;
            let is_used = purpose == Purpose::Keep { used: Some(&shown(&url)) };
            let lacks = match std::fs::read_dir(&dir) {
                Ok(mut entries) => is_used && entries.next().is_none(),
                Err(err) if err.kind() == std::io::ErrorKind::NotFound => is_used || purpose == Purpose::Look,
                Err(err) => return Err(self.wrong(&err)),
            };
            if lacks {
                return Err(self.wrong(&"nothing is there; is its volume mounted, is the path right?"));
            }
            std::fs::create_dir_all(&dir).map_err(|err| self.wrong(&err))?;
            let store = LocalFileSystem::new_with_prefix(&dir).map_err(|err| self.wrong(&err))?;
            let (store, identity) = (Arc::new(store), shown(&url));
            return Ok(Opened { store, local_dir: Some(dir), identity, credentials: None });
        }
        let Remote { store, suffix, credentials } = self.remote(&url)?;
        let prefix = Path::parse(url.path()).map_err(|err| self.wrong(&err))?;
        let store = match prefix.as_ref().is_empty() {
            true => store,
            false => Arc::new(PrefixStore::new(store, prefix)),
        };
        Ok(Opened { store, local_dir: None, identity: shown(&url) + &suffix, credentials: Some(credentials) })
    }

    fn remote(&self, url: &Url) -> Result<Remote, String> {
        // What reqwest, through which object_store speaks, encrypts with. Fails when it is chosen already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = ClientOptions::new().with_timeout(self.timeout).with_allow_http(self.allow_http);
        let retry = RetryConfig { max_retries: 3, retry_timeout: self.timeout, ..RetryConfig::default() };
        let bucket_url = &url[..url::Position::BeforePath];
        match Cloud::of(url.scheme()) {
            Some(Cloud::Google) => self.google(bucket_url, client, retry),
            Some(Cloud::Azure) => self.azure(bucket_url, client, retry),
            Some(Cloud::Aws) | None => self.aws(bucket_url, client, retry),
        }
    }

    fn aws(&self, url: &str, client: ClientOptions, retry: RetryConfig) -> Result<Remote, String> {
        let mut builder = AmazonS3Builder::from_env().with_url(url).with_client_options(client).with_retry(retry);
        if !self.endpoint.is_empty() {
            builder = builder.with_endpoint(&self.endpoint);
        }
        if !self.region.is_empty() {
            builder = builder.with_region(&self.region);
        }
        let endpoints = [AmazonS3ConfigKey::S3Endpoint, AmazonS3ConfigKey::Endpoint];
        let endpoint = endpoints.iter().find_map(|key| builder.get_config_value(key)).unwrap_or_default();
        check_endpoint(&endpoint, self.allow_http)?;
        let store = builder.build().map_err(|err| self.unusable(Cloud::Aws, &err))?;
        let credentials = Credentials::new(Cloud::Aws, store.credentials());
        Ok(Remote { store: Arc::new(store), suffix: at(&endpoint), credentials })
    }

    fn google(&self, url: &str, client: ClientOptions, retry: RetryConfig) -> Result<Remote, String> {
        let mut builder =
            GoogleCloudStorageBuilder::from_env().with_url(url).with_client_options(client).with_retry(retry);
        if !self.endpoint.is_empty() {
            builder = builder.with_base_url(&self.endpoint);
        }
        let endpoint = builder.get_config_value(&GoogleConfigKey::BaseUrl).unwrap_or_default();
        check_endpoint(&endpoint, self.allow_http)?;
        let store = builder.build().map_err(|err| self.unusable(Cloud::Google, &err))?;
        let credentials = Credentials::new(Cloud::Google, store.credentials());
        Ok(Remote { store: Arc::new(store), suffix: at(&endpoint), credentials })
    }

    fn azure(&self, url: &str, client: ClientOptions, retry: RetryConfig) -> Result<Remote, String> {
        let mut builder = MicrosoftAzureBuilder::from_env().with_url(url).with_client_options(client).with_retry(retry);
        if !self.endpoint.is_empty() {
            builder = builder.with_endpoint(self.endpoint.clone());
        }
        let value = |key| builder.get_config_value(&key).unwrap_or_default();
        let (endpoint, account) = (value(AzureConfigKey::Endpoint), value(AzureConfigKey::AccountName));
        check_endpoint(&endpoint, self.allow_http)?;
        let suffix = match account.as_str() {
            "" => at(&endpoint),
            account => format!("{} of account {account}", at(&endpoint)),
        };
        let store = builder.build().map_err(|err| self.unusable(Cloud::Azure, &err))?;
        let credentials = Credentials::new(Cloud::Azure, store.credentials());
        Ok(Remote { store: Arc::new(store), suffix, credentials })
    }

    fn unusable(&self, cloud: Cloud, err: &object_store::Error) -> String {
        self.wrong(&format_args!("{err}; its credentials are {}", cloud.variables()))
    }
}

fn check_endpoint(endpoint: &str, allow_http: bool) -> Result<(), String> {
    match endpoint.starts_with("http://") && !allow_http {
        true => Err(format!(
            "storage_endpoint {endpoint:?} is not encrypted: give storage_allow_http (--storage-allow-http) if that is meant, else https://"
        )),
        false => Ok(()),
    }
}

fn at(endpoint: &str) -> String {
    match endpoint.trim_end_matches('/') {
        "" => String::new(),
        endpoint => format!(" at {endpoint}"),
    }
}

/// The URL without a password, and without what makes no difference.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    // Fails where there can be none.
    let _ = url.set_password(None);
    url.set_query(None);
    url.set_fragment(None);
    url.as_str().trim_end_matches('/').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEEP: Purpose<'_> = Purpose::Keep { used: None };

    #[test]
    fn a_directory_is_made_once_and_missed_when_it_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let there = dir.path().join("blocks");
        let location = location(&format!("file://{}", there.display()));
        assert!(location.open(Purpose::Look).unwrap_err().contains("mounted"));
        assert!(!there.exists());
        let identity = location.open(KEEP).unwrap().identity;
        let again = || location.open(Purpose::Keep { used: Some(&identity) });
        assert!(again().unwrap_err().contains("mounted"), "a mount point");
        assert!(location.open(Purpose::Look).is_ok());
        std::fs::write(there.join("anything"), "").unwrap();
        assert!(again().is_ok());
        std::fs::remove_dir_all(&there).unwrap();
        assert!(again().is_err());
        assert!(location.open(Purpose::Keep { used: Some("file:///elsewhere") }).is_ok(), "moved");
    }

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
        for (url, expected) in [
            ("ftp://host/x", "storage \"ftp://host/x\": `ftp` is no known scheme; expected s3://bucket/prefix"),
            ("bucket", "storage \"bucket\": relative URL without a base; expected s3://bucket/prefix"),
            ("s3://", "storage \"s3://\": the bucket is missing; expected s3://bucket/prefix"),
            ("gs:///prefix", "storage \"gs:///prefix\": the bucket is missing"),
            ("file://host/x", "storage \"file://host/x\": expected file:///directory"),
        ] {
            let (checked, opened) = (location(url).check().unwrap_err(), location(url).open(KEEP).unwrap_err());
            assert_eq!(checked, opened);
            assert!(checked.starts_with(expected), "{checked}");
        }
        let plain = Location { allow_http: false, ..location("s3://bucket") };
        assert!(plain.check().unwrap_err().contains("--storage-allow-http"));
        assert!(plain.open(KEEP).unwrap_err().contains("--storage-allow-http"));
        assert_eq!(Location { endpoint: "https://127.0.0.1:1".to_owned(), ..plain }.check(), Ok(()));
    }

    #[test]
    fn each_known_scheme_is_a_store_and_says_what_tells_it_apart() {
        let dir = tempfile::tempdir().unwrap();
        let file = format!("file://{}/blocks", dir.path().display());
        let open = |url: &str| location(url).open(KEEP).unwrap();
        let check = |url: &str, store: &str, identity: &str| {
            let opened = open(url);
            assert!(opened.store.to_string().contains(store), "{}", opened.store);
            assert_eq!(opened.identity, identity);
        };
        check(&file, "LocalFileSystem", &file);
        check("s3://bucket/a/b/", "a/b", "s3://bucket/a/b at http://127.0.0.1:1");
        check("s3://bucket", "bucket", "s3://bucket at http://127.0.0.1:1");
        check("s3://key:secret@bucket", "bucket", "s3://key@bucket at http://127.0.0.1:1");
        check("gs://bucket", "GoogleCloudStorage", "gs://bucket at http://127.0.0.1:1");
        check(
            "abfss://traces@shop.dfs.core.windows.net/a",
            "a",
            "abfss://traces@shop.dfs.core.windows.net/a at http://127.0.0.1:1",
        );
    }
}
