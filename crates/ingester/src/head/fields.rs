//! The values of a field in the order of a batch, gathered from segments.
//!
//! ```text
//!   segment    codes 2 0 2, dictionary of its own --+
//!                                                    +--> codes of one joined table, only what is used
//!   segment    codes 1 1 0, dictionary of its own --+
//! ```
//!
//! Each segment is read under its own lock, once per field; a value lands where [`Places`] says.

use std::sync::Arc;

use arrow_array::builder::StringBuilder;
use arrow_array::{Float64Array, Int32Array, Int64Array, StringArray};
use spoor_model::batch::{AttrColumn, AttrValues, SpanBatch, SparseBytes, TextDictionary};
use spoor_model::bits::Bits;
use spoor_model::columns::{ColumnPart, FieldColumn};
use spoor_model::scan::{AttrScope, Field, field};
use spoor_model::{Origin, Span, SpanId, TraceId, UnixNano, Value, nested, value};

use super::Segment;
use super::coder::Coder;
use super::items::{self, ItemNames};
use super::layout::Places;

/// A text field with more dictionary entries than this, and more than half as many as values, is not
/// worth codes: hashing its texts and making a value of each would cost more than copying them. Tests meet both
/// ways.
const CODES_MAX: usize = if cfg!(test) { 2 } else { 4096 };

/// Bytes of text past which codes are used all the same: offsets into Arrow's texts have 31 bits.
const TEXT_BYTES_MAX: usize = 1 << 30;

/// The values of a field for the rows that have a place.
pub(super) fn column(
    field: &Field,
    segments: &[Arc<Segment>],
    places: &[Places],
    trace_ids: &[TraceId],
    trace_rows: &[u32],
) -> FieldColumn {
    let row_count = trace_rows[trace_rows.len() - 1] as usize;
    if *field == Field::TraceId {
        return of_traces(trace_ids, trace_rows);
    }
    let mut gather = Gather::new(row_count, has_many_texts(field, segments, places));
    for places in places {
        let batch = segments[places.segment].read();
        gather.add(field, &batch, segments[places.segment].names(&batch), places);
    }
    gather.finish()
}

fn of_traces(trace_ids: &[TraceId], trace_rows: &[u32]) -> FieldColumn {
    let mut codes = Vec::with_capacity(trace_rows[trace_rows.len() - 1] as usize);
    for (code, ends) in trace_rows.windows(2).enumerate() {
        codes.resize(ends[1] as usize, code as i32);
    }
    let values = trace_ids.iter().map(|id| Some(Value::Str(id.to_string()))).collect();
    FieldColumn { parts: vec![ColumnPart::Coded { codes: Int32Array::from(codes), values }] }
}

fn columns_of<'a>(batch: &'a SpanBatch, key: &'a str) -> impl Iterator<Item = &'a AttrColumn> {
    batch.columns().iter().filter(move |column| **column.key() == *key)
}

/// Whether the texts of the field are mostly different.
fn has_many_texts(field: &Field, segments: &[Arc<Segment>], places: &[Places]) -> bool {
    let (mut entries, mut values) = (0, 0);
    for places in places {
        let batch = segments[places.segment].read();
        match field {
            Field::SpanId | Field::ParentSpanId => return true,
            Field::Name => {
                entries += batch.names().len();
                values += batch.len();
            }
            Field::StatusMessage => {
                entries += batch.status_message().rows().len();
                values += batch.len();
            }
            Field::TraceState => {
                entries += batch.trace_state().rows().len();
                values += batch.len();
            }
            Field::Attribute(AttrScope::Any | AttrScope::Span, key) => {
                for column in columns_of(&batch, key) {
                    if let AttrValues::Str { dictionary, .. } = column.values() {
                        entries += dictionary.len();
                        values += column.rows().len();
                    }
                }
            }
            _ => {}
        }
    }
    entries > CODES_MAX && entries > values / 2
}

/// Values of a batch, as far as they have come.
struct Gather {
    row_count: usize,
    coder: Coder,
    /// Empty until a coded value comes; code 0 is no value.
    codes: Vec<i32>,
    has_many_texts: bool,
    /// Per row where its text lies in `bytes`, plus one; empty until one comes.
    text_spans: Vec<(u32, u32)>,
    bytes: Vec<u8>,
    ints: Numbers<i64>,
    doubles: Numbers<f64>,
    sparse: Vec<(u32, Value)>,
    lists: Vec<(u32, Vec<Option<Value>>)>,
}

/// Numbers by row; both empty until one comes.
#[derive(Default)]
struct Numbers<T> {
    values: Vec<T>,
    is_valid: Vec<bool>,
}

