//! A predicate in terms of one block: what its tables decide is decided here, once per distinct
//! combination; what is left names the columns to read.

use std::collections::BTreeSet;
use std::sync::Arc;

use spoor_model::batch::AttrValue;
use spoor_model::scan::{AttrScope, Condition, Field, Literal, Predicate, Test};
use spoor_model::value::{self, Value};

use crate::filter::Place;
use crate::meta::ColumnType;
use crate::outline::Outline;
use crate::summary::ColumnSummary;

/// What holds for the values of a table, by number.
pub(super) type Table = Vec<bool>;

/// A compiled predicate.
#[derive(Debug)]
pub(super) enum Node {
    Always,
    Never,
    /// By shape.
    Shapes(Table),
    /// By origin.
    Origins(Table),
    /// The first part that has a value decides; where none has, `or_else` does.
    First {
        parts: Vec<Part>,
        or_else: bool,
    },
    And(Vec<Node>),
    Or(Vec<Node>),
}

/// A place where a field may have its value.
#[derive(Debug)]
pub(super) enum Part {
    Shapes {
        has: Table,
        holds: Table,
    },
    Origins {
        has: Table,
        holds: Table,
    },
    /// A column, by its place in the file.
    Column(usize, Condition),
    /// A column of unsigned numbers.
    Unsigned(usize, Condition),
    /// The residual attributes.
    Residual(Arc<str>, Condition),
    /// Some event or link satisfies all conditions.
    Items(Items),
    Ids(IdField, Condition),
}

/// Events or links of a span.
#[derive(Debug)]
pub(super) struct Items {
    pub(super) kind: ItemKind,
    pub(super) conditions: Vec<Condition>,
    /// The attribute that makes a span have a value at all; `None` where nobody asks.
    pub(super) key: Option<Arc<str>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ItemKind {
    Event,
    Link,
}

impl ItemKind {
    pub(super) fn scope(self) -> AttrScope {
        match self {
            Self::Event => AttrScope::Event,
            Self::Link => AttrScope::Link,
        }
    }

    /// The attributes that items of the block have.
    pub(super) fn keys(self, outline: &Outline) -> &BTreeSet<String> {
        match self {
            Self::Event => &outline.catalogue.event_keys,
            Self::Link => &outline.catalogue.link_keys,
        }
    }

    pub(super) fn column(self) -> &'static str {
        match self {
            Self::Event => "events_otlp",
            Self::Link => "links_otlp",
        }
    }
}

/// Ids of spans and traces, which queries see as hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IdField {
    Trace,
    Span,
    Parent,
}

fn table_node(table: Table, make: impl Fn(Table) -> Node) -> Node {
    match (table.contains(&true), table.contains(&false)) {
        (false, _) => Node::Never,
        (true, false) => Node::Always,
        (true, true) => make(table),
    }
}

/// Joins nodes: tables become one table, `neutral` falls away, `absorbing` wins.
fn join(nodes: Vec<Node>, is_and: bool) -> Node {
    let (mut kept, mut shapes, mut origins): (Vec<Node>, Option<Table>, Option<Table>) = (Vec::new(), None, None);
    let merge = |into: &mut Option<Table>, table: Table| match into {
        None => *into = Some(table),
        Some(into) if is_and => into.iter_mut().zip(table).for_each(|(a, b)| *a &= b),
        Some(into) => into.iter_mut().zip(table).for_each(|(a, b)| *a |= b),
    };
    for node in nodes {
        match node {
            Node::Always if is_and => {}
            Node::Never if !is_and => {}
            Node::Always | Node::Never => return node,
            Node::Shapes(table) => merge(&mut shapes, table),
            Node::Origins(table) => merge(&mut origins, table),
            node => kept.push(node),
        }
    }
    // Tables first: they are cheap and leave few rows to the rest.
    let tables =
        [origins.map(|table| table_node(table, Node::Origins)), shapes.map(|table| table_node(table, Node::Shapes))];
    for node in tables.into_iter().flatten() {
        match node {
            Node::Always if is_and => {}
            Node::Never if !is_and => {}
            Node::Always | Node::Never => return node,
            node => kept.insert(0, node),
        }
    }
    match (kept.len(), is_and) {
        (0, true) => Node::Always,
        (0, false) => Node::Never,
        (1, _) => kept.remove(0),
        (_, true) => Node::And(kept),
        (_, false) => Node::Or(kept),
    }
}

