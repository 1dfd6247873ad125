//! Lists within a span, taken apart only as far as is asked: events, links, attributes that fit no column.

use hashbrown::HashSet;
use spoor_model::batch::{SpanBatch, SparseBytes};
use spoor_model::scan::AttrScope;
use spoor_model::wire::Reader;
use spoor_model::{Event, UnixNano, Value, nested};

/// The field of OTLP's `Event` that holds its attributes.
pub(super) const EVENT_ATTRIBUTES: u32 = 3;
/// The field of OTLP's `Link` that holds its attributes.
pub(super) const LINK_ATTRIBUTES: u32 = 4;

/// The messages in the `at`-th list.
pub(super) fn messages(lists: &SparseBytes, at: usize) -> impl Iterator<Item = &[u8]> {
    nested::split_list(lists.get_at(at)).unwrap_or_default().into_iter()
}

/// Time and name of an event, the rest left out.
pub(super) fn event(item: &[u8]) -> Option<Event> {
    let mut event = Event::default();
    let mut reader = Reader::new(item);
    while let Some((number, field)) = reader.next_field().ok()? {
        match number {
            1 => event.time = UnixNano(field.fixed64(1).ok()?),
            2 => event.name = field.text(2).ok()?.to_owned(),
            _ => {}
        }
    }
    Some(event)
}

/// The encoded attributes of an event or link: its fields `number`. What does not decode was refused long before.
pub(super) fn attributes(item: &[u8], number: u32) -> impl Iterator<Item = &[u8]> {
    let mut reader = Reader::new(item);
    let fields = std::iter::from_fn(move || reader.next_field().ok().flatten());
    fields.filter_map(move |(found, field)| if found == number { field.bytes(number).ok() } else { None })
}

/// The first attribute of that name among the fields `number` of an event or link.
pub(super) fn attribute(item: &[u8], number: u32, key: &str) -> Option<Value> {
    attributes(item, number).find_map(|attribute| value_of(attribute, key))
}

/// Name and encoded value of an encoded attribute. Of repeated fields the last counts, as in
/// [`nested::decode_key_value`].
fn parts(attribute: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
    let (mut name, mut value): (&[u8], Option<&[u8]>) = (&[], None);
    let mut reader = Reader::new(attribute);
    while let Ok(Some((number, field))) = reader.next_field() {
        match number {
            1 => name = field.bytes(1).ok()?,
            2 => value = Some(field.bytes(2).ok()?),
            _ => {}
        }
    }
    Some((name, value))
}

/// The name of an encoded attribute.
pub(super) fn name_of(attribute: &[u8]) -> Option<&str> {
    parts(attribute).and_then(|(name, _)| std::str::from_utf8(name).ok())
}

/// The value of an encoded attribute when it has that name.
pub(super) fn value_of(attribute: &[u8], key: &str) -> Option<Value> {
    let (name, value) = parts(attribute)?;
    let is_it = name == key.as_bytes();
    is_it.then(|| value.and_then(|value| nested::decode_value(value).ok()).unwrap_or_default())
}

/// The messages in all lists.
pub(super) fn all_messages(lists: &SparseBytes) -> impl Iterator<Item = &[u8]> {
    (0..lists.rows().len()).flat_map(|at| messages(lists, at))
}

/// The rows whose residual has an attribute of that name, ascending, and the first such value.
pub(super) fn residual<'a>(batch: &'a SpanBatch, key: &'a str) -> impl Iterator<Item = (u32, Value)> + 'a {
    let lists = batch.residual();
    lists.rows().iter().enumerate().filter_map(move |(at, row)| {
        messages(lists, at).find_map(|attribute| value_of(attribute, key)).map(|value| (*row, value))
    })
}

/// The most names of one kind that are remembered: a client that puts data into names costs no memory here.
const NAMES_MAX: usize = if cfg!(test) { 2 } else { 1024 };

/// Which attribute names occur in the lists of a segment that takes no more spans; `None` when they are too
/// many. Most queries ask for names that occur in no event and no link, and need not walk these.
#[derive(Debug)]
pub(super) struct ItemNames {
    residual: Option<HashSet<Box<str>>>,
    events: Option<HashSet<Box<str>>>,
    links: Option<HashSet<Box<str>>>,
}

impl ItemNames {
    /// Walks all lists.
    pub(super) fn of(batch: &SpanBatch) -> Self {
        Self {
            residual: few_names(all_messages(batch.residual())),
            events: few_names(of_items(batch.events(), EVENT_ATTRIBUTES)),
            links: few_names(of_items(batch.links(), LINK_ATTRIBUTES)),
        }
    }

    /// The names in one place: [`AttrScope::Span`] is the residual. `None`: not known.
    pub(super) fn list(&self, scope: AttrScope) -> Option<&HashSet<Box<str>>> {
        match scope {
            AttrScope::Span => self.residual.as_ref(),
            AttrScope::Event => self.events.as_ref(),
            AttrScope::Link => self.links.as_ref(),
            AttrScope::Any | AttrScope::Resource | AttrScope::Instrumentation => None,
        }
    }
}

/// Whether the name may occur in a place; `false` is certain.
pub(super) fn may_have(names: Option<&ItemNames>, scope: AttrScope, key: &str) -> bool {
    names.and_then(|names| names.list(scope)).is_none_or(|names| names.contains(key))
}

fn few_names<'a>(attributes: impl Iterator<Item = &'a [u8]>) -> Option<HashSet<Box<str>>> {
    let mut names: HashSet<Box<str>> = HashSet::new();
    for name in attributes.filter_map(name_of) {
        if !names.contains(name) {
            names.insert(name.into());
        }
        if names.len() > NAMES_MAX {
            return None;
        }
    }
    Some(names)
}

/// The encoded attributes of all events or links.
pub(super) fn of_items(lists: &SparseBytes, number: u32) -> impl Iterator<Item = &[u8]> {
    all_messages(lists).flat_map(move |item| attributes(item, number))
}
