//! Some rows of an input, decoded, and how each becomes a row of a batch.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{ArrowPrimitiveType, Float64Type, Int32Type, Int64Type, TimestampNanosecondType};
use arrow_array::{
    Array, ArrayRef, BinaryArray, BooleanArray, FixedSizeBinaryArray, Float64Array, Int32Array, Int64Array,
    PrimitiveArray, RecordBatch, StringArray, TimestampNanosecondArray,
};
use arrow_schema::DataType;
use spoor_model::batch::{AttrValue, ColumnIndex, Dropped, SpanBatch, SpanFields, ValueType};
use spoor_model::value::{KeyValue, Value};
use spoor_model::{SpanId, TraceId, UnixNano, nested};

use crate::error::Error;
use crate::open::Opened;
use crate::tables::Shape;

/// A shape of an input, ready to be given to row after row of one batch.
pub(super) struct ShapeFields {
    shape: Arc<Shape>,
    /// The attributes in terms of the current batch.
    prepared: Vec<Prepared>,
    is_prepared: bool,
}

/// An attribute with its place in a batch.
enum Prepared {
    Text(ColumnIndex, u32),
    Int(ColumnIndex, i64),
    Double(ColumnIndex, f64),
    Bool(ColumnIndex, bool),
    Encoded(ColumnIndex, Vec<u8>),
    /// The batch has no room for another column.
    Rest(KeyValue),
}

impl Prepared {
    fn new(attribute: &KeyValue, batch: &mut SpanBatch) -> Self {
        let key = attribute.key.as_bytes();
        let mut column = |value_type| batch.attribute_column(key, value_type);
        let prepared = match &attribute.value {
            Value::Str(text) => {
                let column = column(ValueType::Str);
                column.map(|column| Self::Text(column, batch.intern_text(column, text.as_bytes())))
            }
            Value::Int(int) => column(ValueType::Int).map(|column| Self::Int(column, *int)),
            Value::Double(double) => column(ValueType::Double).map(|column| Self::Double(column, *double)),
            Value::Bool(flag) => column(ValueType::Bool).map(|column| Self::Bool(column, *flag)),
            nested => column(ValueType::Encoded).map(|column| Self::Encoded(column, encode(nested))),
        };
        prepared.unwrap_or_else(|| Self::Rest(attribute.clone()))
    }

    #[inline]
    fn push(&self, batch: &mut SpanBatch) {
        match self {
            Self::Text(column, code) => batch.push_text_code(*column, *code),
            Self::Int(column, int) => batch.push_value(*column, AttrValue::Int(*int)),
            Self::Double(column, double) => batch.push_value(*column, AttrValue::Double(*double)),
            Self::Bool(column, flag) => batch.push_value(*column, AttrValue::Bool(*flag)),
            Self::Encoded(column, bytes) => batch.push_value(*column, AttrValue::Encoded(bytes)),
            Self::Rest(attribute) => push_attribute(batch, attribute),
        }
    }
}

impl ShapeFields {
    pub(super) fn new(shape: &Arc<Shape>) -> Self {
        Self { shape: Arc::clone(shape), prepared: Vec::new(), is_prepared: false }
    }

    /// Forgets the batch.
    pub(super) fn begin_batch(&mut self) {
        self.prepared.clear();
        self.is_prepared = false;
    }

    fn prepare(&mut self, batch: &mut SpanBatch) {
        if !self.is_prepared {
            self.prepared.extend(self.shape.attributes.iter().map(|attribute| Prepared::new(attribute, batch)));
            self.is_prepared = true;
        }
    }
}

fn encode(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    nested::put_value(&mut out, value);
    out
}

fn push_attribute(batch: &mut SpanBatch, attribute: &KeyValue) {
    let key = attribute.key.as_bytes();
    match &attribute.value {
        Value::Str(text) => batch.push_attribute(key, AttrValue::Str(text.as_bytes())),
        Value::Int(int) => batch.push_attribute(key, AttrValue::Int(*int)),
        Value::Double(double) => batch.push_attribute(key, AttrValue::Double(*double)),
        Value::Bool(flag) => batch.push_attribute(key, AttrValue::Bool(*flag)),
        nested => batch.push_attribute(key, AttrValue::Encoded(&encode(nested))),
    }
}

/// An attribute column, and where its values go in the current batch.
struct Attribute {
    key: Arc<str>,
    values: Values,
    /// `None` when the batch has no room for another column.
    column: Option<ColumnIndex>,
    /// Codes of the dictionary in terms of the batch's, `UNKNOWN` where not asked yet; empty when there are none.
    codes: Vec<u32>,
}

