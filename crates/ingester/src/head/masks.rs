//! Conditions on a segment: for which of its spans a predicate holds, exactly.
//!
//! A condition is evaluated once per dictionary entry, origin or sparse value rather than once per
//! span, and becomes a set of rows; `And` and `Or` join sets. What a comparison means is
//! [`Condition::holds_for`] and nothing else.
//!
//! An attribute without a scope is looked up in places (span, resource, events, links, scope). The
//! first place that has it decides, which the [`Verdict`] keeps track of:
//!
//! ```text
//!   rows      0 1 2 3 4
//!   span      . x . . .      decided: 1
//!   resource  x x . . x      decided: 0 1 4
//!   (none)                   2 and 3: the condition decides about an absent field
//! ```

use spoor_model::batch::{AttrColumn, AttrValue, AttrValues, SpanBatch, SparseBytes, TextDictionary};
use spoor_model::bits::Bits;
use spoor_model::nested;
use spoor_model::scan::{AttrScope, Condition, Field, Literal, Predicate, Test, field};
use spoor_model::{Event, Link, Origin, Span, SpanId, UnixNano, Value, value};

use super::items::{self, ItemNames};

/// What is known of the names in a segment's lists.
type Names<'a> = Option<&'a ItemNames>;

/// The rows for which the predicate holds. `names` are those of the batch.
pub(super) fn rows_of(batch: &SpanBatch, names: Names<'_>, predicate: &Predicate) -> Bits {
    match predicate {
        Predicate::True => Bits::all(batch.len()),
        Predicate::False => Bits::none(batch.len()),
        Predicate::Is(condition) => rows_where(batch, names, condition),
        Predicate::OneEvent(all) => rows_with_event(
            batch,
            |bytes| nested::decode_event(bytes).ok(),
            |event, span| {
                all.iter().all(|condition| condition.holds_for(field::of_event(&condition.field, event, span).as_ref()))
            },
        ),
        Predicate::OneLink(all) => rows_with_link(batch, |link| {
            all.iter().all(|condition| condition.holds_for(field::of_link(&condition.field, link).as_ref()))
        }),
        Predicate::And(all) => {
            let mut rows = Bits::all(batch.len());
            for part in all {
                rows.intersect(&rows_of(batch, names, part));
                if rows.is_empty() {
                    break;
                }
            }
            rows
        }
        Predicate::Or(any) => {
            let mut rows = Bits::none(batch.len());
            any.iter().for_each(|part| rows.union(&rows_of(batch, names, part)));
            rows
        }
    }
}

fn rows_where(batch: &SpanBatch, names: Names<'_>, condition: &Condition) -> Bits {
    let len = batch.len();
    let holds = |value: AttrValue<'_>| condition.holds_for_attribute(value);
    let int = |value: u64| holds(AttrValue::Int(i64::try_from(value).unwrap_or(i64::MAX)));
    let text = |text: &str| holds(AttrValue::Str(text.as_bytes()));
    match &condition.field {
        Field::Name => {
            let holds = texts_where(batch.names(), condition);
            match holds.contains(&true) {
                true => Bits::from_fn(len, |row| holds[batch.name()[row] as usize]),
                false => Bits::none(len),
            }
        }
        Field::Kind => rows_where_code(batch.kind(), |kind| holds(AttrValue::Int(kind))),
        Field::Status => rows_where_code(batch.status_code(), |code| holds(AttrValue::Int(code))),
        Field::StatusMessage | Field::TraceState => {
            let mut rows = if text("") { Bits::all(len) } else { Bits::none(len) };
            let texts = if condition.field == Field::TraceState { batch.trace_state() } else { batch.status_message() };
            replace(&mut rows, texts.rows(), |at| holds(AttrValue::Str(texts.get_at(at))));
            rows
        }
        Field::Duration => Bits::from_fn(len, |row| int(batch.end()[row].saturating_sub(batch.start()[row]))),
        Field::StartTime => Bits::from_fn(len, |row| int(batch.start()[row])),
        Field::TraceId => {
            let holds: Vec<bool> = batch.traces().iter().map(|trace| text(&trace.id.to_string())).collect();
            Bits::from_fn(len, |row| holds[batch.trace()[row] as usize])
        }
        Field::SpanId => rows_where_id(batch.span_id(), condition),
        Field::ParentSpanId => rows_where_id(batch.parent(), condition),
        Field::InstrumentationName => rows_where_origin(batch, |origin| text(&origin.scope.name)),
        Field::InstrumentationVersion => rows_where_origin(batch, |origin| text(&origin.scope.version)),
        Field::EventName | Field::EventTimeSinceStart => rows_with_event(batch, items::event, |event, span| {
            condition.holds_for(field::of_event(&condition.field, event, span).as_ref())
        }),
        Field::LinkTraceId | Field::LinkSpanId => {
            rows_with_link(batch, |link| condition.holds_for(field::of_link(&condition.field, link).as_ref()))
        }
        Field::Attribute(scope, key) => rows_where_attribute(batch, names, *scope, key, condition),
    }
}

