//! Whose data a request is about: `X-Scope-OrgID`, as Tempo, Mimir and Loki have it.
//!
//! With multitenancy off nobody looks at the header and everything belongs to one tenant. With it
//! on, a write names one tenant and a read may name several, joined by `|`.

use http::HeaderMap;
use spoor_model::TenantId;
use spoor_model::id::TenantError;

use crate::error::{ApiError, Kind};

/// The header (and gRPC metadata key) that names the tenant.
pub const HEADER: &str = "x-scope-orgid";

/// Whether requests must say whose data they are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tenancy {
    /// Everything belongs to [`TenantId::single`]; the header is not looked at.
    Single,
    /// The header is required.
    ByHeader {
        /// Tenants that one read may name (`query_max_tenants`).
        read_max: usize,
    },
}

impl Tenancy {
    /// [`Self::ByHeader`] as it is unless configured.
    #[cfg(test)]
    pub(crate) fn by_header() -> Self {
        Self::ByHeader { read_max: 100 }
    }

    /// The tenant that a write is for.
    pub fn for_write(self, headers: &HeaderMap) -> Result<TenantId, ApiError> {
        match self {
            Self::Single => Ok(TenantId::single()),
            Self::ByHeader { .. } => parse_one(header_text(headers, HEADER)?),
        }
    }

    /// The tenants that a read asks: at least one, ascending, each once.
    pub fn for_read(self, headers: &HeaderMap) -> Result<Vec<TenantId>, ApiError> {
        match self {
            Self::Single => Ok(vec![TenantId::single()]),
            Self::ByHeader { read_max } => parse_many(header_text(headers, HEADER)?, read_max),
        }
    }

    /// As [`Self::for_read`], for Jaeger's clients: they name the tenant in `x-tenant`.
    pub fn for_jaeger_read(self, headers: &HeaderMap) -> Result<Vec<TenantId>, ApiError> {
        let has = |name| headers.get(name).is_some_and(|value| !value.is_empty());
        match self {
            Self::Single => Ok(vec![TenantId::single()]),
            Self::ByHeader { read_max } if has("x-tenant") => parse_many(header_text(headers, "x-tenant")?, read_max),
            Self::ByHeader { read_max } if has(HEADER) => parse_many(header_text(headers, HEADER)?, read_max),
            Self::ByHeader { .. } => Err(ApiError::new(Kind::Unauthenticated, "missing tenant header")),
        }
    }
}

fn header_text<'a>(headers: &'a HeaderMap, name: &str) -> Result<&'a str, ApiError> {
    let value = headers.get(name).filter(|value| !value.is_empty());
    let Some(value) = value else {
        return Err(ApiError::new(Kind::Unauthenticated, TenantError::Empty.to_string()));
    };
    value.to_str().map_err(|_| ApiError::invalid("tenant ID contains unsupported character: it is not ASCII"))
}

fn parse_one(text: &str) -> Result<TenantId, ApiError> {
    TenantId::parse(text).map_err(|err| ApiError::invalid(err.to_string()))
}

fn parse_many(text: &str, max: usize) -> Result<Vec<TenantId>, ApiError> {
    let mut tenants = text.split('|').map(parse_one).collect::<Result<Vec<_>, _>>()?;
    tenants.sort_unstable();
    tenants.dedup();
    match tenants.len() {
        count if count > max => {
            let text = format!("{count} tenants are asked at once, at most {max}; raise query_max_tenants");
            Err(ApiError::invalid(text))
        }
        _ => Ok(tenants),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: Option<&str>) -> Result<Vec<String>, (u16, String)> {
        let mut headers = HeaderMap::new();
        if let Some(value) = value {
            headers.insert(HEADER, value.parse().unwrap());
        }
        match Tenancy::by_header().for_read(&headers) {
            Ok(tenants) => Ok(tenants.iter().map(|tenant| tenant.to_string()).collect()),
            Err(err) => Err((err.kind.http().as_u16(), err.message)),
        }
    }

    #[test]
    fn a_read_may_name_several_tenants() {
        assert_eq!(read(Some("b|a|b")), Ok(vec!["a".into(), "b".into()]));
        assert_eq!(read(Some("one")), Ok(vec!["one".into()]));
    }

    #[test]
    fn a_missing_tenant_is_401_and_a_bad_one_400() {
        assert_eq!(read(None), Err((401, "no org id".into())));
        for text in ["|a", "a|", "a||b"] {
            assert_eq!(read(Some(text)), Err((400, "no org id".into())), "{text}");
        }
        assert!(read(Some("a/b")).is_err_and(|(status, text)| status == 400 && text.contains("unsupported character")));
        assert_eq!(read(Some("..")), Err((400, "tenant ID is '.' or '..'".into())));
    }

    #[test]
    fn without_multitenancy_the_header_is_not_looked_at() {
        let mut headers = HeaderMap::new();
        headers.insert(HEADER, "a/b".parse().unwrap());
        assert_eq!(Tenancy::Single.for_read(&headers), Ok(vec![TenantId::single()]));
        assert_eq!(Tenancy::Single.for_write(&headers), Ok(TenantId::single()));
    }

    #[test]
    fn jaegers_header_names_the_tenant_too() {
        let mut headers = HeaderMap::new();
        let missing = Tenancy::by_header().for_jaeger_read(&headers).unwrap_err();
        assert_eq!((missing.kind.http().as_u16(), missing.message.as_str()), (401, "missing tenant header"));
        headers.insert("x-tenant", "team".parse().unwrap());
        assert_eq!(Tenancy::by_header().for_jaeger_read(&headers), Ok(vec![TenantId::parse("team").unwrap()]));
    }
}
