//! Many spans as columns: what the wire is decoded into, and what the head holds.
//!
//! ```text
//!   fixed, one entry per row                     sparse, (rows ascending, values)
//!   trace | span_id | parent | start | end       attribute (key, type)   rows 0 2 5 ...
//!   name  | kind | status | flags | origin       status message, trace state, dropped counts
//!                                                events, links, residual (nested encoding)
//! ```
//!
//! A row is a span. An attribute column exists per (key, type): a key that comes with two types has
//! two columns. What fits no column (a key that repeats within one span, the columns past
//! [`COLUMNS_MAX`]) goes to `residual` as encoded `KeyValue`s, so nothing is lost. Texts are bytes
//! here: whoever decodes has checked that they are UTF-8.
//!
//! Native vectors rather than Arrow builders: they take one value at a time without a virtual call
//! and keep their dictionary while they grow (`docs/adr/0004-native-head-columns.md`). Arrow arrays
//! are made at the seams, in scans and when a block is written.
//!
//! **Invariant:** within each sparse column `rows` is strictly ascending and below the row count,
//! once [`SpanBatch::push_span`] has ended the row.

use std::sync::Arc;

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64;

use crate::nested;
use crate::span::{Origin, Span, SpanEntry, Status};
use crate::value::{KeyValue, Value};
use crate::wire::WireError;
use crate::{SpanId, TimeRange, TraceId, UnixNano};
use origins::{Encoded, Origins};

mod origins;

/// The most attribute columns of one batch. Real corpora have 50 to 500 keys; past this, attributes
/// go to the residual, so a client that puts data into keys costs bytes and not tables.
pub const COLUMNS_MAX: usize = 1024;

/// Texts with their codes: equal texts share a code while that pays.
///
/// A dictionary that passes 8192 entries of which over half were new stops looking texts up and
/// appends each: hashing near-unique texts (SQL, session ids) is a fifth of the cost of decoding.
#[derive(Debug, Default, Clone)]
pub struct TextDictionary {
    ends: Vec<u32>,
    bytes: Vec<u8>,
    lookup: HashTable<u32>,
    asked: u32,
    appends_only: bool,
    last: u32,
}

impl TextDictionary {
    const ADAPT_ENTRIES: usize = 8192;

    /// The code of `text`, new or known.
    #[inline]
    pub fn intern(&mut self, text: &[u8]) -> u32 {
        if !self.ends.is_empty() && self.get(self.last) == text {
            return self.last;
        }
        if self.appends_only {
            return self.append(text);
        }
        self.asked = self.asked.wrapping_add(1);
        let hash = xxh3_64(text);
        let Self { ends, bytes, .. } = self;
        let found = self.lookup.find(hash, |code| slice_of(ends, bytes, *code) == text).copied();
        match found {
            Some(code) => {
                self.last = code;
                code
            }
            None => {
                let code = self.append(text);
                let Self { ends, bytes, lookup, .. } = self;
                lookup.insert_unique(hash, code, |code| xxh3_64(slice_of(ends, bytes, *code)));
                if ends.len() > Self::ADAPT_ENTRIES && self.ends.len() as u32 > self.asked / 2 {
                    self.appends_only = true;
                    self.lookup = HashTable::new();
                }
                code
            }
        }
    }

    fn append(&mut self, text: &[u8]) -> u32 {
        let code = self.ends.len() as u32;
        self.bytes.extend_from_slice(text);
        self.ends.push(u32::try_from(self.bytes.len()).expect("a batch is sealed long before 4 GiB of text"));
        self.last = code;
        code
    }

    /// The text of a code that [`Self::intern`] returned.
    #[inline]
    pub fn get(&self, code: u32) -> &[u8] {
        slice_of(&self.ends, &self.bytes, code)
    }

    /// How many codes there are; equal texts may have several once the dictionary has adapted.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are no texts.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// All texts, by code.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.ends.len() as u32).map(|code| self.get(code))
    }

    fn memory_bytes(&self) -> usize {
        self.ends.capacity() * 4 + self.bytes.capacity() + self.lookup.allocation_size()
    }
}

#[inline]
fn slice_of<'a>(ends: &[u32], bytes: &'a [u8], index: u32) -> &'a [u8] {
    let index = index as usize;
    let start = if index == 0 { 0 } else { ends[index - 1] as usize };
    &bytes[start..ends[index] as usize]
}

