//! Phase one of a search in a block: which traces may match.
//!
//! A predicate is compiled against the block's tables first. What it says about shapes and origins is
//! decided there, once per distinct combination, and becomes a bitmap; only what varies per span
//! reads a column:
//!
//! ```text
//!   resource.service.name = "shop"   ->  one bit per origin    (origin_id column, 1 test per span)
//!   name = "GET /" && status = error ->  one bit per shape     (shape_id column, 1 test per span)
//!   span.user.id = "u7"              ->  the column, its dictionary entries first
//! ```
//!
//! A condition that can hold for no shape, origin or column compiles to `Never`, and a query for what
//! the block does not hold opens no Parquet file.
//!
//! **Invariant:** the kernels may keep a span too many, never one too few; the caller decides on the
//! whole span.

use std::ops::ControlFlow;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type};
use arrow_array::{Array, ArrayRef, FixedSizeBinaryArray, RecordBatch, UInt64Array};
use arrow_schema::DataType;
use spoor_model::batch::AttrValue;
use spoor_model::scan::{
    AttrScope, Condition, Field, Literal, Predicate, QueryContext, ScanError, ScanRequest, ScanStats, Test,
    candidate_schema,
};
use spoor_model::value::{self, Value};

use crate::error::Error;
use crate::open::Opened;
use crate::rows::attr_value;

/// A predicate in terms of one block.
enum Node {
    Always,
    Never,
    /// One bit per shape.
    Shapes(Vec<bool>),
    /// One bit per origin.
    Origins(Vec<bool>),
    /// A value of this column (by its place in the file) must satisfy the condition.
    Column(usize, Condition),
    /// The column has no value here, or the condition holds for an empty text.
    ColumnOrEmpty(usize, Condition),
    /// The column has a value, whatever it is.
    Filled(usize),
    /// The fixed-size id equals these bytes.
    Id(usize, Vec<u8>),
    And(Vec<Node>),
    Or(Vec<Node>),
}

fn and(nodes: Vec<Node>) -> Node {
    let mut kept = Vec::new();
    for node in nodes {
        match node {
            Node::Never => return Node::Never,
            Node::Always => {}
            node => kept.push(node),
        }
    }
    match kept.len() {
        0 => Node::Always,
        1 => kept.remove(0),
        _ => Node::And(kept),
    }
}

fn or(nodes: Vec<Node>) -> Node {
    let mut kept = Vec::new();
    for node in nodes {
        match node {
            Node::Always => return Node::Always,
            Node::Never => {}
            node => kept.push(node),
        }
    }
    match kept.len() {
        0 => Node::Never,
        1 => kept.remove(0),
        _ => Node::Or(kept),
    }
}

fn bits(bits: Vec<bool>, make: impl Fn(Vec<bool>) -> Node) -> Node {
    match (bits.iter().any(|bit| *bit), bits.iter().all(|bit| *bit)) {
        (false, _) => Node::Never,
        (true, true) => Node::Always,
        (true, false) => make(bits),
    }
}

fn compile(predicate: &Predicate, opened: &Opened) -> Node {
    match predicate {
        Predicate::True => Node::Always,
        Predicate::False => Node::Never,
        Predicate::Is(condition) => compile_condition(condition, opened),
        Predicate::OneEvent(_) => opened.column("events_otlp").map_or(Node::Never, Node::Filled),
        Predicate::OneLink(_) => opened.column("links_otlp").map_or(Node::Never, Node::Filled),
        Predicate::And(all) => and(all.iter().map(|predicate| compile(predicate, opened)).collect()),
        Predicate::Or(any) => or(any.iter().map(|predicate| compile(predicate, opened)).collect()),
    }
}

