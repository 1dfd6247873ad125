//! One look at a store before it is used, so that what is wrong with it is told at once.

use object_store::path::Path;

use super::credentials::{Credentials, Lack};
use super::files::ObjectFiles;
use super::refusal::refusal;
use super::requests::Failure;

/// Why a store cannot be used. One line each, with the store's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// Until somebody changes settings, credentials or the bucket.
    Final(String),
    /// Now; it is not there, or not well.
    Passing(String),
}

impl ObjectFiles {
    /// Asks for credentials and for a listing of tenants. Costs a request or two; blocks for as long as the store is waited
    /// for, and no longer than some seconds when nobody gave credentials.
    ///
    /// # Errors
    /// What is in the way.
    pub fn try_out(&self, credentials: Option<&Credentials>) -> Result<(), Trouble> {
        if let Some(credentials) = credentials {
            self.try_credentials(credentials)?;
        }
        let reason = match self.requests().list_prefixes(&Path::default()) {
            Ok(_) => return Ok(()),
            Err(Failure::Missing) => "there is no such bucket".to_owned(),
            Err(Failure::Refused(reason)) => reason,
            Err(failure) => {
                return Err(Trouble::Passing(format!("storage {} does not answer: {failure}", self.name())));
            }
        };
        let advice = match credentials {
            Some(credentials) if reason.starts_with("access") => {
                format!(
                    "; its credentials are {}, and must allow to list, get, put and delete",
                    credentials.cloud.variables()
                )
            }
            _ => String::new(),
        };
        Err(Trouble::Final(format!("storage {}: {reason}{advice}", self.name())))
    }

    fn try_credentials(&self, credentials: &Credentials) -> Result<(), Trouble> {
        if credentials.is_of_machine {
            let storage = self.name();
            tracing::info!(storage, "no credentials in the environment; the machine is asked for those of its role");
        }
        let (asked, patience) = (credentials.clone(), self.requests().patience().total);
        let Err(lack) = self.requests().wait(async move { asked.get(patience).await }) else { return Ok(()) };
        let (name, variables) = (self.name(), credentials.cloud.variables());
        let refused = match &lack {
            Lack::Error(err) => refusal(err),
            Lack::Silence(_) => None,
        };
        Err(match (credentials.is_of_machine, refused) {
            (true, _) => Trouble::Final(format!(
                "storage {name}: there are no credentials: set {variables} (which could not be asked for: {lack})"
            )),
            (false, Some(reason)) => {
                Trouble::Final(format!("storage {name}: {reason}; its credentials are {variables}"))
            }
            (false, None) => Trouble::Passing(format!("storage {name}: there are no credentials now: {lack}")),
        })
    }
}