/// Bytes on some rows.
#[derive(Debug, Default, Clone)]
pub struct SparseBytes {
    rows: Vec<u32>,
    ends: Vec<u32>,
    bytes: Vec<u8>,
}

impl SparseBytes {
    /// Rows that have bytes, ascending.
    pub fn rows(&self) -> &[u32] {
        &self.rows
    }

    /// The bytes of the `index`-th of [`Self::rows`].
    pub fn get_at(&self, index: usize) -> &[u8] {
        slice_of(&self.ends, &self.bytes, index as u32)
    }

    /// The bytes of `row`, when it has any.
    pub fn get(&self, row: u32) -> Option<&[u8]> {
        self.rows.binary_search(&row).ok().map(|index| self.get_at(index))
    }

    fn push(&mut self, row: u32, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        let end = u32::try_from(self.bytes.len()).expect("a batch is sealed long before 4 GiB of bytes");
        match self.rows.last() {
            Some(last) if *last == row => *self.ends.last_mut().expect("as many ends as rows") = end,
            _ => {
                self.rows.push(row);
                self.ends.push(end);
            }
        }
    }

    /// Adds `message` to the list of `row`.
    fn push_list_item(&mut self, row: u32, message: &[u8]) {
        let mut length = Vec::with_capacity(5);
        crate::wire::put_varint(&mut length, message.len() as u64);
        self.push(row, &length);
        self.push(row, message);
    }

    fn memory_bytes(&self) -> usize {
        self.rows.capacity() * 4 + self.ends.capacity() * 4 + self.bytes.capacity()
    }
}

/// The values of one attribute column, one per entry of its `rows`.
#[derive(Debug, Clone)]
pub enum AttrValues {
    /// Texts, as codes of a dictionary.
    Str {
        /// One per row.
        codes: Vec<u32>,
        /// What the codes mean.
        dictionary: TextDictionary,
    },
    /// Integers.
    Int(Vec<i64>),
    /// Floats.
    Double(Vec<f64>),
    /// Booleans.
    Bool(Vec<bool>),
    /// Arrays, maps, bytes and empty values, as encoded `AnyValue`s.
    Encoded {
        /// One end offset per row.
        ends: Vec<u32>,
        /// The encoded values, one after another.
        bytes: Vec<u8>,
    },
}

/// What kind of values a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum ValueType {
    /// UTF-8 text.
    Str,
    /// 64-bit signed integer.
    Int,
    /// 64-bit float.
    Double,
    /// Boolean.
    Bool,
    /// An encoded `AnyValue`: array, map, bytes or empty.
    Encoded,
}

/// An attribute value while it is decoded: borrowed from the wire.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum AttrValue<'a> {
    /// UTF-8 text, already checked.
    Str(&'a [u8]),
    /// Integer.
    Int(i64),
    /// Float.
    Double(f64),
    /// Boolean.
    Bool(bool),
    /// An encoded `AnyValue`, already checked.
    Encoded(&'a [u8]),
}

impl AttrValue<'_> {
    /// The type, which picks the column.
    #[inline]
    pub fn value_type(&self) -> ValueType {
        match self {
            Self::Str(_) => ValueType::Str,
            Self::Int(_) => ValueType::Int,
            Self::Double(_) => ValueType::Double,
            Self::Bool(_) => ValueType::Bool,
            Self::Encoded(_) => ValueType::Encoded,
        }
    }

    /// An owned value. Encoded values that do not decode (they were checked) become empty.
    pub fn to_value(&self) -> Value {
        match self {
            Self::Str(text) => Value::Str(String::from_utf8_lossy(text).into_owned()),
            Self::Int(int) => Value::Int(*int),
            Self::Double(double) => Value::Double(*double),
            Self::Bool(flag) => Value::Bool(*flag),
            Self::Encoded(bytes) => nested::decode_value(bytes).unwrap_or_default(),
        }
    }
}

/// One span attribute, of one type, on some rows.
#[derive(Debug, Clone)]
pub struct AttrColumn {
    key: Arc<str>,
    value_type: ValueType,
    rows: Vec<u32>,
    values: AttrValues,
}