fn compile_condition(condition: &Condition, opened: &Opened) -> Node {
    let on_shapes =
        |holds: &dyn Fn(&crate::tables::Shape) -> bool| bits(opened.shapes.iter().map(holds).collect(), Node::Shapes);
    let on_origins = |holds: &dyn Fn(&spoor_model::Origin) -> bool| {
        bits(opened.origins.iter().map(|origin| holds(origin)).collect(), Node::Origins)
    };
    let int = |int: i32| condition.holds_for_attribute(AttrValue::Int(i64::from(int)));
    let text = |text: &str| condition.holds_for_attribute(AttrValue::Str(text.as_bytes()));
    match &condition.field {
        Field::Name => match opened.column("name") {
            Some(column) => Node::Column(column, condition.clone()),
            None => on_shapes(&|shape| shape.name.as_deref().is_some_and(text)),
        },
        Field::Kind => match opened.column("kind") {
            Some(column) => Node::Column(column, condition.clone()),
            None => on_shapes(&|shape| shape.kind.is_some_and(int)),
        },
        Field::Status => match opened.column("status_code") {
            Some(column) => Node::Column(column, condition.clone()),
            None => on_shapes(&|shape| shape.status_code.is_some_and(int)),
        },
        Field::StatusMessage => match opened.column("status_message") {
            Some(column) => Node::ColumnOrEmpty(column, condition.clone()),
            None if text("") => Node::Always,
            None => Node::Never,
        },
        Field::Duration => filled_column(opened, "duration_nano", condition),
        Field::TraceId => id_node(opened, "trace_id", condition),
        Field::SpanId => id_node(opened, "span_id", condition),
        Field::ParentSpanId | Field::StartTime => Node::Always,
        Field::EventTimeSinceStart => nested_node(opened, "events_otlp", condition),
        Field::LinkTraceId | Field::LinkSpanId => nested_node(opened, "links_otlp", condition),
        Field::InstrumentationName => on_origins(&|origin| text(&origin.scope.name)),
        Field::InstrumentationVersion => on_origins(&|origin| text(&origin.scope.version)),
        Field::EventName => nested_node(opened, "events_otlp", condition),
        Field::Attribute(scope, key) => compile_attribute(*scope, key, condition, opened),
    }
}

fn filled_column(opened: &Opened, name: &str, condition: &Condition) -> Node {
    opened.column(name).map_or(Node::Always, |column| Node::Column(column, condition.clone()))
}

/// Events and links are opaque here: a span that has any may match.
fn nested_node(opened: &Opened, column: &str, condition: &Condition) -> Node {
    match (&condition.test, opened.column(column)) {
        (Test::Absent, _) => Node::Always,
        (_, Some(column)) => Node::Filled(column),
        (_, None) => Node::Never,
    }
}

fn id_node(opened: &Opened, name: &str, condition: &Condition) -> Node {
    let wanted = match &condition.test {
        Test::Eq(Literal::Str(text)) => hex_bytes(text),
        _ => None,
    };
    match (wanted, opened.column(name)) {
        (Some(bytes), Some(column)) => Node::Id(column, bytes),
        _ => Node::Always,
    }
}

fn hex_bytes(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len() / 2).map(|index| u8::from_str_radix(&text[2 * index..2 * index + 2], 16).ok()).collect()
}

fn compile_attribute(scope: AttrScope, key: &str, condition: &Condition, opened: &Opened) -> Node {
    let in_origin = |attributes: &dyn Fn(&spoor_model::Origin) -> Option<Value>| {
        let holds = |origin: &Arc<spoor_model::Origin>| condition.holds_for(attributes(origin).as_ref());
        bits(opened.origins.iter().map(holds).collect(), Node::Origins)
    };
    let resource = || in_origin(&|origin| value::find(&origin.resource.attributes, key).cloned());
    let instrumentation = || in_origin(&|origin| value::find(&origin.scope.attributes, key).cloned());
    match scope {
        AttrScope::Span => compile_span_attribute(key, condition, opened),
        AttrScope::Resource => resource(),
        AttrScope::Instrumentation => instrumentation(),
        AttrScope::Event if opened.catalogue.event_keys.contains(key) => nested_node(opened, "events_otlp", condition),
        AttrScope::Link if opened.catalogue.link_keys.contains(key) => nested_node(opened, "links_otlp", condition),
        AttrScope::Event | AttrScope::Link => match condition.test {
            Test::Absent => Node::Always,
            _ => Node::Never,
        },
        // Absent everywhere, or present in one of the scopes: which one wins is for the whole span.
        AttrScope::Any => match condition.test {
            Test::Absent => Node::Always,
            _ => or(vec![
                compile_span_attribute(key, condition, opened),
                resource(),
                instrumentation(),
                compile_attribute(AttrScope::Event, key, condition, opened),
                compile_attribute(AttrScope::Link, key, condition, opened),
            ]),
        },
    }
}

