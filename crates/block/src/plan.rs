//! Which columns `spans.parquet` of one block has, and how each is encoded.
//!
//! The fixed columns are always there; the optional ones when some span needs them. Of the
//! attributes that did not fold into shapes, those on at least [`COLUMN_SHARE_PERCENT`] of the spans
//! get a column, at most [`COLUMNS_MAX`] (each costs ~70 us per trace by id); the rest go to one
//! residual column, which costs nothing where it is empty.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use spoor_model::batch::{AttrValues, SpanBatch, ValueType};

use crate::columns::MergedColumn;
use crate::meta::{ColumnMeta, ColumnType};
use crate::shape::{Dimension, Shapes};
use crate::write::WriteOptions;

/// Attributes on fewer spans than this go to the residual column.
const COLUMN_SHARE_PERCENT: usize = 3;
/// The most attribute columns of a block.
const COLUMNS_MAX: usize = 64;
/// A text column keeps a dictionary below this share of distinct values...
const DICTIONARY_SHARE_PERCENT: usize = 50;
/// ... or when it has fewer distinct values than a small page of codes can tell apart.
const DICTIONARY_VALUES_MIN: usize = 1024;

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    TraceId,
    SpanId,
    Start,
    Duration,
    ShapeId,
    OriginId,
    ParentOffset,
    SubtreeSize,
    ParentSpanId,
    Name,
    Kind,
    StatusCode,
    Flags,
    StatusMessage,
    TraceState,
    DroppedAttributes,
    DroppedEvents,
    DroppedLinks,
    Events,
    Links,
    Residual,
    /// Index into the merged columns.
    Attribute(usize),
}

/// Every column that is not an attribute, in file order. Names are part of the format.
pub(crate) const NAMED: [(Role, &str); 21] = [
    (Role::TraceId, "trace_id"),
    (Role::SpanId, "span_id"),
    (Role::Start, "start_time_unix_nano"),
    (Role::Duration, "duration_nano"),
    (Role::ShapeId, "shape_id"),
    (Role::OriginId, "origin_id"),
    (Role::ParentOffset, "parent_offset"),
    (Role::SubtreeSize, "subtree_size"),
    (Role::ParentSpanId, "parent_span_id"),
    (Role::Name, "name"),
    (Role::Kind, "kind"),
    (Role::StatusCode, "status_code"),
    (Role::Flags, "flags"),
    (Role::StatusMessage, "status_message"),
    (Role::TraceState, "trace_state"),
    (Role::DroppedAttributes, "dropped_attributes_count"),
    (Role::DroppedEvents, "dropped_events_count"),
    (Role::DroppedLinks, "dropped_links_count"),
    (Role::Events, "events_otlp"),
    (Role::Links, "links_otlp"),
    (Role::Residual, "residual_otlp"),
];

/// One column of the file.
#[derive(Debug, Clone)]
pub(crate) struct PlannedColumn {
    pub(crate) role: Role,
    pub(crate) meta: ColumnMeta,
    data_type: DataType,
    layout: Layout,
    is_nullable: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// Ids of spans: random bytes, nothing compresses them.
    Raw,
    /// Numbers: one stream per byte place, then zstd.
    ByteStreamSplit,
    /// Few distinct values.
    Dictionary,
    /// Everything else.
    Plain,
}

/// The columns of a block.
pub(crate) struct Plan {
    pub(crate) columns: Vec<PlannedColumn>,
    /// Merged columns that go to the residual.
    pub(crate) residual: Vec<usize>,
}

