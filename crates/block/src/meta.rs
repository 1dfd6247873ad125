//! `meta.json`: what a block is, readable by a person, a stranger's program and the catalog.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use spoor_model::batch::ValueType;
use spoor_model::{BlockId, TenantId, TimeRange, UnixNano};
use xxhash_rust::xxh3::xxh3_64;

use crate::error::Error;

/// The format version that this program writes. See `FORMAT.md`.
pub const VERSION: u32 = 1;

/// What the catalog knows of a block. A few kilobytes; the block's files hold the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockMeta {
    /// The block's name.
    pub id: BlockId,
    /// Whose spans.
    pub tenant: TenantId,
    /// When it was written.
    pub created_at: UnixNano,
    /// Earliest start and latest end of the spans.
    pub range: TimeRange,
    /// Spans.
    pub span_count: u64,
    /// Exact copies of those spans that came too and were left out.
    pub copy_count: u64,
    /// Distinct trace ids.
    pub trace_count: u64,
    /// All files together.
    pub size_bytes: u64,
    /// How often its spans were merged: 0 when it was cut, else one more than the highest of what was merged.
    pub merge_level: u32,
    /// The blocks that were merged into this one (and those of [`Self::merged_with`]), and what these replace, ascending;
    /// empty for a cut.
    /// Whoever sees all that the merge made leaves these out, and else leaves out what it made.
    pub replaces: Vec<BlockId>,
    /// The other blocks that the same merge made, ascending; empty when everything went into one.
    pub merged_with: Vec<BlockId>,
    /// Shared by all who know the block.
    pub(crate) files: Arc<[FileMeta]>,
    pub(crate) columns: Arc<[ColumnMeta]>,
}

/// One file of the block and its checksums.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileMeta {
    pub(crate) name: String,
    pub(crate) size_bytes: u64,
    /// XXH3-64 of each piece of [`crate::pieces::PIECE_BYTES`], 16 hex digits each, concatenated.
    pub(crate) piece_checksums: String,
}

/// One column of `spans.parquet`, in file order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ColumnMeta {
    /// Its name in the Parquet schema.
    pub(crate) name: String,
    /// For attribute columns: the attribute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) attribute: Option<String>,
    /// For attribute columns: the type of its values.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub(crate) value_type: Option<ColumnType>,
    /// Whether a reader does well to ask for dictionary codes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) is_dictionary: bool,
}

/// [`ValueType`] as `meta.json` spells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ColumnType {
    String,
    Int,
    Double,
    Bool,
    Otlp,
}

impl From<ValueType> for ColumnType {
    fn from(value_type: ValueType) -> Self {
        match value_type {
            ValueType::Str => Self::String,
            ValueType::Int => Self::Int,
            ValueType::Double => Self::Double,
            ValueType::Bool => Self::Bool,
            ValueType::Encoded => Self::Otlp,
        }
    }
}

/// The JSON. Times are decimal strings: JSON numbers end at 2^53.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u32,
    id: String,
    tenant: String,
    created_at_unix_nano: String,
    start_time_unix_nano: String,
    end_time_unix_nano: String,
    span_count: u64,
    #[serde(default)]
    copy_count: u64,
    trace_count: u64,
    size_bytes: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    merge_level: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    replaces: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    merged_with: Vec<String>,
    files: Vec<FileMeta>,
    columns: Vec<ColumnMeta>,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// How the last field begins; 16 hex digits, a quote and a brace end the file.
const CHECKSUM: &str = ",\"checksum\":\"";

/// The JSON without its last field, which is the checksum of what is before it. Metas of the first days have none.
fn verified(json: &[u8]) -> Result<Cow<'_, [u8]>, String> {
    let at = json.len().saturating_sub(CHECKSUM.len() + 18);
    let Some(found) = json[at..].strip_prefix(CHECKSUM.as_bytes()) else { return Ok(Cow::Borrowed(json)) };
    let want = format!("{:016x}\"}}", xxh3_64(&json[..at]));
    match found == want.as_bytes() {
        true => Ok(Cow::Owned([&json[..at], b"}"].concat())),
        false => Err("checksum mismatch".to_owned()),
    }
}

impl BlockMeta {
    /// Takes the list of columns of another block instead of its own where they are equal: a few kilobytes, and
    /// most blocks of a tenant have the same. Returns whether they are.
    pub fn share_columns(&mut self, other: &Self) -> bool {
        let is_equal = self.columns == other.columns;
        if is_equal {
            self.columns = Arc::clone(&other.columns);
        }
        is_equal
    }

