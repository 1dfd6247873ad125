//! Which of a span's events (links) the rest of a query sees: those that its filters are about.
//!
//! A filter holds for a span when it does for one of its events and one of its links. What is grouped by,
//! aggregated, measured or shown afterwards is one value: that of the first event that has one, of those for which one
//! of the query's filters holds. When there is no such event, because filters look at none or the span is there for
//! another reason, it is the first event of all that has one.

use super::Layout;
use super::filter::Lists;
use super::frame::Frame;
use super::operand::{Choice, Meaning, Operand, is_true};
use crate::ast::{Expr, Pipeline, ScalarExpr, SpansetExpr, SpansetKind, StageKind};
use crate::{PlanError, fold};
use spoor_model::scan::Field;

/// The filters of a query that look at events or links.
#[derive(Debug, Clone)]
pub(crate) struct Exposed {
    filters: Vec<Operand>,
    /// Columns that tell how many there are.
    events: usize,
    links: usize,
}

impl Exposed {
    /// Plans the filters of a pipeline once more, as far as they look at events or links, and notes in `layout` what
    /// they need. `None` when there are none such.
    pub(crate) fn new(pipeline: &Pipeline, layout: &mut Layout) -> Result<Option<Self>, PlanError> {
        let mut filters = Vec::new();
        each_filter(pipeline, &mut |filter| {
            // As it is written: one that looks at events and holds anyway is about all of them.
            if !Lists::of(filter).is_none() {
                filters.push(fold::folded(filter));
            }
        });
        if filters.is_empty() {
            return Ok(None);
        }
        let filters = filters.iter().map(|filter| Operand::new(filter, layout)).collect::<Result<_, _>>()?;
        let (events, links) = (layout.column(Field::EventName), layout.column(Field::LinkSpanId));
        Ok(Some(Self { filters, events, links }))
    }

    /// Whether a filter holds with this event or link.
    pub(super) fn has(&self, frame: &Frame<'_>, row: usize, meaning: Meaning, place: usize) -> bool {
        let places = |column: usize| {
            let count = frame.column(column).items(row).len();
            (0..count.max(1)).map(move |place| (count > 0).then_some(place))
        };
        let holds = |choice: Choice| self.filters.iter().any(|filter| is_true(&filter.chosen(frame, row, choice)));
        match meaning.is_of_events() {
            true => places(self.links).any(|link| holds(Choice::Of { event: Some(place), link })),
            false => places(self.events).any(|event| holds(Choice::Of { event, link: Some(place) })),
        }
    }
}

/// Whether a pipeline groups by, or aggregates, what is of events or links.
pub(super) fn reads_lists(pipeline: &Pipeline) -> bool {
    pipeline.stages.iter().any(|stage| match &stage.kind {
        StageKind::Spanset(spanset) => spanset_reads_lists(spanset),
        StageKind::ScalarFilter { left, right, .. } => scalar_reads_lists(left) || scalar_reads_lists(right),
        StageKind::By(expr) => !Lists::of(expr).is_none(),
        StageKind::Coalesce | StageKind::Select(_) => false,
    })
}

fn spanset_reads_lists(spanset: &SpansetExpr) -> bool {
    match &spanset.kind {
        SpansetKind::Filter(_) => false,
        SpansetKind::Pipeline(pipeline) => reads_lists(pipeline),
        SpansetKind::Binary { left, right, .. } => spanset_reads_lists(left) || spanset_reads_lists(right),
    }
}

fn scalar_reads_lists(scalar: &ScalarExpr) -> bool {
    match scalar {
        ScalarExpr::Static(_) | ScalarExpr::Aggregate(_, None) => false,
        ScalarExpr::Aggregate(_, Some(of)) => !Lists::of(of).is_none(),
        ScalarExpr::Binary { left, right, .. } => scalar_reads_lists(left) || scalar_reads_lists(right),
    }
}

fn each_filter(pipeline: &Pipeline, visit: &mut impl FnMut(&Expr)) {
    for stage in &pipeline.stages {
        if let StageKind::Spanset(spanset) = &stage.kind {
            each_filter_of(spanset, visit);
        }
    }
}

fn each_filter_of(spanset: &SpansetExpr, visit: &mut impl FnMut(&Expr)) {
    match &spanset.kind {
        SpansetKind::Filter(expr) => visit(expr),
        SpansetKind::Pipeline(pipeline) => each_filter(pipeline, visit),
        SpansetKind::Binary { left, right, .. } => {
            each_filter_of(left, visit);
            each_filter_of(right, visit);
        }
    }
}