/// Decides the columns. Looks at dictionaries, not at rows. `is_needed` names columns that spans need which are not
/// among `batches`.
pub(crate) fn plan(
    batches: &[&SpanBatch],
    merged: &[MergedColumn<'_>],
    shapes: &Shapes,
    is_needed: &dyn Fn(Role) -> bool,
) -> Plan {
    let span_count: usize = batches.iter().map(|batch| batch.len()).sum();
    let is_used = |role| match role {
        Role::Name => !shapes.folded.contains(&Dimension::Name),
        Role::Kind => !shapes.folded.contains(&Dimension::Kind),
        Role::StatusCode => !shapes.folded.contains(&Dimension::StatusCode),
        Role::Flags => !shapes.folded.contains(&Dimension::Flags),
        _ if is_needed(role) => true,
        Role::ParentSpanId | Role::Residual => false,
        Role::StatusMessage => batches.iter().any(|batch| !batch.status_message().rows().is_empty()),
        Role::TraceState => batches.iter().any(|batch| !batch.trace_state().rows().is_empty()),
        Role::DroppedAttributes => batches.iter().any(|batch| batch.dropped().1.iter().any(|d| d.attributes > 0)),
        Role::DroppedEvents => batches.iter().any(|batch| batch.dropped().1.iter().any(|d| d.events > 0)),
        Role::DroppedLinks => batches.iter().any(|batch| batch.dropped().1.iter().any(|d| d.links > 0)),
        Role::Events => batches.iter().any(|batch| !batch.events().rows().is_empty()),
        Role::Links => batches.iter().any(|batch| !batch.links().rows().is_empty()),
        _ => true,
    };
    let mut varying: Vec<usize> =
        (0..merged.len()).filter(|index| !shapes.folded.contains(&Dimension::Attribute(*index))).collect();
    varying.sort_by_key(|index| std::cmp::Reverse(merged[*index].row_count));
    let is_frequent = |index: &usize| merged[*index].row_count * 100 >= span_count * COLUMN_SHARE_PERCENT;
    let column_count = varying.iter().take(COLUMNS_MAX).take_while(|index| is_frequent(index)).count();
    let residual = varying.split_off(column_count);
    let has_residual = !residual.is_empty() || batches.iter().any(|batch| !batch.residual().rows().is_empty());

    let named = NAMED.iter().filter(|(role, _)| is_used(*role) || (*role == Role::Residual && has_residual));
    let mut columns: Vec<PlannedColumn> = named.map(|(role, name)| named_column(*role, name)).collect();
    let mut taken: BTreeSet<String> = columns.iter().map(|column| column.meta.name.clone()).collect();
    for index in varying {
        let column = attribute_column(index, &merged[index], &taken);
        taken.insert(column.meta.name.clone());
        columns.push(column);
    }
    Plan { columns, residual }
}

fn named_column(role: Role, name: &str) -> PlannedColumn {
    let (data_type, layout, is_nullable) = match role {
        Role::TraceId => (DataType::FixedSizeBinary(16), Layout::Plain, false),
        Role::SpanId => (DataType::FixedSizeBinary(8), Layout::Raw, false),
        Role::Start => (DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into())), Layout::ByteStreamSplit, false),
        Role::Duration => (DataType::Int64, Layout::ByteStreamSplit, false),
        Role::ShapeId | Role::OriginId | Role::ParentOffset | Role::SubtreeSize => {
            (DataType::Int32, Layout::ByteStreamSplit, false)
        }
        Role::ParentSpanId => (DataType::FixedSizeBinary(8), Layout::Plain, true),
        Role::Name => (DataType::Utf8, Layout::Plain, false),
        Role::Kind | Role::StatusCode => (DataType::Int32, Layout::Dictionary, false),
        Role::Flags => (DataType::Int64, Layout::Dictionary, false),
        Role::StatusMessage | Role::TraceState => (DataType::Utf8, Layout::Dictionary, true),
        Role::DroppedAttributes | Role::DroppedEvents | Role::DroppedLinks => {
            (DataType::Int64, Layout::Dictionary, true)
        }
        Role::Events | Role::Links | Role::Residual => (DataType::Binary, Layout::Plain, true),
        Role::Attribute(_) => unreachable!("attributes have no fixed name"),
    };
    let meta = ColumnMeta { name: name.to_owned(), attribute: None, value_type: None, is_dictionary: false };
    PlannedColumn { role, meta, data_type, layout, is_nullable }
}

fn attribute_column(index: usize, column: &MergedColumn<'_>, taken: &BTreeSet<String>) -> PlannedColumn {
    let name = free_name(&column.key, column.value_type, taken);
    let (data_type, layout) = match column.value_type {
        ValueType::Str if has_few_values(column) => (DataType::Utf8, Layout::Dictionary),
        ValueType::Str => (DataType::Utf8, Layout::Plain),
        ValueType::Int => (DataType::Int64, Layout::ByteStreamSplit),
        ValueType::Double => (DataType::Float64, Layout::ByteStreamSplit),
        ValueType::Bool => (DataType::Boolean, Layout::Plain),
        ValueType::Encoded => (DataType::Binary, Layout::Dictionary),
    };
    let is_dictionary = layout == Layout::Dictionary && column.value_type == ValueType::Str;
    let attribute = Some(column.key.to_string());
    let meta = ColumnMeta { name, attribute, value_type: Some(column.value_type.into()), is_dictionary };
    PlannedColumn { role: Role::Attribute(index), meta, data_type, layout, is_nullable: true }
}

