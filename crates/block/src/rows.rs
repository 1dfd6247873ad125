//! Taking rows of `spans.parquet` apart into spans.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int32Type, Int64Type, TimestampNanosecondType};
use arrow_array::{
    Array, ArrayRef, BinaryArray, FixedSizeBinaryArray, Int32Array, Int64Array, RecordBatch, StringArray,
};
use spoor_model::batch::AttrValue;
use spoor_model::nested;
use spoor_model::{KeyValue, Span, SpanEntry, SpanId, Status, TraceId, UnixNano};

use crate::error::Error;
use crate::open::Opened;
use crate::tables;

/// The columns of one batch, by name; optional ones may be missing.
struct Columns<'a> {
    batch: &'a RecordBatch,
    opened: &'a Opened,
}

impl<'a> Columns<'a> {
    fn missing(&self, name: &str) -> Error {
        Error::corrupt(&self.opened.object, format!("column {name} is missing or has the wrong type"))
    }

    fn fixed(&self, name: &str, width: i32) -> Result<&'a FixedSizeBinaryArray, Error> {
        let column = self.batch.column_by_name(name).and_then(|array| array.as_fixed_size_binary_opt());
        column.filter(|array| array.value_length() == width).ok_or_else(|| self.missing(name))
    }

    fn int32(&self, name: &str) -> Result<&'a Int32Array, Error> {
        let column = self.batch.column_by_name(name).and_then(|array| array.as_primitive_opt::<Int32Type>());
        column.ok_or_else(|| self.missing(name))
    }

    fn optional_int64(&self, name: &str) -> Option<&'a Int64Array> {
        self.batch.column_by_name(name).and_then(|array| array.as_primitive_opt::<Int64Type>())
    }

    fn optional_text(&self, name: &str) -> Option<&'a StringArray> {
        self.batch.column_by_name(name).and_then(|array| array.as_string_opt::<i32>())
    }

    fn optional_binary(&self, name: &str) -> Option<&'a BinaryArray> {
        self.batch.column_by_name(name).and_then(|array| array.as_binary_opt::<i32>())
    }
}

/// The value of a column at a row, when it has one.
pub(crate) fn attr_value(array: &ArrayRef, row: usize) -> Option<AttrValue<'_>> {
    use arrow_schema::DataType;
    if array.is_null(row) {
        return None;
    }
    match array.data_type() {
        DataType::Utf8 => Some(AttrValue::Str(array.as_string::<i32>().value(row).as_bytes())),
        DataType::Int64 => Some(AttrValue::Int(array.as_primitive::<Int64Type>().value(row))),
        DataType::Float64 => Some(AttrValue::Double(array.as_primitive::<Float64Type>().value(row))),
        DataType::Boolean => Some(AttrValue::Bool(array.as_boolean().value(row))),
        DataType::Binary => Some(AttrValue::Encoded(array.as_binary::<i32>().value(row))),
        _ => None,
    }
}

fn int_at(array: Option<&Int64Array>, row: usize) -> Option<i64> {
    array.filter(|array| array.is_valid(row)).map(|array| array.value(row))
}

fn text_at(array: Option<&StringArray>, row: usize) -> &str {
    array.filter(|array| array.is_valid(row)).map_or("", |array| array.value(row))
}

fn bytes_at(array: Option<&BinaryArray>, row: usize) -> &[u8] {
    array.filter(|array| array.is_valid(row)).map_or(&[], |array| array.value(row))
}

/// Reads a range of rows, which lie in one trace and so in one row group.
pub(crate) fn read(opened: &Opened, rows: std::ops::Range<usize>) -> Result<Vec<SpanEntry>, Error> {
    let mut entries = Vec::with_capacity(rows.len());
    let mut offsets = Vec::with_capacity(rows.len());
    for batch in opened.read_rows(rows.clone())? {
        let batch = batch.map_err(|err| Error::corrupt(&opened.object, err.to_string()))?;
        read_batch(&Columns { batch: &batch, opened }, &mut entries, &mut offsets)?;
    }
    if entries.len() != rows.len() {
        let reason = format!("rows {rows:?}: row count mismatch (want {}, got {})", rows.len(), entries.len());
        return Err(Error::corrupt(&opened.object, reason));
    }
    for row in 0..entries.len() {
        let offset = offsets[row];
        if offset > row {
            return Err(Error::corrupt(
                &opened.object,
                format!("a parent lies {offset} rows before row {row} of its trace"),
            ));
        }
        if offset > 0 {
            entries[row].span.parent_span_id = entries[row - offset].span.span_id;
        }
    }
    Ok(entries)
}