const UNKNOWN: u32 = u32::MAX;

impl Attribute {
    fn prepare(&mut self, batch: &mut SpanBatch) {
        let (value_type, code_count) = match &self.values {
            Values::Text(_) => (ValueType::Str, 0),
            Values::Coded(_, entries) => (ValueType::Str, entries.len()),
            Values::Int(_) => (ValueType::Int, 0),
            Values::Double(_) => (ValueType::Double, 0),
            Values::Bool(_) => (ValueType::Bool, 0),
            Values::Encoded(_) => (ValueType::Encoded, 0),
        };
        self.column = batch.attribute_column(self.key.as_bytes(), value_type);
        self.codes.clear();
        self.codes.resize(code_count, UNKNOWN);
    }

    #[inline]
    fn push(&mut self, row: usize, batch: &mut SpanBatch) {
        let Some(column) = self.column else {
            if let Some(value) = self.values.get(row) {
                batch.push_attribute(self.key.as_bytes(), value);
            }
            return;
        };
        if let Values::Coded(codes, entries) = &self.values {
            if codes.is_valid(row) {
                let entry = codes.value(row) as usize;
                let code = &mut self.codes[entry];
                if *code == UNKNOWN {
                    *code = batch.intern_text(column, entries.value(entry).as_bytes());
                }
                batch.push_text_code(column, *code);
            }
        } else if let Some(value) = self.values.get(row) {
            batch.push_value(column, value);
        }
    }
}

/// The values of an attribute column.
enum Values {
    Text(StringArray),
    Coded(Int32Array, StringArray),
    Int(Int64Array),
    Double(Float64Array),
    Bool(BooleanArray),
    Encoded(BinaryArray),
}

impl Values {
    /// `None` for a type that no column has.
    fn new(array: &ArrayRef) -> Option<Self> {
        Some(match array.data_type() {
            DataType::Utf8 => Self::Text(array.as_string().clone()),
            DataType::Dictionary(..) => {
                let coded = array.as_dictionary_opt::<Int32Type>()?;
                Self::Coded(coded.keys().clone(), coded.values().as_string_opt()?.clone())
            }
            DataType::Int64 => Self::Int(array.as_primitive::<Int64Type>().clone()),
            DataType::Float64 => Self::Double(array.as_primitive::<Float64Type>().clone()),
            DataType::Boolean => Self::Bool(array.as_boolean().clone()),
            DataType::Binary => Self::Encoded(array.as_binary().clone()),
            _ => return None,
        })
    }

    #[inline]
    fn get(&self, row: usize) -> Option<AttrValue<'_>> {
        match self {
            Self::Text(texts) => texts.is_valid(row).then(|| AttrValue::Str(texts.value(row).as_bytes())),
            Self::Coded(codes, entries) => {
                codes.is_valid(row).then(|| AttrValue::Str(entries.value(codes.value(row) as usize).as_bytes()))
            }
            Self::Int(ints) => ints.is_valid(row).then(|| AttrValue::Int(ints.value(row))),
            Self::Double(doubles) => doubles.is_valid(row).then(|| AttrValue::Double(doubles.value(row))),
            Self::Bool(flags) => flags.is_valid(row).then(|| AttrValue::Bool(flags.value(row))),
            Self::Encoded(values) => values.is_valid(row).then(|| AttrValue::Encoded(values.value(row))),
        }
    }
}

/// Rows that follow each other in one row group.
pub(super) struct Chunk {
    span_id: FixedSizeBinaryArray,
    start: TimestampNanosecondArray,
    duration: Int64Array,
    shape_id: Int32Array,
    origin_id: Int32Array,
    parent_offset: Int32Array,
    parent_span_id: Option<FixedSizeBinaryArray>,
    name: Option<StringArray>,
    kind: Option<Int32Array>,
    status_code: Option<Int32Array>,
    flags: Option<Int64Array>,
    status_message: Option<StringArray>,
    trace_state: Option<StringArray>,
    dropped: [Option<Int64Array>; 3],
    events: Option<BinaryArray>,
    links: Option<BinaryArray>,
    residual: Option<BinaryArray>,
    attributes: Vec<Attribute>,
    /// The batch that the attributes are prepared for.
    prepared_for: u64,
    /// What is held, without the dictionaries, which the chunks of a row group share.
    pub(super) memory_bytes: usize,
}

/// Finds columns by name and checks their types.
struct Columns<'a> {
    batch: &'a RecordBatch,
    object: &'a str,
}

