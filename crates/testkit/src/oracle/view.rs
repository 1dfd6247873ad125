//! What a span is asked: its attributes and intrinsics.

use spoor_model::scan::AttrScope;
use spoor_model::{Event, KeyValue, Link, SpanEntry, Trace, Value, value};
use spoor_traceql::ast::{Attribute, Expr, Intrinsic};

use super::datum::Datum;
use super::expression;
use super::tree::Tree;

/// A whole trace and what follows from it.
#[derive(Debug, Clone)]
pub(super) struct View {
    pub(super) trace: Trace,
    pub(super) tree: Tree,
    /// By row: the order in which events and links are looked at outside filters.
    orders: Vec<(Vec<usize>, Vec<usize>)>,
}

/// Which event and which link a filter looks at at the moment; rows of the span's lists.
#[derive(Debug, Clone, Copy)]
pub(super) struct Choice {
    event: Option<usize>,
    link: Option<usize>,
}

/// A span, looked at.
#[derive(Debug, Clone, Copy)]
pub(super) struct At<'a> {
    pub(super) view: &'a View,
    pub(super) row: usize,
    /// `None` outside filters: there an event's field is that of the first event that has it.
    pub(super) choice: Option<Choice>,
}

impl View {
    pub(super) fn of(trace: Trace) -> Self {
        let natural = |count: usize| (0..count).collect();
        let order = |entry: &SpanEntry| (natural(entry.span.events.len()), natural(entry.span.links.len()));
        Self { tree: Tree::of(&trace), orders: trace.entries.iter().map(order).collect(), trace }
    }

    /// The same where, outside filters, events and links come first for which one of these filters holds.
    pub(super) fn exposed(&self, filters: &[&Expr]) -> Self {
        let mut view = self.clone();
        for row in 0..self.trace.entries.len() {
            let holds = |at: &&At<'_>| filters.iter().any(|filter| expression::evaluate(filter, **at).is_true());
            let choices = self.choices(row);
            let chosen: Vec<Choice> = choices.iter().filter(holds).filter_map(|at| at.choice).collect();
            let (events, links) = &mut view.orders[row];
            events.sort_by_key(|event| !chosen.iter().any(|choice| choice.event == Some(*event)));
            links.sort_by_key(|link| !chosen.iter().any(|choice| choice.link == Some(*link)));
        }
        view
    }

    /// The span outside of filters.
    pub(super) fn at(&self, row: usize) -> At<'_> {
        At { view: self, row, choice: None }
    }

    /// The span with each of its events and each of its links; once when there are none.
    pub(super) fn choices(&self, row: usize) -> Vec<At<'_>> {
        let places = |count: usize| match count {
            0 => vec![None],
            count => (0..count).map(Some).collect(),
        };
        let span = &self.trace.entries[row].span;
        let mut all = Vec::new();
        for event in places(span.events.len()) {
            for link in places(span.links.len()) {
                all.push(At { view: self, row, choice: Some(Choice { event, link }) });
            }
        }
        all
    }

    /// The last span that has no parent and does not follow another of its trace.
    fn root(&self) -> Option<&SpanEntry> {
        let says_child = |link: &Link| {
            let ref_type = value::find(&link.attributes, "opentracing.ref_type").and_then(Value::as_str);
            link.trace_id == self.trace.id && ref_type == Some("child_of")
        };
        let is_root =
            |entry: &&SpanEntry| entry.span.parent_span_id.is_zero() && !entry.span.links.iter().any(says_child);
        self.trace.entries.iter().rfind(is_root)
    }

    pub(super) fn root_name(&self) -> &str {
        self.root().map_or("", |root| &root.span.name)
    }

    pub(super) fn root_service_name(&self) -> &str {
        self.root().and_then(|root| root.origin.service_name()).unwrap_or("")
    }
}