fn read_batch(columns: &Columns<'_>, entries: &mut Vec<SpanEntry>, offsets: &mut Vec<usize>) -> Result<(), Error> {
    let opened = columns.opened;
    let corrupt = |reason: String| Error::corrupt(&opened.object, reason);
    let (trace_id, span_id) = (columns.fixed("trace_id", 16)?, columns.fixed("span_id", 8)?);
    let start = columns.batch.column_by_name("start_time_unix_nano");
    let start = start.and_then(|array| array.as_primitive_opt::<TimestampNanosecondType>());
    let start = start.ok_or_else(|| columns.missing("start_time_unix_nano"))?;
    let duration = columns.optional_int64("duration_nano").ok_or_else(|| columns.missing("duration_nano"))?;
    let (shape_id, origin_id) = (columns.int32("shape_id")?, columns.int32("origin_id")?);
    let parent_offset = columns.int32("parent_offset")?;
    let explicit_parent =
        columns.batch.column_by_name("parent_span_id").and_then(|array| array.as_fixed_size_binary_opt());
    let attributes = attribute_arrays(columns);
    let optional = Optional::new(columns);
    for row in 0..columns.batch.num_rows() {
        let shape = usize::try_from(shape_id.value(row)).ok().and_then(|id| opened.shapes.get(id));
        let shape = shape.ok_or_else(|| corrupt(format!("shape {} does not exist", shape_id.value(row))))?;
        let origin = usize::try_from(origin_id.value(row)).ok().and_then(|id| opened.origins.get(id));
        let origin = origin.ok_or_else(|| corrupt(format!("origin {} does not exist", origin_id.value(row))))?;
        let start_nano = start.value(row) as u64;
        let parent =
            explicit_parent.filter(|array| array.is_valid(row)).and_then(|array| array.value(row).try_into().ok());
        let mut span = Span {
            trace_id: TraceId(trace_id.value(row).try_into().expect("16 bytes wide")),
            span_id: SpanId(span_id.value(row).try_into().expect("8 bytes wide")),
            parent_span_id: parent.map(SpanId).unwrap_or_default(),
            start: UnixNano(start_nano),
            end: UnixNano(start_nano.wrapping_add(duration.value(row) as u64)),
            attributes: shape.attributes.clone(),
            name: shape.name.clone().unwrap_or_default(),
            kind: shape.kind.unwrap_or_default(),
            flags: shape.flags.unwrap_or_default(),
            status: Status { code: shape.status_code.unwrap_or_default(), message: String::new() },
            ..Span::default()
        };
        for (key, array) in &attributes {
            if let Some(value) = attr_value(array, row) {
                span.attributes.push(KeyValue { key: (*key).to_owned(), value: value.to_value() });
            }
        }
        optional.fill(row, &mut span, &opened.object)?;
        entries.push(SpanEntry { origin: Arc::clone(origin), span });
        offsets.push(
            usize::try_from(parent_offset.value(row)).map_err(|_| corrupt("a parent offset is negative".into()))?,
        );
    }
    Ok(())
}

fn attribute_arrays<'a>(columns: &Columns<'a>) -> Vec<(&'a str, &'a ArrayRef)> {
    let listed = columns.opened.columns.iter();
    listed
        .filter_map(|column| {
            let key = column.attribute.as_deref()?;
            Some((key, columns.batch.column_by_name(&column.name)?))
        })
        .collect()
}

/// The columns that not every block has.
struct Optional<'a> {
    name: Option<&'a StringArray>,
    kind: Option<&'a Int32Array>,
    status_code: Option<&'a Int32Array>,
    flags: Option<&'a Int64Array>,
    status_message: Option<&'a StringArray>,
    trace_state: Option<&'a StringArray>,
    dropped: [Option<&'a Int64Array>; 3],
    events: Option<&'a BinaryArray>,
    links: Option<&'a BinaryArray>,
    residual: Option<&'a BinaryArray>,
}

impl<'a> Optional<'a> {
    fn new(columns: &Columns<'a>) -> Self {
        Self {
            name: columns.optional_text("name"),
            kind: columns.int32("kind").ok(),
            status_code: columns.int32("status_code").ok(),
            flags: columns.optional_int64("flags"),
            status_message: columns.optional_text("status_message"),
            trace_state: columns.optional_text("trace_state"),
            dropped: ["dropped_attributes_count", "dropped_events_count", "dropped_links_count"]
                .map(|name| columns.optional_int64(name)),
            events: columns.optional_binary("events_otlp"),
            links: columns.optional_binary("links_otlp"),
            residual: columns.optional_binary("residual_otlp"),
        }
    }

    fn fill(&self, row: usize, span: &mut Span, object: &str) -> Result<(), Error> {
        let corrupt = |err: spoor_model::wire::WireError| Error::corrupt(object, err.to_string());
        if let Some(name) = self.name {
            span.name = name.value(row).to_owned();
        }
        if let Some(kind) = self.kind {
            span.kind = kind.value(row);
        }
        if let Some(status_code) = self.status_code {
            span.status.code = status_code.value(row);
        }
        if let Some(flags) = self.flags {
            span.flags = flags.value(row) as u32;
        }
        span.status.message = text_at(self.status_message, row).to_owned();
        span.trace_state = text_at(self.trace_state, row).to_owned();
        let count = |array: Option<&Int64Array>| int_at(array, row).unwrap_or_default() as u32;
        [span.dropped_attributes_count, span.dropped_events_count, span.dropped_links_count] = self.dropped.map(count);
        for bytes in nested::split_list(bytes_at(self.events, row)).map_err(corrupt)? {
            span.events.push(nested::decode_event(bytes).map_err(corrupt)?);
        }
        for bytes in nested::split_list(bytes_at(self.links, row)).map_err(corrupt)? {
            span.links.push(nested::decode_link(bytes).map_err(corrupt)?);
        }
        span.attributes.extend(tables::decode_list(bytes_at(self.residual, row), object)?);
        Ok(())
    }
}