/// The plain name when it is free, so that people can write it; types only tell twins apart.
fn free_name(key: &str, value_type: ValueType, taken: &BTreeSet<String>) -> String {
    let mut name = format!("span.{key}");
    if taken.contains(&name) {
        name += match value_type {
            ValueType::Str => "'",
            ValueType::Int => ":int",
            ValueType::Double => ":double",
            ValueType::Bool => ":bool",
            ValueType::Encoded => ":otlp",
        };
    }
    while taken.contains(&name) {
        name.push('\'');
    }
    name
}

fn has_few_values(column: &MergedColumn<'_>) -> bool {
    let entries = |part: &Option<(&spoor_model::batch::AttrColumn, crate::columns::RankIndex)>| match part {
        Some((column, _)) => match column.values() {
            AttrValues::Str { dictionary, .. } => dictionary.len(),
            _ => 0,
        },
        None => 0,
    };
    let most = column.parts.iter().map(entries).max().unwrap_or(0);
    let rows_in_batch = column.row_count / column.parts.len().max(1);
    most <= DICTIONARY_VALUES_MIN || most * 100 <= rows_in_batch * DICTIONARY_SHARE_PERCENT
}

impl PlannedColumn {
    /// Whether the filters of values have this column's integers.
    pub(crate) fn has_ints_in_filter(&self) -> bool {
        self.meta.value_type == Some(ColumnType::Int)
    }
}

impl Plan {
    /// Whether there is a column of this role.
    pub(crate) fn has(&self, role: Role) -> bool {
        self.columns.iter().any(|column| column.role == role)
    }

    /// The Arrow schema of the file.
    pub(crate) fn schema(&self) -> SchemaRef {
        let field =
            |column: &PlannedColumn| Field::new(&column.meta.name, column.data_type.clone(), column.is_nullable);
        Arc::new(Schema::new(self.columns.iter().map(field).collect::<Vec<_>>()))
    }

    /// How Parquet writes the columns: V1 pages (V2 leaves levels uncompressed), small pages,
    /// row groups that only the caller ends.
    pub(crate) fn properties(&self, options: &WriteOptions) -> Result<WriterProperties, parquet::errors::ParquetError> {
        let zstd = Compression::ZSTD(ZstdLevel::try_new(options.zstd_level)?);
        let mut builder = WriterProperties::builder()
            .set_compression(zstd)
            .set_max_row_group_row_count(Some(usize::MAX))
            .set_data_page_row_count_limit(options.page_rows)
            .set_write_batch_size(options.page_rows.min(1024))
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_created_by("spoor".to_owned());
        for column in &self.columns {
            let path = ColumnPath::from(vec![column.meta.name.clone()]);
            builder = builder.set_column_dictionary_enabled(path.clone(), column.layout == Layout::Dictionary);
            builder = match column.layout {
                Layout::Raw => builder.set_column_compression(path, Compression::UNCOMPRESSED),
                Layout::ByteStreamSplit => builder.set_column_encoding(path, Encoding::BYTE_STREAM_SPLIT),
                Layout::Dictionary | Layout::Plain => builder,
            };
        }
        Ok(builder.build())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attribute_of_several_types_has_a_column_for_each_whichever_comes_first() {
        for first in [ValueType::Str, ValueType::Int] {
            let mut taken = BTreeSet::from(["span.size:int".to_owned()]);
            for value_type in [first, ValueType::Str, ValueType::Int, ValueType::Double, ValueType::Bool] {
                let name = free_name("size", value_type, &taken);
                assert!(name.starts_with("span.size") && taken.insert(name), "{taken:?}");
            }
        }
        let taken = BTreeSet::from(["span.size".to_owned()]);
        assert_eq!(free_name("size", ValueType::Str, &taken), "span.size'");
        assert_eq!(free_name("size", ValueType::Int, &taken), "span.size:int");
    }
}