impl<T: Clone + Default> Numbers<T> {
    #[inline]
    fn set(&mut self, row: usize, value: T, row_count: usize) {
        if self.values.is_empty() {
            self.values.resize(row_count, T::default());
            self.is_valid.resize(row_count, false);
        }
        self.values[row] = value;
        self.is_valid[row] = true;
    }
}

/// Which rows of a batch have a value already. Nothing is kept where a row can have only one.
struct Decided(Option<Bits>);

impl Decided {
    /// Whether the row is still without a value; from now on it is not.
    #[inline]
    fn take(&mut self, row: usize) -> bool {
        let Some(rows) = &mut self.0 else { return true };
        let is_free = !rows.contains(row);
        rows.insert(row);
        is_free
    }
}

impl Gather {
    fn new(row_count: usize, has_many_texts: bool) -> Self {
        Self {
            row_count,
            coder: Coder::default(),
            codes: Vec::new(),
            has_many_texts,
            text_spans: Vec::new(),
            bytes: Vec::new(),
            ints: Numbers::default(),
            doubles: Numbers::default(),
            sparse: Vec::new(),
            lists: Vec::new(),
        }
    }

    fn add(&mut self, field: &Field, batch: &SpanBatch, names: Option<&ItemNames>, places: &Places) {
        let once = &mut Decided(None);
        match field {
            Field::Name => {
                let codes = batch.name();
                self.put_texts(batch.names(), places.iter().map(|(row, place)| (codes[row], place)), once);
            }
            Field::Kind => self.put_enum(batch.kind(), places),
            Field::Status => self.put_enum(batch.status_code(), places),
            Field::StatusMessage => self.put_rare(batch.status_message(), places),
            Field::TraceState => self.put_rare(batch.trace_state(), places),
            Field::Duration => {
                let (start, end) = (batch.start(), batch.end());
                self.put_nanos(places, |row| end[row].saturating_sub(start[row]));
            }
            Field::StartTime => self.put_nanos(places, |row| batch.start()[row]),
            Field::SpanId => self.put_ids(batch.span_id(), places),
            Field::ParentSpanId => self.put_ids(batch.parent(), places),
            Field::InstrumentationName => {
                self.put_origins(batch, places, |coder, origin| Some(coder.text(origin.scope.name.as_bytes())), once);
            }
            Field::InstrumentationVersion => {
                self.put_origins(
                    batch,
                    places,
                    |coder, origin| Some(coder.text(origin.scope.version.as_bytes())),
                    once,
                );
            }
            Field::EventName | Field::EventTimeSinceStart => self.put_lists(batch.events(), places, |row, bytes| {
                let span = Span { start: UnixNano(batch.start()[row as usize]), ..Span::default() };
                Some(field::of_event(field, &items::event(bytes)?, &span))
            }),
            Field::LinkTraceId | Field::LinkSpanId => self.put_lists(batch.links(), places, |_, bytes| {
                let link = nested::decode_link(bytes).ok()?;
                Some(field::of_link(field, &link))
            }),
            Field::Attribute(scope, key) => self.put_attribute(*scope, key, batch, names, places),
            Field::TraceId => unreachable!("traces know their ids"),
        }
    }

    fn put_attribute(
        &mut self,
        scope: AttrScope,
        key: &str,
        batch: &SpanBatch,
        names: Option<&ItemNames>,
        places: &Places,
    ) {
        let once = &mut Decided(None);
        match scope {
            AttrScope::Span => self.put_span_attribute(batch, key, places, None),
            AttrScope::Resource => self.put_origins(batch, places, resource(key), once),
            AttrScope::Instrumentation => self.put_origins(batch, places, instrumentation(key), once),
            AttrScope::Event => self.put_lists(batch.events(), places, |_, event| {
                Some(items::attribute(event, items::EVENT_ATTRIBUTES, key))
            }),
            AttrScope::Link => self
                .put_lists(batch.links(), places, |_, link| Some(items::attribute(link, items::LINK_ATTRIBUTES, key))),
            AttrScope::Any => {
                let mut decided = Decided(Some(Bits::none(self.row_count)));
                self.put_span_attribute(batch, key, places, Some(&mut decided));
                self.put_origins(batch, places, resource(key), &mut decided);
                if items::may_have(names, AttrScope::Event, key) {
                    self.put_found(batch.events(), items::EVENT_ATTRIBUTES, key, places, &mut decided);
                }
                if items::may_have(names, AttrScope::Link, key) {
                    self.put_found(batch.links(), items::LINK_ATTRIBUTES, key, places, &mut decided);
                }
                self.put_origins(batch, places, instrumentation(key), &mut decided);
            }
        }
    }

