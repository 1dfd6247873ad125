//! What results list for each span: whatever the query looks at or selects, unless answers have another
//! place for it.

use std::sync::Arc;

use hashbrown::HashSet;
use spoor_model::columns::{ColumnBatch, ColumnRequest, ValuesOf};
use spoor_model::scan::{FieldValue, field};
use spoor_model::structure::Tree;
use spoor_model::{TimeRange, Trace};

use super::{Shown, places};
use crate::PlanError;
use crate::ast::{Attribute, Expr, Intrinsic, Node, Pipeline, ScalarExpr, SpansetExpr, SpansetKind, StageKind, Static};
use crate::engine::{Exposed, Frame, Layout, Meaning, Operand};

/// What is listed, and whether the names of spans are shown.
pub(super) fn looked_at(pipeline: &Pipeline) -> (Vec<Shown>, bool) {
    let (mut looked_at, mut selected) = (Vec::new(), Vec::new());
    in_pipeline(pipeline, &mut looked_at, &mut selected);
    looked_at.extend(selected);
    let shows_name = looked_at.contains(&Attribute::Intrinsic(Intrinsic::Name));
    let mut known: HashSet<Attribute> = HashSet::new();
    looked_at.retain(|attribute| known.insert(attribute.clone()));
    let shown = looked_at.into_iter().filter_map(|attribute| Some(Shown { key: key(&attribute)?, attribute }));
    (shown.collect(), shows_name)
}

fn key(attribute: &Attribute) -> Option<Arc<str>> {
    match attribute {
        Attribute::Named(_, name) => Some(Arc::clone(name)),
        Attribute::OfParent(..) => Some(attribute.to_string().into()),
        Attribute::Intrinsic(
            Intrinsic::Name
            | Intrinsic::Duration
            | Intrinsic::TraceDuration
            | Intrinsic::RootName
            | Intrinsic::RootServiceName
            | Intrinsic::TraceId
            | Intrinsic::SpanId,
        ) => None,
        Attribute::Intrinsic(intrinsic) => Some(intrinsic.text().into()),
    }
}

fn in_pipeline(pipeline: &Pipeline, looked_at: &mut Vec<Attribute>, selected: &mut Vec<Attribute>) {
    for stage in &pipeline.stages {
        match &stage.kind {
            StageKind::Spanset(expr) => in_spanset(expr, looked_at, selected),
            StageKind::ScalarFilter { left, right, .. } => {
                in_scalar(left, looked_at);
                in_scalar(right, looked_at);
            }
            StageKind::By(expr) => in_expr(expr, looked_at),
            StageKind::Coalesce => {}
            StageKind::Select(attributes) => selected.extend(attributes.iter().cloned()),
        }
    }
}

fn in_spanset(expr: &SpansetExpr, looked_at: &mut Vec<Attribute>, selected: &mut Vec<Attribute>) {
    match &expr.kind {
        SpansetKind::Filter(expr) => in_expr(expr, looked_at),
        SpansetKind::Pipeline(pipeline) => in_pipeline(pipeline, looked_at, selected),
        SpansetKind::Binary { left, right, .. } => {
            in_spanset(left, looked_at, selected);
            in_spanset(right, looked_at, selected);
        }
    }
}

fn in_scalar(expr: &ScalarExpr, looked_at: &mut Vec<Attribute>) {
    match expr {
        ScalarExpr::Static(_) | ScalarExpr::Aggregate(_, None) => {}
        ScalarExpr::Aggregate(_, Some(of)) => in_expr(of, looked_at),
        ScalarExpr::Binary { left, right, .. } => {
            in_scalar(left, looked_at);
            in_scalar(right, looked_at);
        }
    }
}

fn in_expr(expr: &Expr, looked_at: &mut Vec<Attribute>) {
    match &expr.node {
        Node::Static(_) => {}
        Node::Attribute(attribute) => looked_at.push(attribute.clone()),
        Node::Not(operand) | Node::Minus(operand) => in_expr(operand, looked_at),
        Node::And(operands) | Node::Or(operands) => operands.iter().for_each(|operand| in_expr(operand, looked_at)),
        Node::Binary { left, right, .. } => {
            in_expr(left, looked_at);
            in_expr(right, looked_at);
        }
    }
}

/// What is shown of events and links, where filters say of which.
#[derive(Debug, Clone)]
pub(super) struct Lists {
    layout: Layout,
    exposed: Exposed,
    /// By place among what is shown; `None` for what is of no list.
    operands: Vec<Option<Operand>>,
}

