//! The `q` of a trace by id: which of the trace's spans to return.
//!
//! ```text
//!   keep = matches
//!        + match_depth levels below each match        (-1: all)
//!        + ancestor_depth levels above each match     (-1: all; only with keep_hierarchy)
//! ```

use std::collections::{HashMap, HashSet};

use spoor_model::{SpanId, Trace};
use spoor_traceql::ast::{Attribute, Body, Expr, Intrinsic, Node, SpansetExpr, SpansetKind, Stage, StageKind};
use spoor_traceql::{Query, SearchPlan};

use super::limits::{self, Bounds};
use crate::error::ApiError;
use crate::params::Params;

/// A filter, checked.
#[derive(Debug)]
pub(super) struct SpanQuery {
    plan: SearchPlan,
    match_depth: Option<u32>,
    ancestor_depth: Option<u32>,
}

impl SpanQuery {
    /// `None` without `q`; the other parameters are then not looked at.
    pub(super) fn from_params(params: &Params, bounds: Bounds<'_>) -> Result<Option<Self>, ApiError> {
        let Some(text) = params.get("q") else { return Ok(None) };
        let query = bounds.parse(text)?;
        let Some(expr) = one_filter(&query) else {
            return Err(ApiError::invalid(
                "invalid q: a trace is filtered by one spanset filter, such as { kind = server }",
            ));
        };
        if let Some(intrinsic) = of_whole_trace(expr) {
            let text = format!("invalid q: {} is known of whole traces only", intrinsic.text());
            return Err(ApiError::invalid(text));
        }
        let plan = spoor_traceql::plan_search(&query).map_err(limits::invalid_query)?;
        let match_depth = depth(params, "match_depth", Some(0))?;
        let ancestor_depth = match params.flag("keep_hierarchy")? {
            true => depth(params, "ancestor_depth", None)?,
            false => Some(0),
        };
        Ok(Some(Self { plan, match_depth, ancestor_depth }))
    }

    /// What the filter leaves; `None` when that is nothing.
    pub(super) fn apply(&self, mut trace: Trace) -> Option<Trace> {
        let matches: Vec<usize> = self.plan.evaluate(&trace).into_iter().flat_map(|spanset| spanset.spans).collect();
        let mut by_id: HashMap<SpanId, Vec<usize>> = HashMap::new();
        let mut by_parent: HashMap<SpanId, Vec<usize>> = HashMap::new();
        for (index, entry) in trace.entries.iter().enumerate() {
            by_id.entry(entry.span.span_id).or_default().push(index);
            by_parent.entry(entry.span.parent_span_id).or_default().push(index);
        }
        let none = Vec::new();
        let below = |index: usize| by_parent.get(&trace.entries[index].span.span_id).unwrap_or(&none);
        let above = |index: usize| by_id.get(&trace.entries[index].span.parent_span_id).unwrap_or(&none);
        let mut kept = reach(&matches, self.match_depth, below);
        kept.extend(reach(&matches, self.ancestor_depth, above));
        let mut index = 0;
        trace.entries.retain(|_| {
            index += 1;
            kept.contains(&(index - 1))
        });
        (!trace.entries.is_empty()).then_some(trace)
    }
}

/// Everything within `depth` steps of `from`, itself included. Ends on cycles too.
fn reach<'a>(from: &[usize], depth: Option<u32>, step: impl Fn(usize) -> &'a Vec<usize>) -> HashSet<usize> {
    let mut seen: HashSet<usize> = from.iter().copied().collect();
    let mut edge = from.to_vec();
    let mut level = 0;
    while !edge.is_empty() && depth.is_none_or(|depth| level < depth) {
        edge = edge.iter().flat_map(|index| step(*index)).copied().filter(|index| seen.insert(*index)).collect();
        level += 1;
    }
    seen
}

/// Levels, `None` for all of them.
fn depth(params: &Params, name: &str, default: Option<u32>) -> Result<Option<u32>, ApiError> {
    match params.parsed::<i32>(name)? {
        None => Ok(default),
        Some(-1) => Ok(None),
        Some(levels) => match u32::try_from(levels) {
            Ok(levels) => Ok(Some(levels)),
            Err(_) => Err(ApiError::invalid(format!("invalid {name} {levels}: expected -1 or more"))),
        },
    }
}

fn one_filter(query: &Query) -> Option<&Expr> {
    let Body::Search(pipeline) = &query.body else { return None };
    match pipeline.stages.as_slice() {
        [Stage { kind: StageKind::Spanset(SpansetExpr { kind: SpansetKind::Filter(expr), .. }), .. }] => Some(expr),
        _ => None,
    }
}

/// What in an expression is said of the trace, or of the span's place in all of it.
fn of_whole_trace(expr: &Expr) -> Option<Intrinsic> {
    match &expr.node {
        Node::Attribute(Attribute::Intrinsic(
            intrinsic @ (Intrinsic::TraceId
            | Intrinsic::TraceDuration
            | Intrinsic::RootName
            | Intrinsic::RootServiceName
            | Intrinsic::NestedSetLeft
            | Intrinsic::NestedSetRight
            | Intrinsic::NestedSetParent),
        )) => Some(*intrinsic),
        Node::Attribute(_) | Node::Static(_) => None,
        Node::Not(operand) | Node::Minus(operand) => of_whole_trace(operand),
        Node::And(operands) | Node::Or(operands) => operands.iter().find_map(of_whole_trace),
        Node::Binary { left, right, .. } => of_whole_trace(left).or_else(|| of_whole_trace(right)),
    }
}