/// Compiles a predicate. Costs one evaluation of each condition per shape or origin.
pub(super) fn compile(predicate: &Predicate, outline: &Outline) -> Node {
    let items = |kind, conditions: &[Condition]| {
        let items = Items { kind, conditions: conditions.to_vec(), key: None };
        first(outline, vec![Part::Items(items)], false)
    };
    match predicate {
        Predicate::True => Node::Always,
        Predicate::False => Node::Never,
        Predicate::Is(condition) => compile_condition(condition, outline),
        Predicate::OneEvent(all) => items(ItemKind::Event, all),
        Predicate::OneLink(all) => items(ItemKind::Link, all),
        Predicate::And(all) => join(all.iter().map(|predicate| compile(predicate, outline)).collect(), true),
        Predicate::Or(any) => join(any.iter().map(|predicate| compile(predicate, outline)).collect(), false),
    }
}

fn compile_condition(condition: &Condition, outline: &Outline) -> Node {
    let text = |text: &str| condition.holds_for_attribute(AttrValue::Str(text.as_bytes()));
    let column = |name: &str| outline.column(name).map(|column| Part::Column(column, condition.clone()));
    let unsigned = |name: &str| outline.column(name).map(|column| Part::Unsigned(column, condition.clone()));
    let items = |kind| {
        let (conditions, key) = (vec![condition.clone()], None);
        Some(Part::Items(Items { kind, conditions, key }))
    };
    let ids = |field| Some(Part::Ids(field, condition.clone()));
    let of_shapes = |value: &dyn Fn(&crate::tables::Shape) -> Option<Value>| {
        let values: Vec<Option<Value>> = outline.shapes.iter().map(|shape| value(shape)).collect();
        let (has, holds) = judge(&values, condition);
        Some(Part::Shapes { has, holds })
    };
    let of_origins = |value: &dyn Fn(&spoor_model::Origin) -> &str| {
        let holds = outline.origins.iter().map(|origin| text(value(origin))).collect();
        Some(Part::Origins { has: vec![true; outline.origins.len()], holds })
    };
    let int = |int: Option<i32>| int.map(|int| Value::Int(i64::from(int)));
    let part = match &condition.field {
        Field::Attribute(scope, key) => {
            let parts = attribute_parts(*scope, key, condition, outline);
            let is_of_items = matches!(scope, AttrScope::Event | AttrScope::Link);
            return first(outline, parts, !is_of_items && condition.holds_for(None));
        }
        Field::StatusMessage => return first(outline, column("status_message").into_iter().collect(), text("")),
        Field::TraceState => return first(outline, column("trace_state").into_iter().collect(), text("")),
        Field::Name => column("name").or_else(|| of_shapes(&|shape| shape.name.clone().map(Value::Str))),
        Field::Kind => column("kind").or_else(|| of_shapes(&|shape| int(shape.kind))),
        Field::Status => column("status_code").or_else(|| of_shapes(&|shape| int(shape.status_code))),
        Field::Duration => unsigned("duration_nano"),
        Field::StartTime => unsigned("start_time_unix_nano"),
        Field::TraceId => ids(IdField::Trace),
        Field::SpanId => ids(IdField::Span),
        Field::ParentSpanId => ids(IdField::Parent),
        Field::InstrumentationName => of_origins(&|origin| &origin.scope.name),
        Field::InstrumentationVersion => of_origins(&|origin| &origin.scope.version),
        Field::EventName | Field::EventTimeSinceStart => items(ItemKind::Event),
        Field::LinkTraceId | Field::LinkSpanId => items(ItemKind::Link),
    };
    first(outline, part.into_iter().collect(), false)
}

/// Which values of a table there are, and which satisfy the condition.
fn judge(values: &[Option<Value>], condition: &Condition) -> (Table, Table) {
    let has = values.iter().map(Option::is_some).collect();
    let holds = values.iter().map(|value| value.is_some() && condition.holds_for(value.as_ref())).collect();
    (has, holds)
}