impl<'a> Columns<'a> {
    fn missing(&self, name: &str) -> Error {
        Error::corrupt(self.object, format!("column {name} is missing or has the wrong type"))
    }

    /// A column that may not be there, or hold nothing.
    fn optional<T>(&self, name: &str, cast: impl Fn(&'a ArrayRef) -> Option<T>) -> Result<Option<T>, Error> {
        let found = self.batch.column_by_name(name).filter(|array| array.null_count() < array.len());
        found.map(|array| cast(array).ok_or_else(|| self.missing(name))).transpose()
    }

    /// A column that has a value in every row.
    fn required<T>(&self, name: &str, cast: impl Fn(&'a ArrayRef) -> Option<T>) -> Result<T, Error> {
        let whole = |array: &'a ArrayRef| if array.null_count() == 0 { cast(array) } else { None };
        self.optional(name, whole)?.ok_or_else(|| self.missing(name))
    }
}

fn primitive<T: ArrowPrimitiveType>(array: &ArrayRef) -> Option<PrimitiveArray<T>> {
    array.as_primitive_opt::<T>().cloned()
}

fn ids(array: &ArrayRef) -> Option<FixedSizeBinaryArray> {
    array.as_fixed_size_binary_opt().filter(|ids| ids.value_length() == 8).cloned()
}

fn texts(array: &ArrayRef) -> Option<StringArray> {
    array.as_string_opt::<i32>().cloned()
}

fn lists(array: &ArrayRef) -> Option<BinaryArray> {
    array.as_binary_opt::<i32>().cloned()
}

/// A column that every row has when it is there at all.
fn whole<T: Array>(cast: impl Fn(&ArrayRef) -> Option<T>) -> impl Fn(&ArrayRef) -> Option<T> {
    move |array| cast(array).filter(|array| array.null_count() == 0)
}

impl Chunk {
    /// Takes what was decoded.
    pub(super) fn new(batch: &RecordBatch, opened: &Opened) -> Result<Self, Error> {
        let columns = Columns { batch, object: &opened.object };
        let mut attributes = Vec::new();
        for column in &*opened.columns {
            if let Some(key) = &column.attribute
                && let Some(values) = columns.optional(&column.name, Values::new)?
            {
                attributes.push(Attribute { key: Arc::from(&**key), values, column: None, codes: Vec::new() });
            }
        }
        let count = |name| columns.optional(name, primitive::<Int64Type>);
        let chunk = Self {
            span_id: columns.required("span_id", ids)?,
            start: columns.required("start_time_unix_nano", primitive::<TimestampNanosecondType>)?,
            duration: columns.required("duration_nano", primitive::<Int64Type>)?,
            shape_id: columns.required("shape_id", primitive::<Int32Type>)?,
            origin_id: columns.required("origin_id", primitive::<Int32Type>)?,
            parent_offset: columns.required("parent_offset", primitive::<Int32Type>)?,
            parent_span_id: columns.optional("parent_span_id", ids)?,
            name: columns.optional("name", whole(texts))?,
            kind: columns.optional("kind", whole(primitive::<Int32Type>))?,
            status_code: columns.optional("status_code", whole(primitive::<Int32Type>))?,
            flags: columns.optional("flags", whole(primitive::<Int64Type>))?,
            status_message: columns.optional("status_message", texts)?,
            trace_state: columns.optional("trace_state", texts)?,
            dropped: [
                count("dropped_attributes_count")?,
                count("dropped_events_count")?,
                count("dropped_links_count")?,
            ],
            events: columns.optional("events_otlp", lists)?,
            links: columns.optional("links_otlp", lists)?,
            residual: columns.optional("residual_otlp", lists)?,
            attributes,
            prepared_for: 0,
            memory_bytes: batch.columns().iter().map(memory_bytes).sum(),
        };
        chunk.check(opened)?;
        Ok(chunk)
    }

    fn check(&self, opened: &Opened) -> Result<(), Error> {
        let check = |column: &str, numbers: &Int32Array, count: usize| {
            // As unsigned numbers, so that negative ones are too large.
            match numbers.values().iter().map(|number| *number as u32).max() {
                Some(greatest) if greatest as usize >= count => {
                    Err(Error::corrupt(&opened.object, format!("column {column}: {greatest} does not exist")))
                }
                _ => Ok(()),
            }
        };
        check("shape_id", &self.shape_id, opened.shapes.len())?;
        check("origin_id", &self.origin_id, opened.origins.len())?;
        check("parent_offset", &self.parent_offset, opened.row_count())
    }

    pub(super) fn span_id(&self, row: usize) -> SpanId {
        SpanId(self.span_id.value(row).try_into().expect("8 bytes wide"))
    }

    /// Rows back to the parent; 0: [`Self::explicit_parent`].
    pub(super) fn parent_offset(&self, row: usize) -> usize {
        self.parent_offset.value(row) as usize
    }

    /// The id of a parent that is not in the block.
    pub(super) fn explicit_parent(&self, row: usize) -> Option<SpanId> {
        let ids = self.parent_span_id.as_ref().filter(|ids| ids.is_valid(row))?;
        Some(SpanId(ids.value(row).try_into().expect("8 bytes wide")))
    }

    pub(super) fn shape_id(&self, row: usize) -> u32 {
        self.shape_id.value(row) as u32
    }

    pub(super) fn origin_id(&self, row: usize) -> usize {
        self.origin_id.value(row) as usize
    }

    /// Makes ready to append rows to a batch. Batches are numbered from 1.
    pub(super) fn prepare(&mut self, batch_number: u64, batch: &mut SpanBatch) {
        if self.prepared_for != batch_number {
            self.prepared_for = batch_number;
            self.attributes.iter_mut().for_each(|attribute| attribute.prepare(batch));
        }
    }

    /// Appends a row to the batch for which the chunk is prepared. `shapes` are those of the input.
    pub(super) fn push(
        &mut self,
        row: usize,
        shapes: &mut [ShapeFields],
        place: Place,
        batch: &mut SpanBatch,
    ) -> Result<(), spoor_model::wire::WireError> {
        let fields = &mut shapes[self.shape_id.value(row) as usize];
        fields.prepare(batch);
        fields.prepared.iter().for_each(|attribute| attribute.push(batch));
        self.attributes.iter_mut().for_each(|attribute| attribute.push(row, batch));
        for bytes in nested::split_list(bytes_at(&self.residual, row))? {
            push_attribute(batch, &nested::decode_key_value(bytes)?);
        }
        nested::split_list(bytes_at(&self.events, row))?.into_iter().for_each(|event| batch.push_event(event));
        nested::split_list(bytes_at(&self.links, row))?.into_iter().for_each(|link| batch.push_link(link));
        let (shape, start) = (&*fields.shape, self.start.value(row) as u64);
        let [attributes, events, links] = [0, 1, 2].map(|index| int_at(&self.dropped[index], row) as u32);
        batch.push_span(SpanFields {
            trace_id: place.trace_id,
            span_id: self.span_id(row),
            parent_span_id: place.parent,
            start: UnixNano(start),
            end: UnixNano(start.wrapping_add(self.duration.value(row) as u64)),
            kind: self.kind.as_ref().map_or_else(|| shape.kind.unwrap_or_default(), |kind| kind.value(row)),
            status_code: self
                .status_code
                .as_ref()
                .map_or_else(|| shape.status_code.unwrap_or_default(), |code| code.value(row)),
            flags: self.flags.as_ref().map_or_else(|| shape.flags.unwrap_or_default(), |flags| flags.value(row) as u32),
            origin: place.origin,
            name: self
                .name
                .as_ref()
                .map_or(shape.name.as_deref().unwrap_or_default(), |name| name.value(row))
                .as_bytes(),
            status_message: text_at(&self.status_message, row),
            trace_state: text_at(&self.trace_state, row),
            dropped: Dropped { attributes, events, links },
        });
        Ok(())
    }
}

/// What a row does not say of itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) trace_id: TraceId,
    pub(super) parent: SpanId,
    /// The batch's number of the origin.
    pub(super) origin: u32,
}

fn memory_bytes(array: &ArrayRef) -> usize {
    match array.as_any_dictionary_opt() {
        Some(dictionary) => dictionary.keys().get_array_memory_size(),
        None => array.get_array_memory_size(),
    }
}

fn bytes_at(array: &Option<BinaryArray>, row: usize) -> &[u8] {
    array.as_ref().filter(|array| array.is_valid(row)).map_or(&[], |array| array.value(row))
}

fn text_at(array: &Option<StringArray>, row: usize) -> &[u8] {
    array.as_ref().filter(|array| array.is_valid(row)).map_or(&[], |array| array.value(row).as_bytes())
}

fn int_at(array: &Option<Int64Array>, row: usize) -> i64 {
    array.as_ref().filter(|array| array.is_valid(row)).map_or(0, |array| array.value(row))
}
