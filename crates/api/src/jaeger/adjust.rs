//! What Jaeger does to a trace between storage and answer, unless the client asks for `raw`.
//!
//! Clock skew is computed and reported; it is applied only as far as the operator allows. Nothing is by default,
//! in Jaeger too: that invents nothing. Two of Jaeger's adjusters are left out on purpose (`api/DEVIATIONS.md`): events
//! keep the order of their recording, and library attributes stay where the sender put them.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use spoor_model::span::SpanEntry;
use spoor_model::{KeyValue, SpanId, Value, value};

use crate::go_duration;

/// A span on its way into an answer.
pub(crate) struct View {
    /// The span, perhaps changed.
    pub(crate) entry: SpanEntry,
    /// What was changed, or could not be.
    pub(crate) warnings: Vec<String>,
}

/// The spans as they are stored.
pub(crate) fn raw(entries: Vec<SpanEntry>) -> Vec<View> {
    entries.into_iter().map(|entry| View { entry, warnings: Vec::new() }).collect()
}

/// The spans as Jaeger shows them. Order stays. Clocks are taken to be off by at most `skew_max`.
pub(crate) fn adjusted(entries: Vec<SpanEntry>, skew_max: Duration) -> Vec<View> {
    let mut views = raw(entries);
    separate_shared_ids(&mut views);
    views.iter_mut().for_each(sort_attributes);
    adjust_clock_skew(&mut views, skew_max);
    views.iter_mut().for_each(write_addresses);
    views.iter_mut().for_each(drop_empty_links);
    views
}

const KIND_SERVER: i32 = 2;
const KIND_CLIENT: i32 = 3;

/// Zipkin's way of sharing one id between the two sides of a call: the server's side gets an id of
/// its own (the smallest unused number), becomes the child of the client's, and takes the children.
fn separate_shared_ids(views: &mut [View]) {
    let ids_of =
        |kind| views.iter().filter(move |view| view.entry.span.kind == kind).map(|view| view.entry.span.span_id);
    let clients: HashSet<SpanId> = ids_of(KIND_CLIENT).collect();
    if !ids_of(KIND_SERVER).any(|id| clients.contains(&id)) {
        return;
    }
    let taken: HashSet<SpanId> = views.iter().map(|view| view.entry.span.span_id).collect();
    let mut unused = (1u64..).map(|number| SpanId(number.to_be_bytes())).filter(|id| !taken.contains(id));
    let mut renamed: HashMap<SpanId, SpanId> = HashMap::new();
    let mut fresh_ids: HashSet<SpanId> = HashSet::new();
    for view in views.iter_mut() {
        let span = &mut view.entry.span;
        if span.kind == KIND_SERVER && clients.contains(&span.span_id) {
            let fresh = unused.next().expect("there are more numbers than spans");
            renamed.insert(span.span_id, fresh);
            fresh_ids.insert(fresh);
            span.parent_span_id = span.span_id;
            span.span_id = fresh;
        }
    }
    for view in views {
        let span = &mut view.entry.span;
        if let Some(fresh) = renamed.get(&span.parent_span_id)
            && !fresh_ids.contains(&span.span_id)
        {
            span.parent_span_id = *fresh;
        }
    }
}

fn sort_attributes(view: &mut View) {
    let by_key = |attributes: &mut Vec<KeyValue>| attributes.sort_by(|a, b| a.key.cmp(&b.key));
    let span = &mut view.entry.span;
    by_key(&mut span.attributes);
    span.events.iter_mut().for_each(|event| by_key(&mut event.attributes));
    span.links.iter_mut().for_each(|link| by_key(&mut link.attributes));
}