impl Lists {
    /// `None` when nothing is shown of lists, or no filter looks at one.
    pub(super) fn new(pipeline: &Pipeline, shown: &[Shown]) -> Result<Option<Self>, PlanError> {
        let is_of_list = |of: &Attribute| of.field().is_some_and(|field| field.is_of_events() || field.is_of_links());
        if !shown.iter().any(|shown| is_of_list(&shown.attribute)) {
            return Ok(None);
        }
        let mut layout = Layout::default();
        let Some(exposed) = Exposed::new(pipeline, &mut layout)? else { return Ok(None) };
        let attributes = shown.iter().map(|shown| &shown.attribute);
        let operands = attributes.map(|of| is_of_list(of).then(|| Operand::of(of, &mut layout))).collect();
        Ok(Some(Self { layout, exposed, operands }))
    }

    /// By entry of the trace, what is shown of lists.
    fn values(&self, trace: &Trace, spans: &[usize]) -> Vec<Vec<Option<Static>>> {
        let request = self.layout.request(&[], ValuesOf::AllRows, TimeRange::ALL, None);
        let batch = ColumnBatch::of_traces(std::slice::from_ref(trace), &request);
        let frame = Frame::new(&batch).exposing(Some(&self.exposed));
        let places = places(trace, &batch);
        let mut rows = vec![0; places.len()];
        places.iter().enumerate().for_each(|(row, entry)| rows[*entry as usize] = row);
        let of_span = |span: &usize| {
            let value = |operand: &Option<Operand>| operand.as_ref().map(|of| of.value(&frame, rows[*span]));
            self.operands.iter().map(value).collect()
        };
        spans.iter().map(of_span).collect()
    }
}

/// What some spans of a trace have of it. Where two attributes have one key, the first that the span has
/// counts.
pub(super) fn values(
    shown: &[Shown],
    lists: Option<&Lists>,
    trace: &Trace,
    spans: &[usize],
) -> Vec<Vec<(Arc<str>, Static)>> {
    let of_lists = lists.map(|lists| lists.values(trace, spans));
    let needs_tree = shown.iter().any(|shown| shown.attribute.field().is_none());
    let tree = needs_tree.then(|| TreeOfTrace::new(trace));
    let of_span = |(at, span): (usize, &usize)| {
        let mut values: Vec<(Arc<str>, Static)> = Vec::new();
        for (place, Shown { key, attribute }) in shown.iter().enumerate() {
            if values.iter().any(|(known, _)| known == key) {
                continue;
            }
            let of_list = of_lists.as_ref().and_then(|of_lists| of_lists[at][place].clone());
            let value = match (attribute.field(), &tree) {
                _ if of_list.is_some() => of_list.unwrap_or(Static::Nil),
                (Some(field), _) => Meaning::of(&field).value(first(field::of_span(&field, &trace.entries[*span]))),
                (None, Some(tree)) => tree.value(attribute, trace, *span),
                (None, None) => Static::Nil,
            };
            if !value.is_nil() {
                values.push((Arc::clone(key), value));
            }
        }
        values
    };
    spans.iter().enumerate().map(of_span).collect()
}

/// The value, or that of the first event or link that has one.
fn first(found: FieldValue) -> Static {
    let values = match found {
        FieldValue::One(value) => vec![value],
        FieldValue::PerItem(values) => values,
    };
    let mut values = values.iter().flatten().map(Static::of);
    values.find(|value| !value.is_nil()).unwrap_or(Static::Nil)
}

/// The tree of one trace, for what columns of spans do not say.
struct TreeOfTrace {
    batch: ColumnBatch,
    /// By row: which entry it is.
    order: Vec<usize>,
    /// By entry: its row.
    rows: Vec<usize>,
}

impl TreeOfTrace {
    fn new(trace: &Trace) -> Self {
        let request = ColumnRequest {
            masks: Vec::new(),
            needed: Vec::new(),
            columns: Vec::new(),
            values_of: ValuesOf::AllRows,
            tree: true,
            copies: false,
            range: TimeRange::ALL,
            intervals: None,
        };
        let batch = ColumnBatch::of_traces(std::slice::from_ref(trace), &request);
        let order = Tree::of(trace).order;
        let mut rows = vec![0; order.len()];
        order.iter().enumerate().for_each(|(row, entry)| rows[*entry] = row);
        Self { batch, order, rows }
    }

    fn value(&self, attribute: &Attribute, trace: &Trace, span: usize) -> Static {
        let frame = Frame::new(&self.batch);
        match attribute {
            Attribute::OfParent(scope, name) => match frame.parent(self.rows[span]) {
                Some(parent) => {
                    let field = spoor_model::scan::Field::Attribute(*scope, Arc::clone(name));
                    first(field::of_span(&field, &trace.entries[self.order[parent]]))
                }
                None => Static::Nil,
            },
            attribute => Operand::of(attribute, &mut Layout::default()).value(&frame, self.rows[span]),
        }
    }
}