/// Where the attribute may be, what counts first first.
fn attribute_parts(scope: AttrScope, key: &Arc<str>, condition: &Condition, outline: &Outline) -> Vec<Part> {
    let of_origins = |find: &dyn Fn(&spoor_model::Origin) -> Option<Value>| {
        let values: Vec<Option<Value>> = outline.origins.iter().map(|origin| find(origin)).collect();
        let (has, holds) = judge(&values, condition);
        Part::Origins { has, holds }
    };
    // An item without the attribute satisfies only that it is absent.
    let items = |kind: ItemKind| {
        let may_hold = kind.keys(outline).contains(&**key) || condition.holds_for(None);
        may_hold.then(|| Part::Items(Items { kind, conditions: vec![condition.clone()], key: None }))
    };
    match scope {
        AttrScope::Span => span_attribute_parts(key, condition, outline),
        AttrScope::Resource => vec![of_origins(&|origin| value::find(&origin.resource.attributes, key).cloned())],
        AttrScope::Instrumentation => vec![of_origins(&|origin| value::find(&origin.scope.attributes, key).cloned())],
        AttrScope::Event => items(ItemKind::Event).into_iter().collect(),
        AttrScope::Link => items(ItemKind::Link).into_iter().collect(),
        AttrScope::Any => {
            let mut parts = span_attribute_parts(key, condition, outline);
            parts.extend(attribute_parts(AttrScope::Resource, key, condition, outline));
            for kind in [ItemKind::Event, ItemKind::Link] {
                if kind.keys(outline).contains(&**key) {
                    let field = Field::Attribute(kind.scope(), Arc::clone(key));
                    let conditions = vec![Condition { field, test: condition.test.clone() }];
                    parts.push(Part::Items(Items { kind, conditions, key: Some(Arc::clone(key)) }));
                }
            }
            parts.extend(attribute_parts(AttrScope::Instrumentation, key, condition, outline));
            parts
        }
    }
}

/// A span attribute is in the shape, in a column (one per type) or in the residual.
fn span_attribute_parts(key: &Arc<str>, condition: &Condition, outline: &Outline) -> Vec<Part> {
    let values: Vec<Option<Value>> =
        outline.shapes.iter().map(|shape| value::find(&shape.attributes, key).cloned()).collect();
    let (has, holds) = judge(&values, condition);
    let mut parts = vec![Part::Shapes { has, holds }];
    parts.extend(outline.attribute_columns(key).map(|column| Part::Column(column, condition.clone())));
    if outline.catalogue.residual_keys.contains(&**key) {
        parts.push(Part::Residual(Arc::clone(key), condition.clone()));
    }
    parts
}

/// A node of parts, without those that decide nothing.
fn first(outline: &Outline, parts: Vec<Part>, or_else: bool) -> Node {
    let mut kept: Vec<Part> = Vec::new();
    let mut or_else = or_else;
    for part in parts.into_iter().filter(|part| part.may_have(outline)) {
        let is_always_there =
            matches!(&part, Part::Shapes { has, .. } | Part::Origins { has, .. } if !has.contains(&false));
        kept.push(part);
        if is_always_there {
            or_else = false;
            break;
        }
    }
    // The last part needs not say where it has a value, unless what has none may hold.
    while !or_else && kept.last().is_some_and(|part| !part.may_hold(outline)) {
        kept.pop();
    }
    match (kept.len(), kept.pop()) {
        (_, None) if or_else => Node::Always,
        (_, None) => Node::Never,
        (1, Some(Part::Shapes { has, holds })) => table_node(or_where_absent(&has, holds, or_else), Node::Shapes),
        (1, Some(Part::Origins { has, holds })) => table_node(or_where_absent(&has, holds, or_else), Node::Origins),
        (_, Some(last)) => {
            kept.push(last);
            Node::First { parts: kept, or_else }
        }
    }
}

fn or_where_absent(has: &Table, holds: Table, or_else: bool) -> Table {
    has.iter().zip(holds).map(|(has, holds)| holds || (or_else && !has)).collect()
}

impl Part {
    /// Whether any row of the block can have a value here.
    fn may_have(&self, outline: &Outline) -> bool {
        match self {
            Self::Shapes { has, .. } | Self::Origins { has, .. } => has.contains(&true),
            Self::Residual(..) => outline.column("residual_otlp").is_some(),
            Self::Items(items) => outline.column(items.kind.column()).is_some(),
            Self::Column(..) | Self::Unsigned(..) | Self::Ids(..) => true,
        }
    }

    /// Whether the condition can hold for a value here.
    fn may_hold(&self, outline: &Outline) -> bool {
        match self {
            Self::Shapes { holds, .. } | Self::Origins { holds, .. } => holds.contains(&true),
            Self::Column(column, condition) => {
                let value_type = outline.columns[*column].value_type;
                value_type.is_none_or(|value_type| may_hold_for(&condition.test, value_type))
            }
            Self::Unsigned(_, condition) => may_hold_for(&condition.test, ColumnType::Int),
            Self::Ids(_, condition) => may_hold_for(&condition.test, ColumnType::String),
            Self::Residual(..) | Self::Items(_) => true,
        }
    }
}