    fn put_span_attribute(&mut self, batch: &SpanBatch, key: &str, places: &Places, decided: Option<&mut Decided>) {
        let is_once = batch.residual().rows().is_empty() && columns_of(batch, key).nth(1).is_none();
        let own = &mut Decided((!is_once).then(|| Bits::none(self.row_count)));
        let decided = decided.unwrap_or(own);
        for column in columns_of(batch, key) {
            self.put_column(column, places, decided);
        }
        for (row, value) in items::residual(batch, key) {
            if let Some(place) = places.of(row).filter(|place| decided.take(*place)) {
                self.sparse.push((place as u32, value));
            }
        }
    }

    fn put_column(&mut self, column: &AttrColumn, places: &Places, decided: &mut Decided) {
        let placed = || column.rows().iter().enumerate().filter_map(|(at, row)| Some((at, places.of(*row)?)));
        match column.values() {
            AttrValues::Str { codes, dictionary } => {
                self.put_texts(dictionary, placed().map(|(at, place)| (codes[at], place)), decided);
            }
            AttrValues::Int(values) => {
                for (at, place) in placed().filter(|(_, place)| decided.take(*place)) {
                    self.ints.set(place, values[at], self.row_count);
                }
            }
            AttrValues::Double(values) => {
                for (at, place) in placed().filter(|(_, place)| decided.take(*place)) {
                    self.doubles.set(place, values[at], self.row_count);
                }
            }
            AttrValues::Bool(values) => {
                let codes = [false, true].map(|flag| self.coder.value(&Value::Bool(flag)));
                for (at, place) in placed().filter(|(_, place)| decided.take(*place)) {
                    self.set_code(place, codes[usize::from(values[at])]);
                }
            }
            AttrValues::Encoded { .. } => {
                for (at, place) in placed().filter(|(_, place)| decided.take(*place)) {
                    self.sparse.push((place as u32, column.get_at(at).to_value()));
                }
            }
        }
    }

    #[inline]
    fn set_code(&mut self, place: usize, code: i32) {
        if self.codes.is_empty() {
            self.codes.resize(self.row_count, 0);
        }
        self.codes[place] = code;
    }

    fn put_texts(
        &mut self,
        dictionary: &TextDictionary,
        rows: impl Iterator<Item = (u32, usize)>,
        decided: &mut Decided,
    ) {
        if self.wants_text() {
            for (code, place) in rows.filter(|(_, place)| decided.take(*place)) {
                self.put_text(place, dictionary.get(code));
            }
            return;
        }
        // Per entry its code in the joined table; zero until it is used.
        let mut joined = vec![0; dictionary.len()];
        for (code, place) in rows.filter(|(_, place)| decided.take(*place)) {
            let known = &mut joined[code as usize];
            if *known == 0 {
                *known = self.coder.text(dictionary.get(code));
            }
            let code = *known;
            self.set_code(place, code);
        }
    }

    fn wants_text(&self) -> bool {
        self.has_many_texts && self.bytes.len() < TEXT_BYTES_MAX
    }

    fn put_text(&mut self, place: usize, text: &[u8]) {
        if self.text_spans.is_empty() {
            self.text_spans.resize(self.row_count, (0, 0));
        }
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(text);
        self.text_spans[place] = (start + 1, self.bytes.len() as u32 + 1);
    }

    fn put_enum(&mut self, numbers: &[i32], places: &Places) {
        let mut last = None;
        for (row, place) in places.iter() {
            let number = numbers[row];
            let code = match last {
                Some((known, code)) if known == number => code,
                _ => self.coder.number(number),
            };
            last = Some((number, code));
            self.set_code(place, code);
        }
    }

    /// Spans without a message have an empty one.
    fn put_rare(&mut self, messages: &SparseBytes, places: &Places) {
        let wants_text = self.wants_text();
        if wants_text {
            places.iter().for_each(|(_, place)| self.put_text(place, b""));
        } else {
            let empty = self.coder.text(b"");
            places.iter().for_each(|(_, place)| self.set_code(place, empty));
        }
        for (at, row) in messages.rows().iter().enumerate() {
            let Some(place) = places.of(*row) else { continue };
            if wants_text {
                self.put_text(place, messages.get_at(at));
            } else {
                let code = self.coder.text(messages.get_at(at));
                self.set_code(place, code);
            }
        }
    }

    fn put_nanos(&mut self, places: &Places, get: impl Fn(usize) -> u64) {
        for (row, place) in places.iter() {
            self.ints.set(place, i64::try_from(get(row)).unwrap_or(i64::MAX), self.row_count);
        }
    }

