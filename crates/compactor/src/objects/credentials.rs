//! What opens a store of some cloud, asked for before anything else: so that a machine without any says so at once.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use object_store::CredentialProvider;

/// How long the machine itself is asked who it is. That it has no role shows as silence, too.
const MACHINE_TIME_MAX: Duration = Duration::from_secs(5);
/// The types of credentials that the machine is asked for, at an address that only clouds have. The library has no other way
/// to learn which kind was chosen.
const OF_MACHINE: [&str; 2] = ["InstanceCredentialProvider", "ImdsManagedIdentityProvider"];

/// Whose protocol a store speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cloud {
    Aws,
    Google,
    Azure,
}

impl Cloud {
    /// By the scheme of a URL.
    pub(crate) fn of(scheme: &str) -> Option<Self> {
        match scheme {
            "s3" | "s3a" => Some(Self::Aws),
            "gs" => Some(Self::Google),
            "azure" | "az" | "abfs" | "abfss" => Some(Self::Azure),
            _ => None,
        }
    }

    /// What operators set, as a part of a sentence.
    pub(crate) fn variables(self) -> &'static str {
        match self {
            Self::Aws => {
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_WEB_IDENTITY_TOKEN_FILE and AWS_ROLE_ARN, or the machine's role"
            }
            Self::Google => {
                "GOOGLE_SERVICE_ACCOUNT or GOOGLE_APPLICATION_CREDENTIALS (paths of key files), or the machine's role"
            }
            Self::Azure => {
                "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, or AZURE_CLIENT_ID, AZURE_CLIENT_SECRET and AZURE_TENANT_ID, \
                 or the machine's identity"
            }
        }
    }
}

type Ask = dyn Fn() -> BoxFuture<'static, object_store::Result<()>> + Send + Sync;

/// Credentials that may have to be asked for.
#[derive(Clone)]
pub struct Credentials {
    pub(crate) cloud: Cloud,
    /// Whether nobody gave any, so that the machine is asked for its own.
    pub(crate) is_of_machine: bool,
    ask: Arc<Ask>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("cloud", &self.cloud).finish_non_exhaustive()
    }
}

impl Credentials {
    pub(crate) fn new<T>(cloud: Cloud, provider: &Arc<dyn CredentialProvider<Credential = T>>) -> Self
    where
        T: Send + Sync + 'static,
    {
        let kind = format!("{provider:?}");
        let is_of_machine = OF_MACHINE.iter().any(|name| kind.contains(name));
        let provider = Arc::clone(provider);
        let ask = move || -> BoxFuture<'static, object_store::Result<()>> {
            let provider = Arc::clone(&provider);
            Box::pin(async move { provider.get_credential().await.map(drop) })
        };
        Self { cloud, is_of_machine, ask: Arc::new(ask) }
    }

    /// Asks for them, `patience` at most, and shorter where only the machine could have any.
    ///
    /// # Errors
    /// Why there are none now.
    pub(crate) async fn get(&self, patience: Duration) -> Result<(), Lack> {
        let patience = if self.is_of_machine { patience.min(MACHINE_TIME_MAX) } else { patience };
        match tokio::time::timeout(patience, (self.ask)()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(err)) => Err(Lack::Error(err)),
            Err(_) => Err(Lack::Silence(patience)),
        }
    }
}

/// Why there are no credentials.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Lack {
    #[error("{0}")]
    Error(object_store::Error),
    #[error("no answer within {0:?}")]
    Silence(Duration),
}
