//! The distinct origins of a batch's spans, numbered.

use std::borrow::Cow;
use std::hash::Hasher;
use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashTable;
use xxhash_rust::xxh3::Xxh3;

use crate::canonical;
use crate::span::Origin;
use crate::wire::WireError;

/// Origins by number, and by what they are.
#[derive(Debug, Clone, Default)]
pub(super) struct Origins {
    list: Vec<Arc<Origin>>,
    lookup: HashTable<(u64, u32)>,
}

/// What an origin is told by.
#[derive(Clone, Copy)]
pub(super) struct Encoded<'a> {
    pub(super) resource: &'a [u8],
    pub(super) scope: &'a [u8],
    pub(super) resource_schema_url: &'a str,
    pub(super) scope_schema_url: &'a str,
}

impl<'a> Encoded<'a> {
    fn of(origin: &'a Origin) -> Self {
        Self {
            resource: &origin.resource_encoded,
            scope: &origin.scope_encoded,
            resource_schema_url: &origin.resource_schema_url,
            scope_schema_url: &origin.scope_schema_url,
        }
    }

    fn parts(self) -> [&'a [u8]; 4] {
        [self.resource, self.scope, self.resource_schema_url.as_bytes(), self.scope_schema_url.as_bytes()]
    }

    fn hash(self) -> u64 {
        let mut hasher = Xxh3::new();
        for part in self.parts() {
            hasher.write_usize(part.len());
            hasher.write(part);
        }
        hasher.finish()
    }
}

impl Origins {
    pub(super) fn list(&self) -> &[Arc<Origin>] {
        &self.list
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.list.iter().map(|origin| 512 + 3 * origin.resource_encoded.len()).sum()
    }

    /// The number of an origin, new or known, whichever way it is encoded. Errors when it is new and does not decode.
    pub(super) fn intern(&mut self, sent: Encoded<'_>) -> Result<u32, WireError> {
        if let Some(known) = self.find(sent) {
            return Ok(known);
        }
        let (resource, scope) = (canonical::resource(sent.resource)?, canonical::scope(sent.scope)?);
        let is_as_sent = matches!((&resource, &scope), (Cow::Borrowed(_), Cow::Borrowed(_)));
        let one = Encoded { resource: &resource, scope: &scope, ..sent };
        if let (false, Some(known)) = (is_as_sent, self.find(one)) {
            return Ok(known);
        }
        let [resource, scope] = [&resource, &scope].map(|encoded| Bytes::copy_from_slice(encoded));
        let origin = Origin::decode(resource, scope, sent.resource_schema_url, sent.scope_schema_url)?;
        Ok(self.push(Arc::new(origin)))
    }

    /// The same for one that is taken apart already.
    pub(super) fn intern_known(&mut self, origin: &Arc<Origin>) -> u32 {
        self.find(Encoded::of(origin)).unwrap_or_else(|| self.push(Arc::clone(origin)))
    }

    fn find(&self, wanted: Encoded<'_>) -> Option<u32> {
        let hash = wanted.hash();
        let is_same = |index: u32| Encoded::of(&self.list[index as usize]).parts() == wanted.parts();
        self.lookup.find(hash, |(known, index)| *known == hash && is_same(*index)).map(|(_, index)| *index)
    }

    fn push(&mut self, origin: Arc<Origin>) -> u32 {
        let (index, hash) = (self.list.len() as u32, Encoded::of(&origin).hash());
        self.list.push(origin);
        self.lookup.insert_unique(hash, (hash, index), |(hash, _)| *hash);
        index
    }
}