impl AttrColumn {
    fn new(key: &[u8], value_type: ValueType) -> Self {
        let values = match value_type {
            ValueType::Str => AttrValues::Str { codes: Vec::new(), dictionary: TextDictionary::default() },
            ValueType::Int => AttrValues::Int(Vec::new()),
            ValueType::Double => AttrValues::Double(Vec::new()),
            ValueType::Bool => AttrValues::Bool(Vec::new()),
            ValueType::Encoded => AttrValues::Encoded { ends: Vec::new(), bytes: Vec::new() },
        };
        Self { key: String::from_utf8_lossy(key).into(), value_type, rows: Vec::new(), values }
    }

    /// The attribute's name.
    pub fn key(&self) -> &Arc<str> {
        &self.key
    }

    /// The type of its values.
    pub fn value_type(&self) -> ValueType {
        self.value_type
    }

    /// Rows that have the attribute, ascending.
    pub fn rows(&self) -> &[u32] {
        &self.rows
    }

    /// Its values, one per row of [`Self::rows`].
    pub fn values(&self) -> &AttrValues {
        &self.values
    }

    /// The `index`-th value.
    pub fn get_at(&self, index: usize) -> AttrValue<'_> {
        match &self.values {
            AttrValues::Str { codes, dictionary } => AttrValue::Str(dictionary.get(codes[index])),
            AttrValues::Int(values) => AttrValue::Int(values[index]),
            AttrValues::Double(values) => AttrValue::Double(values[index]),
            AttrValues::Bool(values) => AttrValue::Bool(values[index]),
            AttrValues::Encoded { ends, bytes } => AttrValue::Encoded(slice_of(ends, bytes, index as u32)),
        }
    }

    #[inline]
    fn push(&mut self, row: u32, value: AttrValue<'_>) {
        self.rows.push(row);
        match (&mut self.values, value) {
            (AttrValues::Str { codes, dictionary }, AttrValue::Str(text)) => codes.push(dictionary.intern(text)),
            (AttrValues::Int(values), AttrValue::Int(value)) => values.push(value),
            (AttrValues::Double(values), AttrValue::Double(value)) => values.push(value),
            (AttrValues::Bool(values), AttrValue::Bool(value)) => values.push(value),
            (AttrValues::Encoded { ends, bytes }, AttrValue::Encoded(value)) => {
                bytes.extend_from_slice(value);
                ends.push(u32::try_from(bytes.len()).expect("a batch is sealed long before 4 GiB of bytes"));
            }
            _ => unreachable!("a column is picked by the type of the value"),
        }
    }

    fn memory_bytes(&self) -> usize {
        let values = match &self.values {
            AttrValues::Str { codes, dictionary } => codes.capacity() * 4 + dictionary.memory_bytes(),
            AttrValues::Int(values) => values.capacity() * 8,
            AttrValues::Double(values) => values.capacity() * 8,
            AttrValues::Bool(values) => values.capacity(),
            AttrValues::Encoded { ends, bytes } => ends.capacity() * 4 + bytes.capacity(),
        };
        values + self.rows.capacity() * 4 + size_of::<Self>()
    }
}

/// Counts of what the sender left out of a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Dropped {
    /// Attributes left out.
    pub attributes: u32,
    /// Events left out.
    pub events: u32,
    /// Links left out.
    pub links: u32,
}

/// The fields that every span has, borrowed from the wire. Ends a row.
#[derive(Debug, Clone, Copy, Default)]
pub struct SpanFields<'a> {
    /// Never all zero.
    pub trace_id: TraceId,
    /// Never all zero.
    pub span_id: SpanId,
    /// All zero for a root.
    pub parent_span_id: SpanId,
    /// Start.
    pub start: UnixNano,
    /// End, not before start.
    pub end: UnixNano,
    /// OTLP's `SpanKind`.
    pub kind: i32,
    /// OTLP's `StatusCode`.
    pub status_code: i32,
    /// W3C trace flags and OTLP's remote bits.
    pub flags: u32,
    /// From [`SpanBatch::intern_origin`].
    pub origin: u32,
    /// UTF-8.
    pub name: &'a [u8],
    /// UTF-8, usually empty.
    pub status_message: &'a [u8],
    /// UTF-8, usually empty.
    pub trace_state: &'a [u8],
    /// Usually zero.
    pub dropped: Dropped,
}

