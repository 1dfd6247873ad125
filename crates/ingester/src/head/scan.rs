//! Phase one on a batch: which traces may match, by columns.
//!
//! A condition is evaluated once per dictionary entry, origin or sparse value rather than once per
//! span, and becomes a set of rows; `And` and `Or` join sets; the rows left name the traces. What a
//! comparison means is [`Condition::holds_for`] and nothing else, so the set is exact.
//!
//! An attribute is looked up in places (span, resource, events, links, scope). The first place that
//! has it decides, which the [`Verdict`] keeps track of:
//!
//! ```text
//!   rows      0 1 2 3 4
//!   span      . x . . .      decided: 1
//!   resource  x x . . x      decided: 0 1 4
//!   (none)                   2 and 3: the condition decides about an absent field
//! ```

use spoor_model::batch::{AttrColumn, AttrValues, SpanBatch, SparseBytes, TextDictionary};
use spoor_model::bits::Bits;
use spoor_model::nested;
use spoor_model::scan::{AttrScope, Condition, Field, Literal, Predicate, ScanRequest, Test};
use spoor_model::value;
use spoor_model::{KeyValue, SpanId, TimeRange, TraceId, Value};

/// The traces that have a span for which the predicate holds and that overlap the range, with their
/// earliest start here.
pub(super) fn candidates(batch: &SpanBatch, request: &ScanRequest) -> Vec<(TraceId, TimeRange)> {
    let rows = rows_of(batch, &request.predicate);
    let mut traces = Bits::none(batch.traces().len());
    rows.iter().for_each(|row| traces.insert(batch.trace()[row] as usize));
    let matching = traces.iter().map(|index| &batch.traces()[index]);
    let in_range = matching.filter(|trace| request.range.overlaps(&trace.range));
    in_range.map(|trace| (trace.id, trace.range)).collect()
}

/// The rows for which the predicate holds.
pub(super) fn rows_of(batch: &SpanBatch, predicate: &Predicate) -> Bits {
    match predicate {
        Predicate::True => Bits::all(batch.len()),
        Predicate::False => Bits::none(batch.len()),
        Predicate::Is(condition) => rows_where(batch, condition),
        Predicate::OneEvent(_) | Predicate::OneLink(_) => {
            Bits::from_fn(batch.len(), |row| predicate.matches(&batch.span(row as u32)))
        }
        Predicate::And(all) => {
            let mut rows = Bits::all(batch.len());
            for part in all {
                rows.intersect(&rows_of(batch, part));
                if rows.is_empty() {
                    break;
                }
            }
            rows
        }
        Predicate::Or(any) => {
            let mut rows = Bits::none(batch.len());
            any.iter().for_each(|part| rows.union(&rows_of(batch, part)));
            rows
        }
    }
}

fn rows_where(batch: &SpanBatch, condition: &Condition) -> Bits {
    let len = batch.len();
    let int = |value: i64| condition.holds_for(Some(&Value::Int(value)));
    let text = |value: String| condition.holds_for(Some(&Value::Str(value)));
    match &condition.field {
        Field::Name => {
            let holds = texts_where(batch.names(), condition);
            Bits::from_fn(len, |row| holds[batch.name()[row] as usize])
        }
        Field::Kind => rows_where_code(batch.kind(), int),
        Field::Status => rows_where_code(batch.status_code(), int),
        Field::StatusMessage => {
            let without = text(String::new());
            let mut rows = if without { Bits::all(len) } else { Bits::none(len) };
            let sparse = batch.status_message();
            let with = |at| text(String::from_utf8_lossy(sparse.get_at(at)).into_owned());
            replace(&mut rows, sparse.rows(), with);
            rows
        }
        Field::Duration => Bits::from_fn(len, |row| {
            let nanos = batch.end()[row].saturating_sub(batch.start()[row]);
            int(i64::try_from(nanos).unwrap_or(i64::MAX))
        }),
        Field::TraceId => {
            let holds: Vec<bool> = batch.traces().iter().map(|trace| text(trace.id.to_string())).collect();
            Bits::from_fn(len, |row| holds[batch.trace()[row] as usize])
        }
        Field::SpanId => rows_where_id(batch.span_id(), condition),
        Field::ParentSpanId => rows_where_id(batch.parent(), condition),
        Field::InstrumentationName => rows_where_origin(batch, |origin| text(origin.scope.name.clone())),
        Field::InstrumentationVersion => rows_where_origin(batch, |origin| text(origin.scope.version.clone())),
        Field::EventName => {
            let mut verdict = Verdict::new(len);
            verdict.by_events(batch, |event| Some(Value::Str(event.name)), condition);
            verdict.finish(condition)
        }
        Field::EventTimeSinceStart | Field::LinkTraceId | Field::LinkSpanId | Field::StartTime => {
            Bits::from_fn(len, |row| condition.matches(&batch.span(row as u32)))
        }
        Field::Attribute(scope, key) => rows_where_attribute(batch, *scope, key, condition),
    }
}