/// A span attribute may be in the shape, in columns (one per type) or in the residual.
fn compile_span_attribute(key: &str, condition: &Condition, opened: &Opened) -> Node {
    if matches!(condition.test, Test::Absent) {
        let lacks = |shape: &crate::tables::Shape| value::find(&shape.attributes, key).is_none();
        return bits(opened.shapes.iter().map(lacks).collect(), Node::Shapes);
    }
    let shape_holds = |shape: &crate::tables::Shape| {
        shape.attributes.iter().any(|attribute| attribute.key == key && condition.holds_for(Some(&attribute.value)))
    };
    let mut nodes = vec![bits(opened.shapes.iter().map(shape_holds).collect(), Node::Shapes)];
    nodes.extend(opened.attribute_columns(key).map(|column| Node::Column(column, condition.clone())));
    if let Some(residual) = opened.column("residual_otlp")
        && opened.catalogue.residual_keys.contains(key)
    {
        nodes.push(Node::Filled(residual));
    }
    or(nodes)
}

impl Node {
    /// Adds the columns that evaluation reads.
    fn columns(&self, opened: &Opened, into: &mut Vec<usize>) {
        match self {
            Self::Always | Self::Never => {}
            Self::Shapes(_) => into.extend(opened.column("shape_id")),
            Self::Origins(_) => into.extend(opened.column("origin_id")),
            Self::Column(column, _) | Self::ColumnOrEmpty(column, _) | Self::Filled(column) | Self::Id(column, _) => {
                into.push(*column);
            }
            Self::And(nodes) | Self::Or(nodes) => nodes.iter().for_each(|node| node.columns(opened, into)),
        }
    }

    /// One bit per row of the batch.
    fn evaluate(&self, batch: &RecordBatch, opened: &Opened) -> Result<Vec<bool>, Error> {
        let rows = batch.num_rows();
        let array = |column: usize| {
            let name = &opened.columns[column].name;
            let missing = || Error::corrupt(&opened.object, format!("column {name} was not read"));
            batch.column_by_name(name).ok_or_else(missing)
        };
        Ok(match self {
            Self::Always => vec![true; rows],
            Self::Never => vec![false; rows],
            Self::Shapes(bits) => by_number(batch, "shape_id", bits, opened)?,
            Self::Origins(bits) => by_number(batch, "origin_id", bits, opened)?,
            Self::Column(column, condition) => by_value(array(*column)?, condition, false),
            Self::ColumnOrEmpty(column, condition) => {
                by_value(array(*column)?, condition, condition.holds_for_attribute(AttrValue::Str(b"")))
            }
            Self::Filled(column) => {
                let array = array(*column)?;
                (0..rows).map(|row| array.is_valid(row)).collect()
            }
            Self::Id(column, wanted) => by_id(array(*column)?.as_fixed_size_binary(), wanted),
            Self::And(nodes) => {
                let mut kept = nodes[0].evaluate(batch, opened)?;
                for node in &nodes[1..] {
                    let other = node.evaluate(batch, opened)?;
                    kept.iter_mut().zip(other).for_each(|(a, b)| *a &= b);
                }
                kept
            }
            Self::Or(nodes) => {
                let mut kept = nodes[0].evaluate(batch, opened)?;
                for node in &nodes[1..] {
                    let other = node.evaluate(batch, opened)?;
                    kept.iter_mut().zip(other).for_each(|(a, b)| *a |= b);
                }
                kept
            }
        })
    }
}

fn by_number(batch: &RecordBatch, name: &str, bits: &[bool], opened: &Opened) -> Result<Vec<bool>, Error> {
    let array = batch.column_by_name(name).and_then(|array| array.as_primitive_opt::<Int32Type>());
    let array = array.ok_or_else(|| Error::corrupt(&opened.object, format!("column {name} was not read")))?;
    // A number past the table is damage, which reading the whole span reports: keep the row.
    Ok(array.values().iter().map(|number| bits.get(*number as usize).copied().unwrap_or(true)).collect())
}

fn by_id(array: &FixedSizeBinaryArray, wanted: &[u8]) -> Vec<bool> {
    (0..array.len()).map(|row| array.value(row) == wanted).collect()
}

fn by_value(array: &ArrayRef, condition: &Condition, on_null: bool) -> Vec<bool> {
    match array.data_type() {
        DataType::Dictionary(_, _) => {
            let coded = array.as_dictionary::<Int32Type>();
            let entries = coded.values().as_string::<i32>();
            let holds: Vec<bool> = entries
                .iter()
                .map(|text| text.is_some_and(|text| condition.holds_for_attribute(AttrValue::Str(text.as_bytes()))))
                .collect();
            coded.keys().iter().map(|code| code.map_or(on_null, |code| holds[code as usize])).collect()
        }
        DataType::Int32 => {
            let values = array.as_primitive::<Int32Type>().values().iter();
            values.map(|value| condition.holds_for_attribute(AttrValue::Int(i64::from(*value)))).collect()
        }
        DataType::Int64 if array.null_count() == 0 => {
            let values = array.as_primitive::<Int64Type>().values().iter();
            values.map(|value| condition.holds_for_attribute(AttrValue::Int(*value))).collect()
        }
        _ => (0..array.len())
            .map(|row| attr_value(array, row).map_or(on_null, |value| condition.holds_for_attribute(value)))
            .collect(),
    }
}