/// What a batch knows of one trace.
#[derive(Debug, Clone, Copy)]
pub struct TraceRows {
    /// The trace.
    pub id: TraceId,
    /// Earliest start and latest end of its spans in this batch.
    pub range: TimeRange,
    /// How many of its spans are in this batch.
    pub span_count: u32,
    first_row: u32,
    last_row: u32,
}

const NO_ROW: u32 = u32::MAX;

/// One of a batch's own columns, from [`SpanBatch::attribute_column`]. Of no use with another batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ColumnIndex(u32);

/// The place of a column, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ColumnRef(u32);

const NO_COLUMN: ColumnRef = ColumnRef(u32::MAX);

impl Default for ColumnRef {
    fn default() -> Self {
        NO_COLUMN
    }
}

/// Spans as columns; see the module. Cheap to append to, cheap to scan.
#[derive(Debug, Clone, Default)]
pub struct SpanBatch {
    traces: Vec<TraceRows>,
    trace_lookup: HashTable<u32>,
    origins: Origins,

    trace: Vec<u32>,
    next_of_trace: Vec<u32>,
    span_id: Vec<SpanId>,
    parent: Vec<SpanId>,
    start: Vec<u64>,
    end: Vec<u64>,
    name: Vec<u32>,
    names: TextDictionary,
    kind: Vec<i32>,
    status_code: Vec<i32>,
    flags: Vec<u32>,
    origin: Vec<u32>,

    status_message: SparseBytes,
    trace_state: SparseBytes,
    dropped_rows: Vec<u32>,
    dropped: Vec<Dropped>,
    events: SparseBytes,
    links: SparseBytes,
    residual: SparseBytes,

    columns: Vec<AttrColumn>,
    column_lookup: HashTable<u32>,
    successors: Vec<[ColumnRef; 2]>,
    first_columns: [ColumnRef; 2],
    previous_column: ColumnRef,
}

fn column_hash(key: &[u8], value_type: ValueType) -> u64 {
    xxh3_64(key).wrapping_add(value_type as u64)
}