/// Walks from each root to its leaves and moves what lies outside its parent, or says why it does not.
fn adjust_clock_skew(views: &mut [View], skew_max: Duration) {
    let mut by_id: HashMap<SpanId, usize> = HashMap::with_capacity(views.len());
    let mut in_tree = Vec::with_capacity(views.len());
    for (index, view) in views.iter_mut().enumerate() {
        if let std::collections::hash_map::Entry::Vacant(slot) = by_id.entry(view.entry.span.span_id) {
            slot.insert(index);
            in_tree.push(index);
        } else {
            view.warnings.push("duplicate span IDs; skipping clock skew adjustment".to_owned());
        }
    }
    let mut children: Vec<Vec<usize>> = vec![Vec::new(); views.len()];
    let mut to_visit: Vec<(usize, Option<usize>, i64)> = Vec::new();
    for index in in_tree {
        let parent = views[index].entry.span.parent_span_id;
        match by_id.get(&parent) {
            Some(parent) => children[*parent].push(index),
            None => {
                to_visit.push((index, None, 0));
                if !parent.is_zero() {
                    let text = format!("parent span ID={parent} is not in the trace; skipping clock skew adjustment");
                    views[index].warnings.push(text);
                }
            }
        }
    }
    while let Some((index, parent, inherited_delta)) = to_visit.pop() {
        let delta = match parent {
            Some(parent) if !same_host(&views[parent].entry, &views[index].entry) => {
                skew(&views[parent].entry, &views[index].entry)
            }
            _ => inherited_delta,
        };
        if delta != 0 {
            shift(&mut views[index], delta, skew_max);
        }
        to_visit.extend(children[index].iter().map(|child| (*child, Some(index), delta)));
    }
}

/// Moves a span and its events by so many nanoseconds, if that is not too much.
fn shift(view: &mut View, delta: i64, skew_max: Duration) {
    let text = go_duration::format_signed(delta);
    let max = go_duration::format(u64::try_from(skew_max.as_nanos()).unwrap_or(u64::MAX));
    view.warnings.push(if skew_max.is_zero() {
        format!("clock skew adjustment disabled; not applying calculated delta of {text}")
    } else if u128::from(delta.unsigned_abs()) > skew_max.as_nanos() {
        format!("max clock skew adjustment delta of {max} exceeded; not applying calculated delta of {text}")
    } else {
        let span = &mut view.entry.span;
        let times =
            [&mut span.start, &mut span.end].into_iter().chain(span.events.iter_mut().map(|event| &mut event.time));
        times.for_each(|time| time.0 = time.0.saturating_add_signed(delta));
        format!("This span's timestamps were adjusted by {text}")
    });
}

fn same_host(parent: &SpanEntry, child: &SpanEntry) -> bool {
    host(child).is_some_and(|key| host(parent) == Some(key))
}

/// What tells one machine from another.
fn host(entry: &SpanEntry) -> Option<&str> {
    let text = |key| match value::find(&entry.origin.resource.attributes, key)? {
        Value::Str(text) => Some(text.as_str()),
        Value::Array(values) => values.first()?.as_str(),
        _ => None,
    };
    let keys = ["host.id", "host.ip", "host.name"];
    keys.into_iter().filter_map(text).find(|text| !text.is_empty())
}

/// By how many nanoseconds the child would have to move to lie within its parent.
fn skew(parent: &SpanEntry, child: &SpanEntry) -> i64 {
    let (parent, child) = (&parent.span, &child.span);
    // Senders may claim any instant, so differences are taken where they fit.
    let start_delta = i128::from(parent.start.0) - i128::from(child.start.0);
    let delta = if child.duration_nano() > parent.duration_nano() {
        start_delta.max(0)
    } else if child.start >= parent.start && child.end <= parent.end {
        0
    } else {
        start_delta + i128::from(parent.duration_nano() - child.duration_nano()) / 2
    };
    delta.clamp(i64::MIN.into(), i64::MAX.into()) as i64
}

/// IPv4 addresses that old clients sent as numbers become dotted quads.
fn write_addresses(view: &mut View) {
    for attribute in &mut view.entry.span.attributes {
        if !matches!(attribute.key.as_str(), "ip" | "peer.ipv4") {
            continue;
        }
        let number = match attribute.value {
            Value::Int(int) => int as u32,
            Value::Double(double) => double as i64 as u32,
            _ => continue,
        };
        attribute.value = Value::Str(std::net::Ipv4Addr::from(number).to_string());
    }
}

fn drop_empty_links(view: &mut View) {
    let links = &mut view.entry.span.links;
    let before = links.len();
    links.retain(|link| !link.trace_id.is_zero() && !link.span_id.is_zero());
    let dropped = before - links.len();
    view.warnings.extend(std::iter::repeat_n("Invalid span link removed".to_owned(), dropped));
}

#[cfg(test)]
mod tests;