/// [`spoor_model::scan::SpanSource::candidates`] of a block.
pub(crate) fn candidates(
    opened: &Opened,
    request: &ScanRequest,
    ctx: &QueryContext,
    sink: &mut dyn FnMut(&RecordBatch) -> ControlFlow<()>,
) -> Result<ScanStats, ScanError> {
    let node = compile(&request.predicate, opened);
    let mut stats = ScanStats::default();
    if matches!(node, Node::Never) {
        return Ok(stats);
    }
    let mut columns =
        vec![opened.column("trace_id").ok_or_else(|| Error::corrupt(&opened.object, "column trace_id is missing"))?];
    node.columns(opened, &mut columns);
    columns.sort_unstable();
    columns.dedup();
    for group in 0..opened.group_count() {
        ctx.check()?;
        let rows = opened.rows_of_group(group);
        stats.bytes_inspected += opened.stored_bytes(group, &columns);
        stats.spans_inspected += rows.len() as u64;
        let mut found = Found::new(opened, rows.start);
        for batch in opened.scan_group(group, &columns)? {
            ctx.check()?;
            let batch = batch.map_err(|err| Error::corrupt(&opened.object, err.to_string()))?;
            let is_match = node.evaluate(&batch, opened)?;
            found.add(&batch, &is_match, request);
        }
        stats.traces_inspected += found.trace_count();
        if let Some(batch) = found.finish()?
            && sink(&batch).is_break()
        {
            break;
        }
    }
    Ok(stats)
}

/// The traces of the matching rows of one row group. Rows of a trace are neighbours, so each trace is
/// noted once by walking both in step.
struct Found<'a> {
    opened: &'a Opened,
    next_row: usize,
    first_trace: usize,
    trace: usize,
    last_noted: Option<usize>,
    ids: Vec<u8>,
    starts: Vec<u64>,
    ends: Vec<u64>,
}

impl<'a> Found<'a> {
    fn new(opened: &'a Opened, first_row: usize) -> Self {
        let trace = opened.traces.trace_of_row(first_row);
        let (ids, starts, ends) = (Vec::new(), Vec::new(), Vec::new());
        Self { opened, next_row: first_row, first_trace: trace, trace, last_noted: None, ids, starts, ends }
    }

    fn add(&mut self, batch: &RecordBatch, is_match: &[bool], request: &ScanRequest) {
        let ids = batch.column_by_name("trace_id").map(|array| array.as_fixed_size_binary());
        let ids = ids.expect("the trace id is always read");
        for (row, is_match) in is_match.iter().enumerate() {
            if !is_match {
                continue;
            }
            let block_row = self.next_row + row;
            while block_row >= self.opened.traces.rows(self.trace).end {
                self.trace += 1;
            }
            if self.last_noted == Some(self.trace) {
                continue;
            }
            self.last_noted = Some(self.trace);
            let range = self.opened.traces.range(self.trace);
            if range.overlaps(&request.range) {
                self.ids.extend_from_slice(ids.value(row));
                self.starts.push(range.start.0);
                self.ends.push(range.end.0);
            }
        }
        self.next_row += batch.num_rows();
    }

    fn trace_count(&self) -> u64 {
        let last_row = self.next_row.saturating_sub(1);
        (self.opened.traces.trace_of_row(last_row) + 1 - self.first_trace) as u64
    }

    fn finish(self) -> Result<Option<RecordBatch>, Error> {
        if self.starts.is_empty() {
            return Ok(None);
        }
        let internal = |err: arrow_schema::ArrowError| Error::Internal {
            object: self.opened.object.clone(),
            reason: err.to_string(),
        };
        let ids = FixedSizeBinaryArray::try_new(16, self.ids.into(), None).map_err(internal)?;
        let (starts, ends) = (UInt64Array::from(self.starts), UInt64Array::from(self.ends));
        let columns: Vec<ArrayRef> = vec![Arc::new(ids), Arc::new(starts), Arc::new(ends)];
        RecordBatch::try_new(candidate_schema(), columns).map(Some).map_err(internal)
    }
}