    /// The content of `meta.json`.
    pub fn to_json(&self) -> Vec<u8> {
        let document = Document {
            version: VERSION,
            id: self.id.to_string(),
            tenant: self.tenant.to_string(),
            created_at_unix_nano: self.created_at.0.to_string(),
            start_time_unix_nano: self.range.start.0.to_string(),
            end_time_unix_nano: self.range.end.0.to_string(),
            span_count: self.span_count,
            copy_count: self.copy_count,
            trace_count: self.trace_count,
            size_bytes: self.size_bytes,
            merge_level: self.merge_level,
            replaces: self.replaces.iter().map(BlockId::to_string).collect(),
            merged_with: self.merged_with.iter().map(BlockId::to_string).collect(),
            files: self.files.to_vec(),
            columns: self.columns.to_vec(),
        };
        let mut json = serde_json::to_vec(&document).expect("plain data always serialises");
        json.pop();
        let checksum = format!("{CHECKSUM}{:016x}\"}}", xxh3_64(&json));
        json.extend_from_slice(checksum.as_bytes());
        json
    }

    /// Reads what [`Self::to_json`] wrote, by this or an older version.
    pub fn from_json(json: &[u8]) -> Result<Self, Error> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
            #[serde(default)]
            id: String,
        }
        let bad = |reason: String| Error::corrupt("block meta", reason);
        let json = &*verified(json).map_err(bad)?;
        let Versioned { version, id } = serde_json::from_slice(json).map_err(|err| bad(err.to_string()))?;
        if version != VERSION {
            return Err(Error::Version { object: format!("block {id}"), version });
        }
        let document: Document = serde_json::from_slice(json).map_err(|err| bad(err.to_string()))?;
        let nanos = |text: &str| text.parse().map(UnixNano).map_err(|_| bad(format!("time {text:?} is not a number")));
        let range =
            TimeRange { start: nanos(&document.start_time_unix_nano)?, end: nanos(&document.end_time_unix_nano)? };
        let id = |text: &String| BlockId::parse(text).ok_or_else(|| bad(format!("id {text:?} is not a block id")));
        let ids = |texts: &[String]| texts.iter().map(id).collect::<Result<Vec<BlockId>, Error>>();
        Ok(Self {
            id: id(&document.id)?,
            tenant: TenantId::parse(&document.tenant).map_err(|err| bad(err.to_string()))?,
            created_at: nanos(&document.created_at_unix_nano)?,
            range,
            span_count: document.span_count,
            copy_count: document.copy_count,
            trace_count: document.trace_count,
            size_bytes: document.size_bytes,
            merge_level: document.merge_level,
            replaces: ids(&document.replaces)?,
            merged_with: ids(&document.merged_with)?,
            files: document.files.into(),
            columns: document.columns.into(),
        })
    }

    /// For errors: `block 01J...`.
    pub fn describe(&self) -> String {
        format!("block {}", self.id)
    }

    /// A meta without files, for the tests of those who keep catalogs.
    pub fn without_files(id: BlockId, tenant: TenantId, created_at: UnixNano, range: TimeRange) -> Self {
        Self {
            id,
            tenant,
            created_at,
            range,
            span_count: 0,
            copy_count: 0,
            trace_count: 0,
            size_bytes: 0,
            merge_level: 0,
            replaces: Vec::new(),
            merged_with: Vec::new(),
            files: Arc::default(),
            columns: Arc::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_meta_is_read_back_and_that_of_a_cut_says_nothing_of_merges() {
        let id = |n: u128| BlockId::from_parts(UnixNano(1), n);
        let cut = BlockMeta::without_files(id(1), TenantId::single(), UnixNano(u64::MAX), TimeRange::ALL);
        let merged =
            BlockMeta { merge_level: 2, replaces: vec![id(2), id(3)], merged_with: vec![id(4)], ..cut.clone() };
        for meta in [&cut, &merged] {
            assert_eq!(BlockMeta::from_json(&meta.to_json()).unwrap(), *meta);
        }
        let json = String::from_utf8(cut.to_json()).unwrap();
        assert!(!json.contains("merge") && !json.contains("replaces"), "{json}");
        let json = merged.to_json();
        let bad = String::from_utf8(verified(&json).unwrap().to_vec()).unwrap();
        let bad = bad.replace(&id(3).to_string(), "nobody");
        assert!(BlockMeta::from_json(bad.as_bytes()).unwrap_err().to_string().contains("nobody"));
    }

    #[test]
    fn a_flipped_bit_is_found_wherever_it_is() {
        let meta = BlockMeta::without_files(BlockId(7), TenantId::single(), UnixNano(1), TimeRange::ALL);
        let json = meta.to_json();
        for at in 0..json.len() * 8 {
            let mut flipped = json.clone();
            flipped[at / 8] ^= 1 << (at % 8);
            assert!(BlockMeta::from_json(&flipped).is_err(), "bit {at}: {}", String::from_utf8_lossy(&flipped));
        }
    }
}