/// Sets the bit of each of `rows` to what `holds` says of its place among them.
fn replace(bits: &mut Bits, rows: &[u32], holds: impl Fn(usize) -> bool) {
    let mut wanted = Bits::none(0);
    std::mem::swap(bits, &mut wanted);
    let mut places = rows.iter().enumerate().peekable();
    *bits = Bits::from_fn(wanted.len(), |row| match places.next_if(|(_, at)| **at as usize == row) {
        Some((place, _)) => holds(place),
        None => wanted.contains(row),
    });
}

/// Per code: whether the condition holds for the text.
fn texts_where(dictionary: &TextDictionary, condition: &Condition) -> Vec<bool> {
    let holds = |text: &[u8]| condition.holds_for(Some(&Value::Str(String::from_utf8_lossy(text).into_owned())));
    dictionary.iter().map(holds).collect()
}

/// Kinds and statuses take a handful of values, mostly in runs: the last answer is kept.
fn rows_where_code(codes: &[i32], holds: impl Fn(i64) -> bool) -> Bits {
    let mut last = None;
    Bits::from_fn(codes.len(), |row| match last {
        Some((code, answer)) if code == codes[row] => answer,
        _ => {
            let answer = holds(i64::from(codes[row]));
            last = Some((codes[row], answer));
            answer
        }
    })
}

/// Ids are compared as text; only equality with a whole id, the usual question, is worth a short cut.
fn rows_where_id(ids: &[SpanId], condition: &Condition) -> Bits {
    if let Test::Eq(Literal::Str(wanted)) = &condition.test
        && let Ok(id) = SpanId::from_hex(wanted)
        && id.to_string() == **wanted
    {
        return Bits::from_fn(ids.len(), |row| ids[row] == id);
    }
    Bits::from_fn(ids.len(), |row| condition.holds_for(Some(&Value::Str(ids[row].to_string()))))
}

fn rows_where_origin(batch: &SpanBatch, holds: impl Fn(&spoor_model::Origin) -> bool) -> Bits {
    let holds: Vec<bool> = batch.origins().iter().map(|origin| holds(origin)).collect();
    Bits::from_fn(batch.len(), |row| holds[batch.origin()[row] as usize])
}

fn rows_where_attribute(batch: &SpanBatch, scope: AttrScope, key: &str, condition: &Condition) -> Bits {
    let mut verdict = Verdict::new(batch.len());
    let in_any = scope == AttrScope::Any;
    if in_any || scope == AttrScope::Span {
        verdict.by_span(batch, key, condition);
    }
    if in_any || scope == AttrScope::Resource {
        verdict.by_origin(batch, |origin| value::find(&origin.resource.attributes, key), condition);
    }
    if in_any || scope == AttrScope::Event {
        verdict.by_events(batch, |event| take(event.attributes, key), condition);
    }
    if in_any || scope == AttrScope::Link {
        verdict.by_links(batch, |link| take(link.attributes, key), condition);
    }
    if in_any || scope == AttrScope::Instrumentation {
        verdict.by_origin(batch, |origin| value::find(&origin.scope.attributes, key), condition);
    }
    verdict.finish(condition)
}

/// The first attribute of that name.
fn take(attributes: Vec<KeyValue>, key: &str) -> Option<Value> {
    attributes.into_iter().find(|attribute| attribute.key == key).map(|attribute| attribute.value)
}

/// Which rows have the attribute in a place looked at so far, and for which the condition holds.
struct Verdict {
    decided: Bits,
    holds: Bits,
}