/// Sets the bit of each of `rows` to what `holds` says of its place among them.
fn replace(bits: &mut Bits, rows: &[u32], holds: impl Fn(usize) -> bool) {
    let (mut listed, mut wanted) = (Bits::none(bits.len()), Bits::none(bits.len()));
    for (at, row) in rows.iter().enumerate() {
        listed.insert(*row as usize);
        if holds(at) {
            wanted.insert(*row as usize);
        }
    }
    bits.subtract(&listed);
    bits.union(&wanted);
}

/// Per code: whether the condition holds for the text.
fn texts_where(dictionary: &TextDictionary, condition: &Condition) -> Vec<bool> {
    dictionary.iter().map(|text| condition.holds_for_attribute(AttrValue::Str(text))).collect()
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

fn rows_where_origin(batch: &SpanBatch, holds: impl Fn(&Origin) -> bool) -> Bits {
    let holds: Vec<bool> = batch.origins().iter().map(|origin| holds(origin)).collect();
    match holds.contains(&true) {
        true => Bits::from_fn(batch.len(), |row| holds[batch.origin()[row] as usize]),
        false => Bits::none(batch.len()),
    }
}

/// The rows of which one event is as wanted.
fn rows_with_event(
    batch: &SpanBatch,
    decode: impl Fn(&[u8]) -> Option<Event>,
    is_wanted: impl Fn(&Event, &Span) -> bool,
) -> Bits {
    let mut rows = Bits::none(batch.len());
    let events = batch.events();
    for (at, row) in events.rows().iter().enumerate() {
        // Fields of events look at nothing of the span but its start.
        let span = Span { start: UnixNano(batch.start()[*row as usize]), ..Span::default() };
        let mut decoded = items::messages(events, at).filter_map(&decode);
        if decoded.any(|event| is_wanted(&event, &span)) {
            rows.insert(*row as usize);
        }
    }
    rows
}

/// The rows of which one link is as wanted.
fn rows_with_link(batch: &SpanBatch, is_wanted: impl Fn(&Link) -> bool) -> Bits {
    let mut rows = Bits::none(batch.len());
    let links = batch.links();
    for (at, row) in links.rows().iter().enumerate() {
        let mut decoded = items::messages(links, at).filter_map(|bytes| nested::decode_link(bytes).ok());
        if decoded.any(|link| is_wanted(&link)) {
            rows.insert(*row as usize);
        }
    }
    rows
}

fn rows_where_attribute(
    batch: &SpanBatch,
    names: Names<'_>,
    scope: AttrScope,
    key: &str,
    condition: &Condition,
) -> Bits {
    match scope {
        AttrScope::Any => rows_where_any(batch, names, key, condition),
        AttrScope::Span => rows_where_of_span(batch, names, key, condition),
        AttrScope::Resource => {
            rows_where_origin(batch, |origin| condition.holds_for(value::find(&origin.resource.attributes, key)))
        }
        AttrScope::Instrumentation => {
            rows_where_origin(batch, |origin| condition.holds_for(value::find(&origin.scope.attributes, key)))
        }
        AttrScope::Event | AttrScope::Link => {
            if !condition.holds_for(None) && !items::may_have(names, scope, key) {
                return Bits::none(batch.len());
            }
            let (lists, number) = match scope {
                AttrScope::Event => (batch.events(), items::EVENT_ATTRIBUTES),
                _ => (batch.links(), items::LINK_ATTRIBUTES),
            };
            rows_where_item(batch, lists, number, key, condition)
        }
    }
}

/// Holds when it does for one event or link, those without the attribute included.
fn rows_where_item(batch: &SpanBatch, lists: &SparseBytes, number: u32, key: &str, condition: &Condition) -> Bits {
    let mut rows = Bits::none(batch.len());
    for (at, row) in lists.rows().iter().enumerate() {
        let mut values = items::messages(lists, at).map(|item| items::attribute(item, number, key));
        if values.any(|value| condition.holds_for(value.as_ref())) {
            rows.insert(*row as usize);
        }
    }
    rows
}

/// A key nearly always has one column and nothing in the residual; then no row is decided twice.
fn rows_where_of_span(batch: &SpanBatch, names: Names<'_>, key: &str, condition: &Condition) -> Bits {
    let columns: Vec<&AttrColumn> = batch.columns().iter().filter(|column| **column.key() == *key).collect();
    let is_in_residual = !batch.residual().rows().is_empty() && items::may_have(names, AttrScope::Span, key);
    if is_in_residual || columns.len() > 1 {
        let mut verdict = Verdict::new(batch.len());
        verdict.by_span(batch, names, key, condition);
        return verdict.finish(condition);
    }
    let mut rows = if condition.holds_for(None) { Bits::all(batch.len()) } else { Bits::none(batch.len()) };
    if let [column] = columns.as_slice() {
        let holds = column_where(column, condition);
        match (rows.is_empty(), holds) {
            (true, Some(holds)) => {
                let holding = column.rows().iter().zip(holds).filter(|(_, holds)| *holds);
                holding.for_each(|(row, _)| rows.insert(*row as usize));
            }
            (true, None) => {}
            (false, holds) => replace(&mut rows, column.rows(), |at| holds.as_ref().is_some_and(|holds| holds[at])),
        }
    }
    rows
}

fn rows_where_any(batch: &SpanBatch, names: Names<'_>, key: &str, condition: &Condition) -> Bits {
    let mut verdict = Verdict::new(batch.len());
    verdict.by_span(batch, names, key, condition);
    verdict.by_origin(batch, |origin| value::find(&origin.resource.attributes, key), condition);
    if items::may_have(names, AttrScope::Event, key) {
        verdict.by_items(batch.events(), items::EVENT_ATTRIBUTES, key, condition);
    }
    if items::may_have(names, AttrScope::Link, key) {
        verdict.by_items(batch.links(), items::LINK_ATTRIBUTES, key, condition);
    }
    verdict.by_origin(batch, |origin| value::find(&origin.scope.attributes, key), condition);
    verdict.finish(condition)
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
    fn by_span(&mut self, batch: &SpanBatch, names: Names<'_>, key: &str, condition: &Condition) {
        for column in batch.columns().iter().filter(|column| **column.key() == *key) {
            match column_where(column, condition) {
                Some(holds) => {
                    column.rows().iter().zip(holds).for_each(|(row, holds)| self.decide(*row as usize, || holds));
                }
                None => column.rows().iter().for_each(|row| self.decided.insert(*row as usize)),
            }
        }
        if !items::may_have(names, AttrScope::Span, key) {
            return;
        }
        for (row, value) in items::residual(batch, key) {
            self.decide(row as usize, || condition.holds_for(Some(&value)));
        }
    }

    fn by_origin<'a>(
        &mut self,
        batch: &'a SpanBatch,
        get: impl Fn(&'a Origin) -> Option<&'a Value>,
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

    /// Holds when it does for one of the values in the row's list; lists without one decide nothing.
    fn by_items(&mut self, lists: &SparseBytes, number: u32, key: &str, condition: &Condition) {
        for (at, row) in lists.rows().iter().enumerate() {
            let of_item = |item| items::attribute(item, number, key);
            let values: Vec<Value> = items::messages(lists, at).filter_map(of_item).collect();
            if !values.is_empty() {
                self.decide(*row as usize, || values.iter().any(|value| condition.holds_for(Some(value))));
            }
        }
    }

    /// The rows for which the condition holds, those without the attribute included.
    fn finish(mut self, condition: &Condition) -> Bits {
        if condition.holds_for(None) {
            self.decided.invert();
            self.holds.union(&self.decided);
        }
        self.holds
    }
}

/// Per entry of the column's rows: whether the condition holds; `None` when it does for none.
fn column_where(column: &AttrColumn, condition: &Condition) -> Option<Vec<bool>> {
    match column.values() {
        AttrValues::Str { codes, dictionary } => {
            let holds = texts_where(dictionary, condition);
            holds.contains(&true).then(|| codes.iter().map(|code| holds[*code as usize]).collect())
        }
        _ => {
            let holds = |at| condition.holds_for_attribute(column.get_at(at));
            Some((0..column.rows().len()).map(holds).collect())
        }
    }
}