impl SpanBatch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many spans there are.
    pub fn len(&self) -> usize {
        self.trace.len()
    }

    /// Whether there are no spans.
    pub fn is_empty(&self) -> bool {
        self.trace.is_empty()
    }

    /// Memory held, in bytes. Costs one pass over the columns, none over the rows.
    pub fn memory_bytes(&self) -> usize {
        let per_row = self.trace.capacity() * 4 * 7 + self.span_id.capacity() * 32;
        let sparse = [&self.status_message, &self.trace_state, &self.events, &self.links, &self.residual];
        per_row
            + self.traces.capacity() * size_of::<TraceRows>()
            + self.trace_lookup.allocation_size()
            + self.origins.memory_bytes()
            + self.names.memory_bytes()
            + sparse.iter().map(|column| column.memory_bytes()).sum::<usize>()
            + self.columns.iter().map(AttrColumn::memory_bytes).sum::<usize>()
    }

    // ---- Writing, one row at a time: attributes first, `push_span` ends the row. ----

    /// The number of the origin with these encoded parts, new or known, whichever way they are encoded. Errors when they
    /// are new and do not decode.
    pub fn intern_origin(
        &mut self,
        resource: &[u8],
        scope: &[u8],
        resource_schema_url: &str,
        scope_schema_url: &str,
    ) -> Result<u32, WireError> {
        self.origins.intern(Encoded { resource, scope, resource_schema_url, scope_schema_url })
    }

    /// As [`Self::intern_origin`], for one that is taken apart already.
    pub fn intern_known_origin(&mut self, origin: &Arc<Origin>) -> u32 {
        self.origins.intern_known(origin)
    }

    /// The row that is being written.
    #[inline]
    fn open_row(&self) -> u32 {
        self.trace.len() as u32
    }

    /// Adds an attribute to the open row. A key that the row already has with this type, or one
    /// past [`COLUMNS_MAX`], goes to the residual.
    #[inline]
    pub fn push_attribute(&mut self, key: &[u8], value: AttrValue<'_>) {
        let row = self.open_row();
        let column = self.column_of(key, value.value_type());
        if column != NO_COLUMN {
            let column = &mut self.columns[column.0 as usize];
            if column.rows.last() != Some(&row) {
                column.push(row, value);
                return;
            }
        }
        self.push_residual(key, value);
    }

    fn push_residual(&mut self, key: &[u8], value: AttrValue<'_>) {
        let attribute = KeyValue { key: String::from_utf8_lossy(key).into_owned(), value: value.to_value() };
        let mut encoded = Vec::new();
        nested::put_key_value(&mut encoded, &attribute);
        self.residual.push_list_item(self.open_row(), &encoded);
    }

    // ---- The same with the column known, for who has many rows of the same attributes. ----

    /// The column of an attribute, new or known; `None` past [`COLUMNS_MAX`].
    pub fn attribute_column(&mut self, key: &[u8], value_type: ValueType) -> Option<ColumnIndex> {
        let column = self.look_up_column(key, value_type);
        self.previous_column = NO_COLUMN;
        (column != NO_COLUMN).then_some(ColumnIndex(column.0))
    }

    /// The code of a text in a column of texts, new or known.
    ///
    /// # Panics
    /// When the column is of another type.
    pub fn intern_text(&mut self, column: ColumnIndex, text: &[u8]) -> u32 {
        match &mut self.columns[column.0 as usize].values {
            AttrValues::Str { dictionary, .. } => dictionary.intern(text),
            _ => panic!("a column of texts"),
        }
    }

    /// [`Self::push_attribute`] of a text, by its code.
    ///
    /// # Panics
    /// When the column is of another type.
    #[inline]
    pub fn push_text_code(&mut self, column: ColumnIndex, code: u32) {
        let row = self.open_row();
        let column = &mut self.columns[column.0 as usize];
        let AttrValues::Str { codes, dictionary } = &mut column.values else { panic!("a column of texts") };
        if column.rows.last() != Some(&row) {
            column.rows.push(row);
            codes.push(code);
            return;
        }
        let (key, text) = (Arc::clone(&column.key), dictionary.get(code).to_vec());
        self.push_residual(key.as_bytes(), AttrValue::Str(&text));
    }

    /// [`Self::push_attribute`] of a value of the column's type.
    ///
    /// # Panics
    /// When the column is of another type.
    #[inline]
    pub fn push_value(&mut self, column: ColumnIndex, value: AttrValue<'_>) {
        let row = self.open_row();
        let column = &mut self.columns[column.0 as usize];
        if column.rows.last() != Some(&row) {
            column.push(row, value);
            return;
        }
        let key = Arc::clone(&column.key);
        self.push_residual(key.as_bytes(), value);
    }

    /// Finds or makes the column of (key, type). Spans of one kind carry their keys in one order,
    /// so the column that followed the previous one last time is nearly always the one (99 % on the
    /// load corpus), and comparing the key beats hashing it.
    #[inline]
    fn column_of(&mut self, key: &[u8], value_type: ValueType) -> ColumnRef {
        let guesses = match self.previous_column {
            NO_COLUMN => self.first_columns,
            previous => self.successors[previous.0 as usize],
        };
        for guess in guesses {
            if let Some(column) = self.columns.get(guess.0 as usize)
                && column.value_type == value_type
                && column.key.as_bytes() == key
            {
                self.previous_column = guess;
                return guess;
            }
        }
        self.look_up_column(key, value_type)
    }

    fn look_up_column(&mut self, key: &[u8], value_type: ValueType) -> ColumnRef {
        let hash = column_hash(key, value_type);
        let columns = &self.columns;
        let is_same = |index: &u32| {
            let column = &columns[*index as usize];
            column.value_type == value_type && column.key.as_bytes() == key
        };
        let index = match self.column_lookup.find(hash, is_same).copied() {
            Some(index) => index,
            None if self.columns.len() >= COLUMNS_MAX => return NO_COLUMN,
            None => {
                let index = self.columns.len() as u32;
                self.columns.push(AttrColumn::new(key, value_type));
                self.successors.push([NO_COLUMN; 2]);
                let columns = &self.columns;
                self.column_lookup.insert_unique(hash, index, |other| {
                    let column = &columns[*other as usize];
                    column_hash(column.key.as_bytes(), column.value_type)
                });
                index
            }
        };
        let slot = match self.previous_column {
            NO_COLUMN => &mut self.first_columns,
            previous => &mut self.successors[previous.0 as usize],
        };
        *slot = [ColumnRef(index), slot[0]];
        self.previous_column = ColumnRef(index);
        ColumnRef(index)
    }

    /// Adds an encoded event to the open row.
    #[inline]
    pub fn push_event(&mut self, encoded: &[u8]) {
        let row = self.open_row();
        self.events.push_list_item(row, encoded);
    }

    /// Adds an encoded link to the open row.
    #[inline]
    pub fn push_link(&mut self, encoded: &[u8]) {
        let row = self.open_row();
        self.links.push_list_item(row, encoded);
    }

    /// Ends the open row.
    #[inline]
    pub fn push_span(&mut self, fields: SpanFields<'_>) {
        debug_assert!(!fields.trace_id.is_zero() && !fields.span_id.is_zero() && fields.start <= fields.end);
        assert!((fields.origin as usize) < self.origins.list().len(), "origin {} was never interned", fields.origin);
        let row = self.open_row();
        let trace = self.trace_of(&fields, row);
        self.trace.push(trace);
        self.next_of_trace.push(NO_ROW);
        self.span_id.push(fields.span_id);
        self.parent.push(fields.parent_span_id);
        self.start.push(fields.start.0);
        self.end.push(fields.end.0);
        self.name.push(self.names.intern(fields.name));
        self.kind.push(fields.kind);
        self.status_code.push(fields.status_code);
        self.flags.push(fields.flags);
        self.origin.push(fields.origin);
        if !fields.status_message.is_empty() {
            self.status_message.push(row, fields.status_message);
        }
        if !fields.trace_state.is_empty() {
            self.trace_state.push(row, fields.trace_state);
        }
        if fields.dropped != Dropped::default() {
            self.dropped_rows.push(row);
            self.dropped.push(fields.dropped);
        }
        self.previous_column = NO_COLUMN;
    }

    /// Finds or makes the trace of a span and adds the row to it.
    #[inline]
    fn trace_of(&mut self, fields: &SpanFields<'_>, row: u32) -> u32 {
        let range = TimeRange { start: fields.start, end: fields.end };
        let is_last = self.trace.last().filter(|last| self.traces[**last as usize].id == fields.trace_id).copied();
        let known = is_last.or_else(|| self.trace_index_of(fields.trace_id));
        match known {
            Some(index) => {
                let trace = &mut self.traces[index as usize];
                trace.range = trace.range.union(&range);
                trace.span_count += 1;
                self.next_of_trace[trace.last_row as usize] = row;
                trace.last_row = row;
                index
            }
            None => {
                let index = self.traces.len() as u32;
                let id = fields.trace_id;
                self.traces.push(TraceRows { id, range, span_count: 1, first_row: row, last_row: row });
                let traces = &self.traces;
                self.trace_lookup.insert_unique(id.hash64(), index, |other| traces[*other as usize].id.hash64());
                index
            }
        }
    }

    // ---- Reading. ----

    /// The traces, in the order of their first row.
    pub fn traces(&self) -> &[TraceRows] {
        &self.traces
    }

    /// The place of a trace in [`Self::traces`].
    pub fn trace_index_of(&self, id: TraceId) -> Option<u32> {
        self.trace_lookup.find(id.hash64(), |index| self.traces[*index as usize].id == id).copied()
    }

    /// The rows of the `index`-th trace, ascending.
    pub fn rows_of_trace(&self, index: u32) -> impl Iterator<Item = u32> + '_ {
        let first = Some(self.traces[index as usize].first_row);
        std::iter::successors(first, |row| Some(self.next_of_trace[*row as usize]).filter(|next| *next != NO_ROW))
    }

    /// The distinct origins; [`Self::origin`] indexes them.
    pub fn origins(&self) -> &[Arc<Origin>] {
        self.origins.list()
    }

    /// Per row: index into [`Self::traces`].
    pub fn trace(&self) -> &[u32] {
        &self.trace
    }

    /// Per row: the span's id.
    pub fn span_id(&self) -> &[SpanId] {
        &self.span_id
    }

    /// Per row: the parent's id, all zero for roots.
    pub fn parent(&self) -> &[SpanId] {
        &self.parent
    }

    /// Per row: start, nanoseconds since the epoch.
    pub fn start(&self) -> &[u64] {
        &self.start
    }

    /// Per row: end, nanoseconds since the epoch.
    pub fn end(&self) -> &[u64] {
        &self.end
    }

    /// Per row: index into [`Self::names`].
    pub fn name(&self) -> &[u32] {
        &self.name
    }

    /// The distinct span names (equal ones may repeat, see [`TextDictionary`]).
    pub fn names(&self) -> &TextDictionary {
        &self.names
    }

    /// Per row: OTLP's `SpanKind`.
    pub fn kind(&self) -> &[i32] {
        &self.kind
    }

    /// Per row: OTLP's `StatusCode`.
    pub fn status_code(&self) -> &[i32] {
        &self.status_code
    }

    /// Per row: flags.
    pub fn flags(&self) -> &[u32] {
        &self.flags
    }

    /// Per row: index into [`Self::origins`].
    pub fn origin(&self) -> &[u32] {
        &self.origin
    }

    /// Status messages of the rows that have one.
    pub fn status_message(&self) -> &SparseBytes {
        &self.status_message
    }

    /// Trace states of the rows that have one.
    pub fn trace_state(&self) -> &SparseBytes {
        &self.trace_state
    }

    /// Lists of encoded events of the rows that have any.
    pub fn events(&self) -> &SparseBytes {
        &self.events
    }

    /// Lists of encoded links of the rows that have any.
    pub fn links(&self) -> &SparseBytes {
        &self.links
    }

    /// Lists of encoded attributes that fit no column.
    pub fn residual(&self) -> &SparseBytes {
        &self.residual
    }

    /// Rows with a count of things left out, ascending, and the counts.
    pub fn dropped(&self) -> (&[u32], &[Dropped]) {
        (&self.dropped_rows, &self.dropped)
    }

    /// The attribute columns, in the order of their first appearance.
    pub fn columns(&self) -> &[AttrColumn] {
        &self.columns
    }

    /// Earliest start and latest end of all spans; `None` when empty.
    pub fn range(&self) -> Option<TimeRange> {
        self.traces.iter().map(|trace| trace.range).reduce(|a, b| a.union(&b))
    }

    /// Takes one span apart. Costs a binary search per column: for answers, not for scans.
    pub fn span(&self, row: u32) -> SpanEntry {
        let at = row as usize;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let list = |column: &SparseBytes| {
            nested::split_list(column.get(row).unwrap_or_default())
                .expect("lists are made here")
                .into_iter()
                .map(<[u8]>::to_vec)
                .collect::<Vec<_>>()
        };
        let mut attributes: Vec<KeyValue> = Vec::new();
        for column in &self.columns {
            if let Ok(index) = column.rows.binary_search(&row) {
                attributes.push(KeyValue { key: column.key.to_string(), value: column.get_at(index).to_value() });
            }
        }
        attributes.extend(list(&self.residual).iter().filter_map(|bytes| nested::decode_key_value(bytes).ok()));
        let dropped = self.dropped_rows.binary_search(&row).map(|index| self.dropped[index]).unwrap_or_default();
        let span = Span {
            trace_id: self.traces[self.trace[at] as usize].id,
            span_id: self.span_id[at],
            parent_span_id: self.parent[at],
            trace_state: text(self.trace_state.get(row).unwrap_or_default()),
            flags: self.flags[at],
            name: text(self.names.get(self.name[at])),
            kind: self.kind[at],
            start: UnixNano(self.start[at]),
            end: UnixNano(self.end[at]),
            attributes,
            dropped_attributes_count: dropped.attributes,
            events: list(&self.events).iter().filter_map(|bytes| nested::decode_event(bytes).ok()).collect(),
            dropped_events_count: dropped.events,
            links: list(&self.links).iter().filter_map(|bytes| nested::decode_link(bytes).ok()).collect(),
            dropped_links_count: dropped.links,
            status: Status {
                code: self.status_code[at],
                message: text(self.status_message.get(row).unwrap_or_default()),
            },
        };
        SpanEntry { origin: Arc::clone(&self.origins()[self.origin[at] as usize]), span }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(trace: u8, span: u8, origin: u32) -> SpanFields<'static> {
        SpanFields {
            trace_id: TraceId([trace; 16]),
            span_id: SpanId([span; 8]),
            origin,
            name: b"GET",
            ..SpanFields::default()
        }
    }

    #[test]
    fn a_repeated_key_and_a_key_of_two_types_both_survive() {
        let mut batch = SpanBatch::new();
        let origin = batch.intern_origin(&[], &[], "", "").expect("empty is valid");
        batch.push_attribute(b"k", AttrValue::Int(1));
        batch.push_attribute(b"k", AttrValue::Int(2));
        batch.push_attribute(b"k", AttrValue::Str(b"three"));
        batch.push_span(fields(1, 1, origin));
        let mut values: Vec<Value> = batch.span(0).span.attributes.into_iter().map(|a| a.value).collect();
        values.sort_by_key(|value| format!("{value:?}"));
        assert_eq!(values, vec![Value::Int(1), Value::Int(2), Value::Str("three".into())]);
    }

    #[test]
    fn rows_of_interleaved_traces_are_chained() {
        let mut batch = SpanBatch::new();
        let origin = batch.intern_origin(&[], &[], "", "").expect("empty is valid");
        for (span, trace) in [1, 2, 1, 1, 2].into_iter().enumerate() {
            batch.push_span(fields(trace, span as u8 + 1, origin));
        }
        let index = batch.trace_index_of(TraceId([1; 16])).expect("known");
        assert_eq!(batch.rows_of_trace(index).collect::<Vec<_>>(), vec![0, 2, 3]);
        assert_eq!(batch.traces()[index as usize].span_count, 3);
        assert_eq!(batch.trace_index_of(TraceId([9; 16])), None);
    }

    #[test]
    fn a_dictionary_of_unique_texts_stops_looking_them_up_and_keeps_them_all() {
        let mut dictionary = TextDictionary::default();
        let codes: Vec<u32> = (0..20_000).map(|n| dictionary.intern(format!("value {n}").as_bytes())).collect();
        assert!(dictionary.appends_only);
        assert!(codes.iter().enumerate().all(|(n, code)| dictionary.get(*code) == format!("value {n}").as_bytes()));
    }

    #[test]
    fn rows_written_by_column_and_code_are_those_written_by_key_and_text() {
        let (mut by_key, mut by_column) = (SpanBatch::new(), SpanBatch::new());
        let keys: [&[u8]; 3] = [b"a", b"b", b"a"];
        for (span, texts) in [["x", "y", "z"], ["y", "x", "x"]].iter().enumerate() {
            let origin = by_key.intern_origin(&[], &[], "", "").expect("empty is valid");
            keys.iter().zip(texts).for_each(|(key, text)| by_key.push_attribute(key, AttrValue::Str(text.as_bytes())));
            by_key.push_attribute(b"n", AttrValue::Int(span as i64));
            by_key.push_attribute(b"n", AttrValue::Int(7));
            by_key.push_span(fields(1, span as u8 + 1, origin));

            assert_eq!(by_column.intern_known_origin(&by_key.origins()[0]), origin);
            for (key, text) in keys.iter().zip(texts) {
                let column = by_column.attribute_column(key, ValueType::Str).expect("there are few");
                let code = by_column.intern_text(column, text.as_bytes());
                by_column.push_text_code(column, code);
            }
            let column = by_column.attribute_column(b"n", ValueType::Int).expect("there are few");
            by_column.push_value(column, AttrValue::Int(span as i64));
            by_column.push_value(column, AttrValue::Int(7));
            by_column.push_span(fields(1, span as u8 + 1, origin));
        }
        assert_eq!(by_key.residual().rows(), &[0, 1]);
        assert!((0..2).all(|row| by_key.span(row) == by_column.span(row)));
        assert_eq!(by_column.origins().len(), 1);
    }

    #[test]
    fn keys_past_the_column_limit_go_to_the_residual() {
        let mut batch = SpanBatch::new();
        let origin = batch.intern_origin(&[], &[], "", "").expect("empty is valid");
        for n in 0..COLUMNS_MAX + 5 {
            batch.push_attribute(format!("key {n}").as_bytes(), AttrValue::Bool(true));
        }
        batch.push_span(fields(1, 1, origin));
        assert_eq!(batch.columns().len(), COLUMNS_MAX);
        assert_eq!(batch.span(0).span.attributes.len(), COLUMNS_MAX + 5);
    }
}