impl Verdict {
    fn new(len: usize) -> Self {
        Self { decided: Bits::none(len), holds: Bits::none(len) }
    }

    fn decide(&mut self, row: usize, holds: impl FnOnce() -> bool) {
        if self.decided.contains(row) {
            return;
        }
        self.decided.insert(row);
        if holds() {
            self.holds.insert(row);
        }
    }

    /// Columns in their order and then the residual: the order in which a span taken apart lists its
    /// attributes, of which the first of a name counts.
    fn by_span(&mut self, batch: &SpanBatch, key: &str, condition: &Condition) {
        for column in batch.columns().iter().filter(|column| **column.key() == *key) {
            let holds = column_where(column, condition);
            column.rows().iter().zip(holds).for_each(|(row, holds)| self.decide(*row as usize, || holds));
        }
        let residual = batch.residual();
        for (at, row) in residual.rows().iter().enumerate() {
            let decoded = nested::split_list(residual.get_at(at)).unwrap_or_default().into_iter();
            let mut attributes = decoded.filter_map(|bytes| nested::decode_key_value(bytes).ok());
            if let Some(attribute) = attributes.find(|attribute| attribute.key == key) {
                self.decide(*row as usize, || condition.holds_for(Some(&attribute.value)));
            }
        }
    }

    fn by_origin<'a>(
        &mut self,
        batch: &'a SpanBatch,
        get: impl Fn(&'a spoor_model::Origin) -> Option<&'a Value>,
        condition: &Condition,
    ) {
        let verdict = |value| condition.holds_for(Some(value));
        let verdicts: Vec<Option<bool>> = batch.origins().iter().map(|origin| get(origin).map(verdict)).collect();
        if verdicts.iter().all(Option::is_none) {
            return;
        }
        for (row, origin) in batch.origin().iter().enumerate() {
            if let Some(holds) = verdicts[*origin as usize] {
                self.decide(row, || holds);
            }
        }
    }

    fn by_events(
        &mut self,
        batch: &SpanBatch,
        get: impl Fn(spoor_model::Event) -> Option<Value>,
        condition: &Condition,
    ) {
        self.by_lists(batch.events(), |bytes| nested::decode_event(bytes).ok().and_then(&get), condition);
    }

    fn by_links(&mut self, batch: &SpanBatch, get: impl Fn(spoor_model::Link) -> Option<Value>, condition: &Condition) {
        self.by_lists(batch.links(), |bytes| nested::decode_link(bytes).ok().and_then(&get), condition);
    }

    /// Holds when it does for one of the values in the row's list.
    fn by_lists(&mut self, lists: &SparseBytes, get: impl Fn(&[u8]) -> Option<Value>, condition: &Condition) {
        for (at, row) in lists.rows().iter().enumerate() {
            let messages = nested::split_list(lists.get_at(at)).unwrap_or_default();
            let values: Vec<Value> = messages.into_iter().filter_map(&get).collect();
            if !values.is_empty() {
                self.decide(*row as usize, || values.iter().any(|value| condition.holds_for(Some(value))));
            }
        }
    }

    /// The rows for which the condition holds, those without the attribute included.
    fn finish(mut self, condition: &Condition) -> Bits {
        if condition.holds_for(None) {
            let undecided = Bits::from_fn(self.decided.len(), |row| !self.decided.contains(row));
            self.holds.union(&undecided);
        }
        self.holds
    }
}

/// Per entry of the column's rows: whether the condition holds.
fn column_where(column: &AttrColumn, condition: &Condition) -> Vec<bool> {
    match column.values() {
        AttrValues::Str { codes, dictionary } => {
            let holds = texts_where(dictionary, condition);
            codes.iter().map(|code| holds[*code as usize]).collect()
        }
        AttrValues::Bool(values) => {
            let holds = [false, true].map(|flag| condition.holds_for(Some(&Value::Bool(flag))));
            values.iter().map(|value| holds[usize::from(*value)]).collect()
        }
        AttrValues::Int(_) | AttrValues::Double(_) | AttrValues::Encoded { .. } => {
            let value = |at| column.get_at(at).to_value();
            (0..column.rows().len()).map(|at| condition.holds_for(Some(&value(at)))).collect()
        }
    }
}
