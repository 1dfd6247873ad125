//! What a batch has to offer: attribute names, values, operations.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use hashbrown::HashSet;
use spoor_model::batch::{AttrColumn, AttrValues, SpanBatch};
use spoor_model::scan::{AttrScope, Field, KeySet, Operation, ValueSet};
use spoor_model::{Origin, Value};

use super::items::{self, ItemNames};

/// Adds the attribute names by scope.
pub(super) fn keys(batch: &SpanBatch, known: Option<&ItemNames>, into: &mut KeySet) {
    let mut add = |scope: AttrScope, key: &str| {
        let keys = into.entry(scope).or_default();
        if !keys.contains(key) {
            keys.insert(key.to_owned());
        }
    };
    batch.columns().iter().for_each(|column| add(AttrScope::Span, column.key()));
    for origin in batch.origins() {
        origin.resource.attributes.iter().for_each(|attribute| add(AttrScope::Resource, &attribute.key));
        origin.scope.attributes.iter().for_each(|attribute| add(AttrScope::Instrumentation, &attribute.key));
    }
    for scope in [AttrScope::Span, AttrScope::Event, AttrScope::Link] {
        match known.and_then(|known| known.list(scope)) {
            Some(known) => known.iter().for_each(|name| add(scope, name)),
            None => names(batch, scope).into_iter().for_each(|name| add(scope, name)),
        }
    }
    into.retain(|_, keys| !keys.is_empty());
}

/// The distinct names of attributes in lists.
fn names(batch: &SpanBatch, scope: AttrScope) -> HashSet<&str> {
    match scope {
        AttrScope::Event => {
            items::of_items(batch.events(), items::EVENT_ATTRIBUTES).filter_map(items::name_of).collect()
        }
        AttrScope::Link => items::of_items(batch.links(), items::LINK_ATTRIBUTES).filter_map(items::name_of).collect(),
        _ => items::all_messages(batch.residual()).filter_map(items::name_of).collect(),
    }
}

/// Adds the distinct values of a field; `Break` when the set is full.
pub(super) fn values(batch: &SpanBatch, field: &Field, into: &mut ValueSet) -> ControlFlow<()> {
    match field {
        Field::Attribute(scope, key) => attribute_values(batch, *scope, key, into),
        Field::Name => batch.names().iter().try_for_each(|name| into.insert(&text(name))),
        Field::Kind => distinct(batch.kind()).iter().try_for_each(|kind| into.insert(&Value::Int(*kind))),
        Field::Status => distinct(batch.status_code()).iter().try_for_each(|code| into.insert(&Value::Int(*code))),
        Field::StatusMessage => {
            let messages = batch.status_message();
            (0..messages.rows().len()).try_for_each(|at| into.insert(&text(messages.get_at(at))))
        }
        Field::Duration => batch.start().iter().zip(batch.end()).try_for_each(|(start, end)| {
            into.insert(&Value::Int(i64::try_from(end.saturating_sub(*start)).unwrap_or(i64::MAX)))
        }),
        Field::TraceId => batch.traces().iter().try_for_each(|trace| into.insert(&Value::Str(trace.id.to_string()))),
        Field::SpanId => batch.span_id().iter().try_for_each(|id| into.insert(&Value::Str(id.to_string()))),
        Field::ParentSpanId => batch.parent().iter().try_for_each(|id| into.insert(&Value::Str(id.to_string()))),
        Field::InstrumentationName => of_scopes(batch, into, |origin| &origin.scope.name),
        Field::InstrumentationVersion => of_scopes(batch, into, |origin| &origin.scope.version),
        Field::EventName => {
            let mut events = items::all_messages(batch.events()).filter_map(items::event);
            events.try_for_each(|event| into.insert(&Value::Str(event.name)))
        }
        // Numbers and ids have no list of values worth having.
        Field::EventTimeSinceStart | Field::LinkTraceId | Field::LinkSpanId | Field::StartTime | Field::TraceState => {
            ControlFlow::Continue(())
        }
    }
}

fn text(bytes: &[u8]) -> Value {
    Value::Str(String::from_utf8_lossy(bytes).into_owned())
}

fn distinct(codes: &[i32]) -> BTreeSet<i64> {
    codes.iter().map(|code| i64::from(*code)).collect()
}

fn of_scopes(batch: &SpanBatch, into: &mut ValueSet, get: impl Fn(&Origin) -> &String) -> ControlFlow<()> {
    batch.origins().iter().try_for_each(|origin| into.insert(&Value::Str(get(origin).clone())))
}

fn attribute_values(batch: &SpanBatch, scope: AttrScope, key: &str, into: &mut ValueSet) -> ControlFlow<()> {
    let in_any = scope == AttrScope::Any;
    let is_wanted = |of: AttrScope| in_any || scope == of;
    if is_wanted(AttrScope::Span) {
        let mut columns = batch.columns().iter().filter(|column| **column.key() == *key);
        columns.try_for_each(|column| column_values(column, into))?;
    }
    for origin in batch.origins() {
        let resource = origin.resource.attributes.iter().filter(|_| is_wanted(AttrScope::Resource));
        let instrumentation = origin.scope.attributes.iter().filter(|_| is_wanted(AttrScope::Instrumentation));
        let mut named = resource.chain(instrumentation).filter(|attribute| attribute.key == key);
        named.try_for_each(|attribute| into.insert(&attribute.value))?;
    }
    let mut add =
        |attribute| items::value_of(attribute, key).map_or(ControlFlow::Continue(()), |value| into.insert(&value));
    if is_wanted(AttrScope::Span) {
        items::all_messages(batch.residual()).try_for_each(&mut add)?;
    }
    if is_wanted(AttrScope::Event) {
        items::of_items(batch.events(), items::EVENT_ATTRIBUTES).try_for_each(&mut add)?;
    }
    if is_wanted(AttrScope::Link) {
        items::of_items(batch.links(), items::LINK_ATTRIBUTES).try_for_each(&mut add)?;
    }
    ControlFlow::Continue(())
}

fn column_values(column: &AttrColumn, into: &mut ValueSet) -> ControlFlow<()> {
    match column.values() {
        AttrValues::Str { dictionary, .. } => dictionary.iter().try_for_each(|value| into.insert(&text(value))),
        _ => (0..column.rows().len()).try_for_each(|at| into.insert(&column.get_at(at).to_value())),
    }
}

/// Adds every (service, name, kind).
pub(super) fn operations(batch: &SpanBatch, into: &mut BTreeSet<Operation>) {
    let codes = batch.origin().iter().zip(batch.name()).zip(batch.kind());
    let distinct: HashSet<(u32, u32, i32)> = codes.map(|((origin, name), kind)| (*origin, *name, *kind)).collect();
    for (origin, name, kind) in distinct {
        let service = batch.origins()[origin as usize].service_name().map(str::to_owned);
        let name = String::from_utf8_lossy(batch.names().get(name)).into_owned();
        into.insert(Operation { service, name, kind });
    }
}