impl<'a> At<'a> {
    pub(super) fn entry(&self) -> &'a SpanEntry {
        &self.view.trace.entries[self.row]
    }

    fn parent(&self) -> Option<Self> {
        let row = self.view.tree.parent(self.row)?;
        Some(Self { row, choice: None, ..*self })
    }

    /// The one value of an attribute or intrinsic, nil when there is none.
    pub(super) fn value(&self, attribute: &Attribute) -> Datum {
        self.values(attribute).into_iter().next().unwrap_or(Datum::Nil)
    }

    /// The values of which one must fit in a comparison; none when the attribute is absent. There
    /// are several only where a name without scope is that of events or links.
    pub(super) fn values(&self, attribute: &Attribute) -> Vec<Datum> {
        let mut values = match attribute {
            Attribute::Intrinsic(intrinsic) => vec![self.intrinsic(*intrinsic)],
            Attribute::Named(scope, name) => self.named(*scope, name),
            Attribute::OfParent(scope, name) => match self.parent() {
                Some(parent) => parent.named(*scope, name),
                None => Vec::new(),
            },
        };
        values.retain(|value| !value.is_nil());
        values
    }

    fn named(&self, scope: AttrScope, name: &str) -> Vec<Datum> {
        let of = |attributes: &[KeyValue]| value::find(attributes, name).map_or(Datum::Nil, Datum::of_value);
        let entry = self.entry();
        let events = || entry.span.events.iter().map(|event| of(&event.attributes)).collect::<Vec<_>>();
        let links = || entry.span.links.iter().map(|link| of(&link.attributes)).collect::<Vec<_>>();
        match scope {
            AttrScope::Span => vec![of(&entry.span.attributes)],
            AttrScope::Resource => vec![of(&entry.origin.resource.attributes)],
            AttrScope::Instrumentation => vec![of(&entry.origin.scope.attributes)],
            AttrScope::Event => match self.choice {
                Some(choice) => choice.event.map(|event| events().swap_remove(event)).into_iter().collect(),
                None => self.view.orders[self.row].0.iter().map(|event| events().swap_remove(*event)).collect(),
            },
            AttrScope::Link => match self.choice {
                Some(choice) => choice.link.map(|link| links().swap_remove(link)).into_iter().collect(),
                None => self.view.orders[self.row].1.iter().map(|link| links().swap_remove(*link)).collect(),
            },
            // Whoever has the name has it, be the value one that cannot be queried.
            AttrScope::Any => {
                let has = |attributes: &[KeyValue]| value::find(attributes, name).is_some();
                match () {
                    () if has(&entry.span.attributes) => self.named(AttrScope::Span, name),
                    () if has(&entry.origin.resource.attributes) => self.named(AttrScope::Resource, name),
                    () if entry.span.events.iter().any(|event| has(&event.attributes)) => events(),
                    () if entry.span.links.iter().any(|link| has(&link.attributes)) => links(),
                    () => self.named(AttrScope::Instrumentation, name),
                }
            }
        }
    }

    fn event(&self) -> Option<&'a Event> {
        let events = &self.entry().span.events;
        match self.choice {
            Some(choice) => choice.event.map(|event| &events[event]),
            None => self.view.orders[self.row].0.first().map(|event| &events[*event]),
        }
    }

    fn link(&self) -> Option<&'a Link> {
        let links = &self.entry().span.links;
        match self.choice {
            Some(choice) => choice.link.map(|link| &links[link]),
            None => self.view.orders[self.row].1.first().map(|link| &links[*link]),
        }
    }

    fn intrinsic(&self, intrinsic: Intrinsic) -> Datum {
        let SpanEntry { origin, span } = self.entry();
        let View { trace, tree, .. } = self.view;
        let text = |text: &str| Datum::Str(text.to_owned());
        match intrinsic {
            Intrinsic::Name => text(&span.name),
            Intrinsic::Duration => Datum::Duration(span.duration_nano() as i64),
            Intrinsic::Status => Datum::Status(span.status.code),
            Intrinsic::StatusMessage => text(&span.status.message),
            Intrinsic::Kind => Datum::Kind(span.kind),
            Intrinsic::SpanId => text(&span.span_id.to_string()),
            Intrinsic::ParentId => text(&span.parent_span_id.to_string()),
            Intrinsic::ChildCount => Datum::Int(tree.child_count(self.row)),
            Intrinsic::TraceDuration => {
                let range = trace.range();
                Datum::Duration(range.end.0.saturating_sub(range.start.0) as i64)
            }
            Intrinsic::RootName => text(self.view.root_name()),
            Intrinsic::RootServiceName => text(self.view.root_service_name()),
            Intrinsic::TraceId => text(trace.id.to_string().trim_start_matches('0')),
            Intrinsic::EventName => self.event().map_or(Datum::Nil, |event| text(&event.name)),
            Intrinsic::EventTimeSinceStart => match self.event() {
                Some(event) => Datum::Duration(event.time.0.wrapping_sub(span.start.0) as i64),
                None => Datum::Nil,
            },
            Intrinsic::LinkTraceId => match self.link() {
                Some(link) => text(link.trace_id.to_string().trim_start_matches('0')),
                None => Datum::Nil,
            },
            Intrinsic::LinkSpanId => self.link().map_or(Datum::Nil, |link| text(&link.span_id.to_string())),
            Intrinsic::InstrumentationName => text(&origin.scope.name),
            Intrinsic::InstrumentationVersion => text(&origin.scope.version),
            Intrinsic::NestedSetLeft => Datum::Int(tree.left(self.row)),
            Intrinsic::NestedSetRight => Datum::Int(tree.right(self.row)),
            Intrinsic::NestedSetParent => Datum::Int(tree.parent_left(self.row)),
            Intrinsic::Parent => Datum::Nil,
        }
    }
}