    fn put_ids(&mut self, ids: &[SpanId], places: &Places) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        for (row, place) in places.iter() {
            let mut text = [0; 16];
            for (byte, digits) in ids[row].0.iter().zip(text.chunks_exact_mut(2)) {
                digits[0] = DIGITS[usize::from(byte >> 4)];
                digits[1] = DIGITS[usize::from(byte & 15)];
            }
            self.put_text(place, &text);
        }
    }

    fn put_origins(
        &mut self,
        batch: &SpanBatch,
        places: &Places,
        code_of: impl Fn(&mut Coder, &Origin) -> Option<i32>,
        decided: &mut Decided,
    ) {
        let codes: Vec<i32> =
            batch.origins().iter().map(|origin| code_of(&mut self.coder, origin).unwrap_or(0)).collect();
        if codes.iter().all(|code| *code == 0) {
            return;
        }
        let origins = batch.origin();
        for (row, place) in places.iter() {
            let code = codes[origins[row] as usize];
            if code != 0 && decided.take(place) {
                self.set_code(place, code);
            }
        }
    }

    /// One value per event or link; `get` is `None` for what is none.
    fn put_lists(&mut self, lists: &SparseBytes, places: &Places, get: impl Fn(u32, &[u8]) -> Option<Option<Value>>) {
        for (at, row) in lists.rows().iter().enumerate() {
            let Some(place) = places.of(*row) else { continue };
            let values: Vec<Option<Value>> = items::messages(lists, at).filter_map(|item| get(*row, item)).collect();
            if !values.is_empty() {
                self.lists.push((place as u32, values));
            }
        }
    }

    /// The values of those events or links that have the attribute.
    fn put_found(&mut self, lists: &SparseBytes, number: u32, key: &str, places: &Places, decided: &mut Decided) {
        for (at, row) in lists.rows().iter().enumerate() {
            let Some(place) = places.of(*row) else { continue };
            let of_item = |item| items::attribute(item, number, key);
            let values: Vec<Option<Value>> = items::messages(lists, at).filter_map(of_item).map(Some).collect();
            if !values.is_empty() && decided.take(place) {
                self.lists.push((place as u32, values));
            }
        }
    }

    fn finish(mut self) -> FieldColumn {
        let mut parts = Vec::new();
        if !self.codes.is_empty() {
            parts.push(ColumnPart::Coded { codes: Int32Array::from(self.codes), values: self.coder.into_values() });
        }
        if !self.text_spans.is_empty() {
            parts.push(ColumnPart::Text(texts(&self.text_spans, &self.bytes)));
        }
        if !self.ints.values.is_empty() {
            let Numbers { values, is_valid } = self.ints;
            parts.push(ColumnPart::Int(Int64Array::new(values.into(), Some(is_valid.into()))));
        }
        if !self.doubles.values.is_empty() {
            let Numbers { values, is_valid } = self.doubles;
            parts.push(ColumnPart::Double(Float64Array::new(values.into(), Some(is_valid.into()))));
        }
        if !self.sparse.is_empty() {
            self.sparse.sort_unstable_by_key(|(row, _)| *row);
            let (rows, values) = self.sparse.into_iter().unzip();
            parts.push(ColumnPart::Sparse { rows, values });
        }
        if !self.lists.is_empty() {
            self.lists.sort_unstable_by_key(|(row, _)| *row);
            let (rows, values) = self.lists.into_iter().unzip();
            parts.push(ColumnPart::PerItem { rows, values });
        }
        FieldColumn { parts }
    }
}

fn resource(key: &str) -> impl Fn(&mut Coder, &Origin) -> Option<i32> {
    move |coder, origin| value::find(&origin.resource.attributes, key).map(|value| coder.value(value))
}

fn instrumentation(key: &str) -> impl Fn(&mut Coder, &Origin) -> Option<i32> {
    move |coder, origin| value::find(&origin.scope.attributes, key).map(|value| coder.value(value))
}

fn texts(spans: &[(u32, u32)], bytes: &[u8]) -> StringArray {
    let mut texts = StringBuilder::with_capacity(spans.len(), bytes.len());
    for (start, end) in spans {
        let Some(start) = start.checked_sub(1) else {
            texts.append_null();
            continue;
        };
        // Whoever decodes has checked that texts are UTF-8; one that is not is shown as far as it is.
        let text = &bytes[start as usize..*end as usize - 1];
        match std::str::from_utf8(text) {
            Ok(text) => texts.append_value(text),
            Err(_) => texts.append_value(String::from_utf8_lossy(text)),
        }
    }
    texts.finish()
}