/// Whether a test can hold for a value of a column's type. Encoded values are of several types.
fn may_hold_for(test: &Test, value_type: ColumnType) -> bool {
    let (is_text, is_number) =
        (value_type == ColumnType::String, matches!(value_type, ColumnType::Int | ColumnType::Double));
    if value_type == ColumnType::Otlp {
        return true;
    }
    match test {
        Test::Eq(literal)
        | Test::Ne(literal)
        | Test::Lt(literal)
        | Test::Le(literal)
        | Test::Gt(literal)
        | Test::Ge(literal) => match literal {
            Literal::Str(_) => is_text,
            Literal::Int(_) | Literal::Float(_) => is_number,
            Literal::Bool(_) => value_type == ColumnType::Bool,
        },
        Test::Regex(_) | Test::NotRegex(_) | Test::Contains(_) => is_text,
        Test::Exists | Test::TextEq(_) => true,
        Test::Absent => false,
    }
}

impl Node {
    /// Whether a span of a row group may satisfy the node: `false` is certain. Reads no spans.
    pub(super) fn may_match(&self, outline: &Outline, group: usize) -> bool {
        match self {
            Self::Never => false,
            Self::Always | Self::Shapes(_) | Self::Origins(_) => true,
            Self::First { parts, or_else } => *or_else || parts.iter().any(|part| part.may_match(outline, group)),
            Self::And(nodes) => nodes.iter().all(|node| node.may_match(outline, group)),
            Self::Or(nodes) => nodes.iter().any(|node| node.may_match(outline, group)),
        }
    }
}

impl Part {
    fn may_match(&self, outline: &Outline, group: usize) -> bool {
        let is_empty = |column: usize| outline.summary(group, column) == ColumnSummary::Empty;
        let has_values = |column: Option<usize>| column.is_some_and(|column| !is_empty(column));
        let may_hold = |place, condition: &Condition| outline.filters.may_hold(group, place, &condition.test);
        match self {
            Self::Shapes { holds, .. } | Self::Origins { holds, .. } => holds.contains(&true),
            Self::Column(column, condition) => {
                has_values(Some(*column)) && column_may_match(outline, group, *column, condition)
            }
            Self::Unsigned(column, condition) => match outline.summary(group, *column) {
                // Of numbers whose greatest seem negative bounds say nothing.
                ColumnSummary::Ints { least, greatest, .. } if least >= 0 => {
                    bounds_may_match(least, greatest, condition)
                }
                summary => summary != ColumnSummary::Empty,
            },
            Self::Residual(key, condition) => {
                has_values(outline.column("residual_otlp")) && may_hold(Place::Span(key), condition)
            }
            Self::Items(items) => {
                let mut conditions = items.conditions.iter();
                has_values(outline.column(items.kind.column()))
                    && conditions.all(|condition| match &condition.field {
                        Field::Attribute(AttrScope::Event, key) => may_hold(Place::Event(key), condition),
                        Field::Attribute(AttrScope::Link, key) => may_hold(Place::Link(key), condition),
                        Field::EventName => may_hold(Place::EventName, condition),
                        _ => true,
                    })
            }
            Self::Ids(..) => true,
        }
    }
}

fn column_may_match(outline: &Outline, group: usize, column: usize, condition: &Condition) -> bool {
    let meta = &outline.columns[column];
    let place = match (&meta.attribute, meta.name.as_str()) {
        (Some(key), _) => Place::Span(key),
        (None, "name") => Place::Name,
        (None, "status_message") => Place::StatusMessage,
        _ => return true,
    };
    let may_hold = || outline.filters.may_hold(group, place, &condition.test);
    match (meta.value_type, outline.summary(group, column)) {
        (_, ColumnSummary::Empty) => false,
        (Some(ColumnType::Int), ColumnSummary::Ints { least, greatest, are_in_filter }) => {
            bounds_may_match(least, greatest, condition) && (!are_in_filter || may_hold())
        }
        (Some(ColumnType::Int | ColumnType::Double | ColumnType::Bool), _) => true,
        (Some(ColumnType::String | ColumnType::Otlp) | None, _) => may_hold(),
    }
}

/// Whether an integer between the bounds may satisfy the condition.
fn bounds_may_match(least: i64, greatest: i64, condition: &Condition) -> bool {
    match &condition.test {
        Test::Eq(Literal::Int(int)) => (least..=greatest).contains(int),
        // What holds for some value of an order holds for one of its ends.
        Test::Lt(_) | Test::Le(_) | Test::Gt(_) | Test::Ge(_) => {
            [least, greatest].into_iter().any(|int| condition.holds_for_attribute(AttrValue::Int(int)))
        }
        _ => true,
    }
}
